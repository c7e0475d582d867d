/* SPDX-License-Identifier: BSD-3-Clause */
/* peek.h: shows the oldest undelivered events. Main thread only. */
#ifndef KEA_PEEK_H
#define KEA_PEEK_H

#include "redisapi.h"

/* kea_peek handles the command fallback_peek [n]. */
int kea_peek(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);

#endif /* KEA_PEEK_H */
