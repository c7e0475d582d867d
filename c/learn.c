/* SPDX-License-Identifier: BSD-3-Clause */
/* learn.c: see learn.h. */
#include "learn.h"

#include "hook.h"
#include "looks.h"
#include "module.h"
#include "scan.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

/* Of a turn, together with what is touched less than a millisecond. */
#define SCAN_US 400
/* Between two scans for what did not fit. */
#define REFUSED_MS 60000

struct kea_learn kea_learn;

static struct {
	struct kea_scanner scan;
	int64_t scanned;     /* when the last one began */
	uint64_t refused_at; /* keys watched when the first was refused */
	bool seeded;
} own;

/* Not from the server's allocator, as with the queue's chunks (module.c): it
 * must not count towards maxmemory. */
static void *map_region(size_t size)
{
	uint8_t *pages = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			      0);
	size_t before;

	if (pages == MAP_FAILED)
		return NULL;
	before = (size - (uintptr_t)pages % size) % size;
	if (before > 0)
		munmap(pages, before);
	munmap(pages + before + size, size - before);
	return pages + before;
}

static void unmap_region(void *pages, size_t size)
{
	munmap(pages, size);
}

bool kea_learn_start(void)
{
	uint64_t seed[2];

	if (!own.seeded) {
		if (getrandom(seed, sizeof(seed), GRND_NONBLOCK) !=
		    sizeof(seed))
			return false;
		kea_watch_init(&kea_learn.watch, seed);
		kea_learn.watch.pool.map = map_region;
		kea_learn.watch.pool.unmap = unmap_region;
		own.seeded = true;
	}
	kea_learn.running = true;
	kea_learn.rescan = true;
	return true;
}

void kea_learn_forget(void)
{
	kea_looks_forget();
	kea_scan_end(&own.scan);
	kea_watch_drop_db(&kea_learn.watch, -1);
	kea_learn.rescan = true;
}

void kea_learn_note(int db, const char *key, size_t len, int64_t due)
{
	if (kea_watch_set(&kea_learn.watch, db, key, len, due))
		return;
	kea_learn.unwatched++;
	if (!kea_learn.refused)
		own.refused_at = kea_learn.watch.count;
	kea_learn.refused = true;
	if (kea_learn.told)
		return;
	kea_learn.told = true;
	RedisModule_Log(kea_module_ctx(), "warning",
			"expire_watch_limit is reached (%llu keys): more keys "
			"expire at the server's own pace",
			(unsigned long long)kea_learn.watch.count);
}

void kea_learn_found(int db, const char *key, size_t len, int64_t due)
{
	if (due < 0)
		kea_watch_drop(&kea_learn.watch, db, key, len);
	else
		kea_learn_note(db, key, len, due);
}

/* 7.0 would count a miss for a key that has gone if it were opened for reading,
 * and ignores the other flags. 7.2 and newer let a replica keep what it reads. */
RedisModuleKey *kea_learn_open(RedisModuleCtx *ctx, int db,
			       RedisModuleString *key, bool looks)
{
	int mode = REDISMODULE_READ | REDISMODULE_OPEN_KEY_NOTOUCH |
		   REDISMODULE_OPEN_KEY_NONOTIFY | REDISMODULE_OPEN_KEY_NOSTATS;
	RedisModuleKey *k;

	if (looks)
		mode |= REDISMODULE_OPEN_KEY_NOEXPIRE;
	if (kea_looks_needed())
		mode = REDISMODULE_WRITE | REDISMODULE_OPEN_KEY_NOTOUCH;
	RedisModule_SelectDb(ctx, db);
	k = RedisModule_OpenKey(ctx, key, mode);
	if (k && RedisModule_KeyType(k) == REDISMODULE_KEYTYPE_EMPTY) {
		RedisModule_CloseKey(k);
		k = NULL;
	}
	return k;
}

void kea_learn_flushed(int db)
{
	kea_watch_drop_db(&kea_learn.watch, db);
}

void kea_learn_swapped(int a, int b)
{
	kea_watch_swap_dbs(&kea_learn.watch, a, b);
	kea_looks_swapped(a, b);
	/* A scan might miss what went where it has been. */
	if (own.scan.cursor)
		kea_learn.rescan = true;
}

/* ---- events -------------------------------------------------------------- */

/* What an event says of a TTL. */
enum ttl { TTL_SAME, TTL_CHANGED, TTL_GONE };

static enum ttl ttl_after(int type, const char *event)
{
	static const struct {
		const char *event;
		enum ttl ttl;
	} generic[] = {
		{ "expire", TTL_CHANGED },    { "del", TTL_GONE },
		{ "persist", TTL_GONE },      { "rename_from", TTL_GONE },
		{ "rename_to", TTL_CHANGED }, { "restore", TTL_CHANGED },
		{ "copy_to", TTL_CHANGED },   { "move_from", TTL_GONE },
		{ "move_to", TTL_CHANGED },
	};

	switch (type) {
	case REDISMODULE_NOTIFY_GENERIC:
		for (size_t i = 0; i < sizeof(generic) / sizeof(*generic); i++)
			if (strcmp(event, generic[i].event) == 0)
				return generic[i].ttl;
		return TTL_SAME;
	case REDISMODULE_NOTIFY_EXPIRED:
		/* Fields of hashes expire in this class, too, on Valkey. */
		return strcmp(event, "expired") == 0 ? TTL_GONE : TTL_SAME;
	case REDISMODULE_NOTIFY_EVICTED:
		return TTL_GONE;
	}
	return TTL_SAME;
}

/* look reads a TTL in the callback. No event carries it, so this is what a TTL
 * that is set costs: a lookup of the server's and one of ours. The entry only
 * moves when it has become due earlier. */
static void look(RedisModuleCtx *ctx, RedisModuleString *key, int db,
		 const char *bytes, size_t len)
{
	RedisModuleKey *k = RedisModule_OpenKey(
		ctx, key, REDISMODULE_READ | KEA_OPEN_KEY_UNSEEN);
	long long due = k ? RedisModule_GetAbsExpire(k) : 0;
	int64_t now = RedisModule_Milliseconds();

	if (k)
		RedisModule_CloseKey(k);
	kea_learn_found(db, bytes, len, due);
	/* A deadline that was over when it was set is not late from then on. */
	if (due > 0 && due < now)
		kea_watch_defer(&kea_learn.watch, db, bytes, len, now);
}

int64_t kea_learn_expired(int db, const char *key, size_t len)
{
	int64_t due, when, now = RedisModule_Milliseconds();

	if (!kea_learn.running ||
	    !kea_watch_get(&kea_learn.watch, db, key, len, &due, &when))
		return 0;
	/* Valkey says `expired` where a time in the past is set: then what is
	 * known here is the time before. */
	if (due >= now)
		due = 0;
	if (due != 0)
		kea_lag_add(&kea_learn.lag, now, due > when ? due : when);
	kea_watch_drop(&kea_learn.watch, db, key, len);
	return due;
}

int64_t kea_learn_event(RedisModuleCtx *ctx, int type, const char *event,
			RedisModuleString *key)
{
	enum ttl ttl;
	const char *bytes;
	size_t len;
	int db;

	if (!kea_learn.running || !kea_hook.active_master || !kea_hook.masks)
		return 0;
	ttl = ttl_after(type, event);
	if (ttl == TTL_SAME)
		return 0;
	bytes = RedisModule_StringPtrLen(key, &len);
	if (!kea_match(kea_hook.masks, (const uint8_t *)bytes, len))
		return 0;
	db = kea_hook_database_of(ctx, type, event, key);
	if (type == REDISMODULE_NOTIFY_EXPIRED)
		return kea_learn_expired(db, bytes, len);
	if (ttl == TTL_GONE)
		kea_watch_drop(&kea_learn.watch, db, bytes, len);
	else if (kea_looks_needed())
		kea_looks_ask(db, key);
	else
		look(ctx, key, db, bytes, len);
	return 0;
}

/* ---- the scan ------------------------------------------------------------ */

static void seen(RedisModuleCtx *ctx, RedisModuleString *name,
		 RedisModuleKey *key, void *unused)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(name, &len);
	long long due = key ? RedisModule_GetAbsExpire(key) : 0;

	(void)unused;
	if (due >= 0 && kea_match(kea_hook.masks, (const uint8_t *)bytes, len))
		kea_learn_note(RedisModule_GetSelectedDb(ctx), bytes, len, due);
}

/* What was refused may fit when a quarter of what was watched has gone. */
static bool may_fit_now(int64_t now)
{
	return kea_learn.refused &&
	       kea_learn.watch.count <
		       own.refused_at - own.refused_at / 4 &&
	       (now < own.scanned || now - own.scanned > REFUSED_MS);
}

bool kea_learn_turn(RedisModuleCtx *ctx, bool may_write, int64_t now)
{
	struct kea_watch *w = &kea_learn.watch;
	bool more = false;

	if (w->dropped || w->pool.dead)
		more = kea_watch_tidy(w);
	if (!kea_learn.running)
		return more;
	if (kea_learn.rescan || may_fit_now(now)) {
		kea_learn.rescan = false;
		kea_learn.refused = false;
		own.scanned = now;
		kea_scan_begin(&own.scan);
	}
	/* When the limit has become smaller, memory goes first. */
	if (!more || kea_watch_bytes(w) <= w->pool.limit)
		more |= kea_scan_slice(&own.scan, ctx, SCAN_US, seen, NULL);
	return kea_looks_some(ctx, may_write) || more;
}

void kea_learn_free(void)
{
	kea_looks_free();
	kea_scan_end(&own.scan);
	kea_watch_free(&kea_learn.watch);
	memset(&kea_learn, 0, sizeof(kea_learn));
	memset(&own, 0, sizeof(own));
}
