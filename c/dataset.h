/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * dataset.h: events of whole databases, with dataset_events on: flushdb,
 * flushall and swapdb, which the server has no keyspace events for. Main thread
 * only, in the server's event, when it has happened.
 */
#ifndef KEA_DATASET_H
#define KEA_DATASET_H

/* db is -1 for all of them. */
void kea_dataset_flushed(int db);
void kea_dataset_swapped(int first, int second);

#endif /* KEA_DATASET_H */
