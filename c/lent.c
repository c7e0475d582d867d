/* SPDX-License-Identifier: BSD-3-Clause */
/* lent.c: lending records to the publisher. The rules are in lent.h. */
#include "lent.h"

#include <assert.h>

static struct kea_lent_run *slot(struct kea_lent *l, uint64_t i)
{
	return &l->runs[i & (KEA_LENT_RUNS - 1)];
}

/* Only the main thread writes it, so its own read needs no order. */
static uint64_t granted(const struct kea_lent *l)
{
	return atomic_load_explicit(&l->granted, memory_order_relaxed);
}

uint32_t kea_lent_room(const struct kea_lent *l)
{
	return (uint32_t)(KEA_LENT_RUNS - (granted(l) - l->first));
}

void kea_lent_lend(struct kea_lent *l, const struct kea_run *run, bool stored)
{
	uint64_t g = granted(l);

	assert(g - l->first < KEA_LENT_RUNS && run->count > 0);
	*slot(l, g) = (struct kea_lent_run){ .run = *run, .stored = stored };
	l->count += run->count;
	l->bytes += run->bytes;
	/*
	 * Read by kea_lent_take and kea_lent_sleep: the slot and the records
	 * are written before the publisher can see them. seq_cst because of
	 * the parking below: the publisher stores asleep, then reads granted;
	 * we store granted, then read asleep in kea_lent_wake. In the single
	 * order of these four one of the two sees the other's store, so either
	 * it does not sleep or we wake it.
	 */
	atomic_store_explicit(&l->granted, g + 1, memory_order_seq_cst);
}

uint64_t kea_lent_to_release(const struct kea_lent *l)
{
	/* Pairs with the release in kea_lent_report_settled: the publisher has done
	 * reading what it settled. */
	return atomic_load_explicit(&l->settled_pub, memory_order_acquire) -
	       l->settled;
}

uint64_t kea_lent_out(const struct kea_lent *l)
{
	return granted(l) - l->first;
}

struct kea_lent_run *kea_lent_nth(struct kea_lent *l, uint64_t i)
{
	return l->first + i < granted(l) ? slot(l, l->first + i) : NULL;
}

struct kea_lent_run *kea_lent_oldest(struct kea_lent *l)
{
	return kea_lent_nth(l, 0);
}

void kea_lent_release(struct kea_lent *l, struct kea_queue *q, uint32_t n)
{
	struct kea_lent_run *r = slot(l, l->first);
	size_t before = r->run.bytes;

	kea_run_release(q, &r->run, n);
	l->bytes -= before - r->run.bytes;
	l->count -= n;
	l->settled += n;
	if (r->run.count == 0)
		l->first++;
}

bool kea_lent_rewound(const struct kea_lent *l)
{
	/* Pairs with the release in kea_lent_rewind: what the publisher
	 * settled before is visible, and it reads nothing any more. */
	return atomic_load_explicit(&l->epoch_pub, memory_order_acquire) !=
	       atomic_load_explicit(&l->epoch_main, memory_order_relaxed);
}

bool kea_lent_reclaim(struct kea_lent *l, struct kea_lent_run *run)
{
	uint64_t g = granted(l);

	if (g == l->first)
		return false;
	*run = *slot(l, g - 1);
	l->count -= run->run.count;
	l->bytes -= run->run.bytes;
	/* The publisher looks at granted only after kea_lent_resume. */
	atomic_store_explicit(&l->granted, g - 1, memory_order_relaxed);
	return true;
}

void kea_lent_resume(struct kea_lent *l)
{
	uint64_t epoch =
		atomic_load_explicit(&l->epoch_pub, memory_order_acquire);

	assert(granted(l) == l->first);
	atomic_store_explicit(&l->base, l->first, memory_order_relaxed);
	/* Pairs with the acquire in kea_lent_take: base and granted are those
	 * of the epoch. */
	atomic_store_explicit(&l->epoch_main, epoch, memory_order_release);
}

bool kea_lent_wake(struct kea_lent *l)
{
	/* See kea_lent_lend for why seq_cst. */
	if (!atomic_load_explicit(&l->asleep, memory_order_seq_cst))
		return false;
	return atomic_exchange_explicit(&l->asleep, false,
					memory_order_seq_cst);
}

/* enter reports whether the main thread is in the publisher's epoch, and makes
 * the publisher begin at its base when it has just come. */
static bool enter(struct kea_lent *l)
{
	uint64_t epoch =
		atomic_load_explicit(&l->epoch_pub, memory_order_relaxed);

	/* Pairs with the release in kea_lent_resume. */
	if (atomic_load_explicit(&l->epoch_main, memory_order_acquire) != epoch)
		return false;
	if (l->epoch_taken != epoch) {
		l->epoch_taken = epoch;
		l->taken = atomic_load_explicit(&l->base, memory_order_relaxed);
	}
	return true;
}

bool kea_lent_take(struct kea_lent *l, struct kea_run *run)
{
	if (!enter(l))
		return false;
	/* Pairs with the store in kea_lent_lend. */
	if (atomic_load_explicit(&l->granted, memory_order_acquire) == l->taken)
		return false;
	*run = slot(l, l->taken)->run;
	l->taken++;
	return true;
}

void kea_lent_report_settled(struct kea_lent *l, uint64_t n)
{
	/* Pairs with the acquire in kea_lent_to_release. */
	atomic_fetch_add_explicit(&l->settled_pub, n, memory_order_release);
}

void kea_lent_rewind(struct kea_lent *l)
{
	/* Pairs with the acquire in kea_lent_rewound. */
	atomic_fetch_add_explicit(&l->epoch_pub, 1, memory_order_release);
}

bool kea_lent_sleep(struct kea_lent *l)
{
	/* See kea_lent_lend for why seq_cst. */
	atomic_store_explicit(&l->asleep, true, memory_order_seq_cst);
	if (enter(l) && atomic_load_explicit(&l->granted,
					     memory_order_seq_cst) != l->taken) {
		atomic_store_explicit(&l->asleep, false, memory_order_seq_cst);
		return false;
	}
	return true;
}
