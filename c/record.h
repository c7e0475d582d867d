/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * record.h: an event's bytes, the same in memory, as an element of the fallback
 * list, and in the spool file. Knows nothing of Redis, Go or the queue; pure
 * functions, any thread. fallback/record.go reads the same format.
 *
 * A record is a header, the message's body "<db>\n<event>\n<key>", and, in
 * version 2, sections. Little-endian. An event that has nothing for a section
 * is a record of version 1, which has no length of the body and no sections:
 * the same bytes as ever. Both versions are read for ever.
 *
 *	version 1   struct kea_record, body
 *	version 2   struct kea_record, length of the body (8), body, sections
 *	a section   kind (1), length (4), that many bytes
 *
 * Sections are in the order of their kinds, each kind at most once. Kinds that
 * a reader does not know are skipped: a module that is older than what another
 * has stored delivers the event without what it does not understand.
 */
#ifndef KEA_RECORD_H
#define KEA_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The header. origin names the load of the module that captured the event and
 * seq counts from 1 within it; both together are the event's id.
 */
struct kea_record {
	uint8_t magic;   /* KEA_RECORD_MAGIC */
	uint8_t version; /* KEA_RECORD_PLAIN or KEA_RECORD_SECTIONS */
	uint8_t db_len;  /* bytes of <db> */
	uint8_t zero;
	uint32_t event_len; /* bytes of <event> */
	uint64_t origin;
	uint64_t seq;
	uint64_t time_ms; /* Unix time of the capture */
};

#define KEA_RECORD_MAGIC 0xea
#define KEA_RECORD_PLAIN 1    /* version 1 */
#define KEA_RECORD_SECTIONS 2 /* version 2 */

_Static_assert(sizeof(struct kea_record) == 32, "the list's element format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "records are little-endian");

enum kea_section_kind {
	KEA_SECTION_TYPE = 1,       /* enum kea_type, 1 byte: what the key is */
	KEA_SECTION_VALUE = 2,      /* what it holds; only behind its type */
	KEA_SECTION_VALUE_SIZE = 3, /* 8 bytes: of a value that is left out */
	KEA_SECTION_OLD_TYPE = 4,   /* the same of what the key held */
	KEA_SECTION_OLD = 5,
	KEA_SECTION_OLD_SIZE = 6,
	KEA_SECTION_DUE = 7, /* 8 bytes: Unix time in ms, not 0 */
};

/*
 * Types of keys; the numbers are the server's REDISMODULE_KEYTYPE_*. What the
 * bytes of a value are:
 *
 *	string       the string
 *	list, set    elements, each behind its length (4 bytes)
 *	hash         elements in pairs: a field, its value
 *	sorted set   a score (8 bytes, IEEE 754), its element; in order
 *	stream       the last entry: its id (8 and 8 bytes), then names and
 *	             values in pairs of elements. No bytes: there is no entry
 *	module       no value
 *
 * A type without a value: the value is left out.
 */
enum kea_type {
	KEA_TYPE_NONE = 0, /* nothing is said of the value */
	KEA_TYPE_STRING = 1,
	KEA_TYPE_LIST = 2,
	KEA_TYPE_HASH = 3,
	KEA_TYPE_SET = 4,
	KEA_TYPE_ZSET = 5,
	KEA_TYPE_MODULE = 6,
	KEA_TYPE_STREAM = 7,
};

/* What a key holds, or held. bytes is borrowed. */
struct kea_content {
	enum kea_type type;
	bool left_out;    /* there are no bytes */
	uint64_t size;    /* of what is left out; 0: not known */
	const void *bytes;
	size_t len;
};

/* What an event carries beside its body. All zeros: nothing. */
struct kea_extras {
	struct kea_content now, old;
	int64_t due_ms; /* 0: none */
};

/* One event, for kea_record_build. Pointers are borrowed. extras may be NULL. */
struct kea_event {
	const char *event, *key;
	size_t event_len, key_len;
	char db[11]; /* its digits */
	uint8_t db_len;
	const struct kea_extras *extras;
	size_t sections; /* bytes of them; kea_record_size sets it */
	uint64_t origin, seq, time_ms;
};

/* kea_event_set_db writes the database's number, 0 or more. */
static inline void kea_event_set_db(struct kea_event *e, int db)
{
	char rev[sizeof(e->db)];
	size_t n = 0, len = 0;

	do {
		rev[n++] = (char)('0' + db % 10);
		db /= 10;
	} while (db > 0);
	while (n > 0)
		e->db[len++] = rev[--n];
	e->db_len = (uint8_t)len;
}

/* kea_record_sections is how many bytes the extras' sections take. */
size_t kea_record_sections(const struct kea_extras *x);

/* kea_record_add_sections writes them, and returns what is behind them. */
uint8_t *kea_record_add_sections(uint8_t *to, const struct kea_extras *x);

/*
 * kea_record_valid reports whether len bytes are a whole, sound record:
 * elements of the list may have been written by anybody. The pointer needs no
 * alignment. fallback.Decode accepts exactly the same.
 */
bool kea_record_valid(const void *bytes, size_t len);

/* kea_record_size is how many bytes kea_record_build will write. */
static inline size_t kea_record_size(struct kea_event *e)
{
	size_t len = sizeof(struct kea_record) + e->db_len + 1 + e->event_len +
		     1 + e->key_len;

	e->sections = e->extras ? kea_record_sections(e->extras) : 0;
	return e->sections ? len + sizeof(uint64_t) + e->sections : len;
}

/* kea_record_build writes the record; room is 8-byte aligned and has
 * kea_record_size bytes. Inline: the path of every event. */
static inline void kea_record_build(void *room, const struct kea_event *e)
{
	struct kea_record *r = room;
	uint8_t *to = (uint8_t *)(r + 1);

	r->magic = KEA_RECORD_MAGIC;
	r->version = KEA_RECORD_PLAIN;
	r->db_len = e->db_len;
	r->zero = 0;
	r->event_len = (uint32_t)e->event_len;
	r->origin = e->origin;
	r->seq = e->seq;
	r->time_ms = e->time_ms;
	if (e->sections > 0) {
		r->version = KEA_RECORD_SECTIONS;
		*(uint64_t *)(void *)to = (uint64_t)e->db_len + 1 +
					  e->event_len + 1 + e->key_len;
		to += sizeof(uint64_t);
	}
	__builtin_memcpy(to, e->db, e->db_len);
	to += e->db_len;
	*to++ = '\n';
	__builtin_memcpy(to, e->event, e->event_len);
	to += e->event_len;
	*to++ = '\n';
	if (e->key_len > 0)
		__builtin_memcpy(to, e->key, e->key_len);
	if (e->sections > 0)
		kea_record_add_sections(to + e->key_len, e->extras);
}

#endif /* KEA_RECORD_H */
