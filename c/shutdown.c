/*
 * shutdown.c: the end of the server. It flushes the AOF and saves the RDB
 * before it tells modules, so nothing written to the dataset now would be
 * kept: wait a bounded time for the broker, and spool the rest.
 */
#include "fault.h"
#include "spool.h"
#include "state.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool link_is_up(void)
{
	return !atomic_load_explicit(&kea.flow.away, memory_order_relaxed);
}

/* Lends and waits until all is settled, the link is lost or time is up. */
static void wait_for_confirms(RedisModuleCtx *ctx)
{
	struct kea_flow *f = &kea.flow;
	long long deadline = RedisModule_Milliseconds() +
			     kea.shutdown_timeout_ms;

	while (kea_flow_undelivered(f) > 0 && link_is_up() &&
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

		if (r->origin == kea.origin && r->seq > kea.spool_seq)
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

	if (!kea_spool_begin(&spool, kea.spool_path))
		return false;
	if (older) {
		older = kea_spool_read(kea.spool_path, &had, &n) ==
			KEA_SPOOL_WHOLE;
		kea_queue_visit(&had, spool_run, &spool);
		kea_queue_free(&had);
	}
	kea_flow_visit(&kea.flow, older ? spool_younger : spool_run, &spool);
	return kea_spool_commit(&spool, kea.spool_path);
}

void kea_spool_turn(RedisModuleCtx *ctx)
{
	uint64_t writes = kea.captured - kea.missed, before = kea.spool_looked;
	unsigned long long n;

	kea.spool_looked = writes; /* or tried to: once is enough */
	if (!kea.flow.left.barred || before == writes)
		return;
	n = kea_flow_undelivered(&kea.flow);
	if (n == 0)
		return;
	if (write_spool(kea.spooled)) {
		kea.spooled = true;
		kea.spool_stored = kea.flow.stored;
		kea.spool_seq = kea.seq;
	} else {
		RedisModule_Log(ctx, "warning",
				"%llu events are in memory only until they can "
				"be stored or delivered: can't write %s: %s",
				n, kea.spool_path, strerror(errno));
	}
}

bool kea_spool_rest(RedisModuleCtx *ctx)
{
	unsigned long long n;

	wait_for_confirms(ctx);
	n = kea_flow_undelivered(&kea.flow);
	if (n == 0) {
		/* What an older file holds is delivered, or in the list. */
		unlink(kea.spool_path);
		return true;
	}
	if (!write_spool(false))
		return false;
	RedisModule_Log(ctx, "notice",
			"%llu undelivered events are in %s; the next load "
			"takes them in",
			n, kea.spool_path);
	return true;
}

void kea_on_shutdown(RedisModuleCtx *ctx)
{
	if (!kea_spool_rest(ctx))
		RedisModule_Log(ctx, "warning",
				"%llu events lost: can't write %s: %s",
				(unsigned long long)kea_flow_undelivered(
					&kea.flow),
				kea.spool_path, strerror(errno));
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

	/* Servers may share a dir; a port they don't. */
	snprintf(kea.spool_path, sizeof(kea.spool_path),
		 "key_evt_amqp.%d.spool", server_port(ctx));
	switch (kea_spool_read(kea.spool_path, &kea.flow.queue, &n)) {
	case KEA_SPOOL_NONE:
		return;
	case KEA_SPOOL_WHOLE:
		kea.spooled = true;
		KEA_FAULT("spool-taken-in");
		RedisModule_Log(ctx, "notice", "%llu events taken in from %s",
				(unsigned long long)n, kea.spool_path);
		return;
	case KEA_SPOOL_DAMAGED:
		RedisModule_Log(ctx, "warning",
				"%s is damaged: %llu events taken in, the file "
				"is kept as %s.damaged",
				kea.spool_path, (unsigned long long)n,
				kea.spool_path);
	}
}

/* spool_passed: the oldest event in flight was captured after all that the
 * file holds. Under load, with outbox, the list may never be empty. */
static bool spool_passed(void)
{
	struct kea_lent_run *r = kea_lent_oldest(&kea.lent);
	const struct kea_record *oldest;
	size_t len;

	if (!r || !kea.ours)
		return false;
	oldest = kea_record_at(r->run.start, &len);
	return oldest->origin == kea.origin && oldest->seq > kea.spool_seq;
}

/* spool_emptied: nothing is undelivered at all. */
static bool spool_emptied(void)
{
	if (kea_flow_unstored(&kea.flow) > 0)
		return false;
	/* A replica knows of no list: by way of memory alone? */
	if (!kea.ours && kea.flow.stored == kea.spool_stored)
		return true;
	return kea_mirror_length(&kea.flow.mirror) == 0 && kea_mirror_known(&kea.flow.mirror);
}

void kea_drop_spool(void)
{
	/* Removed late: if the server is killed before, its events come again,
	 * and their ids tell. */
	if (!spool_passed() && !spool_emptied())
		return;
	KEA_FAULT("spool-delivered");
	unlink(kea.spool_path);
	KEA_FAULT("spool-removed");
	kea.spooled = false;
}
