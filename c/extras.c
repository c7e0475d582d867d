/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * extras.c: values of events. The new value is read in the keyspace callback,
 * or, where the command is not done then, as soon as it is; the old one in the
 * server's event of a key that goes, which comes in front of the keyspace event.
 */
#include "extras.h"

#include "flow.h"
#include "hook.h"
#include "learn.h"
#include "loop.h"
#include "module.h"
#include "queue.h"
#include "value.h"

#include <stdlib.h>
#include <string.h>

uint32_t kea_extras_values;
static size_t limit;

/* ---- when to read ----------------------------------------------------------- */

/* When the value is to be read, at an event. */
enum when {
	WHEN_GONE,  /* never: the key is gone, too */
	WHEN_NEVER, /* the key holds what it held; or it can't be read */
	WHEN_NOW,
	WHEN_DONE, /* when the command is done */
};

/* Keys that are gone, or about to go: `del` may come before the deletion. */
static bool key_goes(const char *event)
{
	return strcmp(event, "del") == 0 || strcmp(event, "expired") == 0 ||
	       strcmp(event, "evicted") == 0;
}

static enum when when_to_read(uint32_t type, const char *event)
{
	/* Commands hold on to the key's place in the table, or to an object
	 * that is not the final one: no look at the dataset is safe. */
	if (type & (REDISMODULE_NOTIFY_NEW | REDISMODULE_NOTIFY_OVERWRITTEN |
		    REDISMODULE_NOTIFY_TYPE_CHANGED))
		return WHEN_DONE;
	if (type & (REDISMODULE_NOTIFY_KEY_MISS | REDISMODULE_NOTIFY_EVICTED))
		return WHEN_GONE;
	/* With a count the event of spop comes before the members are removed,
	 * those of zpopmin and zpopmax when the first of them is. */
	if ((type & REDISMODULE_NOTIFY_SET && strcmp(event, "spop") == 0) ||
	    (type & REDISMODULE_NOTIFY_ZSET &&
	     strncmp(event, "zpopm", strlen("zpopm")) == 0))
		return WHEN_DONE;
	if (!(type & (REDISMODULE_NOTIFY_GENERIC | REDISMODULE_NOTIFY_EXPIRED)))
		return WHEN_NOW;
	if (key_goes(event) || strcmp(event, "rename_from") == 0 ||
	    strcmp(event, "move_from") == 0)
		return WHEN_GONE;
	/* Where a key can't be opened without expiring it, a time in the past
	 * would make `expired` come before `expire`. The value is as it was. */
	if (strcmp(event, "expire") == 0 && !RedisModule_AddPostNotificationJob)
		return WHEN_NEVER;
	return WHEN_NOW;
}

/* ---- old values --------------------------------------------------------------- */

/* What the last key that went has held, for the event that follows. */
static struct {
	bool there;
	int db;
	struct kea_content content;
	uint8_t *memory; /* the key's name, then the content's bytes */
	size_t size, key_len;
} kept;

static bool subscribed; /* to the server's event of keys that go */

static void keep(RedisModuleCtx *ctx, RedisModuleKey *key, const char *name,
		 size_t len)
{
	struct kea_content c = kea_value_of(ctx, key, limit);
	size_t need = len + (c.left_out ? 0 : c.len);

	if (need > kept.size || kept.size > (size_t)1 << 20) {
		free(kept.memory);
		kept.size = need > 4096 ? need : 4096;
		kept.memory = kea_queue_scratch(kept.size);
	}
	memcpy(kept.memory, name, len);
	if (!c.left_out && c.len > 0)
		memcpy(kept.memory + len, c.bytes, c.len);
	c.bytes = kept.memory + len;
	kept.content = c;
	kept.key_len = len;
	kept.db = RedisModule_GetDbIdFromModuleKey(key);
	kept.there = c.type != KEA_TYPE_NONE;
}

static void on_key_goes(RedisModuleCtx *ctx, RedisModuleEvent e, uint64_t sub,
			void *data)
{
	/* The event of a deletion is `del`, on some servers also that of a
	 * time of expiry in the past. */
	static const uint32_t classes[] = {
		[REDISMODULE_SUBEVENT_KEY_DELETED] = REDISMODULE_NOTIFY_GENERIC,
		[REDISMODULE_SUBEVENT_KEY_EXPIRED] =
			REDISMODULE_NOTIFY_GENERIC | REDISMODULE_NOTIFY_EXPIRED,
		[REDISMODULE_SUBEVENT_KEY_EVICTED] = REDISMODULE_NOTIFY_EVICTED,
	};
	RedisModuleKey *key = ((RedisModuleKeyInfo *)data)->key;
	const char *name;
	size_t len;

	(void)e;
	kept.there = false;
	/* What is written over is left alone: to read it may crash the server. */
	if (sub > REDISMODULE_SUBEVENT_KEY_EVICTED || !kea_hook.loaded ||
	    !kea_hook.active_master || !kea_hook.masks ||
	    !(classes[sub] & kea_hook.classes))
		return;
	name = RedisModule_StringPtrLen(
		RedisModule_GetKeyNameFromModuleKey(key), &len);
	if (kea_match(kea_hook.masks, (const uint8_t *)name, len) &&
	    !kea_home_is(&kea_flow.home, name, len))
		keep(ctx, key, name, len);
}

static bool is_kept(const char *bytes, size_t len, int db)
{
	return kept.there && kept.db == db && kept.key_len == len &&
	       memcmp(kept.memory, bytes, len) == 0;
}

void kea_extras_forget(RedisModuleCtx *ctx, const char *event,
		       RedisModuleString *key)
{
	/* A collection that has lost its last element: `srem` comes between
	 * its end and its `del`. */
	bool emptied = kept.content.type != KEA_TYPE_STRING &&
		       !kept.content.left_out && kept.content.len == 0;
	size_t len;
	const char *bytes;

	if (!kept.there)
		return;
	bytes = RedisModule_StringPtrLen(key, &len);
	kept.there = emptied && !key_goes(event) &&
		     is_kept(bytes, len, RedisModule_GetSelectedDb(ctx));
}

/* ---- events held back ------------------------------------------------------------ */

/* The most held back; then the oldest goes without its value. */
#define HELD 64

struct held {
	RedisModuleString *key;
	int db;
	char event[];
};

static struct held *held[HELD];
static size_t held_count;
static bool job_queued;

/* append captures an event, and an `expired` that reading its value has made. */
static void append(const char *event, const char *key, size_t len, int db,
		   const struct kea_value *v, const struct kea_content *old,
		   int64_t due_ms)
{
	struct kea_extras x = { .now = v->content, .due_ms = due_ms };

	if (old)
		x.old = *old;
	kea_hook_append(event, key, len, db, &x);
	if (!v->expired)
		return;
	x = (struct kea_extras){ .due_ms = kea_learn_expired(db, key, len) };
	/* A snapshot has masks of its own. */
	if (kea_hook.classes & REDISMODULE_NOTIFY_EXPIRED && kea_hook.masks &&
	    kea_match(kea_hook.masks, (const uint8_t *)key, len))
		kea_hook_append("expired", key, len, db, &x);
}

static void release(struct held *h, bool read)
{
	RedisModuleCtx *ctx = kea_module_ctx();
	struct kea_value v = { 0 };
	size_t len;
	const char *key = RedisModule_StringPtrLen(h->key, &len);

	if (read) {
		/* Not the callback's context, which may be the client's own. */
		RedisModule_SelectDb(ctx, h->db);
		kea_value_open(ctx, h->key, limit, &v);
		RedisModule_SelectDb(ctx, 0);
	}
	append(h->event, key, len, h->db, &v, NULL, 0);
	kea_value_close(&v);
	RedisModule_FreeString(NULL, h->key);
	free(h);
}

static bool same_key(const struct held *h, int db, const char *bytes, size_t len)
{
	size_t n;
	const char *key = RedisModule_StringPtrLen(h->key, &n);

	return h->db == db && n == len && memcmp(key, bytes, len) == 0;
}

/* followed: a younger event held back, or t, is of the same key, and carries
 * what it holds, or says that it is gone. What could be read now is not the
 * elder event's own. */
static bool followed(size_t i, const struct kea_told *t)
{
	size_t len;
	const char *key = RedisModule_StringPtrLen(held[i]->key, &len);

	/* Also where t carries no value: at `expire` of 7.0 a look would delete
	 * a key whose time has passed, in the middle of its SET. */
	if (t && same_key(held[i], t->db, t->bytes, t->len))
		return true;
	for (size_t k = i + 1; k < held_count; k++)
		if (same_key(held[k], held[i]->db, key, len))
			return true;
	return false;
}

/* release_all captures what is held back, with values if look is set and the event
 * at hand does not forbid to open keys. */
static void release_all(const struct kea_told *t, bool look)
{
	/* `evicted`: some servers do not survive that a key is opened. `expired`:
	 * 7.0's cycle holds on to the entry behind, which a look may delete. */
	uint32_t classes =
		REDISMODULE_NOTIFY_EVICTED |
		(RedisModule_AddPostNotificationJob ? 0 :
						      REDISMODULE_NOTIFY_EXPIRED);
	bool may_read = look && !(t && t->type & classes);
	bool read[HELD];
	size_t n = held_count;

	for (size_t i = 0; i < n; i++)
		read[i] = may_read && !followed(i, t);
	held_count = 0;
	for (size_t i = 0; i < n; i++)
		release(held[i], read[i]);
}

static void command_done(RedisModuleCtx *ctx, void *unused)
{
	(void)ctx;
	(void)unused;
	job_queued = false;
	kea_extras_flush();
}

/* hold holds an event back; false: there is nothing that would let it go in
 * time. */
static bool hold(const struct kea_told *t)
{
	size_t event_len = strlen(t->event);
	struct held *h;

	/* On 7.0, behind the turn's end, clients are answered before the next
	 * one (hook.c), and with outbox on the event must be stored by then. */
	if (kea_flow.settings.outbox && kea_loop.past_turn &&
	    !RedisModule_AddPostNotificationJob)
		return false;
	if (held_count == HELD) {
		release(held[0], false);
		memmove(held, held + 1, --held_count * sizeof(held[0]));
	}
	h = kea_queue_scratch(sizeof(*h) + event_len + 1);
	h->key = RedisModule_CreateString(NULL, t->bytes, t->len);
	h->db = t->db;
	memcpy(h->event, t->event, event_len + 1);
	held[held_count++] = h;
	if (RedisModule_AddPostNotificationJob && !job_queued)
		job_queued = RedisModule_AddPostNotificationJob(
				     t->ctx, command_done, NULL, NULL) ==
			     REDISMODULE_OK;
	return true;
}

void kea_extras_flush(void)
{
	if (held_count > 0)
		release_all(NULL, true);
}

void kea_extras_flush_unread(void)
{
	release_all(NULL, false);
}

bool kea_extras_busy(void)
{
	return job_queued;
}

/* ---- capture ------------------------------------------------------------------------ */

/* unknown: the value has changed, and what it is can't be said. */
static void unknown(uint32_t type, struct kea_content *c)
{
	if (type & REDISMODULE_NOTIFY_SET)
		c->type = KEA_TYPE_SET;
	else if (type & REDISMODULE_NOTIFY_ZSET)
		c->type = KEA_TYPE_ZSET;
	c->left_out = c->type != KEA_TYPE_NONE;
}

void kea_extras_capture(const struct kea_told *t)
{
	enum when when = kea_extras_values & KEA_VALUES_NEW ?
				     when_to_read(t->type, t->event) :
				     WHEN_NEVER;
	struct kea_value v = { 0 };

	if (when == WHEN_DONE && hold(t))
		return;
	if (held_count > 0)
		release_all(t, true);
	if (when == WHEN_NOW)
		kea_value_open(t->ctx, t->key, limit, &v);
	else if (when == WHEN_DONE)
		unknown(t->type, &v.content);
	append(t->event, t->bytes, t->len, t->db, &v,
	       key_goes(t->event) && is_kept(t->bytes, t->len, t->db) ?
		       &kept.content :
		       NULL,
	       t->due_ms);
	kea_value_close(&v);
}

size_t kea_extras_snapshot(RedisModuleCtx *ctx, RedisModuleString *name,
			   const char *bytes, size_t len, int db)
{
	struct kea_value v = { 0 };
	size_t size = sizeof(struct kea_record) + len;

	if (kea_extras_values & KEA_VALUES_NEW)
		kea_value_open(ctx, name, limit, &v);
	size += v.content.len;
	append("snapshot", bytes, len, db, &v, NULL, 0);
	kea_value_close(&v);
	return size;
}

/* ---- settings --------------------------------------------------------------------------- */

bool kea_old_values(void)
{
	RedisModuleEvent e = { .id = REDISMODULE_EVENT_KEY, .dataver = 1 };

	return RedisModule_IsSubEventSupported(
		e, REDISMODULE_SUBEVENT_KEY_DELETED);
}

const char *kea_extras_configure(RedisModuleCtx *ctx, uint32_t values,
				 size_t value_limit)
{
	RedisModuleEvent e = { .id = REDISMODULE_EVENT_KEY, .dataver = 1 };
	bool old = values & KEA_VALUES_OLD;

	if (old != subscribed &&
	    RedisModule_SubscribeToServerEvent(
		    ctx, e, old ? on_key_goes : NULL) != REDISMODULE_OK && old)
		return "the server has no event of keys that go, so there are "
		       "no old values";
	subscribed = old;
	kea_extras_flush(); /* by the settings that they were captured with */
	kept.there = false;
	kea_extras_values = values;
	limit = value_limit;
	return NULL;
}

void kea_extras_init(void)
{
	kea_extras_values = 0;
	subscribed = job_queued = false;
	memset(&kept, 0, sizeof(kept));
	held_count = 0;
}

void kea_extras_free(void)
{
	for (size_t i = 0; i < held_count; i++) {
		RedisModule_FreeString(NULL, held[i]->key);
		free(held[i]);
	}
	free(kept.memory);
	kea_value_free();
	kea_extras_init();
}
