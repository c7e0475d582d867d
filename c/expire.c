/* SPDX-License-Identifier: BSD-3-Clause */
/* expire.c: see expire.h. */
#include "expire.h"

#include "alarm.h"
#include "hook.h"
#include "learn.h"
#include "looks.h"
#include "loop.h"
#include "slots.h"

/* A slice: a key takes a microsecond, but may be a large one. */
#define TOUCH_MAX 400
#define TOUCH_US 500
/* How often to ask whether writes are allowed again. */
#define GUARD_MS 10
/* A key that can't be touched is asked again when as much time has passed as it
 * is overdue: from 100 ms, at most a second while its slot arrives or the server
 * keeps what is due, a minute while its slot is another node's. */
#define AGAIN_MIN_MS 100
#define AGAIN_MAX_MS 1000
#define FOREIGN_MAX_MS 60000

static bool on; /* the setting */

uint32_t kea_expire_classes(bool is_on, uint32_t classes)
{
	return is_on && (classes & REDISMODULE_NOTIFY_EXPIRED) ?
		       KEA_LEARN_CLASSES :
		       0;
}

void kea_expire_configure(bool is_on, size_t limit, bool masks_changed)
{
	struct kea_pool *pool = &kea_learn.watch.pool;

	/* What fits is found again; also when what the former masks matched has
	 * taken the place. */
	if (limit < pool->bytes || (masks_changed && kea_learn.refused))
		kea_learn_forget();
	if (limit > pool->limit || masks_changed)
		kea_learn.rescan = true;
	if (limit != pool->limit)
		kea_learn.told = false;
	on = is_on;
	pool->limit = limit;
}

/* ---- touching ------------------------------------------------------------ */

static int64_t again(int64_t now, int64_t due, int64_t max)
{
	int64_t wait = now - due;

	wait = wait < AGAIN_MIN_MS ? AGAIN_MIN_MS : wait;
	return now + (wait < max ? wait : max);
}

/* leave_alone puts off a key whose slot is not here, or not yet. One that has
 * gone with its slot is forgotten: servers do not tell of each. */
static void leave_alone(RedisModuleCtx *ctx, const struct kea_due *due,
			RedisModuleString *key, int64_t now)
{
	struct kea_watch *w = &kea_learn.watch;
	bool arrives = kea_slot_arrives((const char *)due->key, due->len);

	if (!arrives && !kea_looks_needed()) {
		RedisModuleKey *k = kea_learn_open(ctx, due->db, key, true);

		if (!k) {
			kea_watch_drop(w, due->db, due->key, due->len);
			return;
		}
		RedisModule_CloseKey(k);
	}
	kea_watch_defer(w, due->db, due->key, due->len,
			again(now, due->due,
			      arrives ? AGAIN_MAX_MS : FOREIGN_MAX_MS));
}

/* open_due opens a key that is due: the server then deletes it, and tells of it.
 * Its entry's bytes go with that. */
static void open_due(RedisModuleCtx *ctx, int db, RedisModuleString *key,
		     int64_t now)
{
	struct kea_watch *w = &kea_learn.watch;
	RedisModuleKey *k = kea_learn_open(ctx, db, key, false);
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(key, &len);
	long long due;

	if (!k) {
		/* Its event has dropped it; if there was none it was gone. */
		kea_watch_drop(w, db, bytes, len);
		return;
	}
	due = RedisModule_GetAbsExpire(k);
	RedisModule_CloseKey(k);
	kea_learn_found(db, bytes, len, due);
	/* The server's clock is a moment behind; or it keeps what is due: in
	 * Valkey's import mode. */
	if (due >= 0 && due < now)
		kea_watch_defer(w, db, bytes, len,
				now - due > AGAIN_MAX_MS ?
					again(now, due, AGAIN_MAX_MS) :
					now);
}

static void touch(RedisModuleCtx *ctx, const struct kea_due *due, int64_t now)
{
	RedisModuleString *key;

	if (!kea_match(kea_hook.masks, due->key, due->len)) {
		kea_watch_drop(&kea_learn.watch, due->db, due->key, due->len);
		return;
	}
	key = RedisModule_CreateString(NULL, (const char *)due->key, due->len);
	if (kea_slot_may_touch((const char *)due->key, due->len))
		open_due(ctx, due->db, key, now);
	else
		leave_alone(ctx, due, key, now);
	RedisModule_FreeString(NULL, key);
}

/* touch_some returns whether there is more to do at once. */
static bool touch_some(RedisModuleCtx *ctx, int64_t now)
{
	uint64_t start = RedisModule_MonotonicMicroseconds();

	for (unsigned n = 0; n < TOUCH_MAX; n++) {
		struct kea_due due;

		switch (kea_watch_step(&kea_learn.watch, now, &due)) {
		case KEA_WATCH_NONE:
			return false;
		case KEA_WATCH_MOVED:
			break;
		case KEA_WATCH_DUE:
			touch(ctx, &due, now);
			break;
		}
		if (RedisModule_MonotonicMicroseconds() - start >= TOUCH_US)
			break;
	}
	return true;
}

/* wake_for the key that is next. A key is due when its deadline has passed. */
static void wake_for(int64_t next, int64_t now, bool may_write)
{
	if (next >= now)
		kea_alarm_set(next + 1);
	else
		kea_alarm_set(now + (may_write ? 1 : GUARD_MS));
}

void kea_expire_turn(RedisModuleCtx *ctx)
{
	bool run = on && kea_hook.masks && kea_hook.active_master &&
		   (kea_hook.classes & REDISMODULE_NOTIFY_EXPIRED);
	bool more, may_write;
	int64_t next, now;

	if (kea_learn.running && !run) {
		kea_learn_forget();
		kea_learn.running = false;
	}
	if (run && !kea_learn.running)
		run = kea_learn_start();
	if (!run && !kea_learn.watch.dropped && !kea_learn.watch.pool.dead)
		return;
	/* Where the server does not allow writes it would not delete either,
	 * and say nothing of it. */
	may_write = RedisModule_AvoidReplicaTraffic() == 0;
	now = RedisModule_Milliseconds();
	more = kea_learn_turn(ctx, may_write, now);
	if (kea_watch_next(&kea_learn.watch, &next)) {
		if (next < now && may_write)
			more |= touch_some(ctx, now);
		if (kea_watch_next(&kea_learn.watch, &next))
			wake_for(next, now, may_write);
	}
	if (more)
		kea_wake_main();
}

void kea_expire_info(RedisModuleInfoCtx *ctx)
{
	struct kea_lag_figures lag = kea_lag_figures(
		&kea_learn.lag, RedisModule_Milliseconds());
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = {
		{ "expire_watched", kea_learn.watch.count },
		{ "expire_watch_bytes", kea_watch_bytes(&kea_learn.watch) },
		{ "expire_unwatched", kea_learn.unwatched },
		{ "expire_lag_p50_ms", lag.p50_ms },
		{ "expire_lag_p99_ms", lag.p99_ms },
		{ "expire_lag_max_ms", lag.max_ms },
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		RedisModule_InfoAddFieldULongLong(ctx, fields[i].name,
						  fields[i].value);
}
