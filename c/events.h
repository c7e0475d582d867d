/* SPDX-License-Identifier: BSD-3-Clause */
/* events.h: the server events that the module follows. Main thread only. */
#ifndef KEA_EVENTS_H
#define KEA_EVENTS_H

#include "redisapi.h"

#include <stdbool.h>

/* kea_events_subscribe is called in OnLoad. False: the server lacks one, and
 * the log says which. */
bool kea_events_subscribe(RedisModuleCtx *ctx);

#endif /* KEA_EVENTS_H */
