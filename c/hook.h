/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hook.h: the keyspace callback. Main thread only, or another holder
 * of the server's lock.
 */
#ifndef KEA_HOOK_H
#define KEA_HOOK_H

#include "match.h"
#include "record.h"
#include "redisapi.h"

#include <stdbool.h>
#include <stdint.h>

/* What each event reads, together; and what it counts. */
struct kea_hook {
	bool loaded; /* from the end of OnLoad to the unload */
	/* The server is a master and not loading. Kept by the events that
	 * announce each change of that: to ask at each keyspace event is dear,
	 * for the answer comes with a look at memory. */
	bool active_master;
	uint32_t classes;
	const struct kea_program *masks; /* NULL: nothing is forwarded */
	uint32_t list_classes; /* by whose events lists show up; cluster only */
	uint32_t subscribed;
	int moved_from;        /* database of the last MOVE */
	uint64_t origin, seq;  /* of the last event */
	uint64_t captured, filtered;
	uint64_t missed; /* of captured: reads of keys that were not there */
};

extern struct kea_hook kea_hook;

/* kea_hook_subscribe subscribes to those of the classes that are not yet; never
 * before OnLoad's end, where it is called again. */
int kea_hook_subscribe(RedisModuleCtx *ctx, uint32_t classes);

/* kea_hook_database_of is the database of an event, in the callback. */
int kea_hook_database_of(RedisModuleCtx *ctx, int type, const char *event,
			 RedisModuleString *key);
/* kea_hook_append captures an event: it goes to the end of the queue. extras may
 * be NULL. */
void kea_hook_append(const char *event, const char *key, size_t key_len,
		     int db, const struct kea_extras *extras);

/* kea_update_role looks whether this is the active master. */
void kea_update_role(RedisModuleCtx *ctx);

#endif /* KEA_HOOK_H */
