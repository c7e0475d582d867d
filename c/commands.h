/* SPDX-License-Identifier: BSD-3-Clause */
/* commands.h: the commands' way in. Main thread only. */
#ifndef KEA_COMMANDS_H
#define KEA_COMMANDS_H

#include "redisapi.h"

/* In OnLoad. An error: the server refuses one of them. */
int kea_create_commands(RedisModuleCtx *ctx);

/* kea_replicate_deferred sends commands to the replicas that could not be sent
 * when they were given. At each turn's end. */
void kea_replicate_deferred(RedisModuleCtx *ctx);
void kea_drop_deferred(void);

#endif /* KEA_COMMANDS_H */
