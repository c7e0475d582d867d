/* state.h: the module's one state, seen by the C files only. Main thread, but
 * for what is atomic. */
#ifndef KEA_STATE_H
#define KEA_STATE_H

#include "kea.h"
#include "match.h"
#include "policy.h"

/*
 * A short text that one thread writes and INFO reads, even from the crash
 * handler: no lock. version is odd while a write is under way.
 */
struct kea_text {
	_Atomic uint32_t version;
	_Atomic uint64_t words[32];
};

struct kea_module {
	/* Read by every event; written when a setting changes. */
	bool active;        /* loaded, and not being unloaded */
	bool past_turn;     /* between BEFORE_SLEEP and AFTER_SLEEP */
	bool nudged;        /* a turn was forced in that gap already */
	uint32_t classes;
	const struct kea_program *masks;
	uint64_t masks_count;
	uint32_t list_classes; /* by whose events lists show up; cluster only */
	int moved_from;        /* database of the last MOVE */
	uint64_t origin, seq;
	uint64_t captured, filtered;
	uint64_t missed; /* of captured: reads of keys that were not there */
	/* The server is a master and not loading. Kept by the events that
	 * announce each change of that (kea_look_whose): to ask at each
	 * keyspace event is dear, for the answer comes with a look at memory. */
	bool ours;
	struct kea_flow flow;

	bool spooled;        /* a spool file is there; all in it is here, too */
	uint64_t spool_stored; /* events stored until then */
	uint64_t spool_seq;    /* the last event captured until then */
	uint64_t spool_looked; /* events of writes that it has looked at */
	uint32_t shutdown_timeout_ms;
	char spool_path[64]; /* in the server's dir, which it runs in */

	RedisModuleCtx *ctx; /* detached: for logs, and INFO's look at the list */
	void *masks_memory;
	uint32_t subscribed;
	int cron_ticks;
	int event_fd;
	bool event_fd_given; /* Go closes it */

	_Atomic uint32_t window; /* flow.window, for the publisher */
	_Atomic bool main_called; /* a one-shot is under way */
	_Atomic uint64_t connects, connect_failures, published, confirmed,
		returned, nacked, poisoned, inflight, goroutines;
	_Atomic int state, port;
	_Atomic uint64_t settings_version, bus_ignored;
	struct kea_text host, error;

	/* The publisher's own: events taken and not settled. */
	uint64_t out;

	struct kea_lent lent;
};

extern struct kea_module kea;

/* hook.c */
int kea_on_key_event(RedisModuleCtx *ctx, int type, const char *event,
		     RedisModuleString *key);

/* turn.c */
void kea_on_loop(RedisModuleCtx *ctx, RedisModuleEvent e, uint64_t sub,
		 void *data);
void kea_on_slots_moved(void);
void kea_look_whose(RedisModuleCtx *ctx); /* sets ours */
void kea_wake_main(void);
void kea_wake_publisher(void);

/* shutdown.c */
void kea_on_shutdown(RedisModuleCtx *ctx);
/* Waits for confirms, a bounded time, and spools what is left; the dataset is
 * not touched. False: the file can't be made, and nothing has changed. */
bool kea_spool_rest(RedisModuleCtx *ctx);
/* At each turn's end. With outbox, where the server forbids writes (CLIENT
 * PAUSE, FAILOVER) or this master has become a replica: spools what the turn's
 * writes left undelivered, before they are answered. Reads go on in a pause,
 * and may make events, but need no such care. */
void kea_spool_turn(RedisModuleCtx *ctx);
void kea_take_in_spool(RedisModuleCtx *ctx);
void kea_drop_spool(void);

/* info.c */
void kea_info(RedisModuleInfoCtx *ctx, int for_crash_report);

/* crash.c */
void kea_crash_prepare(RedisModuleCtx *ctx);
void kea_crash_ready_for_memory_test(void);

/* slack.c. kea_slack_restore gives the main thread its own timer slack back,
 * once Go has started; later calls do nothing. */
void kea_slack_restore(void);

/* commands.c */
int kea_create_commands(RedisModuleCtx *ctx);
void kea_replicate_deferred(RedisModuleCtx *ctx);
void kea_drop_deferred(void);

/* bus.c */
void kea_bus_init(RedisModuleCtx *ctx);

/* config.c */
void kea_config_free(void);

#endif /* KEA_STATE_H */
