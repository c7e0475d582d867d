/* SPDX-License-Identifier: BSD-3-Clause */
/* home.c: see home.h. */
#include "home.h"

#include "hashslot.h"
#include "nodes.h"
#include "slots.h"

#include <stdio.h>
#include <string.h>

/* Slots that are asked for when a list is begun. */
#define SLOTS_TRIED 8
/* Steps of a scan in a turn, some hundred microseconds. */
#define SCAN_SLICE 1000
#define PREFIX_LEN (sizeof(KEA_HOME_PREFIX) - 1)

static void set_name(struct kea_home_name *n, const char *text, size_t len)
{
	n->len = len;
	memcpy(n->text, text, len);
	n->text[len] = 0;
}

void kea_home_init(struct kea_home *h, RedisModuleCtx *ctx, bool cluster)
{
	struct kea_home_name plain;

	memset(h, 0, sizeof(*h));
	h->cluster = cluster;
	if (!cluster) {
		set_name(&plain, KEA_HOME_PREFIX, PREFIX_LEN);
		kea_home_use(h, &plain);
		return;
	}
	h->others = RedisModule_Calloc(KEA_HOME_OTHERS_MAX,
				       sizeof(h->others[0]));
	/* Loaded at run time: nobody tells us of the keys there are. */
	if (RedisModule_DbSize(ctx) > 0)
		h->scan = RedisModule_ScanCursorCreate();
}

void kea_home_free(struct kea_home *h)
{
	kea_home_leave(h);
	if (h->scan)
		RedisModule_ScanCursorDestroy(h->scan);
	h->scan = NULL;
	RedisModule_Free(h->others);
	h->others = NULL;
	h->others_count = 0;
}

static void scanned(RedisModuleCtx *ctx, RedisModuleString *name,
		    RedisModuleKey *key, void *home)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(name, &len);

	(void)ctx;
	(void)key;
	if (kea_home_is(home, bytes, len))
		kea_home_note(home, bytes, len);
}

bool kea_home_scan(struct kea_home *h, RedisModuleCtx *ctx)
{
	RedisModule_SelectDb(ctx, 0);
	for (int i = 0; h->scan && i < SCAN_SLICE; i++) {
		if (RedisModule_Scan(ctx, h->scan, scanned, h))
			continue;
		RedisModule_ScanCursorDestroy(h->scan);
		h->scan = NULL;
	}
	return h->scan != NULL;
}

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* is_node_name: ".<id>{<digits>}" */
static bool is_node_name(const char *s, size_t len)
{
	size_t i = 1;

	if (len < 1 + KEA_NODE_ID + 3 || s[0] != '.')
		return false;
	for (; i <= KEA_NODE_ID; i++)
		if (!is_hex(s[i]))
			return false;
	if (s[i++] != '{')
		return false;
	for (; i < len - 1; i++)
		if (s[i] < '0' || s[i] > '9')
			return false;
	return s[len - 1] == '}';
}

bool kea_home_is(const struct kea_home *h, const char *name, size_t len)
{
	if (len < PREFIX_LEN || len >= KEA_HOME_NAME_MAX ||
	    memcmp(name, KEA_HOME_PREFIX, PREFIX_LEN) != 0)
		return false;
	/* The plain name: of the time before the server became a cluster's. */
	if (len == PREFIX_LEN)
		return true;
	return h->cluster &&
	       is_node_name(name + PREFIX_LEN, len - PREFIX_LEN);
}

static bool same(const struct kea_home_name *n, const char *name, size_t len)
{
	return n->len == len && memcmp(n->text, name, len) == 0;
}

void kea_home_note(struct kea_home *h, const char *name, size_t len)
{
	if (!h->cluster || (h->key && same(&h->name, name, len)) ||
	    h->others_count == KEA_HOME_OTHERS_MAX)
		return;
	for (size_t i = 0; i < h->others_count; i++)
		if (same(&h->others[i], name, len))
			return;
	set_name(&h->others[h->others_count++], name, len);
}

void kea_home_forget(struct kea_home *h, size_t other)
{
	h->others[other] = h->others[--h->others_count];
}

void kea_home_leave(struct kea_home *h)
{
	if (h->key)
		RedisModule_FreeString(NULL, h->key);
	h->key = NULL;
	h->asked = false;
	set_name(&h->name, "", 0);
}

void kea_home_use(struct kea_home *h, const struct kea_home_name *name)
{
	struct kea_home_name copy = *name; /* it may be h's own */

	kea_home_leave(h);
	h->name = copy;
	h->key = RedisModule_CreateString(NULL, copy.text, copy.len);
	for (size_t i = 0; i < h->others_count; i++)
		if (same(&h->others[i], copy.text, copy.len))
			kea_home_forget(h, i--);
}

bool kea_home_choose(struct kea_home *h, RedisModuleCtx *ctx)
{
	const char *id = RedisModule_GetMyClusterID();
	bool own[KEA_SLOTS], chosen = false;
	struct kea_home_name name;
	RedisModuleString *key;
	int tag;

	if (!id || kea_nodes_own(ctx, own) == 0)
		return false;
	/* A slot that the server does not let us write to is not tried again. */
	for (int i = 0; !chosen && i < SLOTS_TRIED; i++) {
		tag = kea_slots_tag(own);
		if (tag < 0)
			return false;
		name.len = (size_t)snprintf(name.text, sizeof(name.text),
					    KEA_HOME_PREFIX ".%.*s{%06d}",
					    KEA_NODE_ID, id, tag);
		key = RedisModule_CreateString(NULL, name.text, name.len);
		chosen = kea_slot_ask(ctx, key) == KEA_SLOT_OWNED;
		RedisModule_FreeString(NULL, key);
		own[kea_slot_of(name.text, name.len)] = false;
	}
	if (chosen)
		kea_home_use(h, &name);
	return chosen;
}
