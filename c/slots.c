/* SPDX-License-Identifier: BSD-3-Clause */
/* slots.c: see slots.h. */
#include "slots.h"

#include "hashslot.h"
#include "nodes.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* What is known of a slot. Only LEFT drops an event without a further question. */
enum {
	ARRIVING = 1,  /* an atomic import runs */
	LEFT = 2,      /* given away by an atomic migration, in this turn */
	IMPORTING = 4, /* CLUSTER SETSLOT … IMPORTING, as of this turn */
};

/* Redis's event and Valkey's: the numbers collide with each other's. */
enum {
	REDIS_MIGRATION = 18,
	REDIS_IMPORT_STARTED = 0,
	REDIS_IMPORT_COMPLETED = 2, /* 1: failed */
	REDIS_MODULE_PROPAGATE = 6,
	VALKEY_MIGRATION = 19,
	VALKEY_IMPORT_STARTED = 0,
	VALKEY_EXPORT_STARTED = 1,
	VALKEY_EXPORT_ABORTED = 3,
	VALKEY_EXPORT_COMPLETED = 5,
};

/* What comes with them, as the servers' own headers have it. */
struct redis_range {
	uint16_t first, last;
};

struct redis_ranges {
	int32_t n;
	struct redis_range ranges[];
};

struct redis_migration {
	uint64_t version;
	char source[41], target[41];
	const char *task;
	struct redis_ranges *slots;
};

struct valkey_range {
	int first, last;
};

struct valkey_migration {
	uint64_t version;
	char job[41];
	struct valkey_range *slots;
	uint32_t n;
};

_Static_assert(offsetof(struct redis_migration, slots) == 104, "its layout");
_Static_assert(offsetof(struct valkey_migration, slots) == 56, "its layout");
_Static_assert(offsetof(struct valkey_migration, n) == 64, "its layout");

static struct {
	bool cluster;
	bool dry_run;   /* the server can check a command without running it */
	uint8_t *marks; /* a byte a slot; NULL without cluster mode */
	unsigned arriving; /* slots with that mark */
	bool left;         /* some have that mark */
	bool importing_read; /* that mark is as of this turn */
	void (*moved)(void);
} slots;

/* ---- marks ---------------------------------------------------------------- */

static void mark_arriving(unsigned slot, bool arriving)
{
	uint8_t *m = &slots.marks[slot];

	if (((*m & ARRIVING) != 0) == arriving)
		return;
	*m ^= ARRIVING;
	slots.arriving += arriving ? 1 : -1U;
}

static void unmark_all(uint8_t mark)
{
	for (unsigned i = 0; i < KEA_SLOTS; i++)
		slots.marks[i] &= (uint8_t)~mark;
}

void kea_slots_end_turn(void)
{
	if (slots.left)
		unmark_all(LEFT);
	slots.left = slots.importing_read = false;
}

static void note_importing(void *unused, const struct kea_slot_range *r)
{
	(void)unused;
	if (r->coming)
		slots.marks[r->first] |= IMPORTING;
}

/* importing reports whether a slot is being imported key by key. Asked once a
 * turn at the most. */
static bool importing(RedisModuleCtx *ctx, unsigned slot)
{
	if (!slots.importing_read) {
		unmark_all(IMPORTING);
		kea_nodes_mine(ctx, note_importing, NULL);
		slots.importing_read = true;
	}
	return slots.marks[slot] & IMPORTING;
}

/* ---- whose ---------------------------------------------------------------- */

/* accessible: Redis 8.4+ answers at once, and knows what is being imported or
 * trimmed. Elsewhere: true. */
static bool accessible(unsigned slot)
{
	return !RedisModule_ClusterCanAccessKeysInSlot ||
	       RedisModule_ClusterCanAccessKeysInSlot((int)slot);
}

static unsigned slot_of_string(const RedisModuleString *key)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(key, &len);

	return kea_slot_of(bytes, len);
}

enum kea_slot kea_slot_ask(RedisModuleCtx *ctx, RedisModuleString *key)
{
	RedisModuleCallReply *reply;
	int why;

	if (!slots.cluster)
		return KEA_SLOT_OWNED;
	errno = 0;
	/*
	 * The server checks slots when a module calls a command, and low-level
	 * calls bypass the check. Popping nothing changes nothing; a dry run
	 * leaves no trace in MONITOR and the statistics either.
	 */
	reply = RedisModule_Call(ctx, "LPOP", slots.dry_run ? "Dsl" : "sl", key,
				 0LL);
	/* A dry run has a reply when it fails, and on Valkey 9 when it does
	 * not: errno alone tells. A call that was made may leave any errno. */
	why = reply && !slots.dry_run ? 0 : errno;
	if (reply)
		RedisModule_FreeCallReply(reply);
	if (why == EPERM || (why == 0 && !accessible(slot_of_string(key))))
		return KEA_SLOT_FOREIGN;
	return why == 0 ? KEA_SLOT_OWNED : KEA_SLOT_UNKNOWN;
}

/* owned reports whether this node owns a key's slot, in a keyspace callback, but
 * not in one of an import's client, which may use the slot. True where the
 * server cannot be asked without a trace (7.0, which needs no answer). */
static bool owned(RedisModuleCtx *ctx, unsigned slot, RedisModuleString *key)
{
	RedisModuleCallReply *reply;
	int why;

	if (RedisModule_ClusterCanAccessKeysInSlot)
		return accessible(slot);
	if (!slots.dry_run)
		return true;
	errno = 0;
	/* A sharded channel's slot is checked as a key's, but whether the key
	 * exists is not: a slot that is being given away is still ours. */
	reply = RedisModule_Call(ctx, "SPUBLISH", "Dsc", key, "");
	why = errno;
	if (reply)
		RedisModule_FreeCallReply(reply);
	return why != EPERM;
}

bool kea_slot_may_touch(const char *key, size_t len)
{
	unsigned slot;

	if (!slots.cluster)
		return true;
	slot = kea_slot_of(key, len);
	return !(slots.marks[slot] & (ARRIVING | LEFT)) && accessible(slot);
}

bool kea_slot_arrives(const char *key, size_t len)
{
	return slots.arriving > 0 &&
	       (slots.marks[kea_slot_of(key, len)] & ARRIVING);
}

/* imported reports whether an event in a slot that is marked as arriving is of
 * the import. */
static bool imported(RedisModuleCtx *ctx, unsigned slot, RedisModuleString *key)
{
	if (kea_api_is_valkey && (RedisModule_GetContextFlags(ctx) &
				  VALKEYMODULE_CTX_FLAGS_SLOT_IMPORT_CLIENT))
		return true;
	/* Not by the import's client: expired or evicted meanwhile, or deleted
	 * for the import has failed. */
	if (!owned(ctx, slot, key))
		return true;
	/* Nothing has reported its end. */
	mark_arriving(slot, false);
	return false;
}

bool kea_slot_event_counts(RedisModuleCtx *ctx, int type, const char *event,
			   RedisModuleString *key)
{
	bool del = type == REDISMODULE_NOTIFY_GENERIC &&
		   strcmp(event, "del") == 0;
	unsigned slot;

	if (!slots.cluster || (!del && slots.arriving == 0))
		return true;
	slot = slot_of_string(key);
	if ((slots.marks[slot] & ARRIVING) && imported(ctx, slot, key))
		return false;
	if (!del)
		return true;
	if (slots.marks[slot] & LEFT)
		return false;
	/* Whoever loses a slot deletes its keys. But a client may delete one in
	 * a slot that is being imported key by key (ASKING). */
	return owned(ctx, slot, key) || importing(ctx, slot);
}

/* ---- migrations ----------------------------------------------------------- */

static void mark_range(unsigned first, unsigned last, bool arriving, bool left)
{
	for (unsigned i = first; i <= last && i < KEA_SLOTS; i++) {
		mark_arriving(i, arriving);
		if (left)
			slots.marks[i] |= LEFT;
	}
	slots.left |= left;
}

static void on_redis_migration(RedisModuleCtx *ctx, RedisModuleEvent e,
			       uint64_t sub, void *data)
{
	const struct redis_ranges *r = ((struct redis_migration *)data)->slots;

	(void)ctx;
	(void)e;
	/* Its snapshot child comes here, too. What it left is trimmed without
	 * a word. */
	if (!slots.marks || sub == REDIS_MODULE_PROPAGATE)
		return;
	for (int32_t i = 0; sub <= REDIS_IMPORT_COMPLETED && i < r->n; i++)
		mark_range(r->ranges[i].first, r->ranges[i].last,
			   sub == REDIS_IMPORT_STARTED, false);
	slots.moved();
}

static void on_valkey_migration(RedisModuleCtx *ctx, RedisModuleEvent e,
				uint64_t sub, void *data)
{
	const struct valkey_migration *m = data;

	(void)ctx;
	(void)e;
	if (!slots.marks)
		return;
	/* While we export, and when that ends early, the slots are ours. */
	for (uint32_t i = 0; sub != VALKEY_EXPORT_STARTED &&
			     sub != VALKEY_EXPORT_ABORTED && i < m->n;
	     i++)
		mark_range((unsigned)m->slots[i].first,
			   (unsigned)m->slots[i].last,
			   sub == VALKEY_IMPORT_STARTED,
			   sub == VALKEY_EXPORT_COMPLETED);
	slots.moved();
}

/* field finds a field's text in a reply of names and values; NULL: none. */
static const char *field(RedisModuleCallReply *entry, const char *name,
			 size_t *len)
{
	size_t n = RedisModule_CallReplyLength(entry);
	bool next = false;

	for (size_t i = 0; i < n; i++) {
		const char *text = RedisModule_CallReplyStringPtr(
			RedisModule_CallReplyArrayElement(entry, i), len);

		if (next)
			return text;
		next = i % 2 == 0 && text && *len == strlen(name) &&
		       memcmp(text, name, *len) == 0;
	}
	return NULL;
}

/* mark_text marks the slots of "0-5460 7 …". */
static void mark_text(const char *text, size_t len)
{
	unsigned number[2] = { 0 };
	int which = 0;

	for (size_t i = 0; i <= len; i++) {
		char c = i < len ? text[i] : ' ';

		if (c >= '0' && c <= '9') {
			number[which] = number[which] * 10 + (unsigned)(c - '0');
		} else if (c == '-') {
			which = 1;
		} else if (i > 0 && text[i - 1] >= '0' && text[i - 1] <= '9') {
			mark_range(number[0], number[which], true, false);
			number[0] = number[1] = 0;
			which = 0;
		}
	}
}

/* mark_task marks what an import brings that was begun before we were loaded,
 * and has not ended: that it has says one of these words. */
static void mark_task(RedisModuleCallReply *task)
{
	static const char *const ends[] = { "completed", "success", "failed",
					    "canceled", "cancelled" };
	const char *text;
	size_t len;

	text = field(task, "operation", &len);
	if (!text || len != 6 || strncasecmp(text, "import", len) != 0)
		return;
	text = field(task, "state", &len);
	for (size_t i = 0; text && i < sizeof(ends) / sizeof(ends[0]); i++)
		if (len == strlen(ends[i]) && memcmp(text, ends[i], len) == 0)
			return;
	text = field(task, kea_api_is_valkey ? "slot_ranges" : "slots", &len);
	if (text)
		mark_text(text, len);
}

/* mark_running: an import may be under way when the module is loaded. */
static void mark_running(RedisModuleCtx *ctx)
{
	RedisModuleCallReply *tasks =
		kea_api_is_valkey ?
			RedisModule_Call(ctx, "CLUSTER", "c",
					 "GETSLOTMIGRATIONS") :
			RedisModule_Call(ctx, "CLUSTER", "ccc", "MIGRATION",
					 "STATUS", "ALL");

	for (size_t i = 0; tasks && i < RedisModule_CallReplyLength(tasks); i++) {
		RedisModuleCallReply *task =
			RedisModule_CallReplyArrayElement(tasks, i);

		if (task)
			mark_task(task);
	}
	if (tasks)
		RedisModule_FreeCallReply(tasks);
}

void kea_slots_subscribe(RedisModuleCtx *ctx, void (*moved)(void))
{
	RedisModuleEvent e = { .id = REDIS_MIGRATION, .dataver = 1 };

	if (!slots.cluster)
		return;
	slots.moved = moved;
	/* The numbers collide: 18 is one of every login on Valkey. */
	if (kea_api_is_valkey)
		e.id = VALKEY_MIGRATION;
	else if (!RedisModule_ClusterCanAccessKeysInSlot)
		return;
	/* Refused by servers that have no such migration. */
	if (RedisModule_SubscribeToServerEvent(
		    ctx, e,
		    kea_api_is_valkey ? on_valkey_migration :
					on_redis_migration) == REDISMODULE_OK)
		mark_running(ctx);
}

void kea_slots_init(RedisModuleCtx *ctx, bool cluster)
{
	RedisModuleCallReply *reply;

	memset(&slots, 0, sizeof(slots));
	slots.cluster = cluster;
	if (!cluster)
		return;
	slots.marks = RedisModule_Calloc(KEA_SLOTS, 1);
	/* 7.2 and newer; 7.0 does not know the letter. */
	errno = 0;
	reply = RedisModule_Call(ctx, "PING", "D");
	slots.dry_run = errno == 0;
	if (reply)
		RedisModule_FreeCallReply(reply);
}

void kea_slots_free(void)
{
	RedisModule_Free(slots.marks);
	memset(&slots, 0, sizeof(slots));
}
