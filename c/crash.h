/* SPDX-License-Identifier: BSD-3-Clause */
/* crash.h: what the server's crash report needs of a process that Go lives in. */
#ifndef KEA_CRASH_H
#define KEA_CRASH_H

#include "redisapi.h"

/* In OnLoad, before Go sees the main thread. */
void kea_crash_prepare(RedisModuleCtx *ctx);

/* Within the report, in a signal handler: its memory test follows. */
void kea_crash_ready_for_memory_test(void);

#endif /* KEA_CRASH_H */
