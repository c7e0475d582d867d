/* SPDX-License-Identifier: BSD-3-Clause */
/* mirror.c: see mirror.h. */
#include "mirror.h"

void kea_mirror_forget(struct kea_mirror *m)
{
	struct kea_lent_run *r;

	for (uint64_t i = 0; (r = kea_lent_nth(m->lent, i)); i++)
		r->stored = false;
	m->held = m->trimmed = m->pending = 0;
	m->picture = KEA_PICTURE_UNKNOWN;
	m->check = true;
}

void kea_mirror_wrong_type(struct kea_mirror *m)
{
	kea_mirror_forget(m);
	m->picture = KEA_PICTURE_WRONG_TYPE;
}

void kea_mirror_none(struct kea_mirror *m)
{
	kea_mirror_forget(m);
	m->picture = KEA_PICTURE_KNOWN;
	m->check = false;
}

void kea_mirror_adopt(struct kea_mirror *m, uint64_t n)
{
	m->pending = n;
	m->picture = KEA_PICTURE_KNOWN;
}

/* held_before counts the held events older than the one with this id; all of
 * them when it is not among them. */
static uint64_t held_before(const struct kea_mirror *m,
			    const struct kea_record *id)
{
	uint64_t skip = m->trimmed, n = 0;
	struct kea_lent_run *r;

	for (uint64_t i = 0; (r = kea_lent_nth(m->lent, i)); i++) {
		uint8_t *pos = r->run.start;

		if (!r->stored)
			continue;
		for (uint32_t k = 0; k < r->run.count; k++) {
			size_t len;
			const struct kea_record *rec = kea_record_at(pos, &len);

			if (skip > 0)
				skip--;
			else if (rec->origin == id->origin &&
				 rec->seq == id->seq)
				return n;
			else
				n++;
			pos = kea_record_after(pos);
		}
	}
	return m->held;
}

/* lose_held: the n oldest of what is held have left the list. */
static void lose_held(struct kea_mirror *m, uint64_t n)
{
	m->held -= n;
	m->trimmed += n;
}

uint64_t kea_mirror_reconcile(struct kea_mirror *m, uint64_t len,
			      const struct kea_record *head)
{
	uint64_t rest, gone;

	m->check = false;
	if (m->picture != KEA_PICTURE_KNOWN) {
		m->pending = len;
		m->picture = KEA_PICTURE_KNOWN;
		return 0;
	}
	if (len == kea_mirror_length(m))
		return 0;
	lose_held(m, head ? held_before(m, head) : m->held);
	if (m->held > len)
		lose_held(m, m->held - len);
	rest = len - m->held;
	gone = rest < m->pending ? m->pending - rest : 0;
	m->pending = rest;
	return gone;
}

void kea_mirror_stored_lent(struct kea_mirror *m, struct kea_lent_run *r)
{
	r->stored = true;
	m->held += r->run.count;
}

void kea_mirror_stored(struct kea_mirror *m, uint64_t n)
{
	m->pending += n;
}

void kea_mirror_pushed_to_lend(struct kea_mirror *m, uint64_t n)
{
	m->held += n;
}

void kea_mirror_read_to_lend(struct kea_mirror *m, uint64_t n)
{
	m->held += n;
	m->pending -= n < m->pending ? n : m->pending;
}

void kea_mirror_popped(struct kea_mirror *m)
{
	m->held--;
}

void kea_mirror_missed(struct kea_mirror *m)
{
	lose_held(m, 1);
}

uint64_t kea_mirror_pass(struct kea_mirror *m, uint64_t n)
{
	if (n > m->trimmed)
		n = m->trimmed;
	m->trimmed -= n;
	return n;
}

uint64_t kea_mirror_trimmed(struct kea_mirror *m, uint64_t n)
{
	uint64_t held = n < m->held ? n : m->held;

	lose_held(m, held); /* still in flight: dropped only if not confirmed */
	m->pending -= n - held;
	return n - held;
}

void kea_mirror_dropped(struct kea_mirror *m, uint64_t n)
{
	m->pending -= n < m->pending ? n : m->pending;
}

uint64_t kea_mirror_reclaimed(struct kea_mirror *m)
{
	uint64_t gone = m->trimmed;

	m->trimmed = 0;
	m->pending += m->held;
	m->held = 0;
	return gone;
}
