/*
 * turn.c: the end of each event-loop turn, and the wake-ups between the main
 * thread and the publisher: an eventfd one way, a one-shot of the event loop
 * the other way.
 *
 * No goroutine takes Redis's lock: it would starve under load, and the main
 * thread would wait for it. The work is done here, in bounded slices.
 */
#include "_cgo_export.h"
#include "fault.h"
#include "slots.h"
#include "state.h"

#include <errno.h>
#include <unistd.h>

/* INFO and the hook's check run at this many cron ticks: about once a second
 * at the default hz of 10. */
#define CRON_TICKS 10

static void woken(void *unused)
{
	(void)unused;
	/* Only wakes the loop. Never work here: a one-shot can run in the
	 * middle of a busy script. */
}

void kea_wake_main(void)
{
	/* Relaxed: it only saves calls; a turn that cleared it too early runs
	 * once more. */
	if (atomic_exchange_explicit(&kea.main_called, true,
				     memory_order_acq_rel))
		return;
	RedisModule_EventLoopAddOneShot(woken, NULL);
}

void kea_wake_publisher(void)
{
	uint64_t one = 1;

	if (!kea_lent_wake(&kea.lent))
		return;
	/* Non-blocking; a full counter means that it is awake already. */
	while (write(kea.event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void before_sleep(RedisModuleCtx *ctx)
{
	/* Before we look, so that what is asked for meanwhile is asked anew. */
	if (atomic_load_explicit(&kea.main_called, memory_order_relaxed))
		atomic_exchange_explicit(&kea.main_called, false,
					 memory_order_acq_rel);
	kea_replicate_deferred(ctx);
	if (!kea_policy_idle(&kea.flow) &&
	    kea_policy_turn(&kea.flow, ctx, KEA_TURN_NORMAL)) {
		kea_wake_publisher();
		KEA_FAULT("publisher-woken");
	}
	kea_spool_turn(ctx);
	kea_slots_end_turn();
	/* A backlog is worked off in slices, a slice a turn: ask for the next
	 * one when the list has to take what memory holds. */
	if (kea.flow.left.stores)
		kea_wake_main();
	if (kea.flow.home.scan && kea_home_scan(&kea.flow.home, ctx))
		kea_wake_main();
	if (kea.spooled)
		kea_drop_spool();
	kea.past_turn = true;
	kea.nudged = false;
}

void kea_on_slots_moved(void)
{
	/* Whether the list in use, or one that was seen, is ours now. */
	kea.flow.home.asked = false;
	kea.flow.mirror.check = true;
}

/* A replica's events are its master's; what is loaded has happened before. */
void kea_look_whose(RedisModuleCtx *ctx)
{
	kea.ours = !(RedisModule_GetContextFlags(ctx) &
		     (REDISMODULE_CTX_FLAGS_SLAVE |
		      REDISMODULE_CTX_FLAGS_LOADING |
		      REDISMODULE_CTX_FLAGS_ASYNC_LOADING));
}

void kea_on_loop(RedisModuleCtx *ctx, RedisModuleEvent e, uint64_t sub,
		 void *data)
{
	(void)data;
	if (!kea.active)
		return;
	if (e.id != REDISMODULE_EVENT_EVENTLOOP)
		kea_look_whose(ctx);
	switch (e.id) {
	case REDISMODULE_EVENT_EVENTLOOP:
		if (sub == REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP)
			before_sleep(ctx);
		else
			kea.past_turn = false;
		break;
	case REDISMODULE_EVENT_SHUTDOWN:
		kea_on_shutdown(ctx);
		break;
	case REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED:
		kea_flow_forget_list(&kea.flow);
		break;
	case REDISMODULE_EVENT_CRON_LOOP:
		if (++kea.cron_ticks < CRON_TICKS)
			break;
		kea.cron_ticks = 0;
		kea.flow.mirror.check = true;
		kea.flow.home.asked = false;
		if (kea.flow.home.cluster)
			keaGoBusTick();
		break;
	case REDISMODULE_EVENT_FLUSHDB:
	case REDISMODULE_EVENT_SWAPDB:
	case REDISMODULE_EVENT_LOADING:
		kea.flow.mirror.check = true;
		break;
	}
}
