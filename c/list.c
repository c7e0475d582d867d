/* SPDX-License-Identifier: BSD-3-Clause */
/* list.c: operations on the fallback list. Rules and threads are in list.h. */
#include "list.h"

#include "fault.h"
#include "hook.h"

#include <stdio.h>
#include <string.h>

/* Elements and bytes of one replicated RPUSH, so that no replica or AOF loader
 * has to swallow a command of unbounded size. One element may be larger. */
#define PUSH_BATCH 256
#define PUSH_BYTES ((size_t)1 << 20)

void kea_list_open(struct kea_list *l, RedisModuleCtx *ctx,
		   RedisModuleString *name, bool write)
{
	int type;

	memset(l, 0, sizeof(*l));
	l->ctx = ctx;
	l->name = name;
	RedisModule_SelectDb(ctx, 0);
	l->key = RedisModule_OpenKey(
		ctx, name,
		write ? REDISMODULE_READ | REDISMODULE_WRITE :
			REDISMODULE_READ | REDISMODULE_OPEN_KEY_NOTOUCH);
	type = l->key ? RedisModule_KeyType(l->key) : REDISMODULE_KEYTYPE_EMPTY;
	l->usable = type == REDISMODULE_KEYTYPE_EMPTY ||
		    type == REDISMODULE_KEYTYPE_LIST;
}

/* note_result counts a replication that was refused. It is checked at load that
 * the commands are there (needs.h), so a server would need another reason. */
static void note_result(struct kea_list *l, int result)
{
	l->refused += result != REDISMODULE_OK;
}

static void replicate_pops(struct kea_list *l)
{
	if (l->popped == 0)
		return;
	note_result(l, RedisModule_Replicate(l->ctx, "LPOP", "sl", l->name,
					     (long long)l->popped));
	KEA_FAULT("pop-replicated");
	l->popped = 0;
}

uint64_t kea_list_close(struct kea_list *l)
{
	uint64_t refused;

	if (!l->ctx)
		return 0;
	replicate_pops(l);
	refused = l->refused;
	if (l->key)
		RedisModule_CloseKey(l->key);
	if (l->changed)
		RedisModule_SignalModifiedKey(l->ctx, l->name);
	memset(l, 0, sizeof(*l));
	return refused;
}

uint64_t kea_list_length(const struct kea_list *l)
{
	return l->key && l->usable ? RedisModule_ValueLength(l->key) : 0;
}

void kea_list_push(struct kea_list *l, const struct kea_run *run)
{
	RedisModuleString *batch[PUSH_BATCH];
	uint8_t *pos = run->start;
	uint32_t left = run->count;

	replicate_pops(l); /* they came first */
	l->changed = true;
	while (left > 0) {
		size_t n = 0, bytes = 0, len;

		for (; n < PUSH_BATCH && bytes < PUSH_BYTES && left > 0;
		     n++, left--, bytes += len) {
			const struct kea_record *r = kea_record_at(pos, &len);

			batch[n] = RedisModule_CreateString(
				NULL, (const char *)r, len);
			RedisModule_ListPush(l->key, REDISMODULE_LIST_TAIL,
					     batch[n]);
			pos = kea_record_after(pos);
		}
		KEA_FAULT("store-pushed");
		note_result(l, RedisModule_Replicate(l->ctx, "RPUSH", "sv",
						     l->name, batch, n));
		KEA_FAULT("store-replicated");
		while (n > 0)
			RedisModule_FreeString(NULL, batch[--n]);
	}
}

static bool string_record(const RedisModuleString *s, struct kea_record *head)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(s, &len);

	if (!kea_record_valid(bytes, len))
		return false;
	memcpy(head, bytes, sizeof(*head));
	return true;
}

bool kea_list_id(struct kea_list *l, long index, struct kea_record *head)
{
	RedisModuleString *s;
	bool ok;

	if (kea_list_length(l) == 0)
		return false;
	s = RedisModule_ListGet(l->key, index);
	if (!s)
		return false;
	ok = string_record(s, head);
	RedisModule_FreeString(l->ctx, s);
	return ok;
}

void kea_list_drop(struct kea_list *l, uint64_t n)
{
	while (n-- > 0) {
		RedisModuleString *s =
			RedisModule_ListPop(l->key, REDISMODULE_LIST_HEAD);

		if (!s)
			return;
		RedisModule_FreeString(l->ctx, s);
		l->popped++;
		l->changed = true;
	}
}

/* No command removes an element by its index: it gets a name, and is removed by
 * that. Others can hardly have written the same, for it has the load's number. */
void kea_list_remove(struct kea_list *l, uint64_t index)
{
	static uint64_t removed;
	char name[64];

	replicate_pops(l); /* they came first */
	RedisModule_ListDelete(l->key, (long)index);
	l->changed = true;
	snprintf(name, sizeof(name), "key_evt_amqp.removed.%016llx.%llu",
		 (unsigned long long)kea_hook.origin,
		 (unsigned long long)++removed);
	note_result(l, RedisModule_Replicate(l->ctx, "LSET", "slc", l->name,
					     (long long)index, name));
	note_result(l, RedisModule_Replicate(l->ctx, "LREM", "slc", l->name,
					     (long long)1, name));
}

bool kea_list_pop(struct kea_list *l, const struct kea_record *expected)
{
	struct kea_record head;
	RedisModuleString *s;

	if (kea_list_length(l) == 0)
		return false;
	s = RedisModule_ListPop(l->key, REDISMODULE_LIST_HEAD);
	if (!s)
		return false;
	if (!string_record(s, &head) || head.origin != expected->origin ||
	    head.seq != expected->seq) {
		/* Somebody else's element: put it back as it was. */
		RedisModule_ListPush(l->key, REDISMODULE_LIST_HEAD, s);
		RedisModule_FreeString(l->ctx, s);
		return false;
	}
	RedisModule_FreeString(l->ctx, s);
	l->popped++;
	l->changed = true;
	KEA_FAULT("settle-popped");
	return true;
}

void kea_list_prepend(struct kea_list *l, struct kea_list *from)
{
	RedisModuleString *batch[PUSH_BATCH];
	size_t n, bytes, len;

	replicate_pops(l);
	replicate_pops(from);
	do {
		for (n = bytes = 0; n < PUSH_BATCH && bytes < PUSH_BYTES;
		     n++, bytes += len) {
			batch[n] = kea_list_length(from) == 0 ?
					   NULL :
					   RedisModule_ListPop(
						   from->key,
						   REDISMODULE_LIST_TAIL);
			if (!batch[n])
				break;
			RedisModule_StringPtrLen(batch[n], &len);
			RedisModule_ListPush(l->key, REDISMODULE_LIST_HEAD,
					     batch[n]);
		}
		if (n > 0) {
			l->changed = from->changed = true;
			note_result(from, RedisModule_Replicate(
						  l->ctx, "RPOP", "sl",
						  from->name, (long long)n));
			note_result(l, RedisModule_Replicate(l->ctx, "LPUSH",
							     "sv", l->name,
							     batch, n));
		}
		for (size_t i = 0; i < n; i++)
			RedisModule_FreeString(l->ctx, batch[i]);
	} while (n > 0);
}

void kea_list_read(struct kea_list *l, struct kea_queue *q, long index,
		   uint32_t max, struct kea_run *run, bool *alien)
{
	memset(run, 0, sizeof(*run));
	*alien = false;
	if (kea_list_length(l) == 0)
		return;
	while (run->count < max) {
		RedisModuleString *s = RedisModule_ListGet(l->key, index);
		const char *bytes;
		size_t len;
		void *room;

		if (!s)
			break;
		bytes = RedisModule_StringPtrLen(s, &len);
		if (!kea_record_valid(bytes, len)) {
			*alien = true;
			RedisModule_FreeString(l->ctx, s);
			break;
		}
		if (!run->chunk)
			run->chunk = kea_queue_loose_chunk(
				q, kea_record_room(len));
		room = kea_chunk_add(run->chunk, len);
		if (room) {
			memcpy(room, bytes, len);
			run->count++;
			index++;
		}
		RedisModule_FreeString(l->ctx, s);
		if (!room)
			break;
	}
	if (run->chunk) {
		run->start = run->chunk->data;
		run->bytes = run->chunk->used;
	}
}
