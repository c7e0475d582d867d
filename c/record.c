/* SPDX-License-Identifier: BSD-3-Clause */
/* record.c: sections and soundness of the records of record.h. */
#include "record.h"

#include <string.h>

#define SECTION_HEAD ((size_t)5) /* kind, length */
#define ELEMENT_HEAD ((size_t)4) /* length */

/* ---- writing ------------------------------------------------------------ */

static size_t content_size(const struct kea_content *c)
{
	if (c->type == KEA_TYPE_NONE)
		return 0;
	if (!c->left_out)
		return SECTION_HEAD + 1 + SECTION_HEAD + c->len;
	return SECTION_HEAD + 1 +
	       (c->size > 0 ? SECTION_HEAD + sizeof(c->size) : 0);
}

size_t kea_record_sections(const struct kea_extras *x)
{
	return content_size(&x->now) + content_size(&x->old) +
	       (x->due_ms != 0 ? SECTION_HEAD + sizeof(x->due_ms) : 0);
}

static uint8_t *add(uint8_t *to, int kind, const void *bytes, size_t len)
{
	uint32_t len32 = (uint32_t)len;

	*to++ = (uint8_t)kind;
	memcpy(to, &len32, sizeof(len32));
	to += sizeof(len32);
	if (len > 0)
		memcpy(to, bytes, len);
	return to + len;
}

/* add_content: the kinds of the type, the value and its size follow each other. */
static uint8_t *add_content(uint8_t *to, int kind, const struct kea_content *c)
{
	uint8_t type = (uint8_t)c->type;

	if (c->type == KEA_TYPE_NONE)
		return to;
	to = add(to, kind, &type, sizeof(type));
	if (!c->left_out)
		return add(to, kind + 1, c->bytes, c->len);
	if (c->size > 0)
		to = add(to, kind + 2, &c->size, sizeof(c->size));
	return to;
}

uint8_t *kea_record_add_sections(uint8_t *to, const struct kea_extras *x)
{
	to = add_content(to, KEA_SECTION_TYPE, &x->now);
	to = add_content(to, KEA_SECTION_OLD_TYPE, &x->old);
	if (x->due_ms != 0)
		to = add(to, KEA_SECTION_DUE, &x->due_ms, sizeof(x->due_ms));
	return to;
}

/* ---- reading ------------------------------------------------------------ */

/* elements counts the elements that the bytes consist of, each with fixed bytes
 * in front of its length; false when they are not whole. */
static bool elements(const uint8_t *p, size_t len, size_t fixed, uint64_t *n)
{
	for (*n = 0; len > 0; (*n)++) {
		uint32_t size;

		if (len < fixed + ELEMENT_HEAD)
			return false;
		memcpy(&size, p + fixed, sizeof(size));
		p += fixed + ELEMENT_HEAD;
		len -= fixed + ELEMENT_HEAD;
		if (size > len)
			return false;
		p += size;
		len -= size;
	}
	return true;
}

static bool value_sound(enum kea_type type, const uint8_t *p, size_t len)
{
	uint64_t n;

	switch (type) {
	case KEA_TYPE_STRING:
		return true;
	case KEA_TYPE_LIST:
	case KEA_TYPE_SET:
		return elements(p, len, 0, &n);
	case KEA_TYPE_HASH:
		return elements(p, len, 0, &n) && n % 2 == 0;
	case KEA_TYPE_ZSET:
		return elements(p, len, sizeof(double), &n);
	case KEA_TYPE_STREAM:
		if (len == 0)
			return true;
		return len >= 16 && elements(p + 16, len - 16, 0, &n) &&
		       n % 2 == 0;
	default:
		return false;
	}
}

static bool sections_sound(const uint8_t *p, size_t len)
{
	int last = 0;
	/* Of what the key holds, and of what it held. */
	enum kea_type type[2] = { KEA_TYPE_NONE, KEA_TYPE_NONE };
	bool value[2] = { false, false };

	while (len > 0) {
		uint32_t size;
		int kind, of;
		int64_t due;

		if (len < SECTION_HEAD)
			return false;
		kind = p[0];
		memcpy(&size, p + 1, sizeof(size));
		p += SECTION_HEAD;
		len -= SECTION_HEAD;
		if (kind <= last || size > len)
			return false;
		last = kind;
		of = kind >= KEA_SECTION_OLD_TYPE;
		switch (kind) {
		case KEA_SECTION_TYPE:
		case KEA_SECTION_OLD_TYPE:
			if (size != 1 || p[0] < KEA_TYPE_STRING ||
			    p[0] > KEA_TYPE_STREAM)
				return false;
			type[of] = (enum kea_type)p[0];
			break;
		case KEA_SECTION_VALUE:
		case KEA_SECTION_OLD:
			if (!value_sound(type[of], p, size))
				return false;
			value[of] = true;
			break;
		case KEA_SECTION_VALUE_SIZE:
		case KEA_SECTION_OLD_SIZE:
			if (size != 8 || type[of] == KEA_TYPE_NONE || value[of])
				return false;
			break;
		case KEA_SECTION_DUE:
			if (size != sizeof(due))
				return false;
			memcpy(&due, p, sizeof(due));
			if (due == 0)
				return false;
			break;
		default:
			break; /* of a later version */
		}
		p += size;
		len -= size;
	}
	return true;
}

bool kea_record_valid(const void *bytes, size_t len)
{
	const uint8_t *body = (const uint8_t *)bytes + sizeof(struct kea_record);
	struct kea_record r;
	uint64_t body_len;

	if (len < sizeof(r))
		return false;
	memcpy(&r, bytes, sizeof(r));
	len -= sizeof(r);
	body_len = len;
	if (r.magic != KEA_RECORD_MAGIC)
		return false;
	if (r.version == KEA_RECORD_SECTIONS) {
		if (len < sizeof(body_len))
			return false;
		memcpy(&body_len, body, sizeof(body_len));
		body += sizeof(body_len);
		len -= sizeof(body_len);
		if (body_len > len)
			return false;
	} else if (r.version != KEA_RECORD_PLAIN) {
		return false;
	}
	/* Two newlines end the db and the event; the key may be empty. */
	if ((uint64_t)r.db_len + r.event_len + 2 > body_len)
		return false;
	return r.db_len > 0 && body[r.db_len] == '\n' &&
	       body[(size_t)r.db_len + 1 + r.event_len] == '\n' &&
	       sections_sound(body + body_len, len - (size_t)body_len);
}
