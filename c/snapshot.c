/* SPDX-License-Identifier: BSD-3-Clause */
/* snapshot.c: see snapshot.h; kea_snapshot_begin and _cancel are kea.h's. */
#include "snapshot.h"

#include "extras.h"
#include "flow.h"
#include "hook.h"
#include "kea.h"
#include "loop.h"
#include "module.h"
#include "scan.h"
#include "slots.h"

#include <string.h>

/* Of a turn; reading the last value may exceed it. */
#define SLICE_US 700

static struct {
	bool running, waits;
	char id[KEA_SNAPSHOT_ID + 1];
	void *masks;
	struct kea_scanner scan;
	uint64_t keys, bytes; /* of its events */
	/* Of the slice. */
	uint64_t until_us;
	long long now_ms;
} snapshot;

/* ---- begin and end ---------------------------------------------------------- */

const char *kea_snapshot_begin(const char *id, const void *masks, size_t len)
{
	const char *wrong;
	void *memory;

	if (snapshot.running)
		return "a snapshot is under way";
	if (!kea_hook.active_master)
		return "this server is a replica, or is loading: a snapshot is "
		       "its master's";
	memory = RedisModule_Alloc(len);
	memcpy(memory, masks, len);
	wrong = kea_program_check(memory, len);
	if (wrong) {
		RedisModule_Free(memory);
		return wrong;
	}
	memset(&snapshot, 0, sizeof(snapshot));
	snapshot.masks = memory;
	memcpy(snapshot.id, id, KEA_SNAPSHOT_ID);
	snapshot.running = true;
	kea_scan_begin(&snapshot.scan);
	kea_wake_main();
	return NULL;
}

static void end(void)
{
	kea_scan_end(&snapshot.scan);
	RedisModule_Free(snapshot.masks);
	snapshot.masks = NULL;
	snapshot.running = snapshot.waits = false;
}

void kea_snapshot_stop(const char *why)
{
	if (!snapshot.running)
		return;
	end();
	RedisModule_Log(kea_module_ctx(), "warning",
			"snapshot %s ends without snapshot_end after %llu keys: "
			"%s",
			snapshot.id, (unsigned long long)snapshot.keys, why);
}

bool kea_snapshot_cancel(void)
{
	bool was = snapshot.running;

	kea_snapshot_stop("it was cancelled");
	return was;
}

void kea_snapshot_free(void)
{
	end();
	memset(&snapshot, 0, sizeof(snapshot));
}

void kea_snapshot_again(void)
{
	if (snapshot.running)
		kea_scan_begin(&snapshot.scan);
}

void kea_snapshot_swapped(int first, int second)
{
	int here = snapshot.scan.db;

	/* Of both, all was shown; or of both, nothing yet. */
	if ((first < here && second < here) || (first > here && second > here))
		return;
	kea_snapshot_again();
}

/* ---- a key -------------------------------------------------------------------- */

static void seen(RedisModuleCtx *ctx, RedisModuleString *name,
		 RedisModuleKey *key, void *unused)
{
	long long due = key ? RedisModule_GetAbsExpire(key) : -1;
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(name, &len);

	(void)unused;
	if (RedisModule_MonotonicMicroseconds() >= snapshot.until_us)
		snapshot.scan.stop = true;
	/* What has expired is gone, and `expired` is yet to come. To read it would
	 * make it go on some servers, in the middle of the scan. */
	if ((due >= 0 && due <= snapshot.now_ms) ||
	    !kea_match(snapshot.masks, (const uint8_t *)bytes, len) ||
	    (snapshot.scan.db == 0 && kea_home_is(&kea_flow.home, bytes, len)) ||
	    !kea_slot_may_touch(bytes, len))
		return;
	snapshot.bytes += kea_extras_snapshot(ctx, name, bytes, len,
					      snapshot.scan.db);
	snapshot.keys++;
}

/* ---- a turn ------------------------------------------------------------------- */

/* backlog is about how many bytes of events are undelivered. Of what is in the
 * list the number is known; its events are taken to be as large as ours. Ending a
 * little below buffer_limit keeps us from driving everybody's events to the
 * list. */
static bool backlog(void)
{
	const struct kea_flow *f = &kea_flow;
	uint64_t mean = snapshot.keys > 0 ? snapshot.bytes / snapshot.keys : 64;
	uint64_t bytes = f->queue.bytes + f->lent->bytes;

	bytes += (f->mirror.pending + f->home.waiting) * (mean + 16);
	return bytes > f->settings.buffer_limit - f->settings.buffer_limit / 8;
}

void kea_snapshot_turn(RedisModuleCtx *ctx)
{
	if (!snapshot.running)
		return;
	if (!kea_hook.active_master) {
		kea_snapshot_stop("this server is not a master any more");
		return;
	}
	/* With outbox nothing can be stored while the server forbids writes, and
	 * what is captured meanwhile is spooled, turn by turn. */
	snapshot.waits = (kea_flow.settings.outbox &&
			  RedisModule_AvoidReplicaTraffic() != 0) ||
			 backlog();
	if (snapshot.waits)
		return; /* what is delivered makes turns */
	snapshot.until_us = RedisModule_MonotonicMicroseconds() + SLICE_US;
	snapshot.now_ms = RedisModule_Milliseconds();
	if (!kea_scan_slice(&snapshot.scan, ctx, SLICE_US, seen, NULL)) {
		kea_hook_append("snapshot_end", snapshot.id, KEA_SNAPSHOT_ID, 0,
				NULL);
		end();
	}
	RedisModule_SelectDb(ctx, 0);
	kea_wake_main();
}

void kea_snapshot_info(RedisModuleInfoCtx *ctx)
{
	RedisModule_InfoAddFieldCString(ctx, "snapshot_state",
					!snapshot.running ? "none" :
					snapshot.waits	  ? "waiting" :
							    "running");
	RedisModule_InfoAddFieldCString(ctx, "snapshot_id", snapshot.id);
	RedisModule_InfoAddFieldULongLong(ctx, "snapshot_keys", snapshot.keys);
}
