/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * deadlines.h: one database's keys and when each is due: found by key, and the
 * earliest first. Knows nothing of Redis or Go. Main thread only.
 *
 * A hash table that grows by one bucket at a time (linear hashing), so that no
 * operation ever moves all of it, and a heap of four children a node, a cache
 * line. A key costs 24 bytes beside its own, to 8 bytes, and 16 in the heap and 8
 * in the table.
 */
#ifndef KEA_DEADLINES_H
#define KEA_DEADLINES_H

#include "slab.h"

struct kea_entry {
	struct kea_entry *next; /* in its bucket */
	int64_t due;            /* when the key is due, as far as is known */
	uint32_t at;            /* its place in the heap */
	uint32_t len : 30;
	uint32_t deferred : 1; /* its place may be after due */
	uint32_t unsure : 1;   /* due is what it was before */
	uint8_t key[];
};

/* An array in pages, so that it grows without being copied. */
struct kea_pages {
	void **page;
	size_t count, room;
};

/* A place in the heap. when <= due, unless it is deferred: a deadline that is put
 * off leaves its entry where it is. */
struct kea_place {
	int64_t when;
	struct kea_entry *entry;
};

struct kea_deadlines {
	struct kea_deadlines *next; /* the owner's */
	int db;                     /* the owner's */
	struct kea_slabs slabs;  /* entries */
	struct kea_slabs arrays; /* apart, so that regions of entries run empty */
	uint64_t seed[2];
	uint64_t count;   /* entries */
	uint64_t buckets; /* of the table */
	uint64_t large;   /* entries that are malloc's */
	struct kea_pages table, heap;
};

void kea_deadlines_init(struct kea_deadlines *d, struct kea_pool *pool,
			const uint64_t seed[2]);

/* kea_deadlines_find returns the key's entry, or NULL. */
struct kea_entry *kea_deadlines_find(const struct kea_deadlines *d,
				     const void *key, size_t len);

/* kea_deadlines_add adds a key that is not there. NULL: there is no room. */
struct kea_entry *kea_deadlines_add(struct kea_deadlines *d, const void *key,
				    size_t len, int64_t due);

/* kea_deadlines_move gives an entry another place in the heap. */
void kea_deadlines_move(struct kea_deadlines *d, struct kea_entry *e,
			int64_t when);

int64_t kea_deadlines_when(const struct kea_deadlines *d,
			   const struct kea_entry *e);

void kea_deadlines_remove(struct kea_deadlines *d, struct kea_entry *e);

/* The entry with the earliest place; NULL when there is none. */
struct kea_entry *kea_deadlines_first(const struct kea_deadlines *d,
				      int64_t *when);

/*
 * kea_deadlines_end gives everything back, in slices: to be called until it
 * returns true, and for nothing else from the first call on. n bounds the
 * entries that it looks at.
 */
bool kea_deadlines_end(struct kea_deadlines *d, size_t n);

#endif /* KEA_DEADLINES_H */
