/* SPDX-License-Identifier: BSD-3-Clause */
/* lag.c: see lag.h. */
#include "lag.h"

#include <string.h>

static unsigned row_of(uint64_t ms)
{
	unsigned power;

	if (ms < 16)
		return (unsigned)ms;
	power = 63 - (unsigned)__builtin_clzll(ms); /* 4 and up */
	power = power > 40 ? 40 : power;
	return 16 + (power - 4) * 8 + ((unsigned)(ms >> (power - 3)) & 7);
}

/* The largest value of a row. */
static uint64_t row_ms(unsigned row)
{
	unsigned power = (row - 16) / 8 + 4;

	if (row < 16)
		return row;
	return ((uint64_t)(8 + (row - 16) % 8 + 1) << (power - 3)) - 1;
}

void kea_lag_add(struct kea_lag *l, int64_t now_ms, int64_t due_ms)
{
	uint64_t ms = now_ms > due_ms ? (uint64_t)(now_ms - due_ms) : 0;
	int64_t number = now_ms / KEA_LAG_SPAN_MS;
	struct kea_lag_span *s = &l->span[(uint64_t)number % KEA_LAG_SPANS];

	if (s->number != number) {
		memset(s, 0, sizeof(*s));
		s->number = number;
	}
	s->rows[row_of(ms)]++;
	if (ms > s->max_ms)
		s->max_ms = ms;
}

static uint64_t at_rank(const uint64_t rows[KEA_LAG_ROWS], uint64_t rank)
{
	uint64_t seen = 0;

	for (unsigned i = 0; i < KEA_LAG_ROWS; i++) {
		seen += rows[i];
		if (seen > rank)
			return row_ms(i);
	}
	return 0;
}

struct kea_lag_figures kea_lag_figures(const struct kea_lag *l, int64_t now_ms)
{
	struct kea_lag_figures f = { 0 };
	uint64_t rows[KEA_LAG_ROWS] = { 0 }, all = 0;
	int64_t number = now_ms / KEA_LAG_SPAN_MS;

	for (unsigned i = 0; i < KEA_LAG_SPANS; i++) {
		const struct kea_lag_span *s = &l->span[i];

		if (s->number > number || s->number <= number - KEA_LAG_SPANS)
			continue;
		for (unsigned k = 0; k < KEA_LAG_ROWS; k++) {
			rows[k] += s->rows[k];
			all += s->rows[k];
		}
		if (s->max_ms > f.max_ms)
			f.max_ms = s->max_ms;
	}
	if (all == 0)
		return f;
	f.p50_ms = at_rank(rows, (all - 1) / 2);
	f.p99_ms = at_rank(rows, (all - 1) * 99 / 100);
	/* A row's largest value may be more than there was. */
	f.p50_ms = f.p50_ms < f.max_ms ? f.p50_ms : f.max_ms;
	f.p99_ms = f.p99_ms < f.max_ms ? f.p99_ms : f.max_ms;
	return f;
}
