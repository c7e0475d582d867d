/* SPDX-License-Identifier: BSD-3-Clause */
/* deadlines.c: see deadlines.h. */
#include "deadlines.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS (KEA_SLAB_BYTES / sizeof(struct kea_entry *)) /* of a page */
#define PLACES (KEA_SLAB_BYTES / sizeof(struct kea_place))
/* Place i is stored here, so that its four children share a cache line. */
#define SHIFT 3

_Static_assert(sizeof(struct kea_entry) == 24, "what the header says");

/* ---- an array in pages --------------------------------------------------- */

static bool pages_add(struct kea_deadlines *d, struct kea_pages *p, bool zero)
{
	void *page;

	if (p->count == p->room) {
		size_t room = p->room ? p->room * 2 : 8;
		size_t more = (room - p->room) * sizeof(*p->page);
		void **grown;

		if (!kea_pool_count(d->slabs.pool, (ptrdiff_t)more))
			return false;
		grown = realloc(p->page, room * sizeof(*p->page));
		if (!grown) {
			kea_pool_count(d->slabs.pool, -(ptrdiff_t)more);
			return false;
		}
		p->page = grown;
		p->room = room;
	}
	page = kea_slab_page(&d->arrays);
	if (!page)
		return false;
	if (zero)
		memset(page, 0, KEA_SLAB_BYTES);
	p->page[p->count++] = page;
	return true;
}

static void pages_pop(struct kea_deadlines *d, struct kea_pages *p)
{
	kea_slab_page_free(&d->arrays, p->page[--p->count]);
}

static void pages_free(struct kea_deadlines *d, struct kea_pages *p)
{
	kea_pool_count(d->slabs.pool,
		       -(ptrdiff_t)(p->room * sizeof(*p->page)));
	free(p->page);
	memset(p, 0, sizeof(*p));
}

/* ---- the table ----------------------------------------------------------- */

static uint64_t fold(uint64_t a, uint64_t b)
{
	unsigned __int128 p = (unsigned __int128)a * b;

	return (uint64_t)p ^ (uint64_t)(p >> 64);
}

/* Clients choose keys: without the seeds nobody can make them collide. */
static uint64_t hash(const uint64_t seed[2], const void *key, size_t len)
{
	const uint8_t *p = key;
	uint64_t h = seed[0] ^ len, word;

	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&word, p, 8);
		h = fold(h ^ word, seed[1]) + seed[0];
	}
	word = 0;
	memcpy(&word, p, len);
	return fold(h ^ word ^ seed[1], seed[0]);
}

static struct kea_entry **bucket(const struct kea_deadlines *d, uint64_t i)
{
	struct kea_entry **page = d->table.page[i / BUCKETS];

	return &page[i % BUCKETS];
}

/* There are from mask/2 + 1 to mask + 1 buckets; those that a hash's longer
 * form names and are not there yet are still one with those of the shorter. */
static uint64_t mask_of(uint64_t buckets)
{
	return UINT64_MAX >> __builtin_clzll(buckets - 1);
}

static uint64_t bucket_of(const struct kea_deadlines *d, const void *key,
			  size_t len)
{
	uint64_t h = hash(d->seed, key, len), mask = mask_of(d->buckets);

	return (h & mask) < d->buckets ? h & mask : h & (mask >> 1);
}

/* table_grow adds a bucket, and gives it what is its of another's. A table that
 * can't grow only becomes slower. */
static void table_grow(struct kea_deadlines *d)
{
	uint64_t fresh = d->buckets, mask = mask_of(fresh + 1);
	struct kea_entry **from, **to, *e;

	if (fresh % BUCKETS == 0 && fresh / BUCKETS == d->table.count &&
	    !pages_add(d, &d->table, true))
		return;
	d->buckets++;
	to = bucket(d, fresh);
	from = bucket(d, fresh & (mask >> 1));
	while ((e = *from)) {
		if ((hash(d->seed, e->key, e->len) & mask) != fresh) {
			from = &e->next;
			continue;
		}
		*from = e->next;
		e->next = *to;
		*to = e;
	}
}

static void table_shrink(struct kea_deadlines *d)
{
	uint64_t last = d->buckets - 1, mask = mask_of(d->buckets);
	struct kea_entry **from = bucket(d, last);
	struct kea_entry **to = bucket(d, last & (mask >> 1));

	while (*to)
		to = &(*to)->next;
	*to = *from;
	*from = NULL;
	d->buckets--;
	if (last % BUCKETS == 0)
		pages_pop(d, &d->table);
}

/* ---- the heap ------------------------------------------------------------ */

static struct kea_place *place(const struct kea_deadlines *d, uint64_t i)
{
	struct kea_place *page = d->heap.page[(i + SHIFT) / PLACES];

	return &page[(i + SHIFT) % PLACES];
}

static void put(struct kea_deadlines *d, uint64_t i, struct kea_place what)
{
	*place(d, i) = what;
	what.entry->at = (uint32_t)i;
}

static void sift_up(struct kea_deadlines *d, uint64_t i, struct kea_place what)
{
	while (i > 0) {
		uint64_t up = (i - 1) / 4;

		if (place(d, up)->when <= what.when)
			break;
		put(d, i, *place(d, up));
		i = up;
	}
	put(d, i, what);
}

static void sift_down(struct kea_deadlines *d, uint64_t i,
		      struct kea_place what)
{
	for (;;) {
		uint64_t child = i * 4 + 1, min = child;
		const struct kea_place *four;

		if (child >= d->count)
			break;
		four = place(d, child);
		for (uint64_t k = 1; k < 4 && child + k < d->count; k++)
			if (four[k].when < four[min - child].when)
				min = child + k;
		if (four[min - child].when >= what.when)
			break;
		put(d, i, four[min - child]);
		i = min;
	}
	put(d, i, what);
}

static void sift(struct kea_deadlines *d, uint64_t i, struct kea_place what)
{
	if (i > 0 && place(d, (i - 1) / 4)->when > what.when)
		sift_up(d, i, what);
	else
		sift_down(d, i, what);
}

/* ---- both ---------------------------------------------------------------- */

void kea_deadlines_init(struct kea_deadlines *d, struct kea_pool *pool,
			const uint64_t seed[2])
{
	memset(d, 0, sizeof(*d));
	d->slabs.pool = d->arrays.pool = pool;
	/* Odd, so that a multiplication loses nothing; and never a small
	 * number, which would mix nothing. */
	d->seed[0] = (seed[0] ^ 0x9e3779b97f4a7c15) | 1;
	d->seed[1] = (seed[1] ^ 0xc2b2ae3d27d4eb4f) | 1;
}

struct kea_entry *kea_deadlines_find(const struct kea_deadlines *d,
				     const void *key, size_t len)
{
	struct kea_entry *e;

	if (d->count == 0)
		return NULL;
	e = *bucket(d, bucket_of(d, key, len));
	while (e && (e->len != len || memcmp(e->key, key, len) != 0))
		e = e->next;
	return e;
}

struct kea_entry *kea_deadlines_add(struct kea_deadlines *d, const void *key,
				    size_t len, int64_t due)
{
	size_t size = sizeof(struct kea_entry) + len;
	struct kea_entry *e, **b;

	if (d->count >= UINT32_MAX - SHIFT || len > UINT32_MAX / 4)
		return NULL;
	if (d->buckets == 0) {
		if (!pages_add(d, &d->table, true))
			return NULL;
		d->buckets = BUCKETS;
	}
	if ((d->count + SHIFT) / PLACES >= d->heap.count &&
	    !pages_add(d, &d->heap, false))
		return NULL;
	e = kea_slab_alloc(&d->slabs, size);
	if (!e)
		return NULL;
	d->large += size > KEA_SLAB_MAX;
	e->due = due;
	e->len = (uint32_t)len & (UINT32_MAX / 4);
	e->deferred = 0;
	e->unsure = 0;
	memcpy(e->key, key, len);
	b = bucket(d, bucket_of(d, key, len));
	e->next = *b;
	*b = e;
	sift_up(d, d->count++, (struct kea_place){ due, e });
	if (d->count > d->buckets)
		table_grow(d);
	return e;
}

void kea_deadlines_move(struct kea_deadlines *d, struct kea_entry *e,
			int64_t when)
{
	sift(d, e->at, (struct kea_place){ when, e });
}

int64_t kea_deadlines_when(const struct kea_deadlines *d,
			   const struct kea_entry *e)
{
	return place(d, e->at)->when;
}

void kea_deadlines_remove(struct kea_deadlines *d, struct kea_entry *e)
{
	struct kea_entry **b = bucket(d, bucket_of(d, e->key, e->len));
	size_t size = sizeof(*e) + e->len;
	struct kea_place last;

	while (*b != e)
		b = &(*b)->next;
	*b = e->next;
	last = *place(d, --d->count);
	if (last.entry != e)
		sift(d, e->at, last);
	/* Half a page of slack: no page comes and goes with each key. */
	if (d->count + SHIFT + PLACES / 2 < (d->heap.count - 1) * PLACES)
		pages_pop(d, &d->heap);
	d->large -= size > KEA_SLAB_MAX;
	kea_slab_free(&d->slabs, e, size);
	/* Twice, so that it is as small as its contents when they have gone. */
	for (int i = 0; i < 2; i++)
		if (d->count < d->buckets / 2 && d->buckets > BUCKETS)
			table_shrink(d);
}

struct kea_entry *kea_deadlines_first(const struct kea_deadlines *d,
				      int64_t *when)
{
	if (d->count == 0)
		return NULL;
	*when = place(d, 0)->when;
	return place(d, 0)->entry;
}

bool kea_deadlines_end(struct kea_deadlines *d, size_t n)
{
	while (d->large > 0) {
		struct kea_entry *e;
		size_t size;

		if (n-- == 0)
			return false;
		assert(d->count > 0);
		e = place(d, --d->count)->entry;
		size = sizeof(*e) + e->len;
		if (size <= KEA_SLAB_MAX)
			continue;
		d->large--;
		kea_slab_free(&d->slabs, e, size);
	}
	pages_free(d, &d->table);
	pages_free(d, &d->heap);
	kea_slabs_drop(&d->slabs);
	kea_slabs_drop(&d->arrays);
	d->count = 0;
	d->buckets = 0;
	return true;
}
