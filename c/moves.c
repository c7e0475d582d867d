/*
 * moves.c: a cluster's lists, which move with their slots: when one is left,
 * taken over, or begun. home.h knows their names.
 */
#include "moves.h"

#include "list.h"

/* leave gives up the list in use: its slot, and it with it, went to another
 * node, which delivers it. */
static void leave(struct kea_flow *f)
{
	RedisModule_Log(f->ctx, "notice",
			"the fallback list %s left with its "
			"slot (%llu events)",
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
		kea_list_close(&list);
	}
	RedisModule_Log(f->ctx, "notice",
			"taking over the fallback list %s "
			"(%llu events)",
			name.text, (unsigned long long)n);
	kea_home_use(&f->home, &name);
	f->home.asked = true;
	kea_mirror_adopt(&f->mirror, n);
}

/* look_at_others goes through the lists that were seen, and takes one over
 * when the list in use has nothing left to read. */
static void look_at_others(struct kea_flow *f, RedisModuleCtx *ctx)
{
	struct kea_home *h = &f->home;

	h->waiting = 0;
	/* Downwards: one that goes is replaced by the last. */
	for (size_t i = h->others_count; i-- > 0;) {
		struct kea_home_name name = h->others[i];
		RedisModuleString *key = RedisModule_CreateString(
			NULL, name.text, name.len);
		bool ours = kea_home_ask(h, ctx, key) == KEA_SLOT_OURS;
		struct kea_list l;

		kea_list_open(&l, ctx, key, true);
		if (kea_list_length(&l) == 0)
			kea_home_forget(h, i);
		else if (ours && f->mirror.pending == 0)
			take_over(f, ctx, &l, name);
		else
			h->waiting += kea_list_length(&l);
		kea_list_close(&l);
		RedisModule_FreeString(NULL, key);
	}
}

/* list_length_now: of the list in use, as it is. */
static uint64_t list_length_now(struct kea_flow *f, RedisModuleCtx *ctx)
{
	struct kea_list l;
	uint64_t n;

	kea_list_open(&l, ctx, f->home.key, true);
	n = kea_list_length(&l);
	kea_list_close(&l);
	return n;
}

bool kea_moves_ready(struct kea_flow *f, RedisModuleCtx *ctx, bool storing)
{
	struct kea_home *h = &f->home;

	if (!h->cluster)
		return true;
	if (h->key && (!h->asked || list_length_now(f, ctx) == 0)) {
		enum kea_slot slot = kea_home_ask(h, ctx, h->key);

		if (slot == KEA_SLOT_WAIT)
			return false;
		h->asked = slot == KEA_SLOT_OURS;
		if (!h->asked)
			leave(f);
	}
	if (h->others_count > 0 && (f->mirror.pending == 0 || f->mirror.check))
		look_at_others(f, ctx);
	if (!h->key && storing && kea_home_choose(h, ctx))
		RedisModule_Log(f->ctx, "notice",
				"the fallback list is %s",
				h->name.text);
	if (!h->key)
		kea_mirror_none(&f->mirror);
	return h->key != NULL;
}
