/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lag.h: how late the expired events of the last minute were. Knows nothing of
 * Redis or Go. Plain numbers, so that INFO may read them in a crash handler.
 */
#ifndef KEA_LAG_H
#define KEA_LAG_H

#include <stdint.h>

/* Up to 16 ms each millisecond has a row, above that 8 rows each power of two
 * do: within 12 %. */
#define KEA_LAG_ROWS 320
/* Spans of ten seconds; the one that is filled is the seventh. */
#define KEA_LAG_SPANS 7
#define KEA_LAG_SPAN_MS 10000

struct kea_lag {
	struct kea_lag_span {
		int64_t number; /* of the span: time / KEA_LAG_SPAN_MS */
		uint64_t max_ms;
		uint32_t rows[KEA_LAG_ROWS];
	} span[KEA_LAG_SPANS];
};

struct kea_lag_figures {
	uint64_t p50_ms, p99_ms, max_ms;
};

void kea_lag_add(struct kea_lag *l, int64_t now_ms, int64_t due_ms);

/* kea_lag_figures are of the last minute; zeros when nothing expired. */
struct kea_lag_figures kea_lag_figures(const struct kea_lag *l,
				       int64_t now_ms);

#endif /* KEA_LAG_H */
