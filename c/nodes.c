/* SPDX-License-Identifier: BSD-3-Clause */
/* nodes.c: see nodes.h. */
#include "nodes.h"

#include <stdlib.h>
#include <string.h>

/* next_slots reads the next word of a node's slots: "0-5460", "7",
 * "[93->-<id>]" (leaving), "[77-<-<id>]" (coming). False: none is left. */
static bool next_slots(const char **p, struct kea_slot_range *r)
{
	char *after;

	while (**p == ' ')
		(*p)++;
	r->leaving = r->coming = **p == '[';
	*p += r->leaving;
	if (**p < '0' || **p > '9')
		return false;
	r->first = r->last = (unsigned)strtoul(*p, &after, 10);
	if (r->leaving) {
		r->coming = strncmp(after, "-<-", 3) == 0;
		r->leaving = !r->coming;
	} else if (*after == '-') {
		r->last = (unsigned)strtoul(after + 1, &after, 10);
	}
	*p = after + strcspn(after, " ");
	return r->first <= r->last && r->last < KEA_SLOTS;
}

/* is_myself: a comma-separated list of flags has "myself". */
static bool is_myself(const char *flags, size_t len)
{
	for (const char *end = flags + len; flags < end;) {
		const char *comma = memchr(flags, ',', (size_t)(end - flags));
		size_t n = (size_t)((comma ? comma : end) - flags);

		if (n == 6 && memcmp(flags, "myself", n) == 0)
			return true;
		flags += n + 1;
	}
	return false;
}

/* my_slots finds the slots in this node's line: "id address flags master ping
 * pong epoch link slots…". An address holds a host name, which others choose;
 * it has no blank. NULL when the line is not this node's. */
static const char *my_slots(const char *line)
{
	for (int field = 0; field < 8; field++) {
		size_t n = strcspn(line, " ");

		if (field == 2 && !is_myself(line, n))
			return NULL;
		line += n;
		if (*line)
			line++;
	}
	return line;
}

void kea_nodes_mine(RedisModuleCtx *ctx,
		    void (*visit)(void *arg, const struct kea_slot_range *r),
		    void *arg)
{
	RedisModuleCallReply *reply =
		RedisModule_Call(ctx, "CLUSTER", "c", "NODES");
	char *text = NULL, *line, *rest;
	const char *bytes, *mine;
	struct kea_slot_range r;
	size_t len;

	bytes = reply ? RedisModule_CallReplyStringPtr(reply, &len) : NULL;
	if (bytes) {
		text = RedisModule_Alloc(len + 1);
		memcpy(text, bytes, len);
		text[len] = 0;
	}
	for (line = text; line; line = rest) {
		rest = strchr(line, '\n');
		if (rest)
			*rest++ = 0;
		mine = my_slots(line);
		if (!mine)
			continue;
		while (next_slots(&mine, &r))
			visit(arg, &r);
		break;
	}
	if (reply)
		RedisModule_FreeCallReply(reply);
	RedisModule_Free(text);
}

static void note_own(void *own, const struct kea_slot_range *r)
{
	for (unsigned i = r->first; i <= r->last; i++)
		((bool *)own)[i] = !r->leaving && !r->coming;
}

unsigned kea_nodes_own(RedisModuleCtx *ctx, bool own[KEA_SLOTS])
{
	unsigned n = 0;

	memset(own, 0, KEA_SLOTS * sizeof(own[0]));
	kea_nodes_mine(ctx, note_own, own);
	for (unsigned i = 0; i < KEA_SLOTS; i++)
		n += own[i];
	return n;
}
