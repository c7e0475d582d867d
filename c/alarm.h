/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * alarm.h: wakes the server's loop at a time of the wall clock. Main thread
 * only.
 */
#ifndef KEA_ALARM_H
#define KEA_ALARM_H

#include <stdint.h>

/* kea_alarm_set makes the loop turn at a time (Unix time in ms), and once more
 * when somebody sets the clock. It replaces the time set before; asking for the
 * same again is free. */
void kea_alarm_set(int64_t at_ms);

/* kea_alarm_free, for unload. */
void kea_alarm_free(void);

#endif /* KEA_ALARM_H */
