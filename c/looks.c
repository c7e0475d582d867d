/* SPDX-License-Identifier: BSD-3-Clause */
/* looks.c: see looks.h. */
#include "looks.h"

#include "learn.h"

#include <stdlib.h>
#include <string.h>

/* Of a turn; about a microsecond each. */
#define SLICE 400
/* More than that many wait among the deadlines, as due. */
#define MAX 65536

static struct {
	struct look {
		int db;
		RedisModuleString *key; /* held */
	} *look;
	size_t room, count, done;
} looks;

/* grow; false: there is no memory, or enough wait already. */
static bool grow(void)
{
	size_t room = looks.room ? looks.room * 2 : 64;
	struct look *more;

	if (looks.count >= MAX)
		return false;
	more = realloc(looks.look, room * sizeof(*more));
	if (!more)
		return false;
	looks.look = more;
	looks.room = room;
	return true;
}

void kea_looks_ask(int db, RedisModuleString *key)
{
	struct kea_watch *w = &kea_learn.watch;
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(key, &len);

	if (kea_watch_unsure(w, db, bytes, len))
		return; /* it is asked for already */
	if (looks.count == looks.room && !grow()) {
		kea_learn_note(db, bytes, len, 0);
		return;
	}
	looks.look[looks.count++] =
		(struct look){ db, RedisModule_HoldString(NULL, key) };
}

static void look(RedisModuleCtx *ctx, const struct look *l)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(l->key, &len);
	RedisModuleKey *k = kea_learn_open(ctx, l->db, l->key, true);
	long long due;

	if (!k) {
		/* Gone; if it was due its event has told. */
		kea_watch_drop(&kea_learn.watch, l->db, bytes, len);
		return;
	}
	due = RedisModule_GetAbsExpire(k);
	RedisModule_CloseKey(k);
	kea_learn_found(l->db, bytes, len, due);
}

/* may_write: to open a key may delete it. */
bool kea_looks_some(RedisModuleCtx *ctx, bool may_write)
{
	if (looks.count == 0 || !may_write)
		return false;
	for (int n = 0; n < SLICE && looks.done < looks.count; n++) {
		struct look l = looks.look[looks.done++];

		look(ctx, &l);
		RedisModule_FreeString(NULL, l.key);
	}
	if (looks.done < looks.count)
		return true;
	looks.done = looks.count = 0;
	return false;
}

void kea_looks_swapped(int a, int b)
{
	for (size_t i = looks.done; i < looks.count; i++) {
		int *db = &looks.look[i].db;

		*db = *db == a ? b : *db == b ? a : *db;
	}
}

void kea_looks_forget(void)
{
	while (looks.done < looks.count)
		RedisModule_FreeString(NULL, looks.look[looks.done++].key);
	looks.done = looks.count = 0;
}

void kea_looks_free(void)
{
	kea_looks_forget();
	free(looks.look);
	memset(&looks, 0, sizeof(looks));
}
