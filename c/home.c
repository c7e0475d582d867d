/* home.c: names of fallback lists, and the cluster's slots. See home.h. */
#include "home.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SLOTS 16384
/* Steps of a scan in a turn, some hundred microseconds. */
#define SCAN_SLICE 1000
#define PREFIX_LEN (sizeof(KEA_HOME_PREFIX) - 1)

static void set_name(struct kea_home_name *n, const char *text, size_t len)
{
	n->len = len;
	memcpy(n->text, text, len);
	n->text[len] = 0;
}

void kea_home_init(struct kea_home *h, RedisModuleCtx *ctx, bool cluster)
{
	struct kea_home_name plain;
	RedisModuleCallReply *reply;

	memset(h, 0, sizeof(*h));
	h->cluster = cluster;
	if (!cluster) {
		set_name(&plain, KEA_HOME_PREFIX, PREFIX_LEN);
		kea_home_use(h, &plain);
		return;
	}
	h->others = RedisModule_Calloc(KEA_HOME_OTHERS_MAX,
				       sizeof(h->others[0]));
	/* Loaded at run time: nobody tells us of the keys there are. */
	if (RedisModule_DbSize(ctx) > 0)
		h->scan = RedisModule_ScanCursorCreate();
	/* 7.2 and newer; 7.0 does not know the letter. */
	errno = 0;
	reply = RedisModule_Call(ctx, "PING", "D");
	h->dry_run = !reply && errno == 0;
	if (reply)
		RedisModule_FreeCallReply(reply);
}

void kea_home_free(struct kea_home *h)
{
	kea_home_leave(h);
	if (h->scan)
		RedisModule_ScanCursorDestroy(h->scan);
	h->scan = NULL;
	RedisModule_Free(h->others);
	h->others = NULL;
	h->others_count = 0;
}

static void scanned(RedisModuleCtx *ctx, RedisModuleString *name,
		    RedisModuleKey *key, void *home)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(name, &len);

	(void)ctx;
	(void)key;
	if (kea_home_is(home, bytes, len))
		kea_home_note(home, bytes, len);
}

bool kea_home_scan(struct kea_home *h, RedisModuleCtx *ctx)
{
	RedisModule_SelectDb(ctx, 0);
	for (int i = 0; h->scan && i < SCAN_SLICE; i++) {
		if (RedisModule_Scan(ctx, h->scan, scanned, h))
			continue;
		RedisModule_ScanCursorDestroy(h->scan);
		h->scan = NULL;
	}
	return h->scan != NULL;
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* is_node_name: ".<id>{<digits>}" */
static bool is_node_name(const char *s, size_t len)
{
	size_t i = 1;

	if (len < 1 + KEA_NODE_ID + 3 || s[0] != '.')
		return false;
	for (; i <= KEA_NODE_ID; i++)
		if (!is_hex(s[i]))
			return false;
	if (s[i++] != '{')
		return false;
	for (; i < len - 1; i++)
		if (s[i] < '0' || s[i] > '9')
			return false;
	return s[len - 1] == '}';
}

bool kea_home_is(const struct kea_home *h, const char *name, size_t len)
{
	if (len < PREFIX_LEN || len >= KEA_HOME_NAME_MAX ||
	    memcmp(name, KEA_HOME_PREFIX, PREFIX_LEN) != 0)
		return false;
	/* The plain name: of the time before the server became a cluster's. */
	if (len == PREFIX_LEN)
		return true;
	return h->cluster &&
	       is_node_name(name + PREFIX_LEN, len - PREFIX_LEN);
}

static bool same(const struct kea_home_name *n, const char *name, size_t len)
{
	return n->len == len && memcmp(n->text, name, len) == 0;
}

void kea_home_note(struct kea_home *h, const char *name, size_t len)
{
	if (!h->cluster || (h->key && same(&h->name, name, len)) ||
	    h->others_count == KEA_HOME_OTHERS_MAX)
		return;
	for (size_t i = 0; i < h->others_count; i++)
		if (same(&h->others[i], name, len))
			return;
	set_name(&h->others[h->others_count++], name, len);
}

void kea_home_forget(struct kea_home *h, size_t other)
{
	h->others[other] = h->others[--h->others_count];
}

void kea_home_leave(struct kea_home *h)
{
	if (h->key)
		RedisModule_FreeString(NULL, h->key);
	h->key = NULL;
	h->asked = false;
	set_name(&h->name, "", 0);
}

void kea_home_use(struct kea_home *h, const struct kea_home_name *name)
{
	struct kea_home_name copy = *name; /* it may be h's own */

	kea_home_leave(h);
	h->name = copy;
	h->key = RedisModule_CreateString(NULL, copy.text, copy.len);
	for (size_t i = 0; i < h->others_count; i++)
		if (same(&h->others[i], copy.text, copy.len))
			kea_home_forget(h, i--);
}

/* ---- slots -------------------------------------------------------------- */

unsigned kea_slot_of(const char *key, size_t len)
{
	const char *open = memchr(key, '{', len), *close;
	unsigned crc = 0;

	if (open) {
		size_t rest = len - (size_t)(open + 1 - key);

		close = memchr(open + 1, '}', rest);
		if (close && close > open + 1) {
			key = open + 1;
			len = (size_t)(close - key);
		}
	}
	for (size_t i = 0; i < len; i++) {
		crc ^= (unsigned)(uint8_t)key[i] << 8;
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1;
		crc &= 0xffff;
	}
	return crc % SLOTS;
}

/* mark_slots reads the slots of this node's line of CLUSTER NODES: "0-5460",
 * "7", "[93->-<id>]" (leaving), "[77-<-<id>]" (coming). */
static void mark_slots(bool owned[SLOTS], const char *p, const char *end)
{
	while (p < end) {
		unsigned from, to;
		bool leaving = *p == '[';
		int used = 0;

		if (leaving)
			p++;
		if (sscanf(p, "%u%n", &from, &used) == 1) {
			p += used;
			to = from;
			if (!leaving && p < end && *p == '-' &&
			    sscanf(p + 1, "%u", &to) != 1)
				to = from;
			for (; from <= to && from < SLOTS; from++)
				owned[from] = !leaving;
		}
		while (p < end && *p != ' ')
			p++;
		while (p < end && *p == ' ')
			p++;
	}
}

/* own_slots marks the slots that this node owns and is not giving away. */
static bool own_slots(RedisModuleCtx *ctx, bool owned[SLOTS])
{
	RedisModuleCallReply *reply =
		RedisModule_Call(ctx, "CLUSTER", "c", "NODES");
	char *text = NULL, *line, *rest;
	const char *bytes;
	size_t len;

	memset(owned, 0, SLOTS * sizeof(owned[0]));
	bytes = reply ? RedisModule_CallReplyStringPtr(reply, &len) : NULL;
	if (bytes) {
		text = RedisModule_Alloc(len + 1);
		memcpy(text, bytes, len);
		text[len] = 0;
	}
	for (line = text; line; line = rest) {
		char *p = line;

		rest = strchr(line, '\n');
		if (rest)
			*rest++ = 0;
		if (!strstr(line, "myself"))
			continue;
		/* id, address, flags, master, ping, pong, epoch, link */
		for (int field = 0; p && field < 8; field++)
			p = strchr(p + 1, ' ');
		if (p)
			mark_slots(owned, p + 1, p + strlen(p));
		break;
	}
	if (reply)
		RedisModule_FreeCallReply(reply);
	RedisModule_Free(text);
	return bytes != NULL;
}

bool kea_home_choose(struct kea_home *h, RedisModuleCtx *ctx)
{
	const char *id = RedisModule_GetMyClusterID();
	bool owned[SLOTS];
	struct kea_home_name name;

	if (!id || !own_slots(ctx, owned))
		return false;
	/* The tags that have been tried reach every slot many times. */
	for (unsigned tag = 0; tag < 20 * SLOTS; tag++) {
		int len = snprintf(name.text, sizeof(name.text),
				   KEA_HOME_PREFIX ".%.*s{%u}", KEA_NODE_ID, id,
				   tag);

		if (!owned[kea_slot_of(name.text, (size_t)len)])
			continue;
		name.len = (size_t)len;
		kea_home_use(h, &name);
		return true;
	}
	return false;
}

enum kea_slot kea_home_ask(const struct kea_home *h, RedisModuleCtx *ctx,
			   RedisModuleString *key)
{
	RedisModuleCallReply *reply;
	int why;

	if (!h->cluster)
		return KEA_SLOT_OURS;
	errno = 0;
	/*
	 * The server checks slots when a module calls a command, and low-level
	 * calls bypass the check. Popping nothing changes nothing; a dry run
	 * leaves no trace in MONITOR and the statistics either.
	 */
	reply = RedisModule_Call(ctx, "LPOP", h->dry_run ? "Dsl" : "sl", key,
				 0LL);
	/* A dry run that fails has a reply too; one that was run has no error
	 * of ours. */
	why = reply && !h->dry_run ? 0 : errno;
	if (reply)
		RedisModule_FreeCallReply(reply);
	if (why == EPERM)
		return KEA_SLOT_AWAY;
	return why == 0 ? KEA_SLOT_OURS : KEA_SLOT_WAIT;
}

bool kea_home_owns(const struct kea_home *h, RedisModuleCtx *ctx,
		   RedisModuleString *key)
{
	RedisModuleCallReply *reply;
	int why;

	if (!h->dry_run)
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
