/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fault.h: named steps of an event's way, at which a test ends the server.
 * Nothing at all, unless built with -DKEA_FAULTS (go build -tags faults).
 *
 * A name marks one place; test/fault_points_test.go has a case for each.
 */
#ifndef KEA_FAULT_H
#define KEA_FAULT_H

#ifdef KEA_FAULTS
/* Any thread. May not return. */
void kea_fault(const char *name);
#define KEA_FAULT(name) kea_fault(name)
#else
#define KEA_FAULT(name) ((void)0)
#endif

#endif /* KEA_FAULT_H */
