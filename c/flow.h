/*
 * flow.h: the flow of events through the one queue of design: memory, the
 * fallback list, and what is lent to the publisher. Main thread only, but for
 * what flow.h marks otherwise.
 *
 * The queue's order, oldest first:
 *
 *     fallback list:       [ held ][ pending ]
 *     lent:     [ trimmed ][ held ]           [ unstored ]
 *     memory:                                             [ unstored ]
 *
 * held      elements at the list's head that the publisher has a copy of
 * trimmed   lent events whose element has left the list before they were
 *           settled (the list's limit, or somebody's LPOP)
 * pending   elements that are nowhere in memory: to be read from the list
 *
 * With outbox on, an event is stored in the turn that made it, and lent in the
 * same turn if the publisher has room for it; else it is read from the list
 * later. So nothing is ever in memory and in the list at once, but what is lent.
 *
 * Storing goes from the oldest unstored event on, so among what is lent the
 * stored ones come first; and memory is lent only when nothing is pending.
 */
#ifndef KEA_FLOW_H
#define KEA_FLOW_H

#include "home.h"
#include "lent.h"
#include "list.h"

/* What a demoted master's events in memory wait for: demoted.c. */
struct kea_demoted {
	bool waits;
	uint64_t youngest_ms; /* capture of the youngest of them */
	uint64_t heads;       /* what changes with the lists' heads */
	long long since_ms;   /* since when it has not */
};

struct kea_flow {
	struct kea_queue queue;
	struct kea_lent *lent;
	struct kea_home home; /* which list it is */
	RedisModuleCtx *ctx;  /* for the log; may be NULL */

	/* Settings. */
	int64_t list_limit;  /* > 0 the most kept, 0 unlimited, < 0 store none */
	size_t buffer_limit; /* bytes in memory before the list is used */
	uint32_t window;     /* events lent at the most */
	bool outbox;

	/* Set by the publisher, any thread: the link is down or blocked, so
	 * store what there is, and lend nothing. */
	_Atomic bool away;

	uint64_t held, trimmed, pending;
	bool list_known;  /* the three above describe the list */
	bool list_check;  /* compare with the list at the next turn */
	bool again;       /* the last turn left work that it could have done */
	uint64_t captured; /* events appended since the last turn */
	bool store_more;   /* memory holds more that should be stored */
	struct kea_demoted demoted;
	bool barred;       /* outbox, and the server lets nobody store now */
	bool wrong_type;   /* the list's key holds something else */
	bool drop_logged; /* since the backlog was last empty */

	/* Counters for INFO. */
	uint64_t stored, dropped;
};

/* What a turn may do. */
enum kea_turn {
	KEA_TURN_NORMAL,
	KEA_TURN_LEND_ONLY, /* the dataset is not touched */
};

/*
 * kea_flow_turn does what is due at the end of an event-loop turn: takes in
 * settlements, stores, lends. It returns true when something was lent. It
 * checks by itself whether the dataset may be written.
 */
bool kea_flow_turn(struct kea_flow *f, RedisModuleCtx *ctx, enum kea_turn how);

/* A hint only: the link is down or blocked. */
static inline bool kea_flow_is_away(const struct kea_flow *f)
{
	return atomic_load_explicit(&f->away, memory_order_relaxed);
}

/*
 * moves.c. kea_moves_ready settles which list a turn works with; storing: one is
 * needed. The server is asked before a key is made, lest it be made in a slot
 * that is not ours, and once a second. False: none can be used now.
 */
bool kea_moves_ready(struct kea_flow *f, RedisModuleCtx *ctx, bool storing);

/* kea_flow_lose_list: nothing is known of the list any more; what was lent is
 * in memory, and stays so. */
void kea_flow_lose_list(struct kea_flow *f);

/* demoted.c. kea_demoted_look settles whether a replica's events in memory have
 * to wait (demoted.waits), for there are older ones in the list. To be called at
 * each turn, while the dataset is whole. */
void kea_demoted_look(struct kea_flow *f, RedisModuleCtx *ctx);

/* kea_flow_idle tells, in a few loads, that a turn would find nothing to do. */
bool kea_flow_idle(const struct kea_flow *f);

/* The list is no longer ours to write (this node has become a replica), or is
 * about to be (it has become a master): look at it anew. */
void kea_flow_forget_list(struct kea_flow *f);

/* A key that is a fallback list, ours or another node's, was touched by
 * somebody else. Runs inside the keyspace callback. */
void kea_flow_list_touched(struct kea_flow *f, const char *name, size_t len);

/* kea_flow_free frees all records, lent ones too: there must be no publisher. */
void kea_flow_free(struct kea_flow *f);

/* kea_flow_undelivered counts the events that a shutdown would lose: neither
 * settled nor in the list. */
uint64_t kea_flow_undelivered(const struct kea_flow *f);

/* kea_flow_visit calls visit with each run of those events, oldest first. */
void kea_flow_visit(struct kea_flow *f,
		    void (*visit)(void *arg, const struct kea_run *run),
		    void *arg);

/* Events in memory that the list does not hold, lent ones included. */
uint64_t kea_flow_unstored(const struct kea_flow *f);

/* Elements in the list, as far as we know. */
uint64_t kea_flow_list_length(const struct kea_flow *f);

/* Age of the oldest undelivered event in milliseconds, 0 when there is none. */
long long kea_flow_oldest_ms(struct kea_flow *f, RedisModuleCtx *ctx,
			     long long now_ms);

#endif /* KEA_FLOW_H */
