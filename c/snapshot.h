/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * snapshot.h: an event `snapshot` for each key that there is, in the stream's
 * own order, then one event `snapshot_end`. Main thread only.
 *
 * Why a fold of `snapshot` and all that follows is exact: a key is read and its
 * event appended in one step, so every change is either in what was read or has
 * an event behind it. A key that the scan passes by has come to be, or to its
 * place, while it ran, and that was an event, too. What moves keys without one
 * is reported: kea_snapshot_swapped, kea_snapshot_again.
 */
#ifndef KEA_SNAPSHOT_H
#define KEA_SNAPSHOT_H

#include "redisapi.h"

/* kea_snapshot_turn does a slice, when one is under way; at the end of a turn,
 * before events are moved. */
void kea_snapshot_turn(RedisModuleCtx *ctx);

/* kea_snapshot_stop ends it without `snapshot_end`, if there is one; why is for
 * the log. kea_snapshot_free: also forgets it. */
void kea_snapshot_stop(const char *why);
void kea_snapshot_free(void);

/* kea_snapshot_swapped: two databases have changed places. */
void kea_snapshot_swapped(int first, int second);

/* kea_snapshot_again begins the scan anew: keys may have come here, by slots that
 * have moved, that no event tells of. */
void kea_snapshot_again(void);

void kea_snapshot_info(RedisModuleInfoCtx *ctx);

#endif /* KEA_SNAPSHOT_H */
