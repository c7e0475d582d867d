/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * watch.c: times c/watch with n keys of 30 bytes: ns an add, ns a deadline that is
 * put off, ns a key that moves on for it when its old time comes, ns a key that is
 * due and goes; and bytes a key beside its own.
 */
#include "watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LEN 30
#define FAR 2000000000

static uint64_t rng = 88172645463325252;

static uint64_t roll(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

static const char *name(uint64_t i)
{
	static char key[LEN + 1];

	snprintf(key, sizeof(key), "session:%022llu", (unsigned long long)i);
	return key;
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
	uint64_t n = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, half = n / 2;
	uint64_t seed[2] = { 5, 6 }, moved = 0, gone = 0;
	struct kea_watch w = { 0 };
	struct kea_due due;
	enum kea_watch_step s;
	double at[5], bytes;
	char key[LEN];

	if (n < 2) {
		fprintf(stderr, "see the top of watch.c\n");
		return 2;
	}
	kea_watch_init(&w, seed);
	at[0] = now_ns();
	for (uint64_t i = 0; i < n; i++)
		kea_watch_set(&w, 0, name(i), LEN, 1 + (int64_t)roll(1000000));
	at[1] = now_ns();
	bytes = (double)kea_watch_bytes(&w) / (double)n - LEN;
	for (uint64_t i = 0; i < half; i++)
		kea_watch_set(&w, 0, name(i), LEN, FAR);
	at[2] = now_ns();
	/* Half of them move on by themselves, the others are told to. */
	for (;;) {
		s = kea_watch_step(&w, 1000001, &due);
		if (s == KEA_WATCH_NONE)
			break;
		moved++;
		if (s == KEA_WATCH_DUE) {
			memcpy(key, due.key, LEN);
			kea_watch_defer(&w, 0, key, LEN, FAR);
		}
	}
	at[3] = now_ns();
	while (kea_watch_step(&w, FAR + 1, &due) == KEA_WATCH_DUE) {
		memcpy(key, due.key, LEN);
		kea_watch_drop(&w, 0, key, LEN);
		gone++;
	}
	at[4] = now_ns();
	if (gone != n || w.count != 0) {
		fprintf(stderr, "%llu of %llu were due\n",
			(unsigned long long)gone, (unsigned long long)n);
		return 1;
	}
	printf("%.1f %.1f %.1f %.1f %.1f\n", (at[1] - at[0]) / (double)n,
	       (at[2] - at[1]) / (double)half, (at[3] - at[2]) / (double)moved,
	       (at[4] - at[3]) / (double)gone, bytes);
	kea_watch_free(&w);
	return 0;
}
