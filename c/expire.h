/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * expire.h: makes keys expire when they are due, by a touch at the end of a
 * turn. Main thread only.
 *
 * A server expires a key when somebody touches it or its sampling happens on
 * it. learn.h keeps when keys are due; only an active master's are touched.
 */
#ifndef KEA_EXPIRE_H
#define KEA_EXPIRE_H

#include "redisapi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* kea_expire_classes is what has to be subscribed to besides: on, expire_on_time
 * with masks; classes, those that are forwarded. */
uint32_t kea_expire_classes(bool on, uint32_t classes);

/* kea_expire_configure: on, the setting; limit, of expire_watch_limit, in bytes.
 * When masks have changed the dataset is scanned again. */
void kea_expire_configure(bool on, size_t limit, bool masks_changed);

/* kea_expire_turn does a slice of what is to be done, before the turn's events
 * are stored. */
void kea_expire_turn(RedisModuleCtx *ctx);

/* kea_expire_info adds the expire_* fields. */
void kea_expire_info(RedisModuleInfoCtx *ctx);

#endif /* KEA_EXPIRE_H */
