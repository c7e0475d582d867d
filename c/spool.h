/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spool.h: one spool file. SHUTDOWN saves the dataset before it tells modules,
 * so what the last turns captured can no longer go into the fallback list: it
 * goes into a small file in the server's dir, which the next load takes in.
 * Whose a file is and which come first: spooldir.h. Main thread only; knows
 * nothing of Redis or Go.
 *
 * The file: 16 bytes "key_evt_amqp 1" and two newlines; then for each event
 * its length (4 bytes) and check sum (8 bytes), little-endian, and its record;
 * last, four bytes 0xff and the number of events (8 bytes). fallback/spool.go
 * reads the same.
 */
#ifndef KEA_SPOOL_H
#define KEA_SPOOL_H

#include "queue.h"

#include <stdio.h>

#define KEA_SPOOL_NAME_MAX 96

struct kea_spool {
	FILE *file;
	int dir;      /* borrowed: a descriptor of the folder */
	int error;    /* errno of the first write that failed; 0: none */
	uint64_t count;
	char name[KEA_SPOOL_NAME_MAX];
	char temporary[KEA_SPOOL_NAME_MAX + 4];
};

/*
 * kea_spool_begin begins a file beside dir/name, as dir/name.new, which only
 * its owner may read. It opens nothing that is there already: a file or link of
 * that name is removed first, never followed. False: errno says why.
 */
bool kea_spool_begin(struct kea_spool *s, int dir, const char *name);

/* Adds a run's records. Errors are reported by kea_spool_commit. */
void kea_spool_add(struct kea_spool *s, const struct kea_run *run);

enum kea_spool_written {
	KEA_SPOOL_FAILED,   /* there is no file; errno says why */
	KEA_SPOOL_UNSYNCED, /* the file is whole and in place; but a power
			     * failure soon may undo that. errno says why */
	KEA_SPOOL_WRITTEN,  /* whole, in place and durable */
};

/* Makes the file durable and puts it at its name, where nothing may be: what
 * is there stays, and the answer is KEA_SPOOL_FAILED with EEXIST. */
enum kea_spool_written kea_spool_commit(struct kea_spool *s);

enum kea_spool_state {
	KEA_SPOOL_NONE,       /* no file: ENOENT, and nothing else */
	KEA_SPOOL_WHOLE,      /* all of it was taken in */
	KEA_SPOOL_DAMAGED,    /* cut short or garbage: what came before was
			       * taken in */
	KEA_SPOOL_IRREGULAR,  /* a link, pipe, folder or device: not read */
	KEA_SPOOL_UNREADABLE, /* errno says why; what came before was taken
			       * in */
};

/* Appends the events of the file dir/name to the queue; *count is how many. It
 * follows no link and never waits. The file stays as it is: it is to be removed
 * when all its events are delivered, and never unless it was WHOLE. */
enum kea_spool_state kea_spool_read(int dir, const char *name,
				    struct kea_queue *q, uint64_t *count);

#endif /* KEA_SPOOL_H */
