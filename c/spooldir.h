/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spooldir.h: the spool files of one server. They are numbered and read in
 * that order, key_evt_amqp.<id>.<number>.spool, so that a file which can't be
 * read now, or whose events are still on their way, need not be touched to
 * write another one. Main thread only; knows nothing of Redis or Go.
 */
#ifndef KEA_SPOOLDIR_H
#define KEA_SPOOLDIR_H

#include "owner.h"
#include "spool.h"

/* Tells the operator something: level is that of the server's log. The text
 * dies on return. */
typedef void kea_spool_say(const char *level, const char *text);

struct kea_spool_held;

struct kea_spool_dir {
	int fd;
	struct kea_owner owner;
	uint64_t next; /* number of the next file */
	struct kea_spool_held *held; /* files whose events are here, too */
	size_t held_count;
	struct kea_spool_dir *before; /* used before CONFIG SET dir */
	kea_spool_say *say;
};

/*
 * kea_spool_dir_open opens the process's working folder and finds the id of the
 * server that looks like mine. It says what files of others, or of nobody, are
 * there. Never NULL; kea_spool_dir_close frees it, and changes no file.
 */
struct kea_spool_dir *kea_spool_dir_open(const struct kea_facts *mine,
					 kea_spool_say *say);
void kea_spool_dir_close(struct kea_spool_dir *d);

/* kea_spool_dir_is_here reports whether it is still the working folder. */
bool kea_spool_dir_is_here(const struct kea_spool_dir *d);

/* kea_spool_dir_take_in appends the events of all files to the queue, oldest
 * first, and says so. What can't be read stays for the next load. */
void kea_spool_dir_take_in(struct kea_spool_dir *d, struct kea_queue *q);

/* kea_spool_dir_begin begins the next file; see kea_spool_begin. */
bool kea_spool_dir_begin(struct kea_spool_dir *d, struct kea_spool *s);

/* kea_spool_dir_commit is kea_spool_commit; the file is held. */
enum kea_spool_written kea_spool_dir_commit(struct kea_spool_dir *d,
					    struct kea_spool *s);

/* How many files are held, those in folders used before among them. */
size_t kea_spool_dir_held(const struct kea_spool_dir *d);

/*
 * kea_spool_dir_drop removes the oldest held files, all except the newest `keep`:
 * their events are delivered, or kept elsewhere. A damaged one is not removed
 * but renamed to <name>.damaged, beside those that there are.
 */
void kea_spool_dir_drop(struct kea_spool_dir *d, size_t keep);

#endif /* KEA_SPOOLDIR_H */
