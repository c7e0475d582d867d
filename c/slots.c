/* slots.c: see slots.h. */
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- hash slots ----------------------------------------------------------- */

/* CRC-16/XMODEM, four bits at a time. */
static unsigned crc(unsigned crc, const char *bytes, size_t len)
{
	static const uint16_t by_nibble[16] = {
		0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
		0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
	};

	for (size_t i = 0; i < len; i++) {
		unsigned c = (uint8_t)bytes[i];

		crc = crc << 4 ^ by_nibble[(crc >> 12 ^ c >> 4) & 15];
		crc = crc << 4 ^ by_nibble[(crc >> 12 ^ c) & 15];
	}
	return crc & 0xffff;
}

unsigned kea_slot_of(const char *key, size_t len)
{
	const char *open = memchr(key, '{', len), *close;

	if (open) {
		size_t rest = len - (size_t)(open + 1 - key);

		close = memchr(open + 1, '}', rest);
		if (close && close > open + 1) {
			key = open + 1;
			len = (size_t)(close - key);
		}
	}
	return crc(0, key, len) % KEA_SLOTS;
}

int kea_slots_tag(const bool marked[KEA_SLOTS])
{
	unsigned last[1000];
	char digits[3];

	for (unsigned i = 0; i < 1000; i++) {
		digits[0] = (char)('0' + i / 100);
		digits[1] = (char)('0' + i / 10 % 10);
		digits[2] = (char)('0' + i % 10);
		last[i] = crc(0, digits, 3);
	}
	/* A CRC is linear: that of six digits is that of the first three and
	 * three zero bytes, and that of the last three, added up. So a million
	 * tags, 60 a slot, cost a millisecond at the most. */
	for (unsigned i = 0; i < 1000; i++) {
		unsigned first = crc(last[i], "\0\0\0", 3);

		for (unsigned k = 0; k < 1000; k++)
			if (marked[(first ^ last[k]) % KEA_SLOTS])
				return (int)(i * 1000 + k);
	}
	return -1;
}

/* ---- CLUSTER NODES -------------------------------------------------------- */

struct slot_range {
	unsigned first, last;
	bool leaving, coming;
};

/* next_slots reads the next word of a node's slots: "0-5460", "7",
 * "[93->-<id>]" (leaving), "[77-<-<id>]" (coming). False: none is left. */
static bool next_slots(const char **p, struct slot_range *r)
{
	char *after;

	while (**p == ' ')
		(*p)++;
	r->leaving = r->coming = **p == '[';
	*p += r->leaving;
	if (**p < '0' || **p > '9')
		return false;
	r->first = r->last = (unsigned)strtoul(*p, &after, 10);
	if (r->leaving) {
		r->coming = strncmp(after, "-<-", 3) == 0;
		r->leaving = !r->coming;
	} else if (*after == '-') {
		r->last = (unsigned)strtoul(after + 1, &after, 10);
	}
	*p = after + strcspn(after, " ");
	return r->first <= r->last && r->last < KEA_SLOTS;
}

/* is_myself: a comma-separated list of flags has "myself". */
static bool is_myself(const char *flags, size_t len)
{
	for (const char *end = flags + len; flags < end;) {
		const char *comma = memchr(flags, ',', (size_t)(end - flags));
		size_t n = (size_t)((comma ? comma : end) - flags);

		if (n == 6 && memcmp(flags, "myself", n) == 0)
			return true;
		flags += n + 1;
	}
	return false;
}

/* my_slots finds the slots in this node's line: "id address flags master ping
 * pong epoch link slots…". An address holds a host name, which others choose;
 * it has no blank. NULL when the line is not this node's. */
static const char *my_slots(const char *line)
{
	for (int field = 0; field < 8; field++) {
		size_t n = strcspn(line, " ");

		if (field == 2 && !is_myself(line, n))
			return NULL;
		line += n;
		if (*line)
			line++;
	}
	return line;
}

/* each_of_mine calls visit with each range of slots of this node's line. */
static void each_of_mine(RedisModuleCtx *ctx,
			 void (*visit)(void *arg, const struct slot_range *r),
			 void *arg)
{
	RedisModuleCallReply *reply =
		RedisModule_Call(ctx, "CLUSTER", "c", "NODES");
	char *text = NULL, *line, *rest;
	const char *bytes, *mine;
	struct slot_range r;
	size_t len;

	bytes = reply ? RedisModule_CallReplyStringPtr(reply, &len) : NULL;
	if (bytes) {
		text = RedisModule_Alloc(len + 1);
		memcpy(text, bytes, len);
		text[len] = 0;
	}
	for (line = text; line; line = rest) {
		rest = strchr(line, '\n');
		if (rest)
			*rest++ = 0;
		mine = my_slots(line);
		if (!mine)
			continue;
		while (next_slots(&mine, &r))
			visit(arg, &r);
		break;
	}
	if (reply)
		RedisModule_FreeCallReply(reply);
	RedisModule_Free(text);
}

static void note_own(void *own, const struct slot_range *r)
{
	for (unsigned i = r->first; i <= r->last; i++)
		((bool *)own)[i] = !r->leaving && !r->coming;
}

unsigned kea_slots_own(RedisModuleCtx *ctx, bool own[KEA_SLOTS])
{
	unsigned n = 0;

	memset(own, 0, KEA_SLOTS * sizeof(own[0]));
	each_of_mine(ctx, note_own, own);
	for (unsigned i = 0; i < KEA_SLOTS; i++)
		n += own[i];
	return n;
}

static void note_importing(void *unused, const struct slot_range *r)
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
		each_of_mine(ctx, note_importing, NULL);
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
	/* We have not been told of its end. */
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

void kea_slots_subscribe(RedisModuleCtx *ctx, void (*moved)(void))
{
	RedisModuleEvent e = { .id = REDIS_MIGRATION,
			       .dataver = 1 };

	if (!slots.cluster)
		return;
	slots.moved = moved;
	/* The numbers collide: 18 is one of every login on Valkey. */
	if (kea_api_is_valkey)
		e.id = VALKEY_MIGRATION;
	else if (!RedisModule_ClusterCanAccessKeysInSlot)
		return;
	/* Refused by servers that have no such migration. */
	RedisModule_SubscribeToServerEvent(ctx, e,
					   kea_api_is_valkey ?
						   on_valkey_migration :
						   on_redis_migration);
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
