/*
 * spool.h: the spool file. SHUTDOWN saves the dataset before it tells modules,
 * so what the last turns captured can no longer go into the fallback list: it
 * goes into a small file in the server's dir, which the next load takes in.
 * Main thread only; knows nothing of Redis or Go.
 *
 * The file: 16 bytes "key_evt_amqp 1" and two newlines; then for each event
 * its length (4 bytes) and check sum (8 bytes), little-endian, and its record;
 * last, four bytes 0xff and the number of events (8 bytes).
 */
#ifndef KEA_SPOOL_H
#define KEA_SPOOL_H

#include "queue.h"

#include <stdio.h>

struct kea_spool {
	FILE *file;
	bool failed;
	uint64_t count;
	char temporary[256];
};

/* Begins a new spool file beside path; false: errno says why. */
bool kea_spool_begin(struct kea_spool *s, const char *path);

/* Adds a run's records. Errors are reported by kea_spool_commit. */
void kea_spool_add(struct kea_spool *s, const struct kea_run *run);

/* Makes the file durable and puts it at path. False: errno says why, and what
 * was at path is as it was. */
bool kea_spool_commit(struct kea_spool *s, const char *path);

enum kea_spool_state {
	KEA_SPOOL_NONE,    /* no file */
	KEA_SPOOL_WHOLE,   /* all of it was taken in */
	KEA_SPOOL_DAMAGED, /* cut short or garbage: what came before was taken
			    * in, and the file was renamed to path.damaged */
};

/* Appends the events of the file at path to the queue; *count is how many. The
 * file stays (but see KEA_SPOOL_DAMAGED): remove it when they are delivered. */
enum kea_spool_state kea_spool_read(const char *path, struct kea_queue *q,
				    uint64_t *count);

#endif /* KEA_SPOOL_H */
