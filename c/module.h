/* SPDX-License-Identifier: BSD-3-Clause */
/* module.h: what belongs to the module as a whole. Main thread only. */
#ifndef KEA_MODULE_H
#define KEA_MODULE_H

#include "redisapi.h"

/* Version as modules report it: major*10000 + minor*100 + patch. */
#define KEA_VERSION 100

/* A context for the log, and for what has no other; lives from load to unload. */
RedisModuleCtx *kea_module_ctx(void);

#endif /* KEA_MODULE_H */
