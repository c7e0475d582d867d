/* SPDX-License-Identifier: BSD-3-Clause */
/* flow.c: see flow.h. */
#include "flow.h"

#include "list.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Of one kind. */
#define LINES_A_MINUTE 10

struct kea_flow kea_flow;

void kea_flow_init(struct kea_flow *f, struct kea_lent *lent,
		   RedisModuleCtx *ctx, RedisModuleCtx *log)
{
	memset(f, 0, sizeof(*f));
	f->lent = f->mirror.lent = lent;
	f->mirror.check = true;
	f->ctx = log;
	kea_home_init(&f->home, ctx,
		      RedisModule_GetContextFlags(ctx) &
			      REDISMODULE_CTX_FLAGS_CLUSTER);
}

void kea_flow_free(struct kea_flow *f)
{
	struct kea_lent_run r;

	while (f->lent && kea_lent_reclaim(f->lent, &r))
		kea_run_release(&f->queue, &r.run, r.run.count);
	kea_queue_free(&f->queue);
	kea_home_free(&f->home);
}

void kea_flow_lose_list(struct kea_flow *f)
{
	kea_mirror_forget(&f->mirror);
	kea_demoted_reset(&f->demoted);
	f->home.waiting = 0;
}

void kea_flow_forget_list(struct kea_flow *f)
{
	struct kea_home_name name = f->home.name;

	if (f->home.cluster && f->home.key) {
		kea_home_leave(&f->home);
		kea_home_note(&f->home, name.text, name.len);
	}
	kea_flow_lose_list(f);
}

void kea_flow_list_touched(struct kea_flow *f, const char *name, size_t len)
{
	kea_home_note(&f->home, name, len);
	f->home.asked = false;
	f->mirror.check = true;
}

/* lines_of finds what is noted of a kind; kinds that find no room share the last
 * place. */
static struct kea_lines *lines_of(struct kea_flow *f, const char *format)
{
	struct kea_lines *k = f->lines;

	while (k < &f->lines[KEA_KINDS_OF_LINES - 1] && k->format &&
	       k->format != format)
		k++;
	k->format = format;
	return k;
}

void kea_flow_log(struct kea_flow *f, const char *level, const char *format, ...)
{
	struct kea_lines *k = lines_of(f, format);
	long long now = RedisModule_Milliseconds();
	char text[512], left_out[64] = "";
	va_list args;

	/* The clock may have been set back. */
	if (now - k->minute_ms >= 60000 || now < k->minute_ms) {
		k->minute_ms = now;
		k->logged = 0;
	}
	if (k->logged >= LINES_A_MINUTE) {
		k->left_out++;
		return;
	}
	k->logged++;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (k->left_out > 0)
		snprintf(left_out, sizeof(left_out),
			 " (%u lines of this kind were left out)", k->left_out);
	k->left_out = 0;
	RedisModule_Log(f->ctx, level, "%s%s", text, left_out);
}

void kea_flow_drop(struct kea_flow *f, uint64_t n, const char *why)
{
	if (n == 0)
		return;
	f->dropped += n;
	if (f->drop_logged)
		return;
	f->drop_logged = true;
	kea_flow_log(f, "warning",
		     "events dropped (%s); the count goes on in INFO, "
		     "events_dropped",
		     why);
}

void kea_flow_unreplicated(struct kea_flow *f, uint64_t n)
{
	if (n == 0)
		return;
	if (f->unreplicated == 0)
		kea_flow_log(f, "warning",
			     "the server refuses to replicate the fallback "
			     "list's changes: replicas and the append-only file "
			     "lack them; the count goes on in INFO, "
			     "replication_errors");
	f->unreplicated += n;
}

uint64_t kea_flow_unstored(const struct kea_flow *f)
{
	return f->lent->count - kea_mirror_lent(&f->mirror) + f->queue.count;
}

uint64_t kea_flow_undelivered(const struct kea_flow *f)
{
	uint64_t settled = kea_lent_to_release(f->lent);
	uint64_t stored = kea_mirror_lent(&f->mirror);

	return kea_flow_unstored(f) - (settled > stored ? settled - stored : 0);
}

void kea_flow_visit(struct kea_flow *f,
		    void (*visit)(void *arg, const struct kea_run *run),
		    void *arg)
{
	uint64_t skip = kea_lent_to_release(f->lent);
	struct kea_lent_run *r;
	struct kea_run run;

	for (uint64_t i = 0; (r = kea_lent_nth(f->lent, i)); i++) {
		run = r->run;
		for (; skip > 0 && run.count > 0; skip--) {
			uint8_t *after = kea_record_after(run.start);

			run.bytes -= (size_t)(after - run.start);
			run.start = after;
			run.count--;
		}
		if (!r->stored && run.count > 0)
			visit(arg, &run);
	}
	kea_queue_visit(&f->queue, visit, arg);
}

long long kea_flow_oldest_ms(struct kea_flow *f, RedisModuleCtx *ctx,
			     long long now_ms)
{
	struct kea_lent_run *r = kea_lent_oldest(f->lent);
	struct kea_record head = { 0 };
	struct kea_run run;
	size_t len;
	long long age;

	if (r) {
		head = *kea_record_at(r->run.start, &len);
	} else if (f->mirror.pending > 0 && f->home.key) {
		struct kea_list l;

		kea_list_open(&l, ctx, f->home.key, false);
		kea_list_id(&l, 0, &head);
		kea_list_close(&l);
	} else if (kea_queue_peek(&f->queue, 1, SIZE_MAX, &run)) {
		head = *kea_record_at(run.start, &len);
	}
	age = head.time_ms == 0 ? 0 : now_ms - (long long)head.time_ms;
	return age > 0 ? age : 0;
}
