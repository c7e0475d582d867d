/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queue.h: the memory part of the event queue, a chain of chunks that holds
 * records back to back. Knows nothing of Redis or Go.
 *
 * Threads: a queue belongs to whoever holds the server's lock (the main
 * thread, or another module's thread that holds it). Nobody else may call
 * anything here. Records that are lent to the publisher (lent.h) stay readable
 * for it: their chunk lives until the last record in it is released.
 *
 * A chain of chunks and not one ring, because a script may make a million
 * events before the turn ends, and because a large ring that is walked end to
 * end drives the server's own data out of the cache. Freed chunks are reused
 * last in, first out, and a chunk that runs empty is filled again from its
 * start: at moderate rates the queue lives in a few cache lines.
 */
#ifndef KEA_QUEUE_H
#define KEA_QUEUE_H

#include "record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Usable bytes of an ordinary chunk; a larger record gets a chunk of its own. */
#define KEA_CHUNK_BYTES ((size_t)65536 - 64)
/* Empty chunks kept for reuse; more are given back to the allocator. */
#define KEA_CHUNK_SPARES 8

struct kea_chunk {
	struct kea_chunk *next; /* in the queue's chain, or among the spares */
	size_t size;            /* usable bytes */
	size_t used;            /* bytes written */
	uint32_t live;          /* records in it that nobody released yet */
	uint32_t unread;        /* records in it that were not taken yet */
	_Alignas(8) uint8_t data[];
};

/* A run is a row of records within one chunk, each behind its length. */
struct kea_run {
	struct kea_chunk *chunk;
	uint8_t *start; /* first record's length word */
	size_t bytes;   /* of the run, lengths and padding included */
	uint32_t count;
};

struct kea_front;

struct kea_queue {
	struct kea_front *front; /* runs put back, older than the chain */
	struct kea_chunk *head;  /* chunk being read */
	struct kea_chunk *tail;  /* chunk being written */
	size_t head_read;        /* bytes of head that were taken */
	uint64_t count;          /* records not taken */
	size_t bytes;            /* of them, lengths and padding included */
	struct kea_chunk *spares;
	size_t spares_count;
};

/* Bytes that the queue's allocations hold at present, spares included. */
size_t kea_queue_allocated(void);

/*
 * kea_queue_allocator sets where chunks come from; before the first use.
 * alloc must not fail; release is told the size. The default is malloc.
 */
void kea_queue_allocator(void *(*alloc)(size_t),
			 void (*release)(void *, size_t));

/* kea_queue_scratch is malloc that does not fail; free gives it back. */
void *kea_queue_scratch(size_t len);

/* kea_queue_append makes room for a record of len bytes at the end and returns
 * it, 8-byte aligned, for the caller to fill in at once. */
void *kea_queue_append(struct kea_queue *q, size_t len);

/*
 * kea_queue_peek shows the next run of at most max records (and at most
 * max_bytes, but at least one record); false when the queue is empty.
 * Nothing changes.
 */
bool kea_queue_peek(const struct kea_queue *q, uint32_t max, size_t max_bytes,
		    struct kea_run *run);

/*
 * kea_queue_take takes the run that kea_queue_peek has just shown. The records
 * are the caller's, readable until it calls kea_run_release for each of them,
 * or puts them back.
 */
void kea_queue_take(struct kea_queue *q, const struct kea_run *run);

/* kea_queue_putback puts a taken run back, before everything in the queue. To
 * put several back, begin with the newest. */
void kea_queue_putback(struct kea_queue *q, const struct kea_run *run);

/* kea_run_release gives up the first n records of a run and moves its start. */
void kea_run_release(struct kea_queue *q, struct kea_run *run, uint32_t n);

/* kea_queue_loose_chunk returns an empty chunk outside the chain with at least
 * size usable bytes, for the caller to fill with kea_chunk_add. Once its
 * records are released it returns to the spares. */
struct kea_chunk *kea_queue_loose_chunk(struct kea_queue *q, size_t size);

/* kea_chunk_add appends a record to a loose chunk; NULL when it is full. */
void *kea_chunk_add(struct kea_chunk *chunk, size_t len);

/* kea_queue_visit calls visit with each run in the queue, oldest first; nothing
 * changes. */
void kea_queue_visit(const struct kea_queue *q,
		     void (*visit)(void *arg, const struct kea_run *run),
		     void *arg);

/* kea_queue_free releases all memory. No run may be out. */
void kea_queue_free(struct kea_queue *q);

/* Bytes that a record of len bytes takes in a chunk. */
static inline size_t kea_record_room(size_t len)
{
	return (sizeof(uint64_t) + len + 7) & ~(size_t)7;
}

/* The record at a run's position, its length, and the position after it. */
static inline struct kea_record *kea_record_at(uint8_t *pos, size_t *len)
{
	*len = (size_t) * (uint64_t *)(void *)pos;
	return (struct kea_record *)(void *)(pos + sizeof(uint64_t));
}

static inline uint8_t *kea_record_after(uint8_t *pos)
{
	return pos + kea_record_room((size_t) * (uint64_t *)(void *)pos);
}

#endif /* KEA_QUEUE_H */
