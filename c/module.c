/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * module.c: the module's entry and exit, and how settings take effect.
 *
 * Who runs where:
 *  1. The server's lock holder (the main thread) runs everything in this
 *     folder except what kea.h marks [pub] or [any].
 *  2. The publisher's goroutine runs the [pub] functions. Records pass to it
 *     and back by lending (lent.h), never by a lock.
 *  3. C calls Go for load, unload, commands, configurations and messages of the
 *     cluster bus (in cluster mode also once a second) only; never for
 *     an event, never at the end of a turn, never for INFO.
 *  4. Go never touches the dataset: it wakes the main thread, which does.
 */
#include "_cgo_export.h"
#include "module.h"

#include "alarm.h"
#include "args.h"
#include "bus.h"
#include "commands.h"
#include "config.h"
#include "crash.h"
#include "events.h"
#include "expire.h"
#include "extras.h"
#include "flow.h"
#include "hook.h"
#include "info.h"
#include "kea.h"
#include "learn.h"
#include "loop.h"
#include "needs.h"
#include "publisher.h"
#include "shutdown.h"
#include "slack.h"
#include "slots.h"
#include "snapshot.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#define MODULE_NAME "key_evt_amqp"
#define VISIBLE __attribute__((visibility("default")))

static RedisModuleCtx *detached;
static void *masks_memory;

RedisModuleCtx *kea_module_ctx(void)
{
	return detached;
}

/* ---- what kea.h promises ------------------------------------------------- */

const char *kea_configure(const struct kea_settings *s)
{
	void *memory = NULL;
	uint32_t classes = s->classes;
	const char *wrong;
	bool same;

	if (s->masks_len > 0) {
		/* Compiled by Go, run by C: a slip between the two must not
		 * become a wild read on the main thread. */
		memory = RedisModule_Alloc(s->masks_len);
		memcpy(memory, s->masks, s->masks_len);
		wrong = kea_program_check(memory, s->masks_len);
		if (wrong) {
			RedisModule_Free(memory);
			return wrong;
		}
	}
	classes |= kea_expire_classes(s->expire_on_time && memory, classes);
	wrong = kea_extras_configure(detached, s->values, s->value_limit);
	if (!wrong && kea_hook_subscribe(detached, classes) != REDISMODULE_OK)
		wrong = "the server refuses a keyspace subscription";
	if (wrong) {
		RedisModule_Free(memory);
		return wrong;
	}
	same = memory && kea_hook.masks &&
	       kea_hook.masks->size == s->masks_len &&
	       memcmp(memory, kea_hook.masks, s->masks_len) == 0;
	RedisModule_Free(masks_memory);
	masks_memory = memory;
	kea_hook.masks = memory;
	kea_hook.classes = s->classes;
	kea_flow.settings = *s;
	kea_flow.settings.masks = memory;
	kea_flow.mirror.check = true;
	kea_publisher_set_window(s->window);
	kea_expire_configure(s->expire_on_time, (size_t)s->expire_watch_limit,
			     !same);
	return NULL;
}

bool kea_is_active_master(void)
{
	return kea_hook.active_master;
}

uint32_t kea_server_classes(void)
{
	return (uint32_t)RedisModule_GetKeyspaceNotificationFlagsAll();
}

void kea_log(const char *level, const char *text)
{
	RedisModule_Log(detached, level, "%s", text);
}

/* ---- load and unload ---------------------------------------------------- */

static void release_all(void)
{
	kea_hook.loaded = false;
	kea_flow_free(&kea_flow);
	if (kea_queue_allocated() != 0)
		RedisModule_Log(NULL, "warning",
				"key_evt_amqp: %llu bytes of the event queue "
				"are leaked",
				(unsigned long long)kea_queue_allocated());
	kea_alarm_free();
	kea_learn_free();
	kea_snapshot_free();
	kea_slots_free();
	kea_extras_free();
	kea_drop_deferred();
	kea_config_free();
	kea_spool_end();
	kea_publisher_free();
	RedisModule_Free(masks_memory);
	if (detached)
		RedisModule_FreeThreadSafeContext(detached);
	masks_memory = detached = NULL;
}

/*
 * Memory for chunks, from the kernel and not from the server's allocator: what
 * that gives out counts towards maxmemory. An eviction makes events, whose
 * memory would make evictions in turn, and a slow broker would cost the cache
 * its keys or clients an OOM error. The server leaves out its own buffers for
 * replicas and the AOF for that reason. buffer_limit bounds ours.
 *
 * Populated at once: page faults one by one cost more, and all is written soon.
 */
static void *map_pages(size_t size)
{
	void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (pages != MAP_FAILED)
		return pages;
	RedisModule_Log(NULL, "warning",
			"key_evt_amqp: out of memory for %llu bytes of events",
			(unsigned long long)size);
	abort();
}

static void unmap_pages(void *pages, size_t size)
{
	munmap(pages, size);
}

/* prepare makes all state what it is before any event: the library stays in the
 * process after an unload, and its variables with it. */
static int prepare(RedisModuleCtx *ctx)
{
	struct kea_lent *lent = kea_publisher_init();

	masks_memory = NULL;
	detached = RedisModule_GetDetachedThreadSafeContext(ctx);
	kea_queue_allocator(map_pages, unmap_pages);
	memset(&kea_hook, 0, sizeof(kea_hook));
	kea_extras_init();
	kea_info_init();
	kea_loop_init();
	kea_slots_init(ctx, RedisModule_GetContextFlags(ctx) &
				    REDISMODULE_CTX_FLAGS_CLUSTER);
	kea_flow_init(&kea_flow, lent, ctx, detached);
	kea_hook.list_classes = kea_flow.home.cluster ? KEA_HOME_CLASSES : 0;
	if (lent && getrandom(&kea_hook.origin, sizeof(kea_hook.origin), 0) ==
			    sizeof(kea_hook.origin))
		return REDISMODULE_OK;
	RedisModule_Log(ctx, "warning",
			"no eventfd or no random bytes to be had");
	return REDISMODULE_ERR;
}

/* log_error logs and frees what Go reported; true when it was an error. */
static bool log_error(RedisModuleCtx *ctx, char *error)
{
	if (!error)
		return false;
	RedisModule_Log(ctx, "warning", "%s", error);
	free(error);
	return true;
}

/* options: else a server with any module turns features of its own off,
 * repl-diskless-load swapdb and Valkey's atomic slot migration. We keep nothing
 * that either could upset: what we write are ordinary keys. And we say ourselves
 * when the list has changed: else opening it to look would tell so to all who
 * watch or track it, once a second. */
static int options(void)
{
	int all = REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD |
		  REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED;

	/* The same bit may mean something else to Redis one day. */
	if (kea_api_valkey_options)
		all |= kea_api_valkey_options() &
		       VALKEYMODULE_OPTIONS_HANDLE_ATOMIC_SLOT_MIGRATION;
	return all;
}

static int load(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	struct kea_arg *args;
	char *error;

	args = kea_args_view(argv, argc, "", &error);
	if (args)
		error = keaGoLoad(args, argc);
	RedisModule_Free(args);
	if (log_error(ctx, error))
		return REDISMODULE_ERR;
	if (kea_create_commands(ctx) != REDISMODULE_OK) {
		RedisModule_Log(ctx, "warning", "can't create the commands");
		return REDISMODULE_ERR;
	}
	if (keaGoRegister(ctx) != REDISMODULE_OK ||
	    RedisModule_LoadConfigs(ctx) != REDISMODULE_OK)
		return REDISMODULE_ERR;
	if (log_error(ctx, keaGoStart()))
		return REDISMODULE_ERR;
	RedisModule_RegisterInfoFunc(ctx, kea_info);
	if (!kea_events_subscribe(ctx))
		return REDISMODULE_ERR;
	/*
	 * Last, and nothing may fail after it: on 7.0 a load that fails leaves
	 * keyspace subscriptions behind, and the server crashes at the next
	 * event. It can only fail for want of a context's module.
	 */
	kea_take_in_spool(ctx);
	kea_hook.loaded = true;
	kea_update_role(ctx);
	kea_hook_subscribe(detached,
			   kea_hook.classes |
				   kea_expire_classes(
					   kea_flow.settings.expire_on_time &&
						   kea_hook.masks,
					   kea_hook.classes));
	kea_bus_init(ctx);
	return REDISMODULE_OK;
}

VISIBLE int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv,
			       int argc);
VISIBLE int RedisModule_OnUnload(RedisModuleCtx *ctx);

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	const char *missing = kea_api_bind(ctx);

	kea_slack_restore();
	if (missing) {
		/* Log may be what is missing. */
		if (RedisModule_Log)
			RedisModule_Log(ctx, "warning",
					"this server lacks "
					"RedisModule_%s; Redis 7.0 or Valkey "
					"7.2 is needed",
					missing);
		return REDISMODULE_ERR;
	}
	if (RedisModule_IsModuleNameBusy(MODULE_NAME)) {
		/* Some tools write the loadmodule line twice. */
		RedisModule_Log(ctx, "warning",
				"a module named " MODULE_NAME " is loaded "
				"already: is there a second loadmodule line?");
		return REDISMODULE_ERR;
	}
	RedisModule_SetModuleAttribs(ctx, MODULE_NAME, KEA_VERSION,
				     REDISMODULE_APIVER_1);
	RedisModule_SetModuleOptions(ctx, options());
	if (!kea_needs_met(ctx, RedisModule_GetContextFlags(ctx) &
					REDISMODULE_CTX_FLAGS_CLUSTER))
		return REDISMODULE_ERR;
	kea_crash_prepare(ctx); /* before Go sees this thread */
	if (prepare(ctx) != REDISMODULE_OK ||
	    load(ctx, argv, argc) != REDISMODULE_OK) {
		keaGoStop();
		release_all();
		return REDISMODULE_ERR;
	}
	return REDISMODULE_OK;
}

int RedisModule_OnUnload(RedisModuleCtx *ctx)
{
	if (kea_extras_busy()) {
		RedisModule_Log(ctx, "warning",
				"not unloaded: the transaction has events to "
				"finish");
		return REDISMODULE_ERR;
	}
	/*
	 * The dataset may not be touched: MODULE UNLOAD is a command, and one
	 * that changes something is propagated as it is, so the replicas would
	 * unload the module, too, and so would the server itself when it reads
	 * its AOF. What the list cannot take goes into the spool file.
	 */
	kea_extras_flush(); /* what is held back must be spooled, too */
	if (!kea_spool_rest(ctx)) {
		RedisModule_Log(ctx, "warning",
				"not unloaded: %llu events are undelivered, and "
				"can't be spooled",
				(unsigned long long)kea_flow_undelivered(
					&kea_flow));
		return REDISMODULE_ERR;
	}
	keaGoStop();
	release_all();
	return REDISMODULE_OK;
}
