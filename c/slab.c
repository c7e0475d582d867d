/* SPDX-License-Identifier: BSD-3-Clause */
/* slab.c: see slab.h. */
#include "slab.h"

#include <assert.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define SLABS (KEA_REGION_BYTES / KEA_SLAB_BYTES)
/* The region's own words are in the place of its first slab. */
#define ALL_FREE (~(uint64_t)1)
#define HEAD_BYTES ((size_t)4096)

_Static_assert(SLABS == 64, "a bit for each");

struct kea_slab {
	struct kea_slab *prev, *next; /* among the partial ones of its class */
	void *free;                   /* objects given back, each to the next */
	uint32_t carved;              /* objects ever handed out */
	uint32_t live;
};

struct kea_region {
	struct kea_region *prev, *next; /* of its slabs' regions */
	struct kea_region *roomy_prev, *roomy_next;
	uint64_t free;    /* slabs in no use */
	uint64_t touched; /* slabs that were ever written to */
	struct kea_slab slab[SLABS];
};

_Static_assert(sizeof(struct kea_region) <= HEAD_BYTES, "counted as that");

static size_t region_bytes(const struct kea_region *r)
{
	return HEAD_BYTES + (size_t)__builtin_popcountll(r->touched) *
				    KEA_SLAB_BYTES;
}

bool kea_pool_count(struct kea_pool *pool, ptrdiff_t size)
{
	if (size > 0 && pool->limit > 0 &&
	    (pool->bytes > pool->limit ||
	     (size_t)size > pool->limit - pool->bytes))
		return false;
	pool->bytes += (size_t)size;
	return true;
}

static void region_unmap(struct kea_pool *pool, struct kea_region *r)
{
	pool->bytes -= region_bytes(r);
	if (pool->unmap)
		pool->unmap(r, KEA_REGION_BYTES);
	else
		free(r);
}

bool kea_pool_tidy(struct kea_pool *pool, size_t n)
{
	while (pool->dead && n-- > 0) {
		struct kea_region *r = pool->dead;

		pool->dead = r->next;
		region_unmap(pool, r);
	}
	return pool->dead != NULL;
}

static void roomy_add(struct kea_slabs *s, struct kea_region *r)
{
	r->roomy_prev = NULL;
	r->roomy_next = s->roomy;
	if (s->roomy)
		s->roomy->roomy_prev = r;
	s->roomy = r;
}

static void roomy_remove(struct kea_slabs *s, struct kea_region *r)
{
	if (r->roomy_next)
		r->roomy_next->roomy_prev = r->roomy_prev;
	if (r->roomy_prev)
		r->roomy_prev->roomy_next = r->roomy_next;
	else
		s->roomy = r->roomy_next;
}

static struct kea_region *region_new(struct kea_slabs *s)
{
	struct kea_pool *pool = s->pool;
	struct kea_region *r = pool->dead;

	if (r) {
		pool->dead = r->next;
	} else {
		if (!kea_pool_count(pool, (ptrdiff_t)HEAD_BYTES))
			return NULL;
		r = pool->map ? pool->map(KEA_REGION_BYTES) :
				aligned_alloc(KEA_REGION_BYTES,
					      KEA_REGION_BYTES);
		if (!r) {
			pool->bytes -= HEAD_BYTES;
			return NULL;
		}
		r->touched = 0;
	}
	r->free = ALL_FREE;
	r->prev = NULL;
	r->next = s->regions;
	if (s->regions)
		s->regions->prev = r;
	s->regions = r;
	roomy_add(s, r);
	return r;
}

static void region_give_back(struct kea_slabs *s, struct kea_region *r)
{
	roomy_remove(s, r);
	if (r->next)
		r->next->prev = r->prev;
	if (r->prev)
		r->prev->next = r->next;
	else
		s->regions = r->next;
	region_unmap(s->pool, r);
}

static struct kea_region *region_of(const void *p)
{
	return (struct kea_region *)((uintptr_t)p & ~(KEA_REGION_BYTES - 1));
}

static struct kea_slab *slab_of(const void *p)
{
	return &region_of(p)->slab[(uintptr_t)p / KEA_SLAB_BYTES % SLABS];
}

static uint8_t *slab_memory(const struct kea_slab *slab)
{
	struct kea_region *r = region_of(slab);

	return (uint8_t *)r + (size_t)(slab - r->slab) * KEA_SLAB_BYTES;
}

void *kea_slab_page(struct kea_slabs *s)
{
	struct kea_region *r = s->roomy ? s->roomy : region_new(s);
	uint64_t bit;

	if (!r)
		return NULL;
	/* Memory that is held already comes first. */
	bit = r->free & r->touched ? r->free & r->touched : r->free;
	bit &= ~bit + 1;
	if (!(r->touched & bit)) {
		if (!kea_pool_count(s->pool, (ptrdiff_t)KEA_SLAB_BYTES))
			return NULL;
		r->touched |= bit;
	}
	r->free &= ~bit;
	if (r->free == 0)
		roomy_remove(s, r);
	return (uint8_t *)r +
	       (size_t)__builtin_ctzll(bit) * KEA_SLAB_BYTES;
}

void kea_slab_page_free(struct kea_slabs *s, void *page)
{
	struct kea_region *r = region_of(page);

	/* To the front of the roomy ones: its page is the next to be used. */
	if (r->free != 0)
		roomy_remove(s, r);
	roomy_add(s, r);
	r->free |= (uint64_t)1 << ((uintptr_t)page / KEA_SLAB_BYTES % SLABS);
	/* One region with room stays: it would be mapped again at once. */
	if (r->free == ALL_FREE && r->roomy_next)
		region_give_back(s, r);
}

static void partial_add(struct kea_slabs *s, size_t class,
			struct kea_slab *slab)
{
	slab->prev = NULL;
	slab->next = s->partial[class];
	if (slab->next)
		slab->next->prev = slab;
	s->partial[class] = slab;
}

static void partial_remove(struct kea_slabs *s, size_t class,
			   struct kea_slab *slab)
{
	if (slab->next)
		slab->next->prev = slab->prev;
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		s->partial[class] = slab->next;
}

static struct kea_slab *slab_new(struct kea_slabs *s, size_t class)
{
	void *page = kea_slab_page(s);
	struct kea_slab *slab;

	if (!page)
		return NULL;
	slab = slab_of(page);
	slab->free = NULL;
	slab->carved = 0;
	slab->live = 0;
	partial_add(s, class, slab);
	return slab;
}

static void *large_alloc(struct kea_pool *pool, size_t size)
{
	void *object = malloc(size);
	size_t all;

	if (!object)
		return NULL;
	/* The word before it is the allocator's. */
	all = malloc_usable_size(object) + sizeof(size_t);
	if (kea_pool_count(pool, (ptrdiff_t)all))
		return object;
	free(object);
	return NULL;
}

static void large_free(struct kea_pool *pool, void *object)
{
	pool->bytes -= malloc_usable_size(object) + sizeof(size_t);
	free(object);
}

void *kea_slab_alloc(struct kea_slabs *s, size_t size)
{
	size_t class = (size - 1) / 8, room = (class + 1) * 8;
	struct kea_slab *slab;
	void *object;

	if (size > KEA_SLAB_MAX)
		return large_alloc(s->pool, size);
	slab = s->partial[class];
	if (!slab) {
		slab = slab_new(s, class);
		if (!slab)
			return NULL;
	}
	if (slab->free) {
		object = slab->free;
		slab->free = *(void **)object;
	} else {
		object = slab_memory(slab) + room * slab->carved++;
	}
	if (++slab->live == KEA_SLAB_BYTES / room)
		partial_remove(s, class, slab);
	return object;
}

void kea_slab_free(struct kea_slabs *s, void *object, size_t size)
{
	size_t class = (size - 1) / 8, room = (class + 1) * 8;
	struct kea_slab *slab;

	if (size > KEA_SLAB_MAX) {
		large_free(s->pool, object);
		return;
	}
	slab = slab_of(object);
	assert(slab->live > 0);
	if (slab->live-- == KEA_SLAB_BYTES / room)
		partial_add(s, class, slab);
	if (slab->live == 0) {
		partial_remove(s, class, slab);
		kea_slab_page_free(s, slab_memory(slab));
		return;
	}
	*(void **)object = slab->free;
	slab->free = object;
}

void kea_slabs_drop(struct kea_slabs *s)
{
	while (s->regions) {
		struct kea_region *r = s->regions;

		s->regions = r->next;
		r->next = s->pool->dead;
		s->pool->dead = r;
	}
	s->roomy = NULL;
	memset(s->partial, 0, sizeof(s->partial));
}
