/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * record_driver.c: lets another program use c/record.c over its pipes, for the
 * differential and fuzz tests in fallback/.
 *
 * One request after another on stdin, until end of file; numbers are
 * little-endian. Each is a letter and what belongs to it:
 *
 *	v  length (4), bytes: is this a sound record? Answer: '1' or '0'.
 *	b  origin, seq, time (8 each), due (8), db (4), event, key, then twice
 *	   (what the key holds, what it held) type (1), left out (1), size (8),
 *	   bytes: builds the record. Answer: length (4), the record.
 *
 * event, key and bytes are a length (4) and as many bytes. All live in memory of
 * exactly their size, so that the address sanitizer sees a read past the end.
 */
#include "../record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void get(void *to, size_t len)
{
	if (len > 0 && fread(to, 1, len, stdin) != len)
		exit(2);
}

static uint8_t *get_bytes(size_t *len)
{
	uint32_t n;
	uint8_t *p;

	get(&n, sizeof(n));
	p = malloc(n);
	if (!p && n > 0)
		exit(2);
	get(p, n);
	*len = n;
	return p;
}

static void valid(void)
{
	size_t len;
	uint8_t *bytes = get_bytes(&len);

	putchar(kea_record_valid(bytes, len) ? '1' : '0');
	free(bytes);
}

static void *get_content(struct kea_content *c)
{
	uint8_t head[2], *bytes;

	get(head, sizeof(head));
	get(&c->size, sizeof(c->size));
	bytes = get_bytes(&c->len);
	c->type = (enum kea_type)head[0];
	c->left_out = head[1];
	c->bytes = bytes;
	return bytes;
}

static void build(void)
{
	struct kea_extras x = { 0 };
	struct kea_event e = { .extras = &x };
	uint8_t *event, *key, *room;
	void *now, *old;
	uint32_t db, len32;
	size_t len;

	get(&e.origin, 8);
	get(&e.seq, 8);
	get(&e.time_ms, 8);
	get(&x.due_ms, 8);
	get(&db, sizeof(db));
	event = get_bytes(&e.event_len);
	key = get_bytes(&e.key_len);
	now = get_content(&x.now);
	old = get_content(&x.old);
	e.event = (char *)event;
	e.key = (char *)key;
	kea_event_set_db(&e, (int)db);
	len = kea_record_size(&e);
	room = malloc(len);
	if (!room)
		exit(2);
	kea_record_build(room, &e);
	len32 = (uint32_t)len;
	fwrite(&len32, sizeof(len32), 1, stdout);
	fwrite(room, 1, len, stdout);
	free(room);
	free(event);
	free(key);
	free(now);
	free(old);
}

int main(void)
{
	int what;

	while ((what = getchar()) != EOF) {
		if (what == 'v')
			valid();
		else
			build();
		fflush(stdout);
	}
	return 0;
}
