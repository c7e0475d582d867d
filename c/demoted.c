/* SPDX-License-Identifier: BSD-3-Clause */
/* demoted.c: see demoted.h. */
#include "demoted.h"

#include "list.h"

#include <string.h>

/* The new master may have no broker, or no module: that would keep us for
 * ever. */
#define STANDSTILL_MS 10000

static void remember_run(void *last, const struct kea_run *run)
{
	*(struct kea_run *)last = *run;
}

/* youngest_ms: when the youngest event in memory was captured. */
static uint64_t youngest_ms(const struct kea_queue *q)
{
	struct kea_run last = { 0 };
	uint64_t ms = 0;

	kea_queue_visit(q, remember_run, &last);
	for (uint8_t *pos = last.start; last.count > 0; last.count--) {
		size_t len;

		ms = kea_record_at(pos, &len)->time_ms;
		pos = kea_record_after(pos);
	}
	return ms;
}

/* head_of: the oldest event of a list; false when there is none. */
static bool head_of(RedisModuleCtx *ctx, RedisModuleString *key,
		    struct kea_record *head)
{
	struct kea_list list;
	bool found;

	/* To look for a missing key for reading counts as a miss. */
	kea_list_open(&list, ctx, key, true);
	found = list.usable && kea_list_id(&list, 0, head);
	kea_list_close(&list);
	return found;
}

/* oldest_head: when the oldest event of all lists that are known, in a cluster
 * several, was captured; false when they are empty. *sum changes when one of
 * their heads does. */
static bool oldest_head(const struct kea_home *h, RedisModuleCtx *ctx,
			uint64_t *oldest_ms, uint64_t *sum)
{
	struct kea_record head;
	bool found = h->key && head_of(ctx, h->key, &head);

	*sum = found ? head.origin ^ head.seq : 0;
	*oldest_ms = found ? head.time_ms : UINT64_MAX;

	for (size_t i = 0; i < h->others_count; i++) {
		RedisModuleString *key = RedisModule_CreateString(
			NULL, h->others[i].text, h->others[i].len);

		if (head_of(ctx, key, &head)) {
			*sum += head.origin ^ head.seq;
			if (head.time_ms < *oldest_ms)
				*oldest_ms = head.time_ms;
			found = true;
		}
		RedisModule_FreeString(NULL, key);
	}
	return found;
}

void kea_demoted_reset(struct kea_demoted *d)
{
	memset(d, 0, sizeof(*d));
}

void kea_demoted_look(struct kea_demoted *d, const struct kea_queue *memory,
		      const struct kea_home *lists, RedisModuleCtx *ctx,
		      bool away)
{
	long long now = RedisModule_Milliseconds();
	uint64_t oldest_ms, heads;
	/* Not in sync: its copy of the list may be missing or of another time. */
	bool stale = RedisModule_GetContextFlags(ctx) &
		     REDISMODULE_CTX_FLAGS_REPLICA_IS_STALE;

	if (memory->count == 0) {
		kea_demoted_reset(d);
		return;
	}
	if (d->youngest_ms == 0)
		d->youngest_ms = youngest_ms(memory);
	d->waits = (oldest_head(lists, ctx, &oldest_ms, &heads) &&
		    oldest_ms <= d->youngest_ms) ||
		   stale;
	if (!d->waits)
		return;
	if (d->since_ms == 0 || heads != d->heads || away) {
		d->heads = heads;
		d->since_ms = now;
	}
	d->waits = now - d->since_ms < STANDSTILL_MS;
}
