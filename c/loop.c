/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * loop.c: the end of each event-loop turn. No goroutine takes Redis's lock: it
 * would starve under load, and the main thread would wait for it. The work is
 * done here, in bounded slices.
 */
#include "loop.h"

#include "commands.h"
#include "expire.h"
#include "extras.h"
#include "fault.h"
#include "policy.h"
#include "publisher.h"
#include "shutdown.h"
#include "slots.h"
#include "snapshot.h"

#include <stdatomic.h>
#include <string.h>

struct kea_loop kea_loop;
static _Atomic bool called; /* a one-shot is under way */

void kea_loop_init(void)
{
	memset(&kea_loop, 0, sizeof(kea_loop));
	atomic_store_explicit(&called, false, memory_order_relaxed);
}

static void woken(void *unused)
{
	(void)unused;
	/* Only wakes the loop. Never work here: a one-shot can run in the
	 * middle of a busy script. */
}

void kea_wake_main(void)
{
	/*
	 * Release: a thread that finds the flag set makes no one-shot, and
	 * relies on the turn that clears it to see what it has done before.
	 * Pairs with the acquire in kea_loop_before_sleep, whose exchange comes
	 * after ours in the flag's order.
	 */
	if (atomic_exchange_explicit(&called, true, memory_order_release))
		return;
	RedisModule_EventLoopAddOneShot(woken, NULL);
}

void kea_loop_nudge(void)
{
	if (kea_loop.nudged)
		return;
	kea_loop.nudged = true;
	RedisModule_EventLoopAddOneShot(woken, NULL);
}

void kea_loop_end_turn(RedisModuleCtx *ctx)
{
	if (!kea_policy_idle(&kea_flow) &&
	    kea_policy_turn(&kea_flow, ctx, KEA_TURN_NORMAL)) {
		kea_wake_publisher();
		KEA_FAULT("publisher-woken");
	}
	kea_spool_turn(ctx);
	kea_slots_end_turn();
	/* A backlog is worked off in slices, a slice a turn: ask for the next
	 * one when the list has to take what memory holds. */
	if (kea_flow.left.stores)
		kea_wake_main();
}

void kea_loop_before_sleep(RedisModuleCtx *ctx)
{
	/*
	 * Before we look, so that what is asked for meanwhile is asked anew.
	 * Acquire: see kea_wake_main. The load before it saves the exchange,
	 * which is dear, and may be relaxed: if it misses a flag just set, the
	 * one-shot that belongs to it makes another turn.
	 */
	if (atomic_load_explicit(&called, memory_order_relaxed))
		atomic_exchange_explicit(&called, false, memory_order_acquire);
	kea_replicate_deferred(ctx);
	kea_extras_flush();
	/* First, so that what expires is delivered or stored in this turn. */
	kea_expire_turn(ctx);
	kea_snapshot_turn(ctx);
	kea_loop_end_turn(ctx);
	if (kea_flow.home.scan && kea_home_scan(&kea_flow.home, ctx))
		kea_wake_main();
	kea_drop_spool();
	kea_loop.past_turn = true;
	kea_loop.nudged = false;
}

void kea_loop_after_sleep(void)
{
	kea_loop.past_turn = false;
}
