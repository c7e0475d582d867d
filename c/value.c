/* SPDX-License-Identifier: BSD-3-Clause */
/* value.c: one reader for each type of key. */
#include "value.h"

#include "queue.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * A string longer than this is of the encoding "raw" on every server, and
 * StringDMA gives a plain pointer to it. A shorter one may be embedded or a
 * number; StringDMA would put another object in its place, which a command that
 * still holds the old one doesn't survive.
 */
#define SURELY_RAW 128

/* Memory kept for the next value. */
#define KEEP ((size_t)1 << 20)

/* Where a collection is put together. */
static struct {
	uint8_t *bytes;
	size_t size, len;
	size_t held;  /* bytes of the elements themselves */
	size_t limit;
	bool over;    /* more than limit */
} out;

bool kea_value_opening;
static bool told_expired;

void kea_value_told(const char *event)
{
	told_expired |= strcmp(event, "expired") == 0;
}

void kea_value_free(void)
{
	free(out.bytes);
	memset(&out, 0, sizeof(out));
}

static void out_begin(size_t limit)
{
	if (out.size > KEEP)
		kea_value_free();
	out.len = out.held = 0;
	out.over = false;
	out.limit = limit;
}

static void out_bytes(const void *bytes, size_t len)
{
	if (out.size - out.len < len) {
		size_t size = out.size > 0 ? out.size : 1024;
		uint8_t *larger;

		while (size - out.len < len)
			size *= 2;
		larger = kea_queue_scratch(size);
		if (out.len > 0)
			memcpy(larger, out.bytes, out.len);
		free(out.bytes);
		out.bytes = larger;
		out.size = size;
	}
	if (len > 0)
		memcpy(out.bytes + out.len, bytes, len);
	out.len += len;
}

static void out_element(const RedisModuleString *s)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(s, &len);
	uint32_t len32 = (uint32_t)len;

	if (out.over || len > out.limit - out.held) {
		out.over = true;
		return;
	}
	out.held += len;
	out_bytes(&len32, sizeof(len32));
	out_bytes(bytes, len);
}

/* ---- what is too large, without a look at the elements --------------------- */

/*
 * Elements are handed out as copies, each of them whole, and a compact encoding
 * at once, whole: the limit alone would come too late for a few elements of
 * many megabytes. The server knows what a key takes without copying it. Its
 * figure has an overhead for each element, which sparse tables make larger; so
 * have the bounds here.
 */
#define MOST_ELEMENTS(limit) ((limit) / 8 + 128)
#define MOST_MEMORY(limit, n) (4 * (limit) + 512 * (n) + 65536)

static bool takes_too_much(RedisModuleCtx *ctx, const RedisModuleString *name,
			   size_t n, size_t limit)
{
	RedisModuleCallReply *reply = RedisModule_Call(
		ctx, "MEMORY", "cscl", "USAGE", name, "SAMPLES", (long long)n);
	long long bytes = 0;

	if (!reply)
		return false; /* in a slot that is being imported, for one */
	if (RedisModule_CallReplyType(reply) == REDISMODULE_REPLY_INTEGER)
		bytes = RedisModule_CallReplyInteger(reply);
	RedisModule_FreeCallReply(reply);
	return bytes > 0 && (uint64_t)bytes > MOST_MEMORY(limit, n);
}

/* ---- readers: each stops when the limit is passed ------------------------- */

static void read_list(RedisModuleKey *key, size_t n)
{
	for (size_t i = 0; i < n && !out.over; i++) {
		RedisModuleString *s = RedisModule_ListGet(key, (long)i);

		if (!s)
			return;
		out_element(s);
		RedisModule_FreeString(NULL, s);
	}
}

static void scanned(RedisModuleKey *key, RedisModuleString *field,
		    RedisModuleString *value, void *unused)
{
	(void)key;
	(void)unused;
	out_element(field);
	if (value)
		out_element(value);
}

/* read_scan: hashes and sets. Fields that have expired are not shown. */
static void read_scan(RedisModuleKey *key, size_t n)
{
	RedisModuleScanCursor *cursor = RedisModule_ScanCursorCreate();

	/* A table from which most was taken has many empty places. */
	for (size_t calls = 16 * n + 1024;
	     RedisModule_ScanKey(key, cursor, scanned, NULL) && !out.over;) {
		if (--calls == 0)
			out.over = true;
	}
	RedisModule_ScanCursorDestroy(cursor);
}

static void read_zset(RedisModuleKey *key)
{
	if (RedisModule_ZsetFirstInScoreRange(key, -INFINITY, INFINITY, 0, 0) !=
	    REDISMODULE_OK)
		return;
	while (!RedisModule_ZsetRangeEndReached(key) && !out.over) {
		double score = 0;
		RedisModuleString *s =
			RedisModule_ZsetRangeCurrentElement(key, &score);

		if (!s)
			break;
		out_bytes(&score, sizeof(score));
		out_element(s);
		RedisModule_FreeString(NULL, s);
		RedisModule_ZsetRangeNext(key);
	}
	RedisModule_ZsetRangeStop(key);
}

/* read_stream: the last entry. Its fields are copied one by one, and the
 * largest of them is as large as the XADD was that brought it. */
static void read_stream(RedisModuleKey *key)
{
	RedisModuleStreamID id;
	RedisModuleString *name, *value;
	long fields = 0;

	if (RedisModule_StreamIteratorStart(key,
					    REDISMODULE_STREAM_ITERATOR_REVERSE,
					    NULL, NULL) != REDISMODULE_OK)
		return;
	if (RedisModule_StreamIteratorNextID(key, &id, &fields) ==
	    REDISMODULE_OK) {
		out_bytes(&id.ms, sizeof(id.ms));
		out_bytes(&id.seq, sizeof(id.seq));
		while (!out.over &&
		       RedisModule_StreamIteratorNextField(
			       key, &name, &value) == REDISMODULE_OK) {
			out_element(name);
			out_element(value);
			RedisModule_FreeString(NULL, name);
			RedisModule_FreeString(NULL, value);
		}
	}
	RedisModule_StreamIteratorStop(key);
}

static void read_collection(RedisModuleKey *key, size_t limit,
			    struct kea_content *c)
{
	size_t n = RedisModule_ValueLength(key);

	out_begin(limit);
	if (c->type == KEA_TYPE_LIST)
		read_list(key, n);
	else if (c->type == KEA_TYPE_ZSET)
		read_zset(key);
	else if (c->type == KEA_TYPE_STREAM)
		read_stream(key);
	else if (n > 0)
		read_scan(key, n);
	c->left_out = out.over;
	c->bytes = out.bytes;
	c->len = out.len;
}

/* ---- the two ways in -------------------------------------------------------- */

/* read_type: false when the type says it all, or that it is a string. */
static bool read_type(RedisModuleKey *key, size_t limit, struct kea_content *c)
{
	int type = RedisModule_KeyType(key);

	if (type < KEA_TYPE_STRING || type > KEA_TYPE_STREAM)
		return false;
	c->type = (enum kea_type)type;
	if (type == KEA_TYPE_STRING) {
		c->size = RedisModule_ValueLength(key);
		c->left_out = c->size > limit;
		return false;
	}
	c->left_out = type == KEA_TYPE_MODULE;
	return !c->left_out;
}

/* to_ask: the server has to be asked how large it is. Of a stream only the last
 * entry is copied. */
static bool to_ask(RedisModuleKey *key, size_t limit, struct kea_content *c)
{
	size_t n = RedisModule_ValueLength(key);

	if (c->type == KEA_TYPE_STREAM)
		return false;
	c->left_out = n > MOST_ELEMENTS(limit);
	return n > 0 && !c->left_out;
}

struct kea_content kea_value_of(RedisModuleCtx *ctx, RedisModuleKey *key,
				size_t limit)
{
	struct kea_content c = { 0 };

	if (read_type(key, limit, &c)) {
		/* A key that goes does not expire meanwhile. */
		if (to_ask(key, limit, &c))
			c.left_out = takes_too_much(
				ctx, RedisModule_GetKeyNameFromModuleKey(key),
				RedisModule_ValueLength(key), limit);
		if (!c.left_out)
			read_collection(key, limit, &c);
	} else if (c.type == KEA_TYPE_STRING && !c.left_out) {
		/* The server expects that a string of any encoding is asked
		 * for like this when it goes. */
		c.bytes = RedisModule_StringDMA(key, &c.len, REDISMODULE_READ);
		c.left_out = !c.bytes;
	}
	return c;
}

static void close_key(struct kea_value *v)
{
	if (v->key)
		RedisModule_CloseKey(v->key);
	v->key = NULL;
}

/* open_key: 7.2 and newer know the flags by which a key is opened without
 * effects. 7.0 counts no miss where a key is opened for writing. */
static void open_key(RedisModuleCtx *ctx, RedisModuleString *name,
		     struct kea_value *v)
{
	v->key = RedisModule_OpenKey(
		ctx, name,
		!RedisModule_AddPostNotificationJob ?
			REDISMODULE_READ | REDISMODULE_WRITE |
				REDISMODULE_OPEN_KEY_NOTOUCH :
			REDISMODULE_READ | KEA_OPEN_KEY_UNSEEN);
}

/* A key may expire while a command runs, except within another: so none is open
 * when one is called. */

static void read_string(RedisModuleCtx *ctx, RedisModuleString *name,
			struct kea_value *v)
{
	struct kea_content *c = &v->content;

	if (c->size > SURELY_RAW) {
		c->bytes = RedisModule_StringDMA(v->key, &c->len,
						 REDISMODULE_READ);
	} else {
		close_key(v);
		v->reply = RedisModule_Call(ctx, "GET", "s", name);
		if (v->reply && RedisModule_CallReplyType(v->reply) ==
					REDISMODULE_REPLY_STRING)
			c->bytes = RedisModule_CallReplyStringPtr(v->reply,
								  &c->len);
	}
	c->left_out = !c->bytes;
}

static void read_large(RedisModuleCtx *ctx, RedisModuleString *name,
		       size_t limit, struct kea_value *v)
{
	if (to_ask(v->key, limit, &v->content)) {
		size_t n = RedisModule_ValueLength(v->key);

		close_key(v);
		v->content.left_out = takes_too_much(ctx, name, n, limit);
		if (!v->content.left_out)
			open_key(ctx, name, v);
	}
	if (v->content.left_out)
		return;
	if (v->key)
		read_collection(v->key, limit, &v->content);
	else
		memset(&v->content, 0, sizeof(v->content));
}

void kea_value_open(RedisModuleCtx *ctx, RedisModuleString *name, size_t limit,
		    struct kea_value *v)
{
	bool plain = !RedisModule_AddPostNotificationJob;
	unsigned long long keys = plain ? RedisModule_DbSize(ctx) : 0;

	memset(v, 0, sizeof(*v));
	told_expired = false;
	kea_value_opening = true;
	open_key(ctx, name, v);
	if (v->key && read_type(v->key, limit, &v->content))
		read_large(ctx, name, limit, v);
	else if (v->content.type == KEA_TYPE_STRING && !v->content.left_out)
		read_string(ctx, name, v);
	kea_value_opening = false;
	v->expired = told_expired ||
		     (plain && RedisModule_DbSize(ctx) < keys);
}

void kea_value_close(struct kea_value *v)
{
	if (v->reply)
		RedisModule_FreeCallReply(v->reply);
	close_key(v);
	memset(v, 0, sizeof(*v));
}
