/* SPDX-License-Identifier: BSD-3-Clause */
/* info.h: INFO's section. */
#ifndef KEA_INFO_H
#define KEA_INFO_H

#include "redisapi.h"

/* In OnLoad, before Go is started. */
void kea_info_init(void);

/* Also runs in the crash handler. */
void kea_info(RedisModuleInfoCtx *ctx, int for_crash_report);

#endif /* KEA_INFO_H */
