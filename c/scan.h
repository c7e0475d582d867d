/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * scan.h: goes through all keys of all databases, in slices. Main thread only,
 * at the end of a turn. Each user of a scan has its own scanner.
 *
 * As with SCAN, a key that is there all the time is seen at least once, and may be
 * seen twice. Expired keys are seen, too, and nothing expires by it. In a cluster
 * Redis 8.4+ and Valkey 9+ leave out the slots that are being imported. A swap of
 * databases meanwhile mixes two: begin anew then.
 */
#ifndef KEA_SCAN_H
#define KEA_SCAN_H

#include "redisapi.h"

#include <stdbool.h>

/* Zeroed: nothing is under way. */
struct kea_scanner {
	RedisModuleScanCursor *cursor; /* NULL: nothing is under way */
	int db;                        /* whose keys are shown */
	bool stop;
};

/* kea_scan_begin starts (anew), with database 0. */
void kea_scan_begin(struct kea_scanner *s);

/* kea_scan_slice shows keys to seen for about max_us microseconds; false: that was
 * all, or nothing is under way. seen's ctx has the key's database selected; name
 * and key are borrowed, and key may be NULL. seen may set stop, to end the slice
 * after what the server shows in one step, some keys; it must not delete other
 * keys than the one shown. */
bool kea_scan_slice(struct kea_scanner *s, RedisModuleCtx *ctx, unsigned max_us,
		    RedisModuleScanCB seen, void *arg);

void kea_scan_end(struct kea_scanner *s);

#endif /* KEA_SCAN_H */
