/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * shutdown.c: the end of the server. It flushes the AOF and saves the RDB
 * before it tells modules, so nothing written to the dataset now would be
 * kept: wait a bounded time for the broker, and spool the rest.
 */
#include "shutdown.h"

#include "fault.h"
#include "hook.h"
#include "policy.h"
#include "publisher.h"
#include "spooldir.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define MAX_ORIGINS 8

/* What the held spool files have, as far as it goes; more in them is spooled
 * again, and comes twice. */
struct had {
	uint64_t origin, from, to;
};

static struct {
	struct kea_spool_dir *dir; /* NULL: not loaded */
	bool there;      /* there are spool files; all in them is here, too */
	uint64_t looked; /* events of writes that kea_spool_turn has seen */
	uint64_t stored; /* events stored until a file was written or read */
	uint64_t seq;    /* the last event captured until then */
	struct had had[MAX_ORIGINS];
	size_t had_count;
} spool;

/* Lends and waits until all is settled, the session is lost or time is up. */
static void wait_for_confirms(RedisModuleCtx *ctx)
{
	struct kea_flow *f = &kea_flow;
	long long deadline = RedisModule_Milliseconds() +
			     kea_flow.settings.shutdown_timeout_ms;

	while (kea_flow_undelivered(f) > 0 && !kea_flow_is_away(f) &&
	       RedisModule_Milliseconds() < deadline) {
		if (kea_policy_turn(f, ctx, KEA_TURN_LEND_ONLY))
			kea_wake_publisher();
		/* What waits behind the list can't be lent: the list is not
		 * read any more. */
		if (f->lent->count == 0)
			return;
		KEA_FAULT("shutdown-waiting");
		usleep(500);
	}
}

/* ---- which server this is ----------------------------------------------- */

/* A setting's value, which dies with *reply; "" when it can't be had. */
static const char *setting(RedisModuleCtx *ctx, const char *name, size_t *len,
			   RedisModuleCallReply **reply)
{
	RedisModuleCallReply *value;
	const char *text = NULL;

	*len = 0;
	*reply = RedisModule_Call(ctx, "CONFIG", "cc", "GET", name);
	value = *reply ? RedisModule_CallReplyArrayElement(*reply, 1) : NULL;
	if (value)
		text = RedisModule_CallReplyStringPtr(value, len);
	return text ? text : "";
}

static void add_setting(RedisModuleCtx *ctx, const char *name, char *to,
			size_t size)
{
	size_t len, at = strlen(to);
	RedisModuleCallReply *reply;
	const char *text = setting(ctx, name, &len, &reply);

	snprintf(to + at, size - at, "%s%.*s", at > 0 && len > 0 ? " " : "",
		 (int)len, text);
	if (reply)
		RedisModule_FreeCallReply(reply);
}

static void what_we_look_like(RedisModuleCtx *ctx, struct kea_facts *f)
{
	static const struct {
		enum kea_fact fact;
		const char *setting;
	} settings[] = {
		{ KEA_FACT_PORT, "port" },
		{ KEA_FACT_TLS_PORT, "tls-port" },
		{ KEA_FACT_SOCKET, "unixsocket" },
		{ KEA_FACT_DATASET, "dbfilename" },
		{ KEA_FACT_DATASET, "appenddirname" },
		{ KEA_FACT_DATASET, "appendfilename" },
	};
	char text[KEA_FACTS][sizeof(f->text[0])] = { 0 };
	RedisModuleServerInfoData *info =
		RedisModule_GetServerInfo(ctx, "server");
	const char *config = RedisModule_ServerInfoGetFieldC(info,
							     "config_file");
	const char *port = RedisModule_ServerInfoGetFieldC(info, "tcp_port");
	const char *node = RedisModule_GetContextFlags(ctx) &
					   REDISMODULE_CTX_FLAGS_CLUSTER ?
				   RedisModule_GetMyClusterID() :
				   NULL;

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		enum kea_fact fact = settings[i].fact;

		add_setting(ctx, settings[i].setting, text[fact],
			    sizeof(text[fact]));
	}
	/* CONFIG may be renamed. */
	if (!text[KEA_FACT_PORT][0] && port)
		snprintf(text[KEA_FACT_PORT], sizeof(text[0]), "%s", port);
	if (config)
		snprintf(text[KEA_FACT_CONFIG], sizeof(text[0]), "%s", config);
	if (node)
		snprintf(text[KEA_FACT_NODE], sizeof(text[0]), "%.40s", node);
	for (int i = 0; i < KEA_FACTS; i++)
		kea_facts_set(f, (enum kea_fact)i, text[i]);
	RedisModule_FreeServerInfo(ctx, info);
}

static void say(const char *level, const char *text)
{
	RedisModule_Log(kea_flow.ctx, level, "%s", text);
}

/* Files go where the server's dataset goes: a CONFIG SET dir moves both. */
static void follow_dir(RedisModuleCtx *ctx)
{
	struct kea_spool_dir *here;
	struct kea_facts facts;

	if (kea_spool_dir_is_here(spool.dir))
		return;
	what_we_look_like(ctx, &facts);
	here = kea_spool_dir_open(&facts, say);
	here->before = spool.dir;
	spool.dir = here;
}

/* ---- writing ------------------------------------------------------------ */

/* is_held: a spool file that stays has the event. */
static bool is_held(const struct kea_record *r)
{
	if (!spool.there)
		return false;
	if (r->origin == kea_hook.origin)
		return r->seq <= spool.seq;
	for (size_t i = 0; i < spool.had_count; i++)
		if (r->origin == spool.had[i].origin &&
		    r->seq >= spool.had[i].from && r->seq <= spool.had[i].to)
			return true;
	return false;
}

static void add_all(void *file, const struct kea_run *run)
{
	kea_spool_add(file, run);
}

/* for_others calls visit with each record of a run that no file has. */
static void for_others(const struct kea_run *run,
		       void (*visit)(void *, const struct kea_run *), void *arg)
{
	struct kea_run one = *run;
	size_t len;

	one.count = 1;
	for (uint32_t i = 0; i < run->count; i++) {
		if (!is_held(kea_record_at(one.start, &len)))
			visit(arg, &one);
		one.start = kea_record_after(one.start);
	}
}

static void add_others(void *file, const struct kea_run *run)
{
	for_others(run, add_all, file);
}

static void count_one(void *n, const struct kea_run *run)
{
	*(uint64_t *)n += run->count;
}

static void count_others(void *n, const struct kea_run *run)
{
	for_others(run, count_one, n);
}

/* Undelivered events that no spool file has. */
static uint64_t unspooled(void)
{
	uint64_t n = 0;

	kea_flow_visit(&kea_flow, count_others, &n);
	return n;
}

/* write_file writes what is undelivered into the next file: all of it, or what
 * no file has. FAILED: errno says why. file->name is where it is. */
static enum kea_spool_written write_file(RedisModuleCtx *ctx,
					 struct kea_spool *file, bool all)
{
	follow_dir(ctx);
	if (!kea_spool_dir_begin(spool.dir, file))
		return KEA_SPOOL_FAILED;
	kea_flow_visit(&kea_flow, all ? add_all : add_others, file);
	return kea_spool_dir_commit(spool.dir, file);
}

static void say_unsynced(const struct kea_spool *file)
{
	kea_flow_log(&kea_flow, "warning",
		     "%s is in place, but can't be made durable: %s; a power "
		     "failure now may lose it",
		     file->name, strerror(errno));
}

void kea_spool_turn(RedisModuleCtx *ctx)
{
	uint64_t writes = kea_hook.captured - kea_hook.missed, before = spool.looked;
	enum kea_spool_written done;
	struct kea_spool file = { 0 };
	unsigned long long n;

	spool.looked = writes; /* or tried to: once is enough */
	if (!kea_flow.left.barred || before == writes)
		return;
	n = unspooled();
	if (n == 0)
		return;
	done = write_file(ctx, &file, false);
	if (done == KEA_SPOOL_FAILED) {
		kea_flow_log(&kea_flow, "warning",
			     "%llu events are in memory only until they can be "
			     "stored or delivered: can't write %s: %s",
			     n, file.name, strerror(errno));
		return;
	}
	if (done == KEA_SPOOL_UNSYNCED)
		say_unsynced(&file);
	spool.there = true;
	spool.stored = kea_flow.stored;
	spool.seq = kea_hook.seq;
}

/* rest spools what is left; false: not all of it, and errno says why. */
static bool rest(RedisModuleCtx *ctx, struct kea_spool *file)
{
	unsigned long long n = kea_flow_undelivered(&kea_flow);
	enum kea_spool_written done = KEA_SPOOL_WRITTEN;
	size_t written = 1, held = kea_spool_dir_held(spool.dir);

	if (n > 0)
		done = write_file(ctx, file, true);
	else
		written = 0;
	if (done == KEA_SPOOL_FAILED && held > 0) {
		int why = errno;

		/* There may be room for what the older files lack. */
		written += held;
		n = unspooled();
		if (n > 0)
			done = write_file(ctx, file, false);
		else
			RedisModule_Log(ctx, "notice",
					"can't write %s: %s; what is "
					"undelivered stays in the spool files "
					"that there are",
					file->name, strerror(why));
		if (n == 0)
			return true;
	}
	if (done == KEA_SPOOL_FAILED)
		return false;
	if (n > 0)
		RedisModule_Log(ctx, "notice",
				"%llu undelivered events are in %s; the next "
				"load takes them in",
				n, file->name);
	if (done == KEA_SPOOL_UNSYNCED) {
		say_unsynced(file);
		written += held;
	}
	/* What older files have is delivered, or in the list, or in this. */
	kea_spool_dir_drop(spool.dir, written);
	return true;
}

bool kea_spool_rest(RedisModuleCtx *ctx)
{
	struct kea_spool file = { 0 };

	wait_for_confirms(ctx);
	if (rest(ctx, &file))
		return true;
	RedisModule_Log(ctx, "warning",
			"%llu of the undelivered events are in no spool file: "
			"can't write %s: %s",
			(unsigned long long)unspooled(), file.name,
			strerror(errno));
	return false;
}

void kea_on_shutdown(RedisModuleCtx *ctx)
{
	if (!kea_spool_rest(ctx))
		RedisModule_Log(ctx, "warning", "%llu events lost",
				(unsigned long long)unspooled());
}

/* ---- taking in, and removing -------------------------------------------- */

/* note_had widens what the files are known to have. */
static void note_had(void *unused, const struct kea_run *run)
{
	uint8_t *pos = run->start;
	size_t len, at;

	(void)unused;
	for (uint32_t i = 0; i < run->count; i++) {
		const struct kea_record *r = kea_record_at(pos, &len);
		struct had *h = spool.had;

		pos = kea_record_after(pos);
		for (at = 0; at < spool.had_count; at++, h++)
			if (h->origin == r->origin)
				break;
		if (at == MAX_ORIGINS)
			continue;
		if (at == spool.had_count) {
			*h = (struct had){ r->origin, r->seq, r->seq };
			spool.had_count++;
		}
		if (r->seq < h->from)
			h->from = r->seq;
		if (r->seq > h->to)
			h->to = r->seq;
	}
}

void kea_take_in_spool(RedisModuleCtx *ctx)
{
	struct kea_facts facts;

	kea_spool_end();
	what_we_look_like(ctx, &facts);
	spool.dir = kea_spool_dir_open(&facts, say);
	kea_spool_dir_take_in(spool.dir, &kea_flow.queue);
	spool.there = kea_spool_dir_held(spool.dir) > 0;
	kea_queue_visit(&kea_flow.queue, note_had, NULL);
}

/* spool_passed: the oldest event in flight was captured after all that the
 * files hold. Under load, with outbox, the list may never be empty. */
static bool spool_passed(void)
{
	struct kea_lent_run *r = kea_lent_oldest(kea_flow.lent);
	const struct kea_record *oldest;
	size_t len;

	if (!r || !kea_hook.active_master)
		return false;
	oldest = kea_record_at(r->run.start, &len);
	return oldest->origin == kea_hook.origin && oldest->seq > spool.seq;
}

/* spool_emptied: nothing is undelivered at all. */
static bool spool_emptied(void)
{
	if (kea_flow_unstored(&kea_flow) > 0)
		return false;
	/* A replica knows of no list: by way of memory alone? */
	if (!kea_hook.active_master && kea_flow.stored == spool.stored)
		return true;
	return kea_mirror_length(&kea_flow.mirror) == 0 &&
	       kea_mirror_known(&kea_flow.mirror);
}

void kea_drop_spool(void)
{
	/* Removed late: if the server is killed before, its events come again,
	 * and their ids tell. */
	if (!spool.there || (!spool_passed() && !spool_emptied()))
		return;
	KEA_FAULT("spool-delivered");
	kea_spool_dir_drop(spool.dir, 0);
	KEA_FAULT("spool-removed");
	spool.there = false;
	spool.had_count = 0;
}

void kea_spool_end(void)
{
	kea_spool_dir_close(spool.dir);
	memset(&spool, 0, sizeof(spool));
}
