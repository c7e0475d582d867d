/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nodes.h: what CLUSTER NODES says of this node's slots. It costs some
 * microseconds a node of the cluster: not for every turn. Main thread only.
 */
#ifndef KEA_NODES_H
#define KEA_NODES_H

#include "hashslot.h"
#include "redisapi.h"

struct kea_slot_range {
	unsigned first, last;
	/* CLUSTER SETSLOT … MIGRATING, IMPORTING: one slot. What is neither is
	 * owned. */
	bool leaving, coming;
};

/* kea_nodes_mine calls visit with each range of this node's slots; with none
 * when the server can't be asked. */
void kea_nodes_mine(RedisModuleCtx *ctx,
		    void (*visit)(void *arg, const struct kea_slot_range *r),
		    void *arg);

/* kea_nodes_own marks the slots that this node owns and is not giving away, and
 * returns how many they are. */
unsigned kea_nodes_own(RedisModuleCtx *ctx, bool own[KEA_SLOTS]);

#endif /* KEA_NODES_H */
