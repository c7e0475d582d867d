/* SPDX-License-Identifier: BSD-3-Clause */
/* queue.c: the chunk queue. Threading rules and ownership are in queue.h. */
#include "queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A run that was put back. Rare (a lost connection), so it may allocate. */
struct kea_front {
	struct kea_front *next;
	struct kea_run run;
};

void *kea_queue_scratch(size_t len)
{
	void *memory = malloc(len > 0 ? len : 1);

	if (!memory)
		abort();
	return memory;
}

static void scratch_free(void *memory, size_t len)
{
	(void)len;
	free(memory);
}

static void *(*chunk_alloc)(size_t) = kea_queue_scratch;
static void (*chunk_release)(void *, size_t) = scratch_free;
static size_t allocated;

void kea_queue_allocator(void *(*alloc)(size_t),
			 void (*release)(void *, size_t))
{
	chunk_alloc = alloc;
	chunk_release = release;
}

size_t kea_queue_allocated(void)
{
	return allocated;
}

static struct kea_chunk *chunk_new(struct kea_queue *q, size_t size)
{
	struct kea_chunk *c = q->spares;

	if (c && size <= KEA_CHUNK_BYTES) {
		q->spares = c->next;
		q->spares_count--;
	} else {
		if (size < KEA_CHUNK_BYTES)
			size = KEA_CHUNK_BYTES;
		c = chunk_alloc(sizeof(*c) + size);
		c->size = size;
		allocated += sizeof(*c) + size;
	}
	c->next = NULL;
	c->used = 0;
	c->live = 0;
	c->unread = 0;
	return c;
}

static void chunk_give_back(struct kea_chunk *c)
{
	allocated -= sizeof(*c) + c->size;
	chunk_release(c, sizeof(*c) + c->size);
}

static void chunk_free(struct kea_queue *q, struct kea_chunk *c)
{
	if (c->size == KEA_CHUNK_BYTES && q->spares_count < KEA_CHUNK_SPARES) {
		c->next = q->spares;
		q->spares = c;
		q->spares_count++;
		return;
	}
	chunk_give_back(c);
}

/* chunk_write puts a record's length word in place; the caller knows it fits. */
static void *chunk_write(struct kea_chunk *c, size_t len)
{
	uint8_t *pos = c->data + c->used;

	*(uint64_t *)(void *)pos = len;
	c->used += kea_record_room(len);
	c->live++;
	return pos + sizeof(uint64_t);
}

void *kea_queue_append(struct kea_queue *q, size_t len)
{
	size_t room = kea_record_room(len);
	struct kea_chunk *c = q->tail;

	if (!c || c->size - c->used < room) {
		struct kea_chunk *fresh = chunk_new(q, room);

		if (!c) {
			q->head = fresh;
			q->head_read = 0;
		} else if (c == q->head && c->unread == 0) {
			/* All of it is taken: the chain moves on. */
			q->head = fresh;
			q->head_read = 0;
			if (c->live == 0)
				chunk_free(q, c);
			else
				c->next = NULL;
		} else {
			c->next = fresh;
		}
		q->tail = c = fresh;
	}
	c->unread++;
	q->count++;
	q->bytes += room;
	return chunk_write(c, len);
}

/* run_limit shortens a run to at most max records and max_bytes, but one. */
static void run_limit(struct kea_run *run, uint32_t max, size_t max_bytes)
{
	uint8_t *pos = run->start;
	uint32_t n = 0;

	if (run->count <= max && run->bytes <= max_bytes)
		return;
	while (n < run->count && n < max) {
		uint8_t *after = kea_record_after(pos);

		if (n > 0 && (size_t)(after - run->start) > max_bytes)
			break;
		pos = after;
		n++;
	}
	run->count = n;
	run->bytes = (size_t)(pos - run->start);
}

bool kea_queue_peek(const struct kea_queue *q, uint32_t max, size_t max_bytes,
		    struct kea_run *run)
{
	if (q->count == 0 || max == 0)
		return false;
	if (q->front) {
		*run = q->front->run;
	} else {
		run->chunk = q->head;
		run->start = q->head->data + q->head_read;
		run->bytes = q->head->used - q->head_read;
		run->count = q->head->unread;
	}
	run_limit(run, max, max_bytes);
	return true;
}

void kea_queue_take(struct kea_queue *q, const struct kea_run *run)
{
	q->count -= run->count;
	q->bytes -= run->bytes;
	if (q->front) {
		struct kea_front *f = q->front;

		assert(f->run.start == run->start);
		f->run.start += run->bytes;
		f->run.bytes -= run->bytes;
		f->run.count -= run->count;
		if (f->run.count == 0) {
			q->front = f->next;
			free(f);
		}
		return;
	}
	assert(run->chunk == q->head);
	q->head->unread -= run->count;
	q->head_read += run->bytes;
	if (q->head->unread == 0 && q->head != q->tail) {
		/* The taker's releases free it. */
		struct kea_chunk *done = q->head;

		q->head = done->next;
		q->head_read = 0;
		done->next = NULL;
	}
}

void kea_queue_putback(struct kea_queue *q, const struct kea_run *run)
{
	struct kea_front *f;

	if (run->count == 0)
		return;
	f = kea_queue_scratch(sizeof(*f));
	f->run = *run;
	f->next = q->front;
	q->front = f;
	q->count += run->count;
	q->bytes += run->bytes;
}

void kea_run_release(struct kea_queue *q, struct kea_run *run, uint32_t n)
{
	struct kea_chunk *c = run->chunk;

	assert(n <= run->count && n <= c->live);
	if (n == run->count) {
		run->start += run->bytes;
		run->bytes = 0;
	} else {
		uint8_t *pos = run->start;

		for (uint32_t i = 0; i < n; i++)
			pos = kea_record_after(pos);
		run->bytes -= (size_t)(pos - run->start);
		run->start = pos;
	}
	run->count -= n;
	c->live -= n;
	if (c->live > 0)
		return;
	if (c == q->tail && c->size == KEA_CHUNK_BYTES) {
		/* Everything written was taken and released: start over, in
		 * cache lines that are still warm. */
		c->used = 0;
		q->head_read = 0;
		return;
	}
	if (c == q->tail) /* made for one huge record: do not keep it */
		q->head = q->tail = NULL;
	chunk_free(q, c);
}

struct kea_chunk *kea_queue_loose_chunk(struct kea_queue *q, size_t size)
{
	return chunk_new(q, size);
}

void *kea_chunk_add(struct kea_chunk *chunk, size_t len)
{
	if (chunk->size - chunk->used < kea_record_room(len))
		return NULL;
	return chunk_write(chunk, len);
}

void kea_queue_visit(const struct kea_queue *q,
		     void (*visit)(void *arg, const struct kea_run *run),
		     void *arg)
{
	size_t read = q->head_read;

	for (struct kea_front *f = q->front; f; f = f->next)
		visit(arg, &f->run);
	for (struct kea_chunk *c = q->head; c; c = c->next, read = 0) {
		struct kea_run run = { c, c->data + read, c->used - read,
				       c->unread };

		if (run.count > 0)
			visit(arg, &run);
	}
}

void kea_queue_free(struct kea_queue *q)
{
	struct kea_run run;

	while (kea_queue_peek(q, UINT32_MAX, SIZE_MAX, &run)) {
		kea_queue_take(q, &run);
		kea_run_release(q, &run, run.count);
	}
	if (q->tail)
		chunk_give_back(q->tail);
	while (q->spares) {
		struct kea_chunk *c = q->spares;

		q->spares = c->next;
		chunk_give_back(c);
	}
	memset(q, 0, sizeof(*q));
}
