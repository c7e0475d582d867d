/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * needs.h: what the module cannot do without, looked for at load. Main thread.
 *
 *  1. Commands of the server's own. The fallback list's changes are replicated
 *     as commands, and in a cluster commands ask whose a slot is. rename-command
 *     in the server's configuration can take each of them away, or give its name
 *     to another.
 *  2. Threads. Go makes them when it wants to, and ends the process when it
 *     cannot: limits on processes (ulimit -u, a pids cgroup) and on the address
 *     space (ulimit -v) that would do so later refuse the load.
 */
#ifndef KEA_NEEDS_H
#define KEA_NEEDS_H

#include "redisapi.h"

#include <stdbool.h>

/*
 * kea_needs_met reports whether all is there, and logs the first that is not. A
 * command's name cannot change while the server runs; limits can, and others may
 * use them up.
 */
bool kea_needs_met(RedisModuleCtx *ctx, bool cluster);

#endif /* KEA_NEEDS_H */
