/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * watch.h: when each key of each database is due, as far as is known, and which
 * is the next. Knows nothing of Redis or Go. Main thread only.
 *
 * Times are milliseconds of Unix time. A deadline that is put off leaves its key
 * where it is among those that wait: when its turn comes, it moves on. So a
 * session that is refreshed each second is moved once a TTL.
 *
 * Every operation takes O(log n) and the databases in use, none more; memory is
 * given back in slices. Contents are lost with a limit only by being refused.
 */
#ifndef KEA_WATCH_H
#define KEA_WATCH_H

#include "deadlines.h"

struct kea_watch {
	struct kea_pool pool; /* its limit may change at any time */
	uint64_t seed[2];
	struct kea_deadlines **db; /* by number; NULL: none was ever known */
	size_t db_room;
	struct kea_deadlines *used;    /* all of them */
	struct kea_deadlines *dropped; /* that are being freed */
	uint64_t count;                /* keys watched */
};

/* A key whose turn has come. key is readable until the watch is changed. */
struct kea_due {
	int db;
	const uint8_t *key;
	size_t len;
	int64_t due;
};

/* kea_watch_init: seed is random. Zeroed memory is enough otherwise; the pool's
 * fields may be set by then. */
void kea_watch_init(struct kea_watch *w, const uint64_t seed[2]);

/* kea_watch_set notes when a key is due, whether it is known or not. false: the
 * limit does not allow one more, and nothing has changed. */
bool kea_watch_set(struct kea_watch *w, int db, const void *key, size_t len,
		   int64_t due);

/* kea_watch_get returns when a key is due, and when it is to be looked at; false:
 * it is not known. */
bool kea_watch_get(const struct kea_watch *w, int db, const void *key,
		   size_t len, int64_t *due, int64_t *when);

/* kea_watch_defer makes a key wait until when, whatever its deadline. */
void kea_watch_defer(struct kea_watch *w, int db, const void *key, size_t len,
		     int64_t when);

/* kea_watch_unsure: the key's deadline is not known (0) until it is set again; the
 * key is shown no later than it would have been. true: so it was already. */
bool kea_watch_unsure(struct kea_watch *w, int db, const void *key, size_t len);

/* kea_watch_drop forgets a key; false: it was not known. */
bool kea_watch_drop(struct kea_watch *w, int db, const void *key, size_t len);

/* kea_watch_drop_db forgets a database, all of them when db is -1. */
void kea_watch_drop_db(struct kea_watch *w, int db);

void kea_watch_swap_dbs(struct kea_watch *w, int a, int b);

/* kea_watch_next returns when the next key has to be looked at, which may be
 * before it is due; false: there is none. */
bool kea_watch_next(const struct kea_watch *w, int64_t *when);

enum kea_watch_step {
	KEA_WATCH_NONE,  /* no key's turn has come */
	KEA_WATCH_DUE,   /* the key is shown, and stays: set, defer or drop it */
	KEA_WATCH_MOVED, /* a key was put off and has moved on; ask again */
};

/* kea_watch_step looks at the next key whose time is before now: a server calls
 * a key expired when now > deadline. */
enum kea_watch_step kea_watch_step(struct kea_watch *w, int64_t now,
				   struct kea_due *due);

/* kea_watch_tidy frees a slice of what was dropped; true: there is more. */
bool kea_watch_tidy(struct kea_watch *w);

/* kea_watch_bytes is the memory held, what is dropped and not yet freed
 * included. */
size_t kea_watch_bytes(const struct kea_watch *w);

/* kea_watch_free frees everything at once. */
void kea_watch_free(struct kea_watch *w);

#endif /* KEA_WATCH_H */
