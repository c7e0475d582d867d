/* flow.c: the policies of flow.h, one small function each. */
#include "flow.h"

#include "fault.h"

#include <string.h>

/* One turn stores at most this many events more than one turn would capture
 * anyway, and reads at most so many chunks of the list, lest a long backlog
 * delay the commands of the next turn. */
#define STORE_SLICE 4096
#define READ_SLICE_CHUNKS 2
#define READ_SLICE_EVENTS 512
/* Bytes lent at the most; one event may exceed it alone. */
#define LENT_BYTES ((size_t)8 << 20)

static void count_dropped(struct kea_flow *f, uint64_t n, const char *why)
{
	if (n == 0)
		return;
	f->dropped += n;
	if (f->drop_logged)
		return;
	f->drop_logged = true;
	RedisModule_Log(f->ctx, "warning",
			"events dropped (%s); the count goes on "
			"in INFO, events_dropped",
			why);
}

uint64_t kea_flow_list_length(const struct kea_flow *f)
{
	return f->held + f->pending;
}

uint64_t kea_flow_unstored(const struct kea_flow *f)
{
	return f->lent->count - f->held - f->trimmed + f->queue.count;
}

uint64_t kea_flow_undelivered(const struct kea_flow *f)
{
	uint64_t settled = kea_lent_settled(f->lent);
	uint64_t stored = f->held + f->trimmed;

	return kea_flow_unstored(f) - (settled > stored ? settled - stored : 0);
}

void kea_flow_visit(struct kea_flow *f,
		    void (*visit)(void *arg, const struct kea_run *run),
		    void *arg)
{
	uint64_t skip = kea_lent_settled(f->lent);
	struct kea_lent_run *r;
	struct kea_run run;

	for (uint64_t i = 0; (r = kea_lent_nth(f->lent, i)); i++) {
		run = r->run;
		for (; skip > 0 && run.count > 0; skip--) {
			uint8_t *after = kea_record_after(run.start);

			run.bytes -= (size_t)(after - run.start);
			run.start = after;
			run.count--;
		}
		if (!r->stored && run.count > 0)
			visit(arg, &run);
	}
	kea_queue_visit(&f->queue, visit, arg);
}

void kea_flow_free(struct kea_flow *f)
{
	struct kea_lent_run r;

	while (kea_lent_unlend(f->lent, &r))
		kea_run_release(&f->queue, &r.run, r.run.count);
	kea_queue_free(&f->queue);
}

void kea_flow_lose_list(struct kea_flow *f)
{
	struct kea_lent_run *r;

	for (uint64_t i = 0; (r = kea_lent_nth(f->lent, i)); i++)
		r->stored = false;
	f->held = f->trimmed = f->pending = f->home.waiting = 0;
	memset(&f->demoted, 0, sizeof(f->demoted));
	f->list_known = false;
	f->list_check = true;
}

void kea_flow_forget_list(struct kea_flow *f)
{
	struct kea_home_name name = f->home.name;

	if (f->home.cluster && f->home.key) {
		kea_home_leave(&f->home);
		kea_home_note(&f->home, name.text, name.len);
	}
	kea_flow_lose_list(f);
}

void kea_flow_list_touched(struct kea_flow *f, const char *name, size_t len)
{
	kea_home_note(&f->home, name, len);
	f->home.asked = false;
	f->list_check = true;
}

bool kea_flow_idle(const struct kea_flow *f)
{
	return f->queue.count == 0 && !f->again && !f->list_check &&
	       f->lent->count == 0 && !kea_lent_returned(f->lent) &&
	       f->list_known;
}

/* held_before counts the held events older than the one with this id; all of
 * them when it is not among them. */
static uint64_t held_before(struct kea_flow *f, const struct kea_record *id)
{
	uint64_t skip = f->trimmed, i = 0, n = 0;
	struct kea_lent_run *r;

	for (; (r = kea_lent_nth(f->lent, i)) && r->stored; i++) {
		uint8_t *pos = r->run.start;

		for (uint32_t k = 0; k < r->run.count; k++) {
			size_t len;
			const struct kea_record *rec = kea_record_at(pos, &len);

			if (skip > 0)
				skip--;
			else if (rec->origin == id->origin &&
				 rec->seq == id->seq)
				return n;
			else
				n++;
			pos = kea_record_after(pos);
		}
	}
	return f->held;
}

/*
 * reconcile makes our picture of the list agree with the list after somebody
 * else has changed it: deleted, trimmed, flushed, swapped, evicted, restored.
 */
static void reconcile(struct kea_flow *f, struct kea_list *l)
{
	uint64_t len = kea_list_length(l), gone, rest;
	struct kea_record id;

	f->list_check = false;
	if (!f->list_known) {
		f->pending = len;
		f->list_known = true;
		return;
	}
	if (len == kea_flow_list_length(f))
		return;
	gone = kea_list_id(l, 0, &id) ? held_before(f, &id) : f->held;
	f->trimmed += gone;
	f->held -= gone;
	if (f->held > len) {
		f->trimmed += f->held - len;
		f->held = len;
	}
	rest = len - f->held;
	if (rest < f->pending)
		count_dropped(f, f->pending - rest,
			      "the fallback list was changed by others");
	f->pending = rest;
}

/*
 * settle takes in what the publisher has settled, and pops it from the list.
 * False: the list may not be written now, and what is stored waits.
 */
static bool settle(struct kea_flow *f, struct kea_list *l)
{
	uint64_t n;

	while ((n = kea_lent_settled(f->lent)) > 0) {
		struct kea_lent_run *r = kea_lent_oldest(f->lent);
		uint32_t k = r->run.count < n ? r->run.count : (uint32_t)n;

		if (r->stored && f->trimmed > 0) {
			if (k > f->trimmed)
				k = (uint32_t)f->trimmed;
			f->trimmed -= k;
		} else if (r->stored) {
			size_t len;

			if (!l)
				return false;
			if (!kea_list_pop(l,
					  kea_record_at(r->run.start, &len))) {
				/* Not what we thought: this one is gone. */
				f->held--;
				f->trimmed++;
				reconcile(f, l);
				continue;
			}
			f->held--;
			k = 1;
		}
		kea_lent_pass(f->lent, &f->queue, k);
		KEA_FAULT("settled");
	}
	return true;
}

/* take_back takes what the publisher gave back: a lost session. */
static void take_back(struct kea_flow *f)
{
	struct kea_lent_run r;

	while (kea_lent_unlend(f->lent, &r)) {
		if (r.stored)
			kea_run_release(&f->queue, &r.run, r.run.count);
		else
			kea_queue_putback(&f->queue, &r.run);
	}
	/* Left the list while in flight, and were not confirmed. */
	count_dropped(f, f->trimmed, "no longer in the fallback list");
	f->trimmed = 0;
	f->pending += f->held;
	f->held = 0;
	kea_lent_follow(f->lent);
	KEA_FAULT("taken-back");
}

/* trim keeps the list's limit: the oldest go. */
static void trim(struct kea_flow *f, struct kea_list *l)
{
	uint64_t len = kea_flow_list_length(f), excess, n;

	if (f->list_limit <= 0 || len <= (uint64_t)f->list_limit)
		return;
	excess = len - (uint64_t)f->list_limit;
	kea_list_drop(l, excess);
	n = excess < f->held ? excess : f->held;
	f->held -= n; /* still in flight: dropped only if not confirmed */
	f->trimmed += n;
	excess -= n;
	f->pending -= excess;
	count_dropped(f, excess, "the fallback list is full");
	KEA_FAULT("trimmed");
}

/* store_lent stores what is lent and not in the list yet. Not behind elements
 * that are younger, or wait: a node that has become a master may find a list
 * that others have written. */
static void store_lent(struct kea_flow *f, struct kea_list *l)
{
	uint64_t i = kea_lent_out(f->lent);
	struct kea_lent_run *r;

	if (f->pending > 0)
		return;
	while (i > 0 && !kea_lent_nth(f->lent, i - 1)->stored)
		i--;
	for (; (r = kea_lent_nth(f->lent, i)); i++) {
		kea_list_push(l, &r->run);
		r->stored = true;
		f->held += r->run.count;
		f->stored += r->run.count;
	}
}

/* store_memory moves up to max events from memory to the list. */
static void store_memory(struct kea_flow *f, struct kea_list *l, uint64_t max)
{
	struct kea_run run;

	while (max > 0 &&
	       kea_queue_peek(&f->queue,
			      max > UINT32_MAX ? UINT32_MAX : (uint32_t)max,
			      SIZE_MAX, &run)) {
		kea_queue_take(&f->queue, &run);
		kea_list_push(l, &run);
		f->stored += run.count;
		f->pending += run.count;
		max -= run.count;
		kea_run_release(&f->queue, &run, run.count);
	}
}

/* drop_memory keeps buffer_limit when events can't be stored. */
static void drop_memory(struct kea_flow *f)
{
	struct kea_run run;
	uint64_t n = 0;

	while (f->queue.bytes > f->buffer_limit &&
	       kea_queue_peek(&f->queue, 64, SIZE_MAX, &run)) {
		kea_queue_take(&f->queue, &run);
		n += run.count; /* the release takes it down */
		kea_run_release(&f->queue, &run, run.count);
	}
	count_dropped(f, n, "memory is full and they can't be stored");
}

/* room_to_lend: how many events more the publisher may hold. */
static uint32_t room_to_lend(const struct kea_flow *f)
{
	if (kea_flow_is_away(f) || f->lent->count >= f->window ||
	    f->lent->bytes >= LENT_BYTES || kea_lent_room(f->lent) == 0)
		return 0;
	return (uint32_t)(f->window - f->lent->count);
}

/* lend_memory lends what is in memory; outbox is the list into
 * which it goes first, NULL without. */
static bool lend_memory(struct kea_flow *f, struct kea_list *outbox)
{
	struct kea_run run;
	bool lent = false;

	while (kea_queue_peek(&f->queue, room_to_lend(f),
			      LENT_BYTES - f->lent->bytes, &run)) {
		kea_queue_take(&f->queue, &run);
		if (outbox) {
			kea_list_push(outbox, &run);
			f->stored += run.count;
			f->held += run.count;
		}
		kea_lent_lend(f->lent, &run, outbox != NULL, false);
		KEA_FAULT("memory-lent");
		lent = true;
	}
	return lent;
}

/* lend_list lends a slice of the list. */
static bool lend_list(struct kea_flow *f, struct kea_list *l, bool writable)
{
	bool lent = false, alien = false;
	struct kea_run run;

	for (int i = 0; i < READ_SLICE_CHUNKS && f->pending > 0; i++) {
		uint32_t max = room_to_lend(f);

		if (max == 0)
			break;
		kea_list_read(l, &f->queue, (long)f->held,
			      max < READ_SLICE_EVENTS ? max : READ_SLICE_EVENTS,
			      &run, &alien);
		if (run.count > 0) {
			kea_lent_lend(f->lent, &run, true, true);
			KEA_FAULT("list-lent");
			f->held += run.count;
			f->pending -= run.count < f->pending ? run.count :
							       f->pending;
			lent = true;
		}
		if (alien && f->held == 0 && writable) {
			/* Nothing of ours in front of it any more. */
			kea_list_drop(l, 1);
			f->pending--;
			count_dropped(f, 1, "no event in a list element");
		} else if (run.count == 0) {
			break;
		}
	}
	return lent;
}

/* store applies the policy for when events go into the list. */
static void store(struct kea_flow *f, struct kea_list *l, bool *lent)
{
	uint64_t all = f->queue.count;

	if (f->outbox) {
		store_lent(f, l); /* from before outbox was turned on */
		if (f->pending == 0)
			*lent |= lend_memory(f, l);
		store_memory(f, l, f->queue.count);
	} else if (kea_flow_is_away(f) ||
		   f->queue.bytes + f->lent->bytes > f->buffer_limit) {
		/* What this turn made, and a slice of what was there before. */
		uint64_t slice = f->captured + STORE_SLICE;

		store_lent(f, l);
		store_memory(f, l, all < slice ? all : slice);
		f->store_more = f->queue.count > 0;
	}
	trim(f, l);
}

/* store_due tells whether the policy wants events stored in this turn. */
static bool store_due(const struct kea_flow *f)
{
	return f->list_limit >= 0 && kea_flow_unstored(f) > 0 &&
	       (f->outbox || kea_flow_is_away(f) ||
		f->queue.bytes + f->lent->bytes > f->buffer_limit);
}

/* list_needed tells whether this turn has business with the list. */
static bool list_needed(const struct kea_flow *f)
{
	bool news = kea_lent_settled(f->lent) > 0 || kea_lent_returned(f->lent);

	if (f->list_check || !f->list_known)
		return true;
	if (news && f->held + f->trimmed > 0)
		return true;
	if (f->pending > 0 && room_to_lend(f) > 0)
		return true;
	return store_due(f);
}

/* set_wrong_type notes whether something that is no list has our name. */
static void set_wrong_type(struct kea_flow *f, bool wrong)
{
	if (wrong == f->wrong_type)
		return;
	f->wrong_type = wrong;
	if (!wrong)
		return;
	RedisModule_Log(f->ctx, "warning",
			"the fallback key holds a value of "
			"another type; nothing can be stored until it is "
			"removed");
	if (f->list_known)
		count_dropped(f, f->pending,
			      "the fallback key was overwritten");
}

bool kea_flow_turn(struct kea_flow *f, RedisModuleCtx *ctx, enum kea_turn how)
{
	int flags = RedisModule_GetContextFlags(ctx);
	bool master = flags & REDISMODULE_CTX_FLAGS_MASTER;
	bool whole = !(flags & (REDISMODULE_CTX_FLAGS_LOADING |
				REDISMODULE_CTX_FLAGS_ASYNC_LOADING));
	bool ours = master && whole && how != KEA_TURN_LEND_ONLY;
	/*
	 * A propagated write while the server forbids it (CLIENT PAUSE,
	 * FAILOVER, a shutdown that waits for replicas) asserts and kills the
	 * server.
	 */
	bool writable = ours && RedisModule_AvoidReplicaTraffic() == 0;
	struct kea_list list = { 0 };
	bool lent = false, due = store_due(f), must_store, usable;

	f->store_more = false;
	/* A missing key must not be opened for reading: it counts as a miss. */
	if (ours && list_needed(f) &&
	    (writable || kea_flow_list_length(f) > 0) &&
	    (writable ? kea_moves_ready(f, ctx, due) : f->home.key != NULL)) {
		kea_list_open(&list, ctx, f->home.key, writable);
		set_wrong_type(f, !list.usable);
	}
	if (list.usable)
		reconcile(f, &list);
	else if (f->wrong_type && f->list_known)
		kea_flow_forget_list(f);
	if (settle(f, list.usable && writable ? &list : NULL) &&
	    kea_lent_returned(f->lent))
		take_back(f);
	if (list.usable && writable && f->list_limit >= 0)
		store(f, &list, &lent);
	if (list.usable)
		lent |= lend_list(f, &list, writable);
	usable = list.usable;
	kea_list_close(&list);

	/* While the server forbids it the broker is the next best place. */
	must_store = f->outbox && writable && f->list_limit >= 0 &&
		     !f->wrong_type;
	if (master)
		f->demoted.waits = false;
	else if (whole && how != KEA_TURN_LEND_ONLY)
		kea_demoted_look(f, ctx);
	/* What may be in a list not looked at yet is older. */
	if ((f->list_known || f->wrong_type || !master) && f->pending == 0 &&
	    !must_store && !f->demoted.waits)
		lent |= lend_memory(f, NULL);
	if (ours && (f->list_limit < 0 || f->wrong_type ||
		     (writable && due && !usable)))
		drop_memory(f);

	f->captured = 0;
	f->barred = f->outbox && f->list_limit >= 0 && !writable;
	if (kea_flow_unstored(f) + kea_flow_list_length(f) == 0)
		f->drop_logged = false;
	f->again = f->queue.count > 0 || f->pending > 0;
	/* A hint for the publisher: whether to wake us when it has room. A
	 * stale value costs at most the wait for the next turn. */
	atomic_store_explicit(&f->lent->more, f->again && !kea_flow_is_away(f),
			      memory_order_relaxed);
	return lent;
}

long long kea_flow_oldest_ms(struct kea_flow *f, RedisModuleCtx *ctx,
			     long long now_ms)
{
	struct kea_lent_run *r = kea_lent_oldest(f->lent);
	struct kea_record head = { 0 };
	struct kea_run run;
	size_t len;
	long long age;

	if (r) {
		head = *kea_record_at(r->run.start, &len);
	} else if (f->pending > 0 && f->home.key) {
		struct kea_list l;

		kea_list_open(&l, ctx, f->home.key, false);
		kea_list_id(&l, 0, &head);
		kea_list_close(&l);
	} else if (kea_queue_peek(&f->queue, 1, SIZE_MAX, &run)) {
		head = *kea_record_at(run.start, &len);
	}
	age = head.time_ms == 0 ? 0 : now_ms - (long long)head.time_ms;
	return age > 0 ? age : 0;
}
