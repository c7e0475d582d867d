/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * value.h: reads what a key holds, in the encoding of record.h, and bounded: in
 * bytes, and in the work that it costs. When it may be read at all is extras.c's
 * to know; docs/internals.md, "Values", says why each call below is safe.
 * Main thread only.
 */
#ifndef KEA_VALUE_H
#define KEA_VALUE_H

#include "record.h"
#include "redisapi.h"

/* What was read, and what it borrows from until kea_value_close. All zeros:
 * nothing was read. */
struct kea_value {
	struct kea_content content; /* type NONE: there is no such key */
	RedisModuleKey *key;
	RedisModuleCallReply *reply;
	bool expired; /* to read the key has expired it, and the caller alone
		       * knows: see kea_value_open */
};

/*
 * kea_value_open reads the key of that name in the context's database, without
 * effects on it: it is not touched, does not expire, and no miss is counted.
 * A string of at most 128 bytes is read by the command GET, which counts a hit.
 *
 * Redis 7.0 can't open an expired key without deleting it. In a keyspace
 * callback it then tells everybody of `expired`, but not the module that it is
 * just calling. Elsewhere it calls, and a newer one may, too, whose clock goes on
 * between the opening and the GET. For one order of events value.expired says so
 * in each case, and the caller captures `expired` behind its own event; keyspace
 * events that come while kea_value_opening is set go to kea_value_told, and
 * nowhere else.
 */
void kea_value_open(RedisModuleCtx *ctx, RedisModuleString *name, size_t limit,
		    struct kea_value *v);

extern bool kea_value_opening;
void kea_value_told(const char *event);

/* kea_value_close gives back what kea_value_open has opened. */
void kea_value_close(struct kea_value *v);

/* kea_value_of reads the key that the server shows in its event of a key that
 * goes, with the event's context. The content is valid until the next
 * reading. */
struct kea_content kea_value_of(RedisModuleCtx *ctx, RedisModuleKey *key,
				size_t limit);

/* kea_value_free gives back the memory in which values are put together. */
void kea_value_free(void);

#endif /* KEA_VALUE_H */
