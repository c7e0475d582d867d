/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slots.h: whose is a key's hash slot, and what is being moved. Main thread
 * only.
 *
 * To move a key does not change it, but servers notify modules as if it did: of a
 * `set` at the node that a slot comes to, of a `del` at the node that it has left.
 * kea_slot_event_counts tells those from what a client has written.
 *
 * Slots move in one of three ways, and which of them a server has is decided by
 * the functions that it gives us, for the events' numbers collide:
 *
 *   legacy   MIGRATE and SETSLOT, every server: keys one by one, in `restore`
 *            and `del`, which count: Redis's own notifications show them
 *   Redis    CLUSTER MIGRATION, 8.4 and newer: ClusterCanAccessKeysInSlot
 *   Valkey   CLUSTER MIGRATESLOTS, 9.0 and newer: a bit of the context
 */
#ifndef KEA_SLOTS_H
#define KEA_SLOTS_H

#include "redisapi.h"

#include <stdbool.h>
#include <stddef.h>

enum kea_slot {
	KEA_SLOT_OWNED,
	KEA_SLOT_FOREIGN, /* another node's, or leaving, and the key with it */
	KEA_SLOT_UNKNOWN, /* the cluster is down: ask again */
};

/* kea_slots_init forgets all and finds out which server this is. ctx is
 * OnLoad's. kea_slots_free gives back what it has taken. */
void kea_slots_init(RedisModuleCtx *ctx, bool cluster);
void kea_slots_free(void);

/* kea_slots_subscribe subscribes to migrations, where the server has them; moved
 * is called when one begins or ends. In OnLoad, before keyspace events are
 * subscribed to. */
void kea_slots_subscribe(RedisModuleCtx *ctx, void (*moved)(void));

/* kea_slots_end_turn: what was known for this turn only is forgotten. */
void kea_slots_end_turn(void);

/*
 * kea_slot_may_touch reports whether a key of any database may be expired or
 * changed here by our own doing. False while the key's slot is being imported
 * (on Redis 8.4+ and Valkey 9+ even to open an expired key would delete it, and
 * lose a PERSIST that is still on its way), and when the slot is another node's
 * or was just given away. Then leave the key alone and ask again later: if the
 * slot arrives the key is ours to touch, and if not it disappears. Always true
 * outside of clusters. It costs a CRC of the key's hash tag, 2 ns a byte.
 *
 * It does not say that the dataset may be written: that is
 * AvoidReplicaTraffic()'s to say, also in the hand-over window of a migration.
 */
bool kea_slot_may_touch(const char *key, size_t len);

/*
 * kea_slot_event_counts reports whether a keyspace event is of a change that
 * this node has made, and not of a slot's move. Call it in the keyspace
 * callback, with the callback's context. Free outside of clusters; in one it
 * looks at the slot for `del` only, unless an import runs.
 */
bool kea_slot_event_counts(RedisModuleCtx *ctx, int type, const char *event,
			   RedisModuleString *key);

/* kea_slot_arrives reports whether a key's slot is being imported by an atomic
 * migration: what there is of it is not all, and may go again. */
bool kea_slot_arrives(const char *key, size_t len);

/* kea_slot_ask asks the server whether a key may be written here, one that may
 * not exist. Not in a keyspace callback. */
enum kea_slot kea_slot_ask(RedisModuleCtx *ctx, RedisModuleString *key);

#endif /* KEA_SLOTS_H */
