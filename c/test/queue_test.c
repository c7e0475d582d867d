/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queue_test.c: the chunk queue against a plain model, by random operations
 * from a printed seed; and the corners by hand.
 */
#include "../queue.h"
#include "check.h"

#include <string.h>
#include <time.h>

#define HELD 512

static uint64_t rng;

static uint64_t roll(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

/* A record's bytes follow from its number, so that any copy can be checked. */
static size_t record_len(uint64_t seq)
{
	return sizeof(struct kea_record) + seq * 7919 % 300 +
	       (seq % 97 == 0 ? 70000 : 0);
}

static void fill(void *room, uint64_t seq)
{
	size_t len = record_len(seq);
	struct kea_record *r = room;

	memset(room, (int)(seq & 0xff), len);
	r->seq = seq;
}

static uint64_t check_run(const struct kea_run *run, uint64_t seq)
{
	uint8_t *pos = run->start;

	for (uint32_t i = 0; i < run->count; i++, seq++) {
		size_t len;
		struct kea_record *r = kea_record_at(pos, &len);

		CHECK(((uintptr_t)r & 7) == 0);
		CHECK(r->seq == seq);
		CHECK(len == record_len(seq));
		if (len > sizeof(*r))
			CHECK(((uint8_t *)r)[len - 1] == (seq & 0xff));
		pos = kea_record_after(pos);
	}
	CHECK((size_t)(pos - run->start) == run->bytes);
	return seq;
}

/*
 * Appends, takes, puts back and releases at random. next is the number of the
 * next record to append, read the oldest in the queue; what was taken and not
 * released is held in order.
 */
static void against_model(uint64_t seed, int steps)
{
	struct kea_queue q = { 0 };
	struct kea_run held[HELD];
	size_t first = 0, out = 0;
	uint64_t next = 1, read = 1, oldest = 1;

	rng = seed;
	for (int i = 0; i < steps; i++) {
		switch (roll(6)) {
		case 0:
		case 1:
			for (uint64_t n = roll(40); n > 0; n--, next++)
				fill(kea_queue_append(&q, record_len(next)),
				     next);
			break;
		case 2:
		case 3:
			if (first + out < HELD) {
				struct kea_run run;
				uint32_t most = (uint32_t)roll(60) + 1;
				size_t most_bytes = roll(20000);

				if (!kea_queue_peek(&q, most, most_bytes,
						    &run)) {
					CHECK(read == next);
					break;
				}
				CHECK(run.count > 0 && run.count <= most);
				CHECK(run.count == 1 ||
				      run.bytes <= most_bytes);
				kea_queue_take(&q, &run);
				read = check_run(&run, read);
				held[first + out++] = run;
			}
			break;
		case 4:
			if (out > 0) {
				struct kea_run *run = &held[first];
				uint32_t n =
					(uint32_t)roll(run->count) + 1;

				kea_run_release(&q, run, n);
				oldest += n;
				if (run->count == 0) {
					first++;
					out--;
				}
			}
			break;
		default:
			/* A lost session: all of it goes back. */
			if (roll(20) == 0) {
				while (out > 0)
					kea_queue_putback(&q,
							  &held[first + --out]);
				read = oldest;
			}
		}
		if (out == 0)
			first = 0;
		CHECK(q.count == next - read);
	}
	while (out > 0) {
		kea_run_release(&q, &held[first], held[first].count);
		first++;
		out--;
	}
	kea_queue_free(&q);
	CHECK(kea_queue_allocated() == 0);
}

static void one_chunk_is_enough_for_ever(void)
{
	struct kea_queue q = { 0 };
	struct kea_run run;

	for (uint64_t i = 1; i < 100000; i++) {
		memset(kea_queue_append(&q, 64), 0, 64);
		CHECK(kea_queue_peek(&q, 10, SIZE_MAX, &run));
		kea_queue_take(&q, &run);
		kea_run_release(&q, &run, 1);
	}
	CHECK(kea_queue_allocated() < 2 * KEA_CHUNK_BYTES);
	kea_queue_free(&q);
	CHECK(kea_queue_allocated() == 0);
}

static void a_huge_record_is_not_kept(void)
{
	struct kea_queue q = { 0 };
	struct kea_run run;

	memset(kea_queue_append(&q, 10 << 20), 0, 10 << 20);
	CHECK(kea_queue_peek(&q, 1, 1, &run));
	kea_queue_take(&q, &run);
	kea_run_release(&q, &run, 1);
	CHECK(kea_queue_allocated() < 1 << 20);
	kea_queue_free(&q);
	CHECK(kea_queue_allocated() == 0);
}

int main(void)
{
	uint64_t seed = (uint64_t)time(NULL);

	printf("queue_test: seed %llu\n", (unsigned long long)seed);
	for (uint64_t i = 0; i < 20; i++)
		against_model(seed * 1000 + i + 1, 5000);
	one_chunk_is_enough_for_ever();
	a_huge_record_is_not_kept();
	puts("queue_test: ok");
	return 0;
}
