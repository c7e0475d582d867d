/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * peek.c: the oldest undelivered events in words, in the order in which they
 * are to be delivered (mirror.h): what is lent, the list behind it, memory; then
 * the lists of other nodes that wait to be taken over. Nothing changes.
 */
#include "peek.h"

#include "flow.h"
#include "list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_EVENTS 10
#define MOST_EVENTS 1000
/* Of records read; the last one may exceed it. A value may be large, and is
 * copied from the list with its event. */
#define MOST_BYTES ((size_t)4 << 20)

struct peek {
	RedisModuleCtx *ctx;
	long long max, shown;
	size_t bytes;
	uint64_t skip; /* lent events that are settled, and not taken in yet */
};

static bool full(const struct peek *p)
{
	return p->shown >= p->max || p->bytes >= MOST_BYTES;
}

static void reply_time(RedisModuleCtx *ctx, uint64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	char text[64];
	struct tm t;
	int n;

	/* An element of the list may have been written by anybody. */
	if (!gmtime_r(&seconds, &t))
		memset(&t, 0, sizeof(t));
	n = snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
		     t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour,
		     t.tm_min, t.tm_sec, (int)(ms % 1000));
	RedisModule_ReplyWithStringBuffer(ctx, text, (size_t)n);
}

static void show(struct peek *p, const void *bytes, size_t len)
{
	const uint8_t *at = (const uint8_t *)bytes + sizeof(struct kea_record);
	struct kea_record r;
	uint64_t body = len - sizeof(r), head;
	char text[64];
	int n;

	memcpy(&r, bytes, sizeof(r));
	if (r.version == KEA_RECORD_SECTIONS) {
		memcpy(&body, at, sizeof(body));
		at += sizeof(body);
	}
	head = (uint64_t)r.db_len + 1 + r.event_len + 1;
	RedisModule_ReplyWithArray(p->ctx, 5);
	n = snprintf(text, sizeof(text), "%016llx-%llu",
		     (unsigned long long)r.origin, (unsigned long long)r.seq);
	RedisModule_ReplyWithStringBuffer(p->ctx, text, (size_t)n);
	reply_time(p->ctx, r.time_ms);
	n = snprintf(text, sizeof(text), "%.*s", r.db_len, (const char *)at);
	RedisModule_ReplyWithLongLong(p->ctx, strtoll(text, NULL, 10));
	at += r.db_len + 1;
	RedisModule_ReplyWithStringBuffer(p->ctx, (const char *)at, r.event_len);
	at += r.event_len + 1;
	RedisModule_ReplyWithStringBuffer(p->ctx, (const char *)at,
					  (size_t)(body - head));
	p->shown++;
	p->bytes += len;
}

static void show_run(void *arg, const struct kea_run *run)
{
	struct peek *p = arg;
	uint8_t *pos = run->start;

	for (uint32_t i = 0; i < run->count && !full(p); i++) {
		size_t len;
		const struct kea_record *r = kea_record_at(pos, &len);

		if (p->skip > 0)
			p->skip--;
		else
			show(p, r, len);
		pos = kea_record_after(pos);
	}
}

static void show_lent(struct peek *p)
{
	struct kea_lent_run *r;

	p->skip = kea_lent_to_release(kea_flow.lent);
	for (uint64_t i = 0; !full(p) && (r = kea_lent_nth(kea_flow.lent, i));
	     i++)
		show_run(p, &r->run);
}

/* show_list shows a list's events from index on. It passes over elements
 * that are not events, as they will be dropped; so many at most, since anybody
 * may push them. */
static void show_list(struct peek *p, RedisModuleString *name, uint64_t index)
{
	struct kea_list l;
	int aliens = 0;

	/* For writing, which counts no miss where there is no list. */
	kea_list_open(&l, p->ctx, name, true);
	for (; !full(p) && aliens < MOST_EVENTS && index < kea_list_length(&l);
	     index++) {
		RedisModuleString *s = RedisModule_ListGet(l.key, (long)index);
		const char *bytes;
		size_t len;

		if (!s)
			break;
		bytes = RedisModule_StringPtrLen(s, &len);
		if (kea_record_valid(bytes, len)) {
			show(p, bytes, len);
		} else {
			aliens++;
			p->bytes += len;
		}
		RedisModule_FreeString(p->ctx, s);
	}
	kea_list_close(&l);
}

static void show_lists(struct peek *p)
{
	const struct kea_home *h = &kea_flow.home;

	if (h->key && !full(p))
		show_list(p, h->key, kea_flow.mirror.held);
	kea_queue_visit(&kea_flow.queue, show_run, p);
	for (size_t i = 0; i < h->others_count && !full(p); i++) {
		RedisModuleString *name = RedisModule_CreateString(
			p->ctx, h->others[i].text, h->others[i].len);

		show_list(p, name, 0);
		RedisModule_FreeString(p->ctx, name);
	}
}

static bool number(RedisModuleString *arg, long long *n)
{
	return RedisModule_StringToLongLong(arg, n) == REDISMODULE_OK &&
	       *n >= 1 && *n <= MOST_EVENTS;
}

int kea_peek(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	struct peek p = { .ctx = ctx, .max = DEFAULT_EVENTS };
	int db = RedisModule_GetSelectedDb(ctx);

	if (argc > 2)
		return RedisModule_WrongArity(ctx);
	if (argc == 2 && !number(argv[1], &p.max))
		return RedisModule_ReplyWithError(
			ctx, "ERR n: not an integer from 1 to 1000");
	RedisModule_ReplyWithArray(ctx, REDISMODULE_POSTPONED_LEN);
	show_lent(&p);
	if (RedisModule_GetContextFlags(ctx) &
	    (REDISMODULE_CTX_FLAGS_LOADING | REDISMODULE_CTX_FLAGS_ASYNC_LOADING))
		kea_queue_visit(&kea_flow.queue, show_run, &p);
	else
		show_lists(&p);
	RedisModule_SelectDb(ctx, db);
	RedisModule_ReplySetArrayLength(ctx, (long)p.shown);
	return REDISMODULE_OK;
}
