/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow.h: the one queue of undelivered events, in its pieces: the fallback list,
 * what is lent to the publisher, and memory (mirror.h shows their order). What
 * moves between them is the policy's (policy.h). Main thread only, except where
 * a comment says otherwise.
 *
 * With outbox on, an event is stored in the turn that made it, and lent in the
 * same turn if the publisher has room for it; else it is read from the list
 * later. So nothing is in memory and in the list at once except what is lent.
 */
#ifndef KEA_FLOW_H
#define KEA_FLOW_H

#include "demoted.h"
#include "home.h"
#include "kea.h"
#include "mirror.h"

/* What a turn has left to be done. */
struct kea_left {
	bool some;   /* events that another turn could store or lend */
	bool stores; /* more to store, or to drop from the list: turn at once */
	bool barred; /* outbox, and the server lets nobody store now */
};

/* One kind of line in the log: how many there were in its minute. */
#define KEA_KINDS_OF_LINES 16
struct kea_lines {
	const char *format; /* what tells the kinds apart; NULL: not in use */
	long long minute_ms; /* when the minute began */
	unsigned logged, left_out;
};

struct kea_flow {
	struct kea_queue queue; /* memory */
	struct kea_lent *lent;
	struct kea_mirror mirror; /* of the list */
	struct kea_home home;     /* which list it is */
	struct kea_demoted demoted;
	RedisModuleCtx *ctx; /* for the log; may be NULL */

	struct kea_settings settings;

	/* Set by the publisher, any thread: the session is down or blocked, so
	 * store what there is, and lend nothing. */
	_Atomic bool away;

	uint64_t captured; /* events appended since the last turn */
	struct kea_left left;

	/* Counters for INFO. */
	uint64_t stored, dropped, unreplicated;
	bool drop_logged; /* since the backlog was last empty */

	struct kea_lines lines[KEA_KINDS_OF_LINES]; /* of kea_flow_log */
};

/* ctx is OnLoad's; log may be used for as long as the flow is. */
void kea_flow_init(struct kea_flow *f, struct kea_lent *lent,
		   RedisModuleCtx *ctx, RedisModuleCtx *log);

/* kea_flow_free frees all records, lent ones too: there must be no publisher. */
void kea_flow_free(struct kea_flow *f);

/* Any thread. A hint only: the session is down or blocked. */
static inline bool kea_flow_is_away(const struct kea_flow *f)
{
	/* Relaxed: nothing else is read by it, and a stale answer holds for a
	 * turn. */
	return atomic_load_explicit(&f->away, memory_order_relaxed);
}

/* kea_flow_lose_list: nothing is known of the list any more; what was lent is
 * in memory, and stays so. */
void kea_flow_lose_list(struct kea_flow *f);

/* kea_flow_forget_list: the list may no longer be written by us (this node has
 * become a replica), or may be from now on (a master): look at it anew. In a
 * cluster it is one of those that were seen, and not in use. */
void kea_flow_forget_list(struct kea_flow *f);

/* kea_flow_list_touched: somebody else touched a key that is a fallback list,
 * ours or another node's. Runs inside the keyspace callback. */
void kea_flow_list_touched(struct kea_flow *f, const char *name, size_t len);

/*
 * kea_flow_log logs a line that others can provoke, those who may write a list's
 * key above all. Each kind of line, by its format, comes so many times a minute at
 * most, and the next one says how many were left out.
 */
void kea_flow_log(struct kea_flow *f, const char *level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* kea_flow_drop counts n events as dropped, and logs why, once until the
 * backlog is empty again. */
void kea_flow_drop(struct kea_flow *f, uint64_t n, const char *why);

/* kea_flow_unreplicated counts n commands that the server has refused to
 * replicate, and says so in the log. */
void kea_flow_unreplicated(struct kea_flow *f, uint64_t n);

/* Events in memory that the list does not hold, lent ones included. */
uint64_t kea_flow_unstored(const struct kea_flow *f);

/* kea_flow_undelivered counts the events that a shutdown would lose: neither
 * settled nor in the list. */
uint64_t kea_flow_undelivered(const struct kea_flow *f);

/* kea_flow_visit calls visit with each run of those events, oldest first. */
void kea_flow_visit(struct kea_flow *f,
		    void (*visit)(void *arg, const struct kea_run *run),
		    void *arg);

/* Age of the oldest undelivered event in milliseconds, 0 when there is none. */
long long kea_flow_oldest_ms(struct kea_flow *f, RedisModuleCtx *ctx,
			     long long now_ms);

extern struct kea_flow kea_flow;

#endif /* KEA_FLOW_H */
