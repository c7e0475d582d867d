/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * home.h: which keys are fallback lists, and which one is in use. Main thread
 * only.
 *
 * Without cluster mode there is one, key_evt_amqp.fallback. In cluster mode a
 * node may write only keys of slots that it owns, so each node has its own:
 *
 *     key_evt_amqp.fallback.<id of the node that made it>{<tag>}
 *
 * the tag chosen so that the slot is one of the node's. Lists move with their
 * slots, and a replica that is promoted finds its master's; so a node also
 * delivers lists that others made. It learns of them by the keyspace events
 * that the keys make when they are loaded, replicated or restored.
 */
#ifndef KEA_HOME_H
#define KEA_HOME_H

#include "redisapi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEA_HOME_PREFIX "key_evt_amqp.fallback"
#define KEA_NODE_ID 40 /* bytes, no NUL */
#define KEA_HOME_NAME_MAX 96
/* Lists waiting to be taken over; more are noted when some are gone. */
#define KEA_HOME_OTHERS_MAX 256

/* Classes by whose events a list shows up: loaded from an RDB, pushed to by
 * the replication stream or an AOF, restored by MIGRATE. */
#define KEA_HOME_CLASSES                                                       \
	(REDISMODULE_NOTIFY_LOADED | REDISMODULE_NOTIFY_LIST |                 \
	 REDISMODULE_NOTIFY_GENERIC)

struct kea_home_name {
	size_t len;
	char text[KEA_HOME_NAME_MAX];
};

struct kea_home {
	bool cluster;
	bool asked; /* lately, less than a second ago: whether the list in use
		       may be written, or, when there is none, for a slot */
	RedisModuleString *key; /* the list in use; NULL: none */
	struct kea_home_name name;
	struct kea_home_name *others; /* seen, and not in use */
	size_t others_count;
	uint64_t waiting; /* elements in them, when last looked at */
	RedisModuleScanCursor *scan; /* looking for lists; NULL: done */
};

/* ctx is OnLoad's. */
void kea_home_init(struct kea_home *h, RedisModuleCtx *ctx, bool cluster);
void kea_home_free(struct kea_home *h);

/* kea_home_scan looks at a slice of database 0 for lists that were there before
 * the module was loaded. False: there is nothing more to look at. */
bool kea_home_scan(struct kea_home *h, RedisModuleCtx *ctx);

/* kea_home_is reports whether a key of database 0 is a fallback list, this
 * node's or another's. Runs for every event. */
bool kea_home_is(const struct kea_home *h, const char *name, size_t len);

/* kea_home_note remembers a list that was seen, unless it is in use. */
void kea_home_note(struct kea_home *h, const char *name, size_t len);
void kea_home_forget(struct kea_home *h, size_t other);

/* kea_home_use makes a list the one in use; the one before it is forgotten. */
void kea_home_use(struct kea_home *h, const struct kea_home_name *name);
/* kea_home_leave: none is in use. */
void kea_home_leave(struct kea_home *h);

/* kea_home_choose begins a list: a name in a slot that this node owns, and is
 * not giving away, is the one in use. False: it has no such slot. Reads CLUSTER
 * NODES, so it is not for every turn. */
bool kea_home_choose(struct kea_home *h, RedisModuleCtx *ctx);

#endif /* KEA_HOME_H */
