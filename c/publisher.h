/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * publisher.h: the main thread's side of the publisher: what is lent to it, and
 * its wake-up. The publisher's own side is in kea.h.
 */
#ifndef KEA_PUBLISHER_H
#define KEA_PUBLISHER_H

#include "lent.h"

/* [main] kea_publisher_init returns what is lent, which is never freed; NULL:
 * the system has no descriptor left. */
struct kea_lent *kea_publisher_init(void);
void kea_publisher_free(void);

/* [main] The most events that are lent; a hint. */
void kea_publisher_set_window(uint32_t window);

/* [main] kea_wake_publisher wakes the publisher if it sleeps: by an eventfd that
 * Go's poller waits on. */
void kea_wake_publisher(void);

#endif /* KEA_PUBLISHER_H */
