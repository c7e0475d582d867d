/* SPDX-License-Identifier: BSD-3-Clause */
/* scan.c: see scan.h. */
#include "scan.h"

/* Calls between two looks at the clock; each shows a few keys, most in less than
 * two microseconds. */
#define CALLS 16

void kea_scan_begin(struct kea_scanner *s)
{
	kea_scan_end(s);
	s->cursor = RedisModule_ScanCursorCreate();
}

void kea_scan_end(struct kea_scanner *s)
{
	if (s->cursor)
		RedisModule_ScanCursorDestroy(s->cursor);
	s->cursor = NULL;
	s->db = 0;
}

/* next_db goes to the next database that holds a key; false: there is none. */
static bool next_db(struct kea_scanner *s, RedisModuleCtx *ctx)
{
	do {
		s->db++;
		if (RedisModule_SelectDb(ctx, s->db) != REDISMODULE_OK)
			return false;
	} while (RedisModule_DbSize(ctx) == 0);
	RedisModule_ScanCursorDestroy(s->cursor);
	s->cursor = RedisModule_ScanCursorCreate();
	return true;
}

bool kea_scan_slice(struct kea_scanner *s, RedisModuleCtx *ctx, unsigned max_us,
		    RedisModuleScanCB seen, void *arg)
{
	uint64_t start = RedisModule_MonotonicMicroseconds();
	unsigned calls = 0;

	if (!s->cursor)
		return false;
	s->stop = false;
	RedisModule_SelectDb(ctx, s->db);
	for (;;) {
		if (!RedisModule_Scan(ctx, s->cursor, seen, arg) &&
		    !next_db(s, ctx)) {
			kea_scan_end(s);
			return false;
		}
		if (s->stop)
			return true;
		if (++calls % CALLS == 0 &&
		    RedisModule_MonotonicMicroseconds() - start >= max_us)
			return true;
	}
}
