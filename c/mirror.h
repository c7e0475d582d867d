/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mirror.h: our picture of the fallback list, and the one place that changes
 * it. Knows nothing of Redis: what is in the list it is told. Main thread only.
 *
 * The queue's order, oldest first:
 *
 *     fallback list:       [ held ][ pending ]
 *     lent:     [ trimmed ][ held ]           [ unstored ]
 *     memory:                                             [ unstored ]
 *
 * held      elements at the list's head that the publisher has a copy of
 * trimmed   lent events whose element has left the list before they were
 *           settled (the list's limit, or somebody's LPOP)
 * pending   elements that are nowhere in memory: to be read from the list
 *
 * Storing goes from the oldest unstored event on, so among what is lent the
 * stored ones come first; and memory is lent only when nothing is pending. (A
 * node that has become a master may find a list that others have written: what
 * it has lent before that is unstored and comes first.)
 *
 * Invariants: held + trimmed is the number of events in lent runs that are
 * marked as stored. While the picture is not known the three are 0.
 */
#ifndef KEA_MIRROR_H
#define KEA_MIRROR_H

#include "lent.h"

enum kea_picture {
	KEA_PICTURE_UNKNOWN,    /* the list has not been looked at */
	KEA_PICTURE_KNOWN,      /* held and pending are what it has */
	KEA_PICTURE_WRONG_TYPE, /* the key holds something else */
};

struct kea_mirror {
	struct kea_lent *lent; /* whose runs are marked as stored or not */
	uint64_t held, trimmed, pending;
	enum kea_picture picture;
	bool check; /* compare with the list before it is used next */
};

/* Elements in the list, as far as we know. */
static inline uint64_t kea_mirror_length(const struct kea_mirror *m)
{
	return m->held + m->pending;
}

/* Lent events that are, or were, in the list. */
static inline uint64_t kea_mirror_lent(const struct kea_mirror *m)
{
	return m->held + m->trimmed;
}

static inline bool kea_mirror_known(const struct kea_mirror *m)
{
	return m->picture == KEA_PICTURE_KNOWN;
}

/* kea_mirror_forget: nothing is known of the list any more. What was lent is in
 * memory, and stays so. */
void kea_mirror_forget(struct kea_mirror *m);

/* kea_mirror_wrong_type: the key holds no list. What was lent is in memory, and
 * stays so. */
void kea_mirror_wrong_type(struct kea_mirror *m);

/* kea_mirror_none: there is no list, and that is known. */
void kea_mirror_none(struct kea_mirror *m);

/* kea_mirror_adopt: the list is another one now, whose n elements are to be
 * read behind what is held, which went to its front. */
void kea_mirror_adopt(struct kea_mirror *m, uint64_t n);

/*
 * kea_mirror_reconcile makes the picture agree with the list, which has len
 * elements, the oldest of them with this id (NULL: it is not an event), after
 * somebody else has changed it: deleted, trimmed, flushed, swapped, evicted,
 * restored. It returns how many pending elements are gone.
 */
uint64_t kea_mirror_reconcile(struct kea_mirror *m, uint64_t len,
			      const struct kea_record *head);

/* ---- what we have done to the list --------------------------------------- */

/* The lent run was pushed. */
void kea_mirror_stored_lent(struct kea_mirror *m, struct kea_lent_run *r);
/* n events were pushed from memory, and are not there any more. */
void kea_mirror_stored(struct kea_mirror *m, uint64_t n);
/* n events were pushed from memory, or read from behind what is held, and are
 * about to be lent as stored. */
void kea_mirror_pushed_to_lend(struct kea_mirror *m, uint64_t n);
void kea_mirror_read_to_lend(struct kea_mirror *m, uint64_t n);

/* The oldest held element was popped, for its event is settled; or it proved to
 * be gone. */
void kea_mirror_popped(struct kea_mirror *m);
void kea_mirror_missed(struct kea_mirror *m);
/* kea_mirror_pass: of the n oldest lent events, which are stored and settled,
 * how many need no element to be popped. They are trimmed no longer. */
uint64_t kea_mirror_pass(struct kea_mirror *m, uint64_t n);

/* The n oldest elements were dropped for the list's limit. It returns how many
 * of them were nowhere else. */
uint64_t kea_mirror_trimmed(struct kea_mirror *m, uint64_t n);
/* n of the oldest pending elements were dropped: they are not events. */
void kea_mirror_dropped(struct kea_mirror *m, uint64_t n);

/* kea_mirror_reclaimed: nothing is lent any more. It returns how many events
 * had left the list while they were lent, and are nowhere now. */
uint64_t kea_mirror_reclaimed(struct kea_mirror *m);

#endif /* KEA_MIRROR_H */
