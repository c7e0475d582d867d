/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * learn.h: from what it is known when keys are due: the keyspace events that set,
 * move or remove a TTL, and a scan whenever it is not known what there is. Main
 * thread only.
 */
#ifndef KEA_LEARN_H
#define KEA_LEARN_H

#include "lag.h"
#include "redisapi.h"
#include "watch.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The classes whose events tell of TTLs, and of keys that go. Class STRING is
 * not among them: a SET that removes a TTL leaves an entry that is found out
 * when it is due, and costs nothing until then. */
#define KEA_LEARN_CLASSES                                                      \
	((uint32_t)(REDISMODULE_NOTIFY_GENERIC | REDISMODULE_NOTIFY_EXPIRED |  \
		    REDISMODULE_NOTIFY_EVICTED))

struct kea_learn {
	bool running; /* deadlines are kept: an active master's, with masks */
	bool rescan;  /* not everything there is, is known */
	bool refused; /* the limit has refused a key since the last scan */
	bool told;    /* of that, in the log */
	uint64_t unwatched; /* refused, ever */
	struct kea_watch watch;
	struct kea_lag lag;
};

extern struct kea_learn kea_learn;

/* kea_learn_start; false: not possible now. Only then anything is learned. */
bool kea_learn_start(void);

/* kea_learn_forget: the dataset is another one (loaded, or the role changed).
 * Also before the first use. */
void kea_learn_forget(void);

/* kea_learn_event learns from a keyspace event of KEA_LEARN_CLASSES, in the
 * callback. It returns when the key of an `expired` event was due, Unix time in
 * ms; 0: not known. */
int64_t kea_learn_event(RedisModuleCtx *ctx, int type, const char *event,
			RedisModuleString *key);

/* kea_learn_expired forgets a key that has expired, and counts how late. It
 * returns when it was due; 0: not known, or another time, in the past, was set. */
int64_t kea_learn_expired(int db, const char *key, size_t len);

/* kea_learn_note notes a deadline; 0: to be looked at, at once. */
void kea_learn_note(int db, const char *key, size_t len, int64_t due);

/* kea_learn_found takes over the TTL that a key proved to have: its deadline, or
 * less than 0 for none. */
void kea_learn_found(int db, const char *key, size_t len, int64_t due);

/* Server events. db -1: all. */
void kea_learn_flushed(int db);
void kea_learn_swapped(int a, int b);

/* kea_learn_turn does a slice of the scan and of what is to be looked at; true:
 * there is more to do at once. Call it at the end of a turn. */
bool kea_learn_turn(RedisModuleCtx *ctx, bool may_write, int64_t now);

/* kea_learn_open opens a key, for reading its TTL, with no effect: looks = true;
 * or so that the server deletes it when it is due. On 7.0 both do that. NULL:
 * there is none. */
RedisModuleKey *kea_learn_open(RedisModuleCtx *ctx, int db,
			       RedisModuleString *key, bool looks);

/* kea_learn_free gives everything back, for unload. */
void kea_learn_free(void);

#endif /* KEA_LEARN_H */
