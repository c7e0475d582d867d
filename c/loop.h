/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop.h: the end of each event-loop turn, and waking the loop. Main thread
 * only, except where a comment says otherwise.
 */
#ifndef KEA_LOOP_H
#define KEA_LOOP_H

#include "redisapi.h"

#include <stdbool.h>

/* Where in its turn the loop is. */
struct kea_loop {
	bool past_turn; /* between BEFORE_SLEEP and AFTER_SLEEP */
	bool nudged;    /* another turn was forced in that gap already */
};

extern struct kea_loop kea_loop;

void kea_loop_init(void);

/* The server event EventLoop. */
void kea_loop_before_sleep(RedisModuleCtx *ctx);
void kea_loop_after_sleep(void);

/* kea_loop_end_turn moves events as the policy wants it, so that the replies
 * that follow may be sent. */
void kea_loop_end_turn(RedisModuleCtx *ctx);

/* kea_loop_nudge makes the loop turn once more after this gap. */
void kea_loop_nudge(void);

/* Any thread. kea_wake_main makes the loop turn. */
void kea_wake_main(void);

#endif /* KEA_LOOP_H */
