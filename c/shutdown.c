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
#include "spool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The spool file. */
static struct {
	char path[64];
	bool there;      /* all in it is here, too */
	uint64_t stored; /* events stored until it was written */
	uint64_t seq;    /* the last event captured until then */
	uint64_t looked; /* events of writes that kea_spool_turn has looked at */
} file;

const char *kea_spool_path(void)
{
	return file.path;
}

/* Lends and waits until all is settled, the link is lost or time is up. */
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

static void spool_run(void *spool, const struct kea_run *run)
{
	kea_spool_add(spool, run);
}

/* spool_younger spools what was captured after the file was written. */
static void spool_younger(void *spool, const struct kea_run *run)
{
	struct kea_run rest = *run;
	size_t len;

	for (; rest.count > 0; rest.count--) {
		struct kea_record *r = kea_record_at(rest.start, &len);

		if (r->origin == kea_hook.origin && r->seq > file.seq)
			break;
		rest.start = kea_record_after(rest.start);
	}
	kea_spool_add(spool, &rest);
}

/* write_spool puts what is undelivered at the spool file's place. older: behind
 * what that file has, which may be in the list meanwhile, and the list not on
 * disk. False: errno says why, and nothing has changed. */
static bool write_spool(bool older)
{
	struct kea_spool spool;
	struct kea_queue had = { 0 };
	uint64_t n;

	if (!kea_spool_begin(&spool, file.path))
		return false;
	if (older) {
		older = kea_spool_read(file.path, &had, &n) ==
			KEA_SPOOL_WHOLE;
		kea_queue_visit(&had, spool_run, &spool);
		kea_queue_free(&had);
	}
	kea_flow_visit(&kea_flow, older ? spool_younger : spool_run, &spool);
	return kea_spool_commit(&spool, file.path);
}

void kea_spool_turn(RedisModuleCtx *ctx)
{
	uint64_t writes = kea_hook.captured - kea_hook.missed, before = file.looked;
	unsigned long long n;

	file.looked = writes; /* or tried to: once is enough */
	if (!kea_flow.left.barred || before == writes)
		return;
	n = kea_flow_undelivered(&kea_flow);
	if (n == 0)
		return;
	if (write_spool(file.there)) {
		file.there = true;
		file.stored = kea_flow.stored;
		file.seq = kea_hook.seq;
	} else {
		RedisModule_Log(ctx, "warning",
				"%llu events are in memory only until they can "
				"be stored or delivered: can't write %s: %s",
				n, file.path, strerror(errno));
	}
}

bool kea_spool_rest(RedisModuleCtx *ctx)
{
	unsigned long long n;

	wait_for_confirms(ctx);
	n = kea_flow_undelivered(&kea_flow);
	if (n == 0) {
		/* What an older file holds is delivered, or in the list. */
		unlink(file.path);
		return true;
	}
	if (!write_spool(false))
		return false;
	RedisModule_Log(ctx, "notice",
			"%llu undelivered events are in %s; the next load "
			"takes them in",
			n, file.path);
	return true;
}

void kea_on_shutdown(RedisModuleCtx *ctx)
{
	if (!kea_spool_rest(ctx))
		RedisModule_Log(ctx, "warning",
				"%llu events lost: can't write %s: %s",
				(unsigned long long)kea_flow_undelivered(
					&kea_flow),
				file.path, strerror(errno));
}

static int server_port(RedisModuleCtx *ctx)
{
	RedisModuleServerInfoData *info =
		RedisModule_GetServerInfo(ctx, "server");
	int err = 0;
	long long port =
		RedisModule_ServerInfoGetFieldSigned(info, "tcp_port", &err);

	RedisModule_FreeServerInfo(ctx, info);
	return err ? 0 : (int)port;
}

void kea_take_in_spool(RedisModuleCtx *ctx)
{
	uint64_t n;

	memset(&file, 0, sizeof(file));
	/* Servers may share a dir; a port they don't. */
	snprintf(file.path, sizeof(file.path),
		 "key_evt_amqp.%d.spool", server_port(ctx));
	switch (kea_spool_read(file.path, &kea_flow.queue, &n)) {
	case KEA_SPOOL_NONE:
		return;
	case KEA_SPOOL_WHOLE:
		file.there = true;
		KEA_FAULT("spool-taken-in");
		RedisModule_Log(ctx, "notice", "%llu events taken in from %s",
				(unsigned long long)n, file.path);
		return;
	case KEA_SPOOL_DAMAGED:
		RedisModule_Log(ctx, "warning",
				"%s is damaged: %llu events taken in, the file "
				"is kept as %s.damaged",
				file.path, (unsigned long long)n,
				file.path);
	}
}

/* spool_passed: the oldest event in flight was captured after all that the
 * file holds. Under load, with outbox, the list may never be empty. */
static bool spool_passed(void)
{
	struct kea_lent_run *r = kea_lent_oldest(kea_flow.lent);
	const struct kea_record *oldest;
	size_t len;

	if (!r || !kea_hook.active_master)
		return false;
	oldest = kea_record_at(r->run.start, &len);
	return oldest->origin == kea_hook.origin && oldest->seq > file.seq;
}

/* spool_emptied: nothing is undelivered at all. */
static bool spool_emptied(void)
{
	if (kea_flow_unstored(&kea_flow) > 0)
		return false;
	/* A replica knows of no list: by way of memory alone? */
	if (!kea_hook.active_master && kea_flow.stored == file.stored)
		return true;
	return kea_mirror_length(&kea_flow.mirror) == 0 &&
	       kea_mirror_known(&kea_flow.mirror);
}

void kea_drop_spool(void)
{
	/* Removed late: if the server is killed before, its events come again,
	 * and their ids tell. */
	if (!file.there || (!spool_passed() && !spool_emptied()))
		return;
	KEA_FAULT("spool-delivered");
	unlink(file.path);
	KEA_FAULT("spool-removed");
	file.there = false;
}
