/*
 * module.c: the module's entry and exit, and the functions that kea.h promises
 * to Go.
 *
 * Who runs where:
 *  1. The server's lock holder (the main thread) runs everything in this
 *     folder but what kea.h marks [pub] or [any].
 *  2. The publisher's goroutine runs the [pub] functions. Records pass to it
 *     and back by lending (lent.h), never by a lock.
 *  3. C calls Go for load, unload, commands, configurations and messages of the
 *     cluster bus (in cluster mode also once a second) only; never for
 *     an event, never at the end of a turn, never for INFO.
 *  4. Go never touches the dataset: it wakes the main thread, which does.
 */
#include "_cgo_export.h"
#include "slots.h"
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define MODULE_NAME "key_evt_amqp"
#define VISIBLE __attribute__((visibility("default")))

struct kea_module kea;

/* ---- what kea.h promises ------------------------------------------------ */

const char *kea_configure(const struct kea_params *p)
{
	void *memory = NULL;

	if (p->masks_len > 0) {
		const char *wrong;

		/* Compiled by Go, run by C: a slip between the two must not
		 * become a wild read on the main thread. */
		memory = RedisModule_Alloc(p->masks_len);
		memcpy(memory, p->masks, p->masks_len);
		wrong = kea_program_check(memory, p->masks_len);
		if (wrong) {
			RedisModule_Free(memory);
			return wrong;
		}
	}
	if (kea_subscribe(p->classes) != REDISMODULE_OK) {
		RedisModule_Free(memory);
		return "the server refuses a keyspace subscription";
	}
	RedisModule_Free(kea.masks_memory);
	kea.masks_memory = memory;
	kea.masks = memory;
	kea.masks_count = p->masks_count;
	kea.classes = p->classes;
	kea.flow.list_limit = p->list_limit;
	kea.flow.buffer_limit = p->buffer_limit;
	kea.flow.window = p->window;
	/* A hint for kea_settle: no order needed. */
	atomic_store_explicit(&kea.window, p->window, memory_order_relaxed);
	kea.flow.outbox = p->outbox;
	kea.shutdown_timeout_ms = p->shutdown_timeout_ms;
	kea.flow.mirror.check = true;
	return NULL;
}

uint32_t kea_server_classes(void)
{
	return (uint32_t)RedisModule_GetKeyspaceNotificationFlagsAll();
}

int kea_subscribe(uint32_t classes)
{
	uint32_t missing = classes | kea.list_classes;

	/* A MOVE's new key is told of by itself: give_client_back in hook.c
	 * needs what follows. */
	if (classes & REDISMODULE_NOTIFY_NEW)
		missing |= REDISMODULE_NOTIFY_GENERIC;
	missing &= ~kea.subscribed;
	/* Before OnLoad's end nothing may be subscribed: see there. */
	if (!kea.active || missing == 0)
		return REDISMODULE_OK;
	if (RedisModule_SubscribeToKeyspaceEvents(kea.ctx, (int)missing,
						  kea_on_key_event) !=
	    REDISMODULE_OK)
		return REDISMODULE_ERR;
	kea.subscribed |= missing;
	return REDISMODULE_OK;
}

bool kea_take(struct kea_span *span)
{
	struct kea_run run;

	if (!kea_lent_take(&kea.lent, &run))
		return false;
	span->start = run.start;
	span->bytes = run.bytes;
	span->count = run.count;
	kea.out += run.count;
	return true;
}

void kea_settle(uint64_t n)
{
	kea.out -= n;
	kea_lent_report_settled(&kea.lent, n);
	/* The main thread takes it in at its next turn anyway; wake it when
	 * it has more for us, and when all is done, to free what was lent. */
	if (kea.out == 0 ||
	    (atomic_load_explicit(&kea.lent.more, memory_order_relaxed) &&
	     kea.out <= atomic_load_explicit(&kea.window,
					     memory_order_relaxed) / 2))
		kea_wake_main();
}

void kea_rewind(void)
{
	kea.out = 0;
	kea_lent_rewind(&kea.lent);
	kea_wake_main();
}

bool kea_sleep(void)
{
	return kea_lent_sleep(&kea.lent);
}

int kea_event_fd(void)
{
	kea.event_fd_given = true;
	return kea.event_fd;
}

void kea_away(bool away)
{
	/* Relaxed: a hint for the policy, see kea_flow_is_away. */
	if (atomic_exchange_explicit(&kea.flow.away, away,
				     memory_order_relaxed) != away)
		kea_wake_main();
}

void kea_log(const char *level, const char *text)
{
	RedisModule_Log(kea.ctx, level, "%s", text);
}

/* ---- load and unload ---------------------------------------------------- */

static void release_all(void)
{
	kea.active = false;
	kea_flow_free(&kea.flow);
	if (kea_queue_allocated() != 0)
		RedisModule_Log(NULL, "warning",
				"key_evt_amqp: %llu bytes of the event queue "
				"are leaked",
				(unsigned long long)kea_queue_allocated());
	kea_slots_free();
	kea_drop_deferred();
	kea_config_free();
	RedisModule_Free(kea.masks_memory);
	if (kea.ctx)
		RedisModule_FreeThreadSafeContext(kea.ctx);
	if (kea.event_fd >= 0 && !kea.event_fd_given)
		close(kea.event_fd);
	memset(&kea, 0, sizeof(kea));
	kea.event_fd = -1;
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

static int prepare(RedisModuleCtx *ctx)
{
	memset(&kea, 0, sizeof(kea));
	kea_queue_allocator(map_pages, unmap_pages);
	kea.ctx = RedisModule_GetDetachedThreadSafeContext(ctx);
	kea_slots_init(ctx, RedisModule_GetContextFlags(ctx) &
				    REDISMODULE_CTX_FLAGS_CLUSTER);
	kea_flow_init(&kea.flow, &kea.lent, ctx, kea.ctx);
	kea.list_classes = kea.flow.home.cluster ? KEA_HOME_CLASSES : 0;
	kea.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (kea.event_fd < 0 || getrandom(&kea.origin, sizeof(kea.origin), 0) !=
					sizeof(kea.origin)) {
		RedisModule_Log(ctx, "warning",
				"no eventfd or no random bytes to be had");
		return REDISMODULE_ERR;
	}
	return REDISMODULE_OK;
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
	static const uint64_t events[] = {
		REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
		REDISMODULE_EVENT_FLUSHDB,
		REDISMODULE_EVENT_LOADING,
		REDISMODULE_EVENT_CRON_LOOP,
		REDISMODULE_EVENT_SHUTDOWN,
		REDISMODULE_EVENT_SWAPDB,
		REDISMODULE_EVENT_EVENTLOOP,
	};
	struct kea_arg *args;
	char *error;

	args = RedisModule_Alloc(sizeof(*args) * (size_t)(argc + 1));
	for (int i = 0; i < argc; i++)
		args[i].bytes = RedisModule_StringPtrLen(argv[i], &args[i].len);
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
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		RedisModuleEvent e = { .id = events[i], .dataver = 1 };

		if (RedisModule_SubscribeToServerEvent(ctx, e, kea_on_loop) !=
		    REDISMODULE_OK) {
			RedisModule_Log(ctx, "warning",
					"the server lacks event %d",
					(int)events[i]);
			return REDISMODULE_ERR;
		}
	}
	kea_slots_subscribe(ctx, kea_on_slots_moved);
	/*
	 * Last, and nothing may fail after it: on 7.0 a load that fails leaves
	 * keyspace subscriptions behind, and the server crashes at the next
	 * event. It can only fail for want of a context's module.
	 */
	kea_take_in_spool(ctx);
	kea.active = true;
	kea_look_whose(ctx);
	kea_subscribe(kea.classes);
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
	if (RedisModule_IsModuleNameBusy(MODULE_NAME))
		return REDISMODULE_ERR;
	RedisModule_SetModuleAttribs(ctx, MODULE_NAME, KEA_VERSION,
				     REDISMODULE_APIVER_1);
	RedisModule_SetModuleOptions(ctx, options());
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
	/*
	 * The dataset may not be touched: MODULE UNLOAD is a command, and one
	 * that changes something is propagated as it is, so the replicas would
	 * unload the module, too, and so would the server itself when it reads
	 * its AOF. What the list cannot take goes into the spool file.
	 */
	if (!kea_spool_rest(ctx)) {
		RedisModule_Log(ctx, "warning",
				"not unloaded: %llu events are undelivered and "
				"%s can't be written",
				(unsigned long long)kea_flow_undelivered(
					&kea.flow),
				kea.spool_path);
		return REDISMODULE_ERR;
	}
	keaGoStop();
	release_all();
	return REDISMODULE_OK;
}
