/*
 * publisher.h: the main thread's side of the publisher: what is lent to it, and
 * its wake-up. The publisher's own side is in kea.h.
 */
#ifndef KEA_PUBLISHER_H
#define KEA_PUBLISHER_H

#include "lent.h"

/* [main] kea_publisher_init returns what is lent, which lives for ever; NULL:
 * there is no descriptor to be had. window: kea_publisher_set_window. */
struct kea_lent *kea_publisher_init(void);
void kea_publisher_free(void);

/* [main] How many events are lent at the most; a hint. */
void kea_publisher_set_window(uint32_t window);

/* [main] kea_wake_publisher wakes the publisher if it sleeps: by an eventfd that
 * Go's poller waits on. */
void kea_wake_publisher(void);

#endif /* KEA_PUBLISHER_H */
