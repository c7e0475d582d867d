/* SPDX-License-Identifier: BSD-3-Clause */
/* events.c: what follows from each server event. */
#include "_cgo_export.h"
#include "events.h"

#include "dataset.h"
#include "extras.h"
#include "flow.h"
#include "hook.h"
#include "learn.h"
#include "loop.h"
#include "shutdown.h"
#include "slots.h"
#include "snapshot.h"

/* What has no event of its own is looked at once in so many cron ticks: about
 * once a second at the default hz of 10. */
#define CRON_TICKS 10

static int cron_ticks;
static bool replicas_told;

static void once_a_second(void)
{
	kea_flow.mirror.check = true;
	kea_flow.home.asked = false;
	if (kea_flow.home.cluster)
		keaGoBusTick();
}

/* slots_moved: whether the list in use, or one that was seen, is ours now. */
static void slots_moved(void)
{
	kea_flow.home.asked = false;
	kea_flow.mirror.check = true;
	kea_snapshot_again();
}

/*
 * replica_online says once what a replica needs. A master cannot learn which
 * modules a replica has: replicas answer it nothing, not even an error. Of a
 * cluster's nodes the bus tells (module/cluster.go).
 */
static void replica_online(RedisModuleCtx *ctx)
{
	if (replicas_told || kea_flow.home.cluster)
		return;
	replicas_told = true;
	RedisModule_Log(ctx, "notice",
			"a replica is online. Each replica needs this module, "
			"too: without it the module's commands are unknown "
			"there, and nothing is delivered once it is promoted. "
			"MODULE LIST on the replica shows it");
}

static void on_swap(const RedisModuleSwapDbInfo *swap)
{
	kea_learn_swapped(swap->dbnum_first, swap->dbnum_second);
	kea_dataset_swapped(swap->dbnum_first, swap->dbnum_second);
	kea_snapshot_swapped(swap->dbnum_first, swap->dbnum_second);
}

static void kea_on_server_event(RedisModuleCtx *ctx, RedisModuleEvent e,
				uint64_t sub, void *data)
{
	if (!kea_hook.loaded)
		return;
	if (e.id != REDISMODULE_EVENT_EVENTLOOP) {
		if (e.id == REDISMODULE_EVENT_SWAPDB) /* comes after the swap */
			kea_extras_flush_unread();
		else
			kea_extras_flush();
		kea_update_role(ctx);
	}
	switch (e.id) {
	case REDISMODULE_EVENT_EVENTLOOP:
		if (sub == REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP)
			kea_loop_before_sleep(ctx);
		else
			kea_loop_after_sleep();
		break;
	case REDISMODULE_EVENT_SHUTDOWN:
		kea_on_shutdown(ctx);
		break;
	case REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED:
		kea_flow_forget_list(&kea_flow);
		kea_learn_forget();
		if (!kea_hook.active_master)
			kea_snapshot_stop("this server has become a replica");
		break;
	case REDISMODULE_EVENT_REPLICA_CHANGE:
		if (sub == REDISMODULE_SUBEVENT_REPLICA_CHANGE_ONLINE)
			replica_online(ctx);
		break;
	case REDISMODULE_EVENT_CRON_LOOP:
		if (++cron_ticks < CRON_TICKS)
			break;
		cron_ticks = 0;
		once_a_second();
		break;
	case REDISMODULE_EVENT_FLUSHDB:
		kea_flow.mirror.check = true;
		if (sub == REDISMODULE_SUBEVENT_FLUSHDB_END) {
			int db = ((const RedisModuleFlushInfo *)data)->dbnum;

			kea_learn_flushed(db);
			kea_dataset_flushed(db);
		}
		break;
	case REDISMODULE_EVENT_SWAPDB:
		kea_flow.mirror.check = true;
		on_swap(data);
		break;
	case REDISMODULE_EVENT_LOADING:
		kea_flow.mirror.check = true;
		kea_learn_forget();
		kea_snapshot_stop("the server loads a dataset");
		break;
	}
}

bool kea_events_subscribe(RedisModuleCtx *ctx)
{
	static const uint64_t events[] = {
		REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
		REDISMODULE_EVENT_FLUSHDB,
		REDISMODULE_EVENT_LOADING,
		REDISMODULE_EVENT_CRON_LOOP,
		REDISMODULE_EVENT_SHUTDOWN,
		REDISMODULE_EVENT_REPLICA_CHANGE,
		REDISMODULE_EVENT_SWAPDB,
		REDISMODULE_EVENT_EVENTLOOP,
	};

	cron_ticks = 0;
	replicas_told = false;
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		RedisModuleEvent e = { .id = events[i], .dataver = 1 };

		if (RedisModule_SubscribeToServerEvent(
			    ctx, e, kea_on_server_event) != REDISMODULE_OK) {
			RedisModule_Log(ctx, "warning",
					"the server lacks event %d",
					(int)events[i]);
			return false;
		}
	}
	kea_slots_subscribe(ctx, slots_moved);
	return true;
}
