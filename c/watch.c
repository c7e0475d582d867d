/* SPDX-License-Identifier: BSD-3-Clause */
/* watch.c: see watch.h. */
#include "watch.h"

#include <stdlib.h>
#include <string.h>

/* Slices of kea_watch_tidy, some hundred microseconds each. */
#define TIDY_REGIONS 4
#define TIDY_ENTRIES 2000

void kea_watch_init(struct kea_watch *w, const uint64_t seed[2])
{
	memcpy(w->seed, seed, sizeof(w->seed));
}

static struct kea_deadlines *known(const struct kea_watch *w, int db)
{
	return (size_t)db < w->db_room ? w->db[db] : NULL;
}

/* have_room makes w->db[db] a place that is there. */
static bool have_room(struct kea_watch *w, int db)
{
	size_t room = (size_t)db + 16, more;
	struct kea_deadlines **grown;

	if ((size_t)db < w->db_room)
		return true;
	more = (room - w->db_room) * sizeof(*w->db);
	if (!kea_pool_count(&w->pool, (ptrdiff_t)more))
		return false;
	grown = realloc(w->db, room * sizeof(*w->db));
	if (!grown) {
		kea_pool_count(&w->pool, -(ptrdiff_t)more);
		return false;
	}
	memset(grown + w->db_room, 0, more);
	w->db = grown;
	w->db_room = room;
	return true;
}

static struct kea_deadlines *begin(struct kea_watch *w, int db)
{
	struct kea_deadlines *d;

	if (!have_room(w, db) ||
	    !kea_pool_count(&w->pool, (ptrdiff_t)sizeof(*d)))
		return NULL;
	d = malloc(sizeof(*d));
	if (!d) {
		kea_pool_count(&w->pool, -(ptrdiff_t)sizeof(*d));
		return NULL;
	}
	kea_deadlines_init(d, &w->pool, w->seed);
	d->db = db;
	d->next = w->used;
	w->used = d;
	w->db[db] = d;
	return d;
}

bool kea_watch_set(struct kea_watch *w, int db, const void *key, size_t len,
		   int64_t due)
{
	struct kea_deadlines *d = known(w, db);
	struct kea_entry *e = d ? kea_deadlines_find(d, key, len) : NULL;

	if (e) {
		/* Put off: not even its place has to be looked at, which would
		 * be a cache miss. */
		bool later = due >= e->due && !e->deferred;

		e->due = due;
		if (!later && due < kea_deadlines_when(d, e))
			kea_deadlines_move(d, e, due);
		e->deferred = 0;
		e->unsure = 0;
		return true;
	}
	if (!d)
		d = begin(w, db);
	if (!d || !kea_deadlines_add(d, key, len, due))
		return false;
	w->count++;
	return true;
}

bool kea_watch_get(const struct kea_watch *w, int db, const void *key,
		   size_t len, int64_t *due, int64_t *when)
{
	const struct kea_deadlines *d = known(w, db);
	const struct kea_entry *e = d ? kea_deadlines_find(d, key, len) : NULL;

	if (!e)
		return false;
	*due = e->unsure ? 0 : e->due;
	*when = kea_deadlines_when(d, e);
	return true;
}

void kea_watch_defer(struct kea_watch *w, int db, const void *key, size_t len,
		     int64_t when)
{
	struct kea_deadlines *d = known(w, db);
	struct kea_entry *e = d ? kea_deadlines_find(d, key, len) : NULL;

	if (!e)
		return;
	kea_deadlines_move(d, e, when);
	e->deferred = 1;
}

bool kea_watch_unsure(struct kea_watch *w, int db, const void *key, size_t len)
{
	struct kea_deadlines *d = known(w, db);
	struct kea_entry *e = d ? kea_deadlines_find(d, key, len) : NULL;

	bool already = e && e->unsure;

	if (e)
		e->unsure = 1;
	return already;
}

bool kea_watch_drop(struct kea_watch *w, int db, const void *key, size_t len)
{
	struct kea_deadlines *d = known(w, db);
	struct kea_entry *e = d ? kea_deadlines_find(d, key, len) : NULL;

	if (!e)
		return false;
	kea_deadlines_remove(d, e);
	w->count--;
	return true;
}

static void free_db(struct kea_watch *w, struct kea_deadlines *d)
{
	kea_pool_count(&w->pool, -(ptrdiff_t)sizeof(*d));
	free(d);
}

void kea_watch_drop_db(struct kea_watch *w, int db)
{
	struct kea_deadlines **at = &w->used, *d;

	while ((d = *at)) {
		if (db != -1 && d->db != db) {
			at = &d->next;
			continue;
		}
		*at = d->next;
		w->db[d->db] = NULL;
		w->count -= d->count;
		if (kea_deadlines_end(d, 0)) {
			free_db(w, d); /* its regions can be used again */
			continue;
		}
		d->next = w->dropped;
		w->dropped = d;
	}
}

void kea_watch_swap_dbs(struct kea_watch *w, int a, int b)
{
	struct kea_deadlines *was_a = known(w, a), *was_b = known(w, b);

	/* If a database cannot be placed, all of it is lost; but a place
	 * takes eight bytes. */
	if ((was_a && !have_room(w, b)) || (was_b && !have_room(w, a))) {
		kea_watch_drop_db(w, a);
		kea_watch_drop_db(w, b);
		return;
	}
	if (was_a)
		was_a->db = b;
	if (was_b)
		was_b->db = a;
	if ((size_t)a < w->db_room)
		w->db[a] = was_b;
	if ((size_t)b < w->db_room)
		w->db[b] = was_a;
}

static struct kea_deadlines *earliest(const struct kea_watch *w, int64_t *when)
{
	struct kea_deadlines *min = NULL;
	int64_t first;

	for (struct kea_deadlines *d = w->used; d; d = d->next) {
		if (!kea_deadlines_first(d, &first) || (min && first >= *when))
			continue;
		min = d;
		*when = first;
	}
	return min;
}

bool kea_watch_next(const struct kea_watch *w, int64_t *when)
{
	return earliest(w, when) != NULL;
}

enum kea_watch_step kea_watch_step(struct kea_watch *w, int64_t now,
				   struct kea_due *due)
{
	int64_t when;
	struct kea_deadlines *d = earliest(w, &when);
	struct kea_entry *e;

	if (!d || when >= now)
		return KEA_WATCH_NONE;
	e = kea_deadlines_first(d, &when);
	if (e->due > when && !e->unsure) {
		/* Put off; but what waits for another reason stays. */
		kea_deadlines_move(d, e, e->due);
		return KEA_WATCH_MOVED;
	}
	due->db = d->db;
	due->key = e->key;
	due->len = e->len;
	due->due = e->unsure ? 0 : e->due;
	return KEA_WATCH_DUE;
}

static bool tidy(struct kea_watch *w, size_t entries, size_t regions)
{
	struct kea_deadlines *d = w->dropped;

	if (d) {
		if (kea_deadlines_end(d, entries)) {
			w->dropped = d->next;
			free_db(w, d);
		}
		return true;
	}
	return kea_pool_tidy(&w->pool, regions);
}

bool kea_watch_tidy(struct kea_watch *w)
{
	return tidy(w, TIDY_ENTRIES, TIDY_REGIONS);
}

size_t kea_watch_bytes(const struct kea_watch *w)
{
	return w->pool.bytes;
}

void kea_watch_free(struct kea_watch *w)
{
	kea_watch_drop_db(w, -1);
	while (tidy(w, SIZE_MAX, SIZE_MAX))
		;
	kea_pool_count(&w->pool, -(ptrdiff_t)(w->db_room * sizeof(*w->db)));
	free(w->db);
	w->db = NULL;
	w->db_room = 0;
}
