/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * hook.c: the keyspace callback, the path of every event. It runs inside the
 * command that touched the key, with the server's lock held, so its cost is
 * added to that command. It may not block, log, or call Go; and it does not
 * write to the dataset, except in the one gap that after_turn describes.
 *
 * event and key are borrowed and die when we return; their bytes are copied
 * into the queue. A slow broker must never become a slow Redis.
 */
#include "hook.h"

#include "expire.h"
#include "extras.h"
#include "fault.h"
#include "flow.h"
#include "learn.h"
#include "loop.h"
#include "slots.h"
#include "value.h"

#include <string.h>
#include <time.h>

struct kea_hook kea_hook;

static uint64_t now_ms(void)
{
	struct timespec t;

	/* A few nanoseconds; its resolution of some milliseconds is enough for
	 * a timestamp that AMQP carries in seconds. */
	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void kea_hook_append(const char *event, const char *key, size_t key_len,
		     int db, const struct kea_extras *extras)
{
	struct kea_event e = {
		.event = event,
		.event_len = strlen(event),
		.key = key,
		.key_len = key_len,
		.origin = kea_hook.origin,
		.seq = ++kea_hook.seq,
		.time_ms = now_ms(),
		.extras = extras,
	};

	kea_event_set_db(&e, db);
	kea_record_build(kea_queue_append(&kea_flow.queue, kea_record_size(&e)),
			 &e);
	kea_hook.captured++;
	KEA_FAULT("captured");
	kea_flow.captured++;
}

/*
 * In a transaction Valkey 9 answers GetSelectedDb with the
 * transaction's: wrong where a command makes an event in another database than
 * its own. COPY and MOVE do, in making the key, or in finding that one of its
 * name has expired; and what EXEC evicts may be anywhere. A handle knows. It is
 * opened for writing for there may be no key, and changes nothing.
 */
int kea_hook_database_of(RedisModuleCtx *ctx, int type, const char *event,
			 RedisModuleString *key)
{
	int db = RedisModule_GetSelectedDb(ctx);
	RedisModuleKey *k;
	bool elsewhere = type == REDISMODULE_NOTIFY_NEW ||
			 type == REDISMODULE_NOTIFY_EXPIRED ||
			 type == REDISMODULE_NOTIFY_EVICTED ||
			 (type == REDISMODULE_NOTIFY_GENERIC &&
			  (strcmp(event, "copy_to") == 0 ||
			   strcmp(event, "move_to") == 0));

	if (!elsewhere || !kea_api_is_valkey ||
	    !RedisModule_GetDbIdFromModuleKey ||
	    !(RedisModule_GetContextFlags(ctx) & REDISMODULE_CTX_FLAGS_MULTI))
		return db;
	k = RedisModule_OpenKey(ctx, key, REDISMODULE_WRITE | KEA_OPEN_KEY_UNSEEN);
	if (k) {
		db = RedisModule_GetDbIdFromModuleKey(k);
		RedisModule_CloseKey(k);
	}
	return db;
}

/* list_touched: a fallback list. Somebody else's doing, for we write without
 * events: look at the list again. */
static bool list_touched(RedisModuleCtx *ctx, int type, const char *event,
			 RedisModuleString *key)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(key, &len);

	if (!kea_home_is(&kea_flow.home, bytes, len) ||
	    kea_hook_database_of(ctx, type, event, key) != 0)
		return false;
	kea_flow_list_touched(&kea_flow, bytes, len);
	return true;
}

/*
 * On 7.0 commands of clients that were just unblocked run after BEFORE_SLEEP,
 * and are answered in the same turn. (7.2 runs them before; it is told by a
 * function that it has. There only other modules' threads come here.)
 *
 * With outbox on their events have to be in the list before the answer, and
 * nothing of ours runs in between but this callback: so the list is written
 * here, in the middle of the command. Its own effect is propagated together
 * with it, as one transaction. What makes that safe: the fallback list's own
 * events never come here; commands hold on to values across a notification, not
 * to their places in the dataset's table.
 *
 * What no client has written can wait for the next turn, and must: a read that
 * found its key missing or expired would be propagated as a write.
 */
static void after_turn(RedisModuleCtx *ctx, uint32_t type)
{
	bool answered = !(type & (REDISMODULE_NOTIFY_KEY_MISS |
				  REDISMODULE_NOTIFY_EXPIRED |
				  REDISMODULE_NOTIFY_EVICTED));

	if (kea_flow.settings.outbox && answered &&
	    !RedisModule_AddPostNotificationJob)
		kea_loop_end_turn(ctx);
	/* The loop may sleep for up to 1/hz seconds. */
	kea_loop_nudge();
}

/* capture takes the event in, when it is one to forward. */
static void capture(RedisModuleCtx *ctx, int type, const char *event,
		    RedisModuleString *key, int64_t due)
{
	bool wanted = ((uint32_t)type & kea_hook.classes) && kea_hook.masks;
	const char *bytes;
	size_t len;
	int db;

	if (!wanted && !((uint32_t)type & kea_hook.list_classes))
		return;
	bytes = RedisModule_StringPtrLen(key, &len);
	/* Also on a replica and while loading: it may be ours one day. */
	if (list_touched(ctx, type, event, key) || !wanted ||
	    !kea_hook.active_master)
		return;
	if (!kea_match(kea_hook.masks, (const uint8_t *)bytes, len)) {
		kea_hook.filtered++;
		return;
	}
	if (!kea_slot_event_counts(ctx, type, event, key))
		return;
	db = kea_hook_database_of(ctx, type, event, key);
	if (kea_extras_values == 0)
		kea_hook_append(event, bytes, len, db,
				due != 0 ? &(struct kea_extras){ .due_ms = due } :
					   NULL);
	else
		kea_extras_capture(&(struct kea_told){ ctx, (uint32_t)type,
						       event, key, bytes, len,
						       db, due });
	kea_hook.missed += type == REDISMODULE_NOTIFY_KEY_MISS;
	if (kea_loop.past_turn)
		after_turn(ctx, (uint32_t)type);
}

/*
 * Valkey 8.1 calls us on the client that runs the command, selects the event's
 * database for it, and does not select the former one again (valkey-io/valkey
 * pull request 4024). A MOVE would go to replicas and the AOF with the wrong
 * database, and so would the client's next commands. Of MOVE we can tell what
 * it was: its first event is of there, its last of where the key went. On other
 * servers the client is a temporary one, and this does nothing.
 */
static void give_client_back(RedisModuleCtx *ctx, const char *event)
{
	if (strcmp(event, "move_from") == 0)
		kea_hook.moved_from = RedisModule_GetSelectedDb(ctx);
	else if (strcmp(event, "move_to") == 0)
		RedisModule_SelectDb(ctx, kea_hook.moved_from);
}

static int on_key_event(RedisModuleCtx *ctx, int type, const char *event,
		     RedisModuleString *key)
{
	if (!kea_hook.loaded)
		return REDISMODULE_OK;
	if (kea_value_opening) {
		kea_value_told(event);
		return REDISMODULE_OK;
	}
	capture(ctx, type, event, key,
		(uint32_t)type & KEA_LEARN_CLASSES ?
			kea_learn_event(ctx, type, event, key) :
			0);
	if (kea_extras_values != 0)
		kea_extras_forget(ctx, event, key);
	/* Also on a replica, whose client is its link to the master. */
	if (type == REDISMODULE_NOTIFY_GENERIC)
		give_client_back(ctx, event);
	return REDISMODULE_OK;
}

int kea_hook_subscribe(RedisModuleCtx *ctx, uint32_t classes)
{
	uint32_t missing = classes | kea_hook.list_classes;

	/* A MOVE's new key has an event of its own: give_client_back needs
	 * what follows. */
	if (classes & REDISMODULE_NOTIFY_NEW)
		missing |= REDISMODULE_NOTIFY_GENERIC;
	missing &= ~kea_hook.subscribed;
	/* Before OnLoad's end nothing may be subscribed: see there. */
	if (!kea_hook.loaded || missing == 0)
		return REDISMODULE_OK;
	if (RedisModule_SubscribeToKeyspaceEvents(ctx, (int)missing,
						  on_key_event) !=
	    REDISMODULE_OK)
		return REDISMODULE_ERR;
	kea_hook.subscribed |= missing;
	return REDISMODULE_OK;
}

/* A replica's events are its master's; what is loaded has happened before. */
void kea_update_role(RedisModuleCtx *ctx)
{
	kea_hook.active_master = !(RedisModule_GetContextFlags(ctx) &
				   (REDISMODULE_CTX_FLAGS_SLAVE |
				    REDISMODULE_CTX_FLAGS_LOADING |
				    REDISMODULE_CTX_FLAGS_ASYNC_LOADING));
}
