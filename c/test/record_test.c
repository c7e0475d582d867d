/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * record_test.c: what is built is sound, cut at any byte it is not, and without
 * extras it is version 1, byte for byte. What C and Go make of the same bytes is
 * compared in fallback/record_c_test.go.
 */
#include "../record.h"
#include "check.h"

#include <stdlib.h>
#include <string.h>

/* build returns a record in memory of exactly its size. */
static uint8_t *build(struct kea_event *e, size_t *len)
{
	uint8_t *room;

	*len = kea_record_size(e);
	room = malloc(*len);
	kea_record_build(room, e);
	return room;
}

static void version_1_is_what_it_was(void)
{
	static const uint8_t want[] = {
		0xea, 1, 2, 0, 3, 0, 0, 0,	     /* <db>, <event> */
		1,    2, 3, 4, 5, 6, 7, 8,	     /* origin */
		9,    0, 0, 0, 0, 0, 0, 0,	     /* seq */
		10,   0, 0, 0, 0, 0, 0, 0,	     /* time */
		'1',  '5', '\n', 's', 'e', 't', '\n', 'k', '\n', 0,
	};
	struct kea_extras nothing = { 0 };
	struct kea_event e = { .event = "set",
			       .event_len = 3,
			       .key = "k\n\0",
			       .key_len = 3,
			       .origin = UINT64_C(0x0807060504030201),
			       .seq = 9,
			       .time_ms = 10 };
	uint8_t *r;
	size_t len;

	kea_event_set_db(&e, 15);
	for (int i = 0; i < 2; i++) {
		r = build(&e, &len);
		CHECK(len == sizeof(want) && memcmp(r, want, len) == 0);
		free(r);
		e.extras = &nothing;
	}
}

static void cut_it_is_not_sound(void)
{
	static const char pair[] = "\1\0\0\0f\2\0\0\0vv";
	struct kea_extras x = {
		.now = { .type = KEA_TYPE_HASH, .bytes = pair, .len = 11 },
		.old = { .type = KEA_TYPE_STRING,
			 .left_out = true,
			 .size = 1000000 },
		.due_ms = 1767323045006,
	};
	struct kea_event e = {
		.event = "expired", .event_len = 7, .key = "k", .key_len = 1
	};
	size_t len, whole = 0;
	uint8_t *r, *part;

	kea_event_set_db(&e, 0);
	for (int i = 0; i < 2; i++) {
		r = build(&e, &len);
		CHECK(kea_record_valid(r, len));
		for (size_t n = 0; n < len; n++) {
			part = malloc(n + 1);
			memcpy(part, r, n);
			/* At a section's end, and with a shorter key. */
			whole += kea_record_valid(part, n);
			free(part);
		}
		CHECK(whole == (i == 0 ? 1 : 1 + 5));
		free(r);
		e.extras = &x;
	}
}

static void forged_lengths(void)
{
	struct kea_record r = { .magic = KEA_RECORD_MAGIC,
				.version = KEA_RECORD_PLAIN,
				.db_len = 1,
				.event_len = 3 };
	uint8_t b[64] = { 0 };

	memcpy(b, &r, sizeof(r));
	memcpy(b + sizeof(r), "0\nset\nk", 7);
	CHECK(kea_record_valid(b, sizeof(r) + 7));
	r.event_len = UINT32_MAX;
	memcpy(b, &r, sizeof(r));
	CHECK(!kea_record_valid(b, sizeof(r) + 7));
	r.event_len = 2;
	memcpy(b, &r, sizeof(r));
	CHECK(!kea_record_valid(b, sizeof(r) + 7));
	r.event_len = 3;
	r.version = 3;
	memcpy(b, &r, sizeof(r));
	CHECK(!kea_record_valid(b, sizeof(r) + 7));
	r.version = KEA_RECORD_PLAIN;
	r.magic = 0;
	memcpy(b, &r, sizeof(r));
	CHECK(!kea_record_valid(b, sizeof(r) + 7));
}

int main(void)
{
	version_1_is_what_it_was();
	cut_it_is_not_sound();
	forged_lengths();
	puts("record_test: ok");
	return 0;
}
