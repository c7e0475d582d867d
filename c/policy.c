/* SPDX-License-Identifier: BSD-3-Clause */
/* policy.c: the rules of policy.h, one small function each, in the order in
 * which a turn comes to them. */
#include "policy.h"

#include "cluster.h"
#include "fault.h"
#include "list.h"

/* One turn stores at most this many events more than one turn would capture
 * anyway, or so many bytes together with them, and reads at most so many chunks
 * of the list, so that a long backlog does not delay the next turn's commands. */
#define STORE_SLICE 4096
#define STORE_BYTES ((size_t)4 << 20)
#define READ_SLICE_CHUNKS 2
#define READ_SLICE_EVENTS 512
/* And it drops at most so many elements more than it has stored, when the list's
 * limit was made smaller. The model makes it small, to come across it. */
#ifndef KEA_TRIM_SLICE
#define KEA_TRIM_SLICE 4096
#endif
/* And so many elements that are not events: anybody who may write the key can push
 * any number. Fewer behind events that are held, for there it costs replicas a
 * walk. */
#define ALIEN_SLICE 512
#define ALIEN_SLICE_INSIDE 64
/* The most bytes lent; one event may exceed it alone. */
#define LENT_BYTES ((size_t)8 << 20)

/* What a turn may do with the list's key. */
enum access {
	ACCESS_NONE,    /* the dataset is not whole, or is saved already */
	ACCESS_REPLICA, /* it is the master's: see how far that has come */
	ACCESS_READ,    /* the server forbids writes: a pause, a failover */
	ACCESS_WRITE,
};

struct turn {
	struct kea_flow *f;
	RedisModuleCtx *ctx;
	bool master;
	enum access access;
	bool store_due;        /* when the turn began */
	uint64_t stored;       /* f->stored, when the turn began */
	struct kea_list list;  /* usable when the turn works with it */
	bool lent;
};

/* ---- rights --------------------------------------------------------------- */

static enum access access_to_list(int flags, enum kea_turn how)
{
	if (how == KEA_TURN_LEND_ONLY ||
	    flags & (REDISMODULE_CTX_FLAGS_LOADING |
		     REDISMODULE_CTX_FLAGS_ASYNC_LOADING))
		return ACCESS_NONE;
	if (!(flags & REDISMODULE_CTX_FLAGS_MASTER))
		return ACCESS_REPLICA;
	/*
	 * A propagated write while the server forbids it (CLIENT PAUSE,
	 * FAILOVER, a shutdown that waits for replicas) asserts and kills the
	 * server.
	 */
	return RedisModule_AvoidReplicaTraffic() == 0 ? ACCESS_WRITE :
							ACCESS_READ;
}

/* may_write: the list is open, and is ours to write. */
static bool may_write(const struct turn *t)
{
	return t->list.usable && t->access == ACCESS_WRITE;
}

/* ---- what is due ---------------------------------------------------------- */

static bool memory_is_full(const struct kea_flow *f)
{
	return f->queue.bytes + f->lent->bytes > f->settings.buffer_limit;
}

/* uses_list: the settings allow events in the list. */
static bool uses_list(const struct kea_flow *f)
{
	return f->settings.list_limit >= 0;
}

/* excess: elements above the list's limit. */
static uint64_t excess(const struct kea_flow *f)
{
	int64_t limit = f->settings.list_limit;
	uint64_t len = kea_mirror_length(&f->mirror);

	return limit > 0 && len > (uint64_t)limit ? len - (uint64_t)limit : 0;
}

/* store_due reports whether the settings want events stored in this turn. */
static bool store_due(const struct kea_flow *f)
{
	return uses_list(f) && kea_flow_unstored(f) > 0 &&
	       (f->settings.outbox || kea_flow_is_away(f) || memory_is_full(f));
}

/* room_to_lend: how many events more the publisher may hold. */
static uint32_t room_to_lend(const struct kea_flow *f)
{
	if (kea_flow_is_away(f) || f->lent->count >= f->settings.window ||
	    f->lent->bytes >= LENT_BYTES || kea_lent_room(f->lent) == 0)
		return 0;
	return (uint32_t)(f->settings.window - f->lent->count);
}

/* list_needed reports whether this turn has business with the list. */
static bool list_needed(const struct kea_flow *f)
{
	const struct kea_mirror *m = &f->mirror;
	bool news = kea_lent_to_release(f->lent) > 0 ||
		    kea_lent_rewound(f->lent);

	return m->check || !kea_mirror_known(m) ||
	       (news && kea_mirror_lent(m) > 0) ||
	       (m->pending > 0 && room_to_lend(f) > 0) || store_due(f) ||
	       excess(f) > 0;
}

/* ---- reconcile ------------------------------------------------------------ */

/* compare makes our picture agree with the list, which is open. */
static void compare(struct turn *t)
{
	struct kea_mirror *m = &t->f->mirror;
	uint64_t len = kea_list_length(&t->list);
	struct kea_record id;
	/* To look at an element copies it: only where the picture needs it. */
	bool event = kea_mirror_known(m) && len != kea_mirror_length(m) &&
		     kea_list_id(&t->list, 0, &id);

	kea_flow_drop(t->f,
		      kea_mirror_reconcile(m, len, event ? &id : NULL),
		      "the fallback list was changed by others");
}

/* open_list: false where there is none that this turn can use. */
static bool open_list(struct turn *t)
{
	struct kea_flow *f = t->f;
	bool write = t->access == ACCESS_WRITE;

	if (t->access < ACCESS_READ || !list_needed(f))
		return false;
	/* A missing key must not be opened for reading: it counts as a miss. */
	if (!write && kea_mirror_length(&f->mirror) == 0)
		return false;
	if (!kea_cluster_ready(f, t->ctx, write, t->store_due))
		return false;
	kea_list_open(&t->list, t->ctx, f->home.key, write);
	return true;
}

/* wrong_type: the key holds something else than a list. */
static void wrong_type(struct kea_flow *f)
{
	uint64_t pending = f->mirror.pending;

	if (f->mirror.picture == KEA_PICTURE_WRONG_TYPE)
		return;
	kea_flow_log(f, "warning",
		     "the fallback key holds a value of another type; nothing "
		     "can be stored until it is removed");
	kea_flow_drop(f, pending, "the fallback key was overwritten");
	kea_flow_lose_list(f);
	kea_mirror_wrong_type(&f->mirror);
}

static void reconcile(struct turn *t)
{
	if (!open_list(t))
		return;
	if (t->list.usable)
		compare(t);
	else
		wrong_type(t->f);
}

/* ---- settle --------------------------------------------------------------- */

/* pop pops the element of the oldest lent event, which is held. False: it was
 * not the list's oldest, and our picture agrees with the list again. */
static bool pop(struct turn *t, struct kea_lent_run *r)
{
	size_t len;

	if (kea_list_pop(&t->list, kea_record_at(r->run.start, &len))) {
		kea_mirror_popped(&t->f->mirror);
		return true;
	}
	kea_mirror_missed(&t->f->mirror);
	compare(t);
	return false;
}

/*
 * settle takes in what the publisher has settled, and pops it from the list.
 * False: the list may not be written now, and what is stored waits.
 */
static bool settle(struct turn *t)
{
	struct kea_lent *lent = t->f->lent;
	uint64_t n;

	while ((n = kea_lent_to_release(lent)) > 0) {
		struct kea_lent_run *r = kea_lent_oldest(lent);
		uint32_t k = r->run.count < n ? r->run.count : (uint32_t)n;

		if (r->stored && t->f->mirror.trimmed > 0) {
			k = (uint32_t)kea_mirror_pass(&t->f->mirror, k);
		} else if (r->stored) {
			if (!may_write(t))
				return false;
			if (!pop(t, r))
				continue;
			k = 1;
		}
		kea_lent_release(lent, &t->f->queue, k);
		KEA_FAULT("settled");
	}
	return true;
}

/* ---- reclaim -------------------------------------------------------------- */

/* reclaim takes back what is lent to a publisher that has rewound. */
static void reclaim(struct kea_flow *f)
{
	struct kea_lent_run r;

	if (!kea_lent_rewound(f->lent))
		return;
	while (kea_lent_reclaim(f->lent, &r)) {
		if (r.stored)
			kea_run_release(&f->queue, &r.run, r.run.count);
		else
			kea_queue_putback(&f->queue, &r.run);
	}
	/* Left the list while in flight, and were not confirmed. */
	kea_flow_drop(f, kea_mirror_reclaimed(&f->mirror),
		      "no longer in the fallback list");
	kea_lent_resume(f->lent);
	KEA_FAULT("reclaimed");
}

/* ---- store ---------------------------------------------------------------- */

/* store_lent stores what is lent and not in the list yet. Not behind elements
 * that are younger, or wait: a node that has become a master may find a list
 * that others have written. */
static void store_lent(struct turn *t)
{
	struct kea_flow *f = t->f;
	uint64_t i = kea_lent_out(f->lent);
	struct kea_lent_run *r;

	if (f->mirror.pending > 0)
		return;
	while (i > 0 && !kea_lent_nth(f->lent, i - 1)->stored)
		i--;
	for (; (r = kea_lent_nth(f->lent, i)); i++) {
		kea_list_push(&t->list, &r->run);
		kea_mirror_stored_lent(&f->mirror, r);
		f->stored += r->run.count;
	}
}

/* store_memory moves up to max events from memory to the list; at least min, but
 * no more than that when they have STORE_BYTES. */
static void store_memory(struct turn *t, uint64_t min, uint64_t max)
{
	struct kea_flow *f = t->f;
	size_t bytes = 0;
	struct kea_run run;

	while (max > 0 && (min > 0 || bytes < STORE_BYTES) &&
	       kea_queue_peek(&f->queue,
			      max > UINT32_MAX ? UINT32_MAX : (uint32_t)max,
			      SIZE_MAX, &run)) {
		kea_queue_take(&f->queue, &run);
		kea_list_push(&t->list, &run);
		kea_mirror_stored(&f->mirror, run.count);
		f->stored += run.count;
		max -= run.count;
		min -= run.count < min ? run.count : min;
		bytes += run.bytes;
		kea_run_release(&f->queue, &run, run.count);
	}
}

/* lend_memory lends what is in memory; stored: by way of the list. */
static void lend_memory(struct turn *t, bool stored)
{
	struct kea_flow *f = t->f;
	struct kea_run run;

	while (kea_queue_peek(&f->queue, room_to_lend(f),
			      LENT_BYTES - f->lent->bytes, &run)) {
		kea_queue_take(&f->queue, &run);
		if (stored) {
			kea_list_push(&t->list, &run);
			kea_mirror_pushed_to_lend(&f->mirror, run.count);
			f->stored += run.count;
		}
		kea_lent_lend(f->lent, &run, stored);
		KEA_FAULT("memory-lent");
		t->lent = true;
	}
}

/* trim keeps the list's limit: the oldest go, in slices where a smaller limit
 * was set. */
static void trim(struct turn *t)
{
	struct kea_flow *f = t->f;
	uint64_t n = excess(f), most = f->stored - t->stored + KEA_TRIM_SLICE;

	if (n == 0)
		return;
	if (n > most)
		n = most;
	kea_list_drop(&t->list, n);
	kea_flow_drop(f, kea_mirror_trimmed(&f->mirror, n),
		      "the fallback list is full");
	f->left.stores |= excess(f) > 0;
	KEA_FAULT("trimmed");
}

static void store(struct turn *t)
{
	struct kea_flow *f = t->f;

	if (!may_write(t) || !uses_list(f))
		return;
	if (f->settings.outbox) {
		store_lent(t); /* from before outbox was turned on */
		if (f->mirror.pending == 0)
			lend_memory(t, true);
		store_memory(t, f->queue.count, f->queue.count);
	} else if (kea_flow_is_away(f) || memory_is_full(f)) {
		/* What this turn made, and a slice of what was there before. */
		store_lent(t);
		store_memory(t, f->captured, f->captured + STORE_SLICE);
		f->left.stores = f->queue.count > 0;
	}
	trim(t);
}

/* ---- lend ----------------------------------------------------------------- */

/* read_list copies the next elements and lends them. False: that was all there
 * is of events; *alien: because the next element is none. */
static bool read_list(struct turn *t, uint32_t max, bool *alien)
{
	struct kea_flow *f = t->f;
	struct kea_run run;

	kea_list_read(&t->list, &f->queue, (long)f->mirror.held, max, &run,
		      alien);
	if (run.count == 0)
		return false;
	kea_lent_lend(f->lent, &run, true);
	KEA_FAULT("list-lent");
	kea_mirror_read_to_lend(&f->mirror, run.count);
	t->lent = true;
	return true;
}

/* drop_aliens drops the next elements, which are not events, so that they hold up
 * nothing behind them. */
static void drop_aliens(struct turn *t)
{
	uint64_t held = t->f->mirror.held, n = 0;
	uint64_t most = held == 0 ? ALIEN_SLICE : ALIEN_SLICE_INSIDE;
	struct kea_record id;

	for (; n < most && kea_list_length(&t->list) > held; n++) {
		if (kea_list_id(&t->list, (long)held, &id))
			break;
		if (held == 0)
			kea_list_drop(&t->list, 1);
		else
			kea_list_remove(&t->list, held);
	}
	kea_mirror_dropped(&t->f->mirror, n);
	kea_flow_drop(t->f, n, "no event in a list element");
	t->f->left.stores |= n == most;
}

/* lend_list lends a slice of the list. */
static void lend_list(struct turn *t)
{
	struct kea_flow *f = t->f;

	for (int i = 0; t->list.usable && i < READ_SLICE_CHUNKS &&
			f->mirror.pending > 0;
	     i++) {
		uint32_t max = room_to_lend(f);
		bool alien = false, read;

		if (max == 0)
			break;
		read = read_list(t, max < READ_SLICE_EVENTS ?
					    max :
					    READ_SLICE_EVENTS,
				 &alien);
		if (alien && may_write(t))
			drop_aliens(t);
		else if (!read)
			break;
	}
}

/* must_wait reports whether memory may not be lent by itself. */
static bool must_wait(struct turn *t)
{
	struct kea_flow *f = t->f;
	enum kea_picture picture = f->mirror.picture;

	if (t->master)
		f->demoted.waits = false;
	else if (t->access == ACCESS_REPLICA)
		kea_demoted_look(&f->demoted, &f->queue, &f->home, t->ctx,
				 kea_flow_is_away(f));
	/* Outbox: into the list first. While the server forbids that, the
	 * broker is the next best place. */
	if (f->settings.outbox && t->access == ACCESS_WRITE && uses_list(f) &&
	    picture != KEA_PICTURE_WRONG_TYPE)
		return true;
	/* What may be in a list not looked at yet is older. */
	if (t->master && picture == KEA_PICTURE_UNKNOWN)
		return true;
	return f->mirror.pending > 0 || f->demoted.waits;
}

/* ---- drop ----------------------------------------------------------------- */

/* drop_memory keeps buffer_limit when events can't be stored. */
static void drop_memory(struct turn *t)
{
	struct kea_flow *f = t->f;
	struct kea_run run;
	uint64_t n = 0;

	if (t->access < ACCESS_READ)
		return;
	if (uses_list(f) && f->mirror.picture != KEA_PICTURE_WRONG_TYPE &&
	    !(t->access == ACCESS_WRITE && t->store_due && !t->list.usable))
		return;
	while (f->queue.bytes > f->settings.buffer_limit &&
	       kea_queue_peek(&f->queue, 64, SIZE_MAX, &run)) {
		kea_queue_take(&f->queue, &run);
		n += run.count; /* the release takes it down */
		kea_run_release(&f->queue, &run, run.count);
	}
	kea_flow_drop(f, n, "memory is full and they can't be stored");
}

/* ---- the turn ------------------------------------------------------------- */

/* note what is left for the next turn. */
static void note(const struct turn *t)
{
	struct kea_flow *f = t->f;

	f->captured = 0;
	f->left.barred = f->settings.outbox && uses_list(f) &&
			 t->access != ACCESS_WRITE;
	f->left.some = f->queue.count > 0 || f->mirror.pending > 0;
	if (kea_flow_unstored(f) + kea_mirror_length(&f->mirror) == 0)
		f->drop_logged = false;
	/* A hint for the publisher: whether to wake us when it has room. Relaxed:
	 * a stale value costs at most the wait for the next turn. */
	atomic_store_explicit(&f->lent->more,
			      f->left.some && !kea_flow_is_away(f),
			      memory_order_relaxed);
}

bool kea_policy_turn(struct kea_flow *f, RedisModuleCtx *ctx, enum kea_turn how)
{
	int flags = RedisModule_GetContextFlags(ctx);
	struct turn t = { .f = f,
			  .ctx = ctx,
			  .master = flags & REDISMODULE_CTX_FLAGS_MASTER,
			  .access = access_to_list(flags, how),
			  .store_due = store_due(f),
			  .stored = f->stored };

	f->left.stores = false;
	reconcile(&t);
	if (settle(&t))
		reclaim(f);
	store(&t);
	lend_list(&t);
	if (!must_wait(&t))
		lend_memory(&t, false);
	drop_memory(&t);
	kea_flow_unreplicated(f, kea_list_close(&t.list));
	note(&t);
	return t.lent;
}

bool kea_policy_idle(const struct kea_flow *f)
{
	return f->queue.count == 0 && !f->left.some && !f->mirror.check &&
	       f->lent->count == 0 && !kea_lent_rewound(f->lent) &&
	       kea_mirror_known(&f->mirror);
}
