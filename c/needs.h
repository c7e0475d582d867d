/*
 * needs.h: the server's own commands that the module cannot do without. It
 * replicates the fallback list's changes as commands, and in a cluster asks with
 * commands whose a slot is. rename-command in the server's configuration can
 * take each of them away, or give its name to another. Main thread, at load.
 */
#ifndef KEA_NEEDS_H
#define KEA_NEEDS_H

#include "redisapi.h"

#include <stdbool.h>

/*
 * kea_needs_met reports whether all are there under their names, and logs the
 * first that is not. A name cannot be changed while the server runs, so the
 * answer holds.
 */
bool kea_needs_met(RedisModuleCtx *ctx, bool cluster);

#endif /* KEA_NEEDS_H */
