/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lent.h: what the main thread lends to the publisher. Knows nothing of Redis
 * or Go.
 *
 * The main thread lends runs of records, in the order in which they are to be
 * published; the publisher (one thread at a time) takes them, and reports how
 * many events are settled: confirmed by the broker, or dropped. Lent memory is
 * read-only for both until the main thread releases or reclaims it.
 *
 * When the publisher has to go back to the oldest unsettled event (a lost
 * session, a nack, a return) it rewinds: it starts a new epoch, forgets what it
 * took, and takes nothing more until the main thread has reclaimed all that is
 * lent and entered that epoch, too (kea_lent_resume). So at every moment each
 * record has one owner, and no lock is needed.
 *
 * Threads: functions marked [main] belong to whoever holds the server's lock,
 * [pub] to the publisher's goroutine, whichever OS thread it is on.
 */
#ifndef KEA_LENT_H
#define KEA_LENT_H

#include "queue.h"

#include <stdatomic.h>

/* Runs that can be out at a time. A turn lends at least one, so this bounds the
 * turns, not the events, that may be in flight. A power of two. */
#define KEA_LENT_RUNS 1024

struct kea_lent_run {
	struct kea_run run;
	bool stored; /* they are, or were, in the fallback list, too (mirror.h) */
};

struct kea_lent {
	/* Written by the main thread, read by the publisher. */
	_Alignas(64) _Atomic uint64_t granted; /* runs lent, ever */
	_Atomic uint64_t base; /* first run of the epoch */
	_Atomic uint64_t epoch_main;
	_Atomic bool more; /* there is more to lend than is lent */

	/* The main thread's own. */
	uint64_t first;   /* oldest run with unsettled events */
	uint64_t settled; /* events whose settlement was taken in */
	uint64_t count;   /* events lent and not taken in as settled */
	size_t bytes;     /* of them */

	/* Written by the publisher, read by the main thread. */
	_Alignas(64) _Atomic uint64_t settled_pub; /* events settled, ever */
	_Atomic uint64_t epoch_pub;
	_Atomic bool asleep;

	/* The publisher's own. */
	uint64_t taken;       /* runs taken, ever */
	uint64_t epoch_taken; /* epoch in which they were */

	_Alignas(64) struct kea_lent_run runs[KEA_LENT_RUNS];
};

/* [main] kea_lent_room: how many more runs can be lent now. */
uint32_t kea_lent_room(const struct kea_lent *l);

/* [main] kea_lent_lend lends a run that was taken from the queue (or copied
 * from the list). There must be room. Visible to the publisher at once. */
void kea_lent_lend(struct kea_lent *l, const struct kea_run *run, bool stored);

/* [main] kea_lent_to_release: events that the publisher has reported as settled,
 * and that were not released yet. */
uint64_t kea_lent_to_release(const struct kea_lent *l);

/* [main] The oldest run that is out, NULL when none is. */
struct kea_lent_run *kea_lent_oldest(struct kea_lent *l);

/* [main] kea_lent_out: how many runs are out. */
uint64_t kea_lent_out(const struct kea_lent *l);

/* [main] The i-th run that is out, 0 the oldest; NULL past the newest. */
struct kea_lent_run *kea_lent_nth(struct kea_lent *l, uint64_t i);

/* [main] kea_lent_release frees the n oldest events of the oldest run, which the
 * publisher has reported as settled. */
void kea_lent_release(struct kea_lent *l, struct kea_queue *q, uint32_t n);

/* [main] kea_lent_rewound reports whether the publisher has rewound, and
 * kea_lent_resume has not been called since. */
bool kea_lent_rewound(const struct kea_lent *l);

/* [main] kea_lent_reclaim takes the newest run that is out back, after the
 * publisher has rewound; false when none is left. */
bool kea_lent_reclaim(struct kea_lent *l, struct kea_lent_run *run);

/* [main] kea_lent_resume enters the publisher's epoch: lending begins again.
 * Everything must have been reclaimed. */
void kea_lent_resume(struct kea_lent *l);

/* [main] kea_lent_wake reports whether the publisher sleeps, and from then on
 * counts it as woken: the caller must wake it. */
bool kea_lent_wake(struct kea_lent *l);

/* [pub] kea_lent_take takes the next run; false when there is none now. */
bool kea_lent_take(struct kea_lent *l, struct kea_run *run);

/* [pub] kea_lent_report_settled: the n oldest events taken are settled, and are
 * not read any more. */
void kea_lent_report_settled(struct kea_lent *l, uint64_t n);

/* [pub] kea_lent_rewind: everything taken and not settled is to come again. */
void kea_lent_rewind(struct kea_lent *l);

/* [pub] kea_lent_sleep announces that the publisher is about to wait. False:
 * there is something to take, do not wait. */
bool kea_lent_sleep(struct kea_lent *l);

#endif /* KEA_LENT_H */
