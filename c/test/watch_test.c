/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * watch_test.c: the watch against a plain model, by random operations from a
 * printed seed; its memory; and the lag's figures.
 */
#include "../lag.h"
#include "../watch.h"
#include "check.h"

#include <string.h>
#include <time.h>

#define DBS 3
#define KEYS 400

static uint64_t rng;

static uint64_t roll(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

/* ---- the reference ------------------------------------------------------- */

static struct {
	bool known;
	int64_t due, when;
} ref[DBS][KEYS];

static size_t name(unsigned k, char *out)
{
	size_t len = k % 50 == 7 ? 3000 + k : k % 90;

	memset(out, (int)(k % 251), len + 8);
	memcpy(out + len, &k, sizeof(k)); /* NULs, too */
	return len + sizeof(k);
}

static uint64_t ref_count(void)
{
	uint64_t n = 0;

	for (int db = 0; db < DBS; db++)
		for (unsigned k = 0; k < KEYS; k++)
			n += ref[db][k].known;
	return n;
}

static bool ref_next(int64_t *when)
{
	bool found = false;

	for (int db = 0; db < DBS; db++)
		for (unsigned k = 0; k < KEYS; k++)
			if (ref[db][k].known &&
			    (!found || ref[db][k].when < *when)) {
				*when = ref[db][k].when;
				found = true;
			}
	return found;
}

static void check_all(const struct kea_watch *w)
{
	char key[4000];

	for (int db = 0; db < DBS; db++)
		for (unsigned k = 0; k < KEYS; k++) {
			int64_t due, when;
			size_t len = name(k, key);

			CHECK(kea_watch_get(w, db, key, len, &due, &when) ==
			      ref[db][k].known);
			CHECK(!ref[db][k].known ||
			      (due == ref[db][k].due &&
			       when == ref[db][k].when));
		}
}

static void step(struct kea_watch *w, int64_t now)
{
	int64_t min = 0;
	bool any = ref_next(&min);
	struct kea_due due;
	enum kea_watch_step what = kea_watch_step(w, now, &due);
	unsigned k;

	CHECK((what == KEA_WATCH_NONE) == (!any || min >= now));
	if (what == KEA_WATCH_MOVED) {
		/* One of those with the earliest place was put off. */
		for (int db = 0; db < DBS; db++)
			for (k = 0; k < KEYS; k++) {
				int64_t place;
				char key[4000];
				size_t len = name(k, key);
				struct kea_entry *e;

				if (!ref[db][k].known ||
				    ref[db][k].when != min ||
				    ref[db][k].due <= min)
					continue;
				e = kea_deadlines_find(w->db[db], key, len);
				place = kea_deadlines_when(w->db[db], e);
				if (place == ref[db][k].due) {
					ref[db][k].when = place;
					return;
				}
			}
		CHECK(!"a key that was put off moved on");
	}
	if (what != KEA_WATCH_DUE)
		return;
	memcpy(&k, due.key + due.len - sizeof(k), sizeof(k));
	CHECK(k < KEYS && ref[due.db][k].known);
	CHECK(ref[due.db][k].when == min && ref[due.db][k].due == due.due);
	CHECK(due.due <= min); /* 0: not known */
}

static void against_the_model(void)
{
	struct kea_watch w = { 0 };
	uint64_t seed[2] = { rng, ~rng };
	char key[4000];

	memset(ref, 0, sizeof(ref));
	kea_watch_init(&w, seed);
	for (int i = 0; i < 40000; i++) {
		int db = (int)roll(DBS);
		unsigned k = (unsigned)roll(KEYS);
		size_t len = name(k, key);
		int64_t due = 1 + (int64_t)roll(1000);

		switch (roll(200)) {
		default:
			CHECK(kea_watch_set(&w, db, key, len, due));
			if (!ref[db][k].known || due < ref[db][k].when)
				ref[db][k].when = due;
			ref[db][k].known = true;
			ref[db][k].due = due;
			break;
		case 20 ... 69:
			CHECK(kea_watch_drop(&w, db, key, len) ==
			      ref[db][k].known);
			ref[db][k].known = false;
			break;
		case 70 ... 79:
			kea_watch_defer(&w, db, key, len, due);
			ref[db][k].when = due;
			break;
		case 198:
			CHECK(kea_watch_unsure(&w, db, key, len) ==
			      (ref[db][k].known && ref[db][k].due == 0));
			ref[db][k].due = 0;
			break;
		case 80 ... 149:
			step(&w, (int64_t)roll(1200));
			break;
		case 150 ... 159:
			kea_watch_tidy(&w);
			break;
		case 197: {
			int other = (int)roll(DBS);

			kea_watch_swap_dbs(&w, db, other);
			for (k = 0; k < KEYS && db != other; k++) {
				__typeof__(ref[0][0]) was;

				memcpy(&was, &ref[db][k], sizeof(was));
				memcpy(&ref[db][k], &ref[other][k],
				       sizeof(was));
				memcpy(&ref[other][k], &was, sizeof(was));
			}
			break;
		}
		case 199:
			if (roll(5) > 0)
				break;
			kea_watch_drop_db(&w, db);
			for (k = 0; k < KEYS; k++)
				ref[db][k].known = false;
		}
		CHECK(w.count == ref_count());
		if (i % 500 == 0)
			check_all(&w);
	}
	check_all(&w);
	kea_watch_free(&w);
	CHECK(kea_watch_bytes(&w) == 0 && w.count == 0);
}

/* ---- memory -------------------------------------------------------------- */

static size_t session(uint64_t i, char *out, size_t len)
{
	memset(out, 's', len);
	snprintf(out, len, "session:%012llu", (unsigned long long)i);
	return len;
}

/* At most 64 bytes a key beside its own, whatever its length. */
static void memory_of_keys(void)
{
	static const size_t lengths[] = { 21, 30, 33, 64, 100, 200, 500 };
	const uint64_t n = 100000;
	uint64_t seed[2] = { 1, 2 };
	char key[600];

	for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
		struct kea_watch w = { 0 };
		size_t full;

		kea_watch_init(&w, seed);
		for (uint64_t i = 0; i < n; i++)
			CHECK(kea_watch_set(&w, 0, key,
					    session(i, key, lengths[l]),
					    (int64_t)roll(1000000)));
		full = kea_watch_bytes(&w);
		CHECK(full <= n * (64 + lengths[l]));
		/* It comes back, and is used again. */
		for (uint64_t i = 0; i < n; i++)
			CHECK(kea_watch_drop(&w, 0, key,
					     session(i, key, lengths[l])));
		CHECK(kea_watch_bytes(&w) < full / 10 + (2 << 20));
		kea_watch_free(&w);
		CHECK(kea_watch_bytes(&w) == 0);
	}
}

static void the_limit_holds(void)
{
	struct kea_watch w = { .pool.limit = 4 << 20 };
	uint64_t seed[2] = { 3, 4 }, fit = 0;
	char key[64];

	kea_watch_init(&w, seed);
	while (kea_watch_set(&w, 0, key, session(fit, key, 40),
			     (int64_t)fit)) {
		fit++;
		CHECK(kea_watch_bytes(&w) <= w.pool.limit);
	}
	CHECK(fit > 30000 && w.count == fit);
	/* Those that fit are as they were, and one that goes makes room. */
	for (uint64_t i = 0; i < fit; i++) {
		int64_t due, when;

		CHECK(kea_watch_get(&w, 0, key, session(i, key, 40), &due,
				    &when));
		CHECK(due == (int64_t)i);
	}
	CHECK(kea_watch_drop(&w, 0, key, session(0, key, 40)));
	CHECK(kea_watch_set(&w, 0, key, session(fit, key, 40), 1));
	/* What is dropped is used again before it is freed. */
	kea_watch_drop_db(&w, -1);
	CHECK(kea_watch_set(&w, 1, key, session(0, key, 40), 1));
	CHECK(w.count == 1);
	kea_watch_free(&w);
	CHECK(kea_watch_bytes(&w) == 0);
}

static void lag_figures(void)
{
	static struct kea_lag l;
	struct kea_lag_figures f = kea_lag_figures(&l, 1000000);

	CHECK(f.p50_ms == 0 && f.p99_ms == 0 && f.max_ms == 0);
	for (int i = 0; i < 98; i++)
		kea_lag_add(&l, 1000000, 1000000 - 2);
	kea_lag_add(&l, 1000000, 1000000 - 1000);
	kea_lag_add(&l, 1000000, 1000000 + 5); /* a clock behind */
	f = kea_lag_figures(&l, 1000001);
	CHECK(f.p50_ms == 2 && f.p99_ms == 2 && f.max_ms == 1000);
	kea_lag_add(&l, 1030000, 1030000 - 1000);
	kea_lag_add(&l, 1030000, 1030000 - 30000);
	f = kea_lag_figures(&l, 1030000);
	CHECK(f.p99_ms >= 1000 && f.p99_ms <= 1125 && f.max_ms == 30000);
	f = kea_lag_figures(&l, 1200000);
	CHECK(f.max_ms == 0);
	kea_lag_add(&l, INT64_MAX / 2, 1);
	f = kea_lag_figures(&l, INT64_MAX / 2);
	CHECK(f.max_ms == INT64_MAX / 2 - 1);
}

int main(void)
{
	rng = (uint64_t)time(NULL) * 2654435761 + 1;
	printf("watch_test: seed %llu\n", (unsigned long long)rng);
	for (int i = 0; i < 5; i++)
		against_the_model();
	memory_of_keys();
	the_limit_holds();
	lag_figures();
	return 0;
}
