/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lent_test.c: a main thread and a publisher thread share what is lent, with
 * sessions lost at random. Each event is settled exactly once and in order,
 * however often the publisher rewinds; run under ThreadSanitizer.
 */
#include "../lent.h"
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define EVENTS 200000u
#define WINDOW 300u

static struct kea_lent lent;
static int wake_pipe[2];
static _Atomic uint64_t published_in_order;

static uint32_t roll(uint32_t *state, uint32_t n)
{
	*state = *state * 1664525u + 1013904223u;
	return (*state >> 8) % n;
}

/* Takes, reads, settles in part, and now and then loses its session. */
static void *publisher(void *unused)
{
	uint32_t dice = 7;
	uint64_t settled = 0, expect = 1, out = 0;

	(void)unused;
	while (settled < EVENTS) {
		struct kea_run run;
		char byte;

		if (kea_lent_take(&lent, &run)) {
			uint8_t *pos = run.start;

			for (uint32_t i = 0; i < run.count; i++) {
				size_t len;

				CHECK(kea_record_at(pos, &len)->seq ==
				      expect++);
				pos = kea_record_after(pos);
			}
			out += run.count;
		} else if (out == 0 && kea_lent_sleep(&lent)) {
			CHECK(read(wake_pipe[0], &byte, 1) == 1);
		}
		if (out > 0 && roll(&dice, 3) == 0) {
			uint64_t n = 1 + roll(&dice, (uint32_t)out);

			kea_lent_report_settled(&lent, n);
			settled += n;
			out -= n;
		}
		if (roll(&dice, 200) == 0) {
			kea_lent_rewind(&lent);
			expect = settled + 1;
			out = 0;
		}
	}
	atomic_store(&published_in_order, settled);
	return NULL;
}

int main(void)
{
	struct kea_queue q = { 0 };
	struct kea_lent_run *oldest, back;
	struct kea_run run;
	pthread_t thread;
	uint32_t dice = 1;
	uint64_t made = 0, passed = 0, returns = 0;

	CHECK(pipe(wake_pipe) == 0);
	CHECK(pthread_create(&thread, NULL, publisher, NULL) == 0);
	while (passed < EVENTS) {
		uint64_t n;
		bool lent_some = false;

		for (n = roll(&dice, 50); n > 0 && made < EVENTS; n--) {
			size_t len = sizeof(struct kea_record) +
				     roll(&dice, 100);
			struct kea_record *r = kea_queue_append(&q, len);

			memset(r, 0, len);
			r->seq = ++made;
		}
		while ((n = kea_lent_to_release(&lent)) > 0) {
			oldest = kea_lent_oldest(&lent);
			if (n > oldest->run.count)
				n = oldest->run.count;
			kea_lent_release(&lent, &q, (uint32_t)n);
			passed += n;
		}
		if (kea_lent_rewound(&lent)) {
			/* Settlements that came before the return first. */
			if (kea_lent_to_release(&lent) > 0)
				continue;
			while (kea_lent_reclaim(&lent, &back))
				kea_queue_putback(&q, &back.run);
			kea_lent_resume(&lent);
			returns++;
		}
		while (lent.count < WINDOW && kea_lent_room(&lent) > 0 &&
		       kea_queue_peek(&q, (uint32_t)(WINDOW - lent.count),
				      4096, &run)) {
			kea_queue_take(&q, &run);
			kea_lent_lend(&lent, &run, false);
			lent_some = true;
		}
		if (lent_some && kea_lent_wake(&lent))
			CHECK(write(wake_pipe[1], "", 1) == 1);
	}
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(atomic_load(&published_in_order) == EVENTS);
	CHECK(passed == EVENTS && lent.count == 0 && lent.bytes == 0);
	CHECK(returns > 0);
	kea_queue_free(&q);
	CHECK(kea_queue_allocated() == 0);
	printf("lent_test: ok, %llu returns\n", (unsigned long long)returns);
	return 0;
}
