/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cluster.h: with which of a cluster's lists a turn works. They move with their
 * slots (slots.h). Main thread only.
 */
#ifndef KEA_CLUSTER_H
#define KEA_CLUSTER_H

#include "flow.h"

/*
 * kea_cluster_ready settles which list a turn works with. write: the dataset may
 * be written, so that a list may be taken over; storing: one is needed, so that
 * one may be begun. The server is asked before a key is made, so that it is not made
 * in a slot of another node, and once a second, and after each move of a slot.
 * False: none can be used now. Always true outside of clusters.
 */
bool kea_cluster_ready(struct kea_flow *f, RedisModuleCtx *ctx, bool write,
		       bool storing);

#endif /* KEA_CLUSTER_H */
