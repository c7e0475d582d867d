/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cluster.c: when one of a cluster's lists is left, taken over, or begun. home.h
 * knows their names.
 */
#include "cluster.h"

#include "list.h"
#include "slots.h"

/* leave gives up the list in use: its slot, and it with it, went to another
 * node, which delivers it. */
static void leave(struct kea_flow *f)
{
	kea_flow_log(f, "notice",
		     "the fallback list %s left with its slot (%llu events)",
		     f->home.name.text,
		     (unsigned long long)kea_mirror_length(&f->mirror));
	kea_home_leave(&f->home);
	kea_flow_lose_list(f);
	kea_mirror_none(&f->mirror);
}

/*
 * take_over makes another list the one in use: that of a master whose replica
 * we were, or one that came with a slot. Its events are older than what is in
 * memory. What is in flight of the list in use goes to its front.
 */
static void take_over(struct kea_flow *f, RedisModuleCtx *ctx,
		      struct kea_list *other, struct kea_home_name name)
{
	struct kea_list list = { 0 };
	uint64_t n = kea_list_length(other);

	if (f->home.key) {
		kea_list_open(&list, ctx, f->home.key, true);
		if (list.usable)
			kea_list_prepend(other, &list);
		kea_flow_unreplicated(f, kea_list_close(&list));
	}
	kea_flow_log(f, "notice",
		     "taking over the fallback list %s (%llu events)",
		     name.text, (unsigned long long)n);
	kea_home_use(&f->home, &name);
	f->home.asked = true;
	kea_mirror_adopt(&f->mirror, n);
}

/* look_at looks at a list that was seen and is not in use. */
static void look_at(struct kea_flow *f, RedisModuleCtx *ctx, size_t other)
{
	struct kea_home *h = &f->home;
	struct kea_home_name name = h->others[other];
	RedisModuleString *key =
		RedisModule_CreateString(NULL, name.text, name.len);
	bool owned = kea_slot_ask(ctx, key) == KEA_SLOT_OWNED;
	struct kea_list l = { 0 };

	/* One that comes with its slot is not whole yet. */
	if (owned || !kea_slot_arrives(name.text, name.len)) {
		kea_list_open(&l, ctx, key, true);
		if (kea_list_length(&l) == 0)
			kea_home_forget(h, other);
		else if (owned && f->mirror.pending == 0)
			take_over(f, ctx, &l, name);
		else
			h->waiting += kea_list_length(&l);
		kea_flow_unreplicated(f, kea_list_close(&l));
	}
	RedisModule_FreeString(NULL, key);
}

/* look_at_others goes through the lists that were seen, and takes one over
 * when the list in use has nothing left to read. */
static void look_at_others(struct kea_flow *f, RedisModuleCtx *ctx)
{
	f->home.waiting = 0;
	/* Downwards: one that goes is replaced by the last. */
	for (size_t i = f->home.others_count; i-- > 0;)
		look_at(f, ctx, i);
}

/* length_now: of the list in use, as it is. */
static uint64_t length_now(struct kea_flow *f, RedisModuleCtx *ctx)
{
	struct kea_list l;
	uint64_t n;

	kea_list_open(&l, ctx, f->home.key, true);
	n = kea_list_length(&l);
	kea_list_close(&l);
	return n;
}

/* whose asks for the slot of the list in use, and leaves the list when it is
 * another node's. */
static enum kea_slot whose(struct kea_flow *f, RedisModuleCtx *ctx)
{
	struct kea_home *h = &f->home;
	enum kea_slot slot;

	/* A list that is gone was deleted, or has left with its slot: not every
	 * server tells which. */
	if (h->asked && kea_slot_may_touch(h->name.text, h->name.len) &&
	    length_now(f, ctx) > 0)
		return KEA_SLOT_OWNED;
	slot = kea_slot_ask(ctx, h->key);
	h->asked = slot == KEA_SLOT_OWNED;
	if (slot == KEA_SLOT_FOREIGN)
		leave(f);
	return slot;
}

/* begin begins a list. A node without slots has nobody write to it: it looks for
 * one once a second, and when it has captured an event, for then it has one. */
static void begin(struct kea_flow *f, RedisModuleCtx *ctx)
{
	if (f->home.asked && f->captured == 0)
		return;
	if (kea_home_choose(&f->home, ctx))
		kea_flow_log(f, "notice", "the fallback list is %s",
			     f->home.name.text);
	f->home.asked = true;
}

bool kea_cluster_ready(struct kea_flow *f, RedisModuleCtx *ctx, bool write,
		       bool storing)
{
	struct kea_home *h = &f->home;

	if (!h->cluster)
		return true;
	if (h->key && whose(f, ctx) == KEA_SLOT_UNKNOWN)
		return false;
	if (write && h->others_count > 0 &&
	    (f->mirror.pending == 0 || f->mirror.check))
		look_at_others(f, ctx);
	if (write && storing && !h->key)
		begin(f, ctx);
	if (!h->key)
		kea_mirror_none(&f->mirror);
	return h->key != NULL;
}
