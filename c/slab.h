/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slab.h: memory for millions of small objects that come and go. Knows nothing
 * of Redis or Go. Main thread only.
 *
 * Objects of one size, to 8 bytes, lie side by side in slabs of 16 KiB, slabs
 * in regions of 1 MiB that are mapped as a whole. Why not malloc: nothing is
 * added to an object, what is held is known to the page and never above a
 * limit, and everything can be dropped at once, without a walk over it that
 * would hold up the main thread.
 */
#ifndef KEA_SLAB_H
#define KEA_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEA_REGION_BYTES ((size_t)1 << 20)
#define KEA_SLAB_BYTES ((size_t)1 << 14)
/* The largest object of a slab; a larger one is malloc's. */
#define KEA_SLAB_MAX ((size_t)1024)
#define KEA_SLAB_CLASSES (KEA_SLAB_MAX / 8)

struct kea_region;
struct kea_slab;

/* What several kea_slabs share: where regions come from, and the limit. */
struct kea_pool {
	/* map returns size bytes at a multiple of size, or NULL; unmap is told
	 * the size. Both NULL: the C library's. */
	void *(*map)(size_t size);
	void (*unmap)(void *memory, size_t size);
	size_t limit; /* of bytes; 0: none */
	size_t bytes; /* held: all that was ever written to, and not unmapped */
	struct kea_region *dead; /* dropped, to be unmapped or used again */
};

struct kea_slabs {
	struct kea_pool *pool;
	struct kea_region *regions; /* all */
	struct kea_region *roomy;   /* those with an empty slab */
	struct kea_slab *partial[KEA_SLAB_CLASSES]; /* slabs with room */
};

/* kea_slab_alloc returns size bytes (> 0), 8-byte aligned and not zeroed; NULL
 * when the limit forbids it or there is no memory. */
void *kea_slab_alloc(struct kea_slabs *s, size_t size);

/* kea_slab_free takes an object back; size is what was asked for. */
void kea_slab_free(struct kea_slabs *s, void *object, size_t size);

/* The same for a page of KEA_SLAB_BYTES, aligned to that. */
void *kea_slab_page(struct kea_slabs *s);
void kea_slab_page_free(struct kea_slabs *s, void *page);

/* kea_slabs_drop forgets all objects, except those larger than KEA_SLAB_MAX,
 * which the caller has freed. It costs a cache miss a region;
 * kea_pool_tidy gives the memory back. */
void kea_slabs_drop(struct kea_slabs *s);

/* kea_pool_tidy unmaps up to n dropped regions; true: there are more. */
bool kea_pool_tidy(struct kea_pool *pool, size_t n);

/* kea_pool_count counts memory that its owner has from malloc; false, and
 * nothing is counted, when the limit forbids it. A negative size is memory
 * given back. */
bool kea_pool_count(struct kea_pool *pool, ptrdiff_t size);

#endif /* KEA_SLAB_H */
