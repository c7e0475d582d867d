/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * looks.h: TTLs to be looked at when the turn ends, on servers where they can't be
 * read at the event. Main thread only.
 *
 * 7.0 deletes a key that is due when a module opens it; in the callback it would
 * do so without telling us. At the end of a turn it tells. And what has several
 * new TTLs in a turn is looked at once.
 */
#ifndef KEA_LOOKS_H
#define KEA_LOOKS_H

#include "redisapi.h"

#include <stdbool.h>

/* kea_looks_needed reports whether this server is such a one. */
static inline bool kea_looks_needed(void)
{
	return !RedisModule_AddPostNotificationJob; /* came with 7.2 */
}

/* kea_looks_ask: the key's TTL may have changed. Until the look its deadline is
 * not known. key is the callback's. */
void kea_looks_ask(int db, RedisModuleString *key);

/* kea_looks_some does a slice; true: there is more to do at once. */
bool kea_looks_some(RedisModuleCtx *ctx, bool may_write);

void kea_looks_swapped(int a, int b);
void kea_looks_forget(void);
void kea_looks_free(void);

#endif /* KEA_LOOKS_H */
