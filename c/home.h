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
	bool dry_run; /* the server can check a command without running it */
	bool asked;   /* whether the list in use may be written was asked
			 lately: less than a second ago */
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

/* kea_home_is tells whether a key of database 0 is a fallback list, this
 * node's or another's. Runs for every event. */
bool kea_home_is(const struct kea_home *h, const char *name, size_t len);

/* kea_home_note remembers a list that was seen, unless it is in use. */
void kea_home_note(struct kea_home *h, const char *name, size_t len);
void kea_home_forget(struct kea_home *h, size_t other);

/* kea_home_use makes a list the one in use; the one before it is forgotten. */
void kea_home_use(struct kea_home *h, const struct kea_home_name *name);
/* kea_home_leave: none is in use. */
void kea_home_leave(struct kea_home *h);

/* kea_home_choose makes a name in a slot that this node owns, and is not
 * giving away, the one in use. False: it has no such slot. */
bool kea_home_choose(struct kea_home *h, RedisModuleCtx *ctx);

enum kea_slot {
	KEA_SLOT_OURS,
	KEA_SLOT_AWAY, /* another node's, or leaving, and the key with it */
	KEA_SLOT_WAIT, /* the cluster is down: ask again */
};

/* kea_home_ask asks the server whether a list's key may be written here. */
enum kea_slot kea_home_ask(const struct kea_home *h, RedisModuleCtx *ctx,
			   RedisModuleString *key);

/*
 * kea_home_owns tells whether this node owns a key's slot; always true where
 * the server cannot be asked without a trace. From 7.2 on a node that loses a
 * slot deletes its keys and tells modules of each, though nobody deleted
 * anything.
 */
bool kea_home_owns(const struct kea_home *h, RedisModuleCtx *ctx,
		   RedisModuleString *key);

/* Redis's hash slot of a key (CRC-16/XMODEM of its hash tag, if it has one). */
unsigned kea_slot_of(const char *key, size_t len);

#endif /* KEA_HOME_H */
