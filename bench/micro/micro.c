/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * micro.c: times the parts that run on Redis's main thread, by themselves, with
 * the module's own C sources.
 *
 *	micro callback <program file> <key length>	ns a call of the keyspace
 *		callback and ns a match, for keys that the masks of the
 *		program (made by keymask) meet; without a program: "-"
 *	micro queue <record length>	ns a record appended, and read and
 *		released, in rounds of 50 records as a turn makes them, and of
 *		100,000 as a burst does
 *
 * Redis's functions that the callback asks are answered here by constants, so
 * its figures are the module's share alone. What they cost with the server is
 * in the main thread's figures.
 */
#include "flow.h"
#include "hook.h"
#include "learn.h"
#include "loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct kea_flow kea_flow;
struct kea_loop kea_loop;

static RedisModuleNotificationFunc on_key_event;

static char key_bytes[1 << 16];
static size_t key_len;

static const char *string_ptr_len(const RedisModuleString *s, size_t *len)
{
	(void)s;
	*len = key_len;
	return key_bytes;
}

static int selected_db(RedisModuleCtx *ctx)
{
	(void)ctx;
	return 0;
}

static int context_flags(RedisModuleCtx *ctx)
{
	(void)ctx;
	return REDISMODULE_CTX_FLAGS_MASTER;
}

/* For values, which are off. */
RedisModuleCtx *kea_module_ctx(void)
{
	return NULL;
}

/* What the callback calls for the list's own key, in the gap after a turn, and for
 * classes that expire_on_time needs: none is here. */
int64_t kea_learn_event(RedisModuleCtx *ctx, int type, const char *event,
			RedisModuleString *key)
{
	(void)ctx;
	(void)type;
	(void)event;
	(void)key;
	abort();
}

int64_t kea_learn_expired(int db, const char *key, size_t len)
{
	(void)db;
	(void)key;
	(void)len;
	abort();
}

void kea_flow_list_touched(struct kea_flow *f, const char *name, size_t len)
{
	(void)f;
	(void)name;
	(void)len;
	abort();
}

void kea_loop_end_turn(RedisModuleCtx *ctx)
{
	(void)ctx;
	abort();
}

void kea_loop_nudge(void)
{
	abort();
}

static int subscribe(RedisModuleCtx *ctx, int types,
		     RedisModuleNotificationFunc f)
{
	(void)ctx;
	(void)types;
	on_key_event = f;
	return REDISMODULE_OK;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* empty takes and releases everything, as the publisher's settling would. */
static void empty(struct kea_queue *q)
{
	struct kea_run run;

	while (kea_queue_peek(q, UINT32_MAX, SIZE_MAX, &run)) {
		kea_queue_take(q, &run);
		kea_run_release(q, &run, run.count);
	}
}

static const struct kea_program *load(const char *path)
{
	static uint64_t memory[1 << 20];
	FILE *f = fopen(path, "rb");
	size_t n = f ? fread(memory, 1, sizeof(memory), f) : 0;
	const char *wrong = kea_program_check(memory, n);

	if (wrong) {
		fprintf(stderr, "micro: %s: %s\n", path, wrong);
		exit(1);
	}
	fclose(f);
	return (const struct kea_program *)(const void *)memory;
}

/* Events of one turn, and nanoseconds that each figure is measured for. */
#define TURN 50
#define LONG_ENOUGH 2e7

static int callback(const char *path, size_t len)
{
	double total = 0, matching = 0, begun;
	long rounds = 0, matched = 0;

	key_len = len;
	for (size_t i = 0; i < len; i++)
		key_bytes[i] = "session:0123456789:abcdef"[i % 25];
	kea_hook.loaded = kea_hook.active_master = true;
	kea_hook.classes = REDISMODULE_NOTIFY_STRING;
	kea_hook_subscribe(NULL, kea_hook.classes);
	kea_hook.masks = strcmp(path, "-") == 0 ? NULL : load(path);
	for (; total < LONG_ENOUGH; rounds++) {
		begun = now();
		for (int k = 0; k < TURN; k++)
			on_key_event(NULL, REDISMODULE_NOTIFY_STRING, "set",
				     NULL);
		total += now() - begun;
		empty(&kea_flow.queue);
	}
	begun = now();
	for (long i = 0; kea_hook.masks && i < rounds * TURN; i++) {
		/* So that the compiler does not make one call of all. */
		__asm__ volatile("" ::: "memory");
		matched += kea_match(kea_hook.masks, (const uint8_t *)key_bytes, len);
	}
	matching = now() - begun;
	printf("%.2f %.2f %d\n", total / (double)(rounds * TURN),
	       kea_hook.masks ? matching / (double)(rounds * TURN) : 0, matched > 0);
	return 0;
}

static int queue(size_t len)
{
	static struct kea_queue q;

	for (int at_once = TURN; at_once <= 100000; at_once *= 2000) {
		long rounds = 5000000 / at_once;
		double appended = 0, emptied = 0;

		for (long i = 0; i < rounds; i++) {
			double begun = now(), between;

			for (int k = 0; k < at_once; k++)
				memset(kea_queue_append(&q, len), 1, len);
			between = now();
			empty(&q);
			appended += between - begun;
			emptied += now() - between;
		}
		printf("%.2f %.2f\n", appended / (double)(rounds * at_once),
		       emptied / (double)(rounds * at_once));
	}
	return 0;
}

int main(int argc, char **argv)
{
	RedisModule_StringPtrLen = string_ptr_len;
	RedisModule_GetSelectedDb = selected_db;
	RedisModule_GetContextFlags = context_flags;
	RedisModule_SubscribeToKeyspaceEvents = subscribe;
	if (argc == 4 && strcmp(argv[1], "callback") == 0)
		return callback(argv[2], (size_t)atol(argv[3]));
	if (argc == 3 && strcmp(argv[1], "queue") == 0)
		return queue((size_t)atol(argv[2]));
	fprintf(stderr, "see the top of micro.c\n");
	return 2;
}
