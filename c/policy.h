/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * policy.h: the rules by which a turn moves events between the pieces of flow.h.
 * Main thread only.
 */
#ifndef KEA_POLICY_H
#define KEA_POLICY_H

#include "flow.h"

/* Whether a turn may use the dataset. */
enum kea_turn {
	KEA_TURN_NORMAL,
	KEA_TURN_LEND_ONLY, /* it is saved already, and not touched any more */
};

/*
 * kea_policy_turn does what is due at the end of an event-loop turn: takes in
 * what the publisher has reported, stores, lends. True: something was lent, so
 * the publisher has to be woken. It checks by itself whether the dataset may be
 * written. What could not be done is in f->left.
 */
bool kea_policy_turn(struct kea_flow *f, RedisModuleCtx *ctx,
		     enum kea_turn how);

/* kea_policy_idle reports, in a few loads, that a turn would find nothing to
 * do. */
bool kea_policy_idle(const struct kea_flow *f);

#endif /* KEA_POLICY_H */
