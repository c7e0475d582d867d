/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extras.h: what an event carries beside its key: the key's value (the setting
 * value), read when it is right to; and events that are held back until then.
 * Main thread only.
 */
#ifndef KEA_EXTRAS_H
#define KEA_EXTRAS_H

#include "kea.h"
#include "redisapi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A keyspace event that is to be captured, as the server tells of it. */
struct kea_told {
	RedisModuleCtx *ctx; /* the callback's */
	uint32_t type;
	const char *event;
	RedisModuleString *key;
	const char *bytes; /* of the key */
	size_t len;
	int db;
	int64_t due_ms; /* when its key was due, of an `expired`; 0: not known */
};

/* The setting value, bits of enum kea_values. Read by every event. */
extern uint32_t kea_extras_values;

void kea_extras_init(void);
void kea_extras_free(void);

/* kea_extras_configure takes over the settings of values. NULL, or why they
 * can't be used (static text), with nothing changed. */
const char *kea_extras_configure(RedisModuleCtx *ctx, uint32_t values,
				 size_t limit);

/* kea_extras_capture captures an event with all that it is to carry, those held
 * back before it. Only while kea_extras_values is not 0. */
void kea_extras_capture(const struct kea_told *t);

/* kea_extras_forget: a keyspace event is over, captured or not. What a key held
 * is kept for the event that follows, of that key. */
void kea_extras_forget(RedisModuleCtx *ctx, const char *event,
		       RedisModuleString *key);

/* kea_extras_snapshot captures an event `snapshot` of a key, with its value where
 * new ones are asked for. ctx has the key's database selected; bytes and len are
 * the name's. It returns about how many bytes the event has. */
size_t kea_extras_snapshot(RedisModuleCtx *ctx, RedisModuleString *name,
			   const char *bytes, size_t len, int db);

/* kea_extras_flush captures the events held back. Before anything counts or
 * stores events, and not in a keyspace callback. */
void kea_extras_flush(void);

/* kea_extras_flush_unread does so without a look at the keys: databases have
 * changed places. */
void kea_extras_flush_unread(void);

/* kea_extras_busy: the server will call back at the end of a transaction. */
bool kea_extras_busy(void);

#endif /* KEA_EXTRAS_H */
