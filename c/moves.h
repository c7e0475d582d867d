/*
 * moves.h: with which of a cluster's lists a turn works. Main thread only.
 */
#ifndef KEA_MOVES_H
#define KEA_MOVES_H

#include "flow.h"

/*
 * kea_moves_ready settles which list a turn works with; storing: one is needed.
 * The server is asked before a key is made, lest it be made in a slot that is
 * not ours, and once a second. False: none can be used now.
 */
bool kea_moves_ready(struct kea_flow *f, RedisModuleCtx *ctx, bool storing);

#endif /* KEA_MOVES_H */
