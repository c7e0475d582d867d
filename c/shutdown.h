/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shutdown.h: when undelivered events go into spool files, and when those
 * go. Main thread only.
 */
#ifndef KEA_SHUTDOWN_H
#define KEA_SHUTDOWN_H

#include "redisapi.h"

#include <stdbool.h>

/* In OnLoad: takes in what an earlier server has left. */
void kea_take_in_spool(RedisModuleCtx *ctx);

/* At each turn's end. With outbox, where the server forbids writes (CLIENT
 * PAUSE, FAILOVER) or this master has become a replica: spools what the turn's
 * writes left undelivered, before they are answered. Reads go on in a pause,
 * and may make events, but need no such care. */
void kea_spool_turn(RedisModuleCtx *ctx);

/* At each turn's end: removes the files once all that they hold is delivered. */
void kea_drop_spool(void);

/* The server event Shutdown. */
void kea_on_shutdown(RedisModuleCtx *ctx);

/* Waits for confirms, a bounded time, and spools what is left; the dataset is
 * not touched. False: the file can't be made, and nothing has changed; the log
 * says why. */
bool kea_spool_rest(RedisModuleCtx *ctx);

/* Forgets the spool files, which stay as they are. */
void kea_spool_end(void);

#endif /* KEA_SHUTDOWN_H */
