/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * list.h: the fallback list, an ordinary Redis list whose elements are records
 * (record.h). Main thread only, inside a context in which the dataset may be
 * used; whether it may be *written* is the caller's to check (policy.c).
 *
 * The list is written with the low-level list calls and one explicit
 * replication command a batch, not with RM_Call: so our own writes make no
 * keyspace event, and neither MONITOR nor SLOWLOG shows the events' payload.
 */
#ifndef KEA_LIST_H
#define KEA_LIST_H

#include "queue.h"
#include "redisapi.h"

/* An open fallback list, valid within one callback. */
struct kea_list {
	RedisModuleCtx *ctx;
	RedisModuleString *name;
	RedisModuleKey *key;   /* NULL: no such key (opened for reading) */
	uint64_t popped;       /* pops not replicated yet */
	uint64_t refused;      /* commands that the server did not replicate */
	bool usable;           /* a list, or nothing */
	bool changed;
};

/* Opens for reading and writing. Close it with kea_list_close. */
void kea_list_open(struct kea_list *l, RedisModuleCtx *ctx,
		   RedisModuleString *name, bool write);

/* Replicates what is outstanding, tells those who watch or track the key when
 * it has changed, and closes. Safe on a list never opened. Returns how many of
 * its commands the server has refused to replicate: replicas and the AOF lack
 * what they say. Only a list that was written can have any. */
uint64_t kea_list_close(struct kea_list *l);

uint64_t kea_list_length(const struct kea_list *l);

/* Appends a run's records. */
void kea_list_push(struct kea_list *l, const struct kea_run *run);

/* The id of the element at index (negative: from the end); false when there is
 * no such element or it is not a record. */
bool kea_list_id(struct kea_list *l, long index, struct kea_record *head);

/* Pops the n oldest elements. */
void kea_list_drop(struct kea_list *l, uint64_t n);

/* Removes the element at index, 0 or more, from between others; it must be there.
 * Dearer than to drop the oldest: replicas go to the index twice. */
void kea_list_remove(struct kea_list *l, uint64_t index);

/* Pops the oldest element if its id is that of the record; else changes
 * nothing and returns false. */
bool kea_list_pop(struct kea_list *l, const struct kea_record *expected);

/* Moves all elements of from to the front of l, in their order. */
void kea_list_prepend(struct kea_list *l, struct kea_list *from);

/*
 * Copies elements from index on into a loose chunk of q: at most max, at most
 * one chunk. *run is the copy (count 0: nothing, and no chunk). Stops before
 * an element that is not a record and sets *alien.
 */
void kea_list_read(struct kea_list *l, struct kea_queue *q, long index,
		   uint32_t max, struct kea_run *run, bool *alien);

#endif /* KEA_LIST_H */
