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
		if (kea_flow_turn(f, ctx, KEA_TURN_LEND_ONLY))
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

/* write_spool puts what is undelivered at the spool file's place. False: errno
 * says why, and nothing has changed. */
static bool write_spool(void)
{
	struct kea_spool spool;

	if (!kea_spool_begin(&spool, kea.spool_path))
		return false;
	kea_flow_visit(&kea.flow, spool_run, &spool);
	return kea_spool_commit(&spool, kea.spool_path);
}

void kea_put_aside(RedisModuleCtx *ctx)
{
	uint64_t writes = kea.captured - kea.missed, before = kea.put_aside;
	unsigned long long n;

	kea.put_aside = writes; /* or tried to: once is enough */
	if (!kea.flow.barred || before == writes)
		return;
	n = kea_flow_undelivered(&kea.flow);
	if (n == 0)
		return;
	kea.spool_stored = kea.flow.stored;
	if (write_spool())
		kea.spooled = true;
	else
		RedisModule_Log(ctx, "warning",
				"%llu events are in memory only until they can "
				"be stored or delivered: can't write %s: %s",
				n, kea.spool_path, strerror(errno));
}

bool kea_put_away(RedisModuleCtx *ctx)
{
	unsigned long long n;

	wait_for_confirms(ctx);
	n = kea_flow_undelivered(&kea.flow);
	if (n == 0) {
		/* What an older file holds is delivered, or in the list. */
		unlink(kea.spool_path);
		return true;
	}
	if (!write_spool())
		return false;
	RedisModule_Log(ctx, "notice",
			"%llu undelivered events are in %s; the next load "
			"takes them in",
			n, kea.spool_path);
	return true;
}

void kea_on_shutdown(RedisModuleCtx *ctx)
{
	if (!kea_put_away(ctx))
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

void kea_drop_spool(void)
{
	/* Removed late: if the server is killed before, its events come again,
	 * and their ids tell. */
	if (kea_flow_unstored(&kea.flow) > 0)
		return;
	/* A replica, which knows of no list: from memory, or not yet? */
	if ((kea.ours || kea.flow.stored != kea.spool_stored) &&
	    (kea_flow_list_length(&kea.flow) > 0 || !kea.flow.list_known))
		return;
	KEA_FAULT("spool-delivered");
	unlink(kea.spool_path);
	KEA_FAULT("spool-removed");
	kea.spooled = false;
}
