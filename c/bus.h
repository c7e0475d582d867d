/* SPDX-License-Identifier: BSD-3-Clause */
/* bus.h: messages over the cluster bus. Main thread only. */
#ifndef KEA_BUS_H
#define KEA_BUS_H

#include "redisapi.h"

/* At the end of OnLoad. */
void kea_bus_init(RedisModuleCtx *ctx);

#endif /* KEA_BUS_H */
