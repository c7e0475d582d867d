/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hashslot.h: which hash slot of a cluster a key is in. Pure: any thread, knows
 * nothing of Redis.
 */
#ifndef KEA_HASHSLOT_H
#define KEA_HASHSLOT_H

#include <stdbool.h>
#include <stddef.h>

#define KEA_SLOTS 16384

/* Redis's hash slot of a key (CRC-16/XMODEM of its hash tag, if it has one). */
unsigned kea_slot_of(const char *key, size_t len);

/* kea_slots_tag is a number below 1,000,000 whose six digits, as a hash tag, are
 * in one of the slots that are marked; -1 when none is. */
int kea_slots_tag(const bool marked[KEA_SLOTS]);

#endif /* KEA_HASHSLOT_H */
