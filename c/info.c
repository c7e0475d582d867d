/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * info.c: INFO's section. Plain counters and lock-free texts: it also runs in
 * the crash handler, where nothing may be allocated, locked, or asked of Go.
 */
#include "info.h"

#include "crash.h"
#include "expire.h"
#include "flow.h"
#include "hook.h"
#include "kea.h"
#include "module.h"
#include "snapshot.h"

#include <string.h>

/*
 * What one thread writes and INFO reads, even from the crash handler: no lock.
 * version is odd while a write is under way.
 */
#define WORDS 32

struct board {
	_Atomic uint32_t version;
	_Atomic uint64_t words[WORDS];
};

#define TEXT_BYTES (8 * (size_t)WORDS)
_Static_assert(sizeof(struct kea_counters) <= TEXT_BYTES, "a board's size");

static struct board host, error, counters;
static _Atomic int state, port;
static _Atomic uint64_t settings_version, bus_ignored;

static const char *const state_names[] = {
	[KEA_DISABLED] = "disabled",	 [KEA_IDLE] = "idle",
	[KEA_CONNECTING] = "connecting", [KEA_CONNECTED] = "connected",
	[KEA_BLOCKED] = "blocked",	 [KEA_BACKOFF] = "backoff",
};

static void board_write(struct board *b, const uint64_t words[WORDS])
{
	/* A reader that sees an odd or a changed version tries again; release
	 * and acquire on each word keep them between the two increments. */
	atomic_fetch_add_explicit(&b->version, 1, memory_order_acq_rel);
	for (size_t i = 0; i < WORDS; i++)
		atomic_store_explicit(&b->words[i], words[i],
				      memory_order_release);
	atomic_fetch_add_explicit(&b->version, 1, memory_order_release);
}

/* After many tries, in vain because the writer was stopped in the middle, what
 * there is. */
static void board_read(struct board *b, uint64_t words[WORDS])
{
	for (int tries = 0; tries < 100; tries++) {
		/* Pairs with the release of board_write's last increment. */
		uint32_t before = atomic_load_explicit(&b->version,
						       memory_order_acquire);

		for (size_t i = 0; i < WORDS; i++)
			words[i] = atomic_load_explicit(&b->words[i],
							memory_order_acquire);
		if ((before & 1) == 0 &&
		    atomic_load_explicit(&b->version, memory_order_acquire) ==
			    before)
			return;
	}
}

static void text_write(struct board *b, const char *text, size_t len)
{
	char bytes[TEXT_BYTES] = { 0 };
	uint64_t words[WORDS];

	if (len > TEXT_BYTES - 1)
		len = TEXT_BYTES - 1;
	for (size_t i = 0; i < len; i++) {
		/* Exporters split lines at ':'. */
		char c = text[i];

		bytes[i] = c == ':' ? ';' : (unsigned char)c < ' ' ? ' ' : c;
	}
	memcpy(words, bytes, sizeof(words));
	board_write(b, words);
}

static void text_read(struct board *b, char out[TEXT_BYTES])
{
	uint64_t words[WORDS];

	board_read(b, words);
	memcpy(out, words, TEXT_BYTES);
	out[TEXT_BYTES - 1] = 0;
}

void kea_info_session(int now, const char *name, size_t len, int at)
{
	text_write(&host, name, len);
	/* Relaxed, as all below: figures of their own, no order among them is
	 * promised. */
	atomic_store_explicit(&port, at, memory_order_relaxed);
	atomic_store_explicit(&state, now, memory_order_relaxed);
}

void kea_info_error(const char *text, size_t len)
{
	text_write(&error, text, len);
}

void kea_info_counters(const struct kea_counters *c)
{
	uint64_t words[WORDS] = { 0 };

	memcpy(words, c, sizeof(*c));
	board_write(&counters, words);
}

void kea_info_bus(uint64_t version, uint64_t ignored)
{
	atomic_store_explicit(&settings_version, version,
			      memory_order_relaxed);
	atomic_store_explicit(&bus_ignored, ignored, memory_order_relaxed);
}

void kea_info_init(void)
{
	const struct kea_counters none = { 0 };

	kea_info_session(KEA_DISABLED, "", 0, 0);
	kea_info_error("", 0);
	kea_info_counters(&none);
	kea_info_bus(0, 0);
}

void kea_info(RedisModuleInfoCtx *ctx, int for_crash_report)
{
	const struct kea_flow *f = &kea_flow;
	struct kea_counters c;
	uint64_t words[WORDS];
	char text[TEXT_BYTES];

	if (for_crash_report)
		kea_crash_ready_for_memory_test();
	if (RedisModule_InfoAddSection(ctx, NULL) != REDISMODULE_OK)
		return;
#define NUMBER(name, value)                                                    \
	RedisModule_InfoAddFieldULongLong(ctx, name,                           \
					  (unsigned long long)(value))
#define ATOMIC(name, value)                                                    \
	NUMBER(name, atomic_load_explicit(&(value), memory_order_relaxed))
	board_read(&counters, words);
	memcpy(&c, words, sizeof(c));
	NUMBER("version", KEA_VERSION);
	RedisModule_InfoAddFieldCString(
		ctx, "state",
		state_names[atomic_load_explicit(&state, memory_order_relaxed)]);
	text_read(&host, text);
	RedisModule_InfoAddFieldCString(ctx, "broker_host", text);
	ATOMIC("broker_port", port);
	text_read(&error, text);
	RedisModule_InfoAddFieldCString(ctx, "last_error", text);
	NUMBER("connects", c.connects);
	NUMBER("connect_failures", c.connect_failures);
	NUMBER("events_captured", kea_hook.captured);
	NUMBER("events_filtered", kea_hook.filtered);
	NUMBER("events_published", c.published);
	NUMBER("events_confirmed", c.confirmed);
	NUMBER("events_returned", c.returned);
	NUMBER("events_nacked", c.nacked);
	NUMBER("events_stored", f->stored);
	NUMBER("events_dropped", f->dropped + c.dropped);
	NUMBER("replication_errors", f->unreplicated);
	NUMBER("events_buffered", kea_flow_unstored(f));
	NUMBER("inflight", c.inflight);
	NUMBER("buffer_bytes", f->queue.bytes + f->lent->bytes);
	NUMBER("fallback_length", kea_mirror_length(&f->mirror) + f->home.waiting);
	RedisModule_InfoAddFieldCString(ctx, "fallback_key", f->home.name.text);
	/* The oldest event may have to be read from the dataset. */
	if (!for_crash_report)
		NUMBER("oldest_event_ms",
		       kea_flow_oldest_ms(&kea_flow, kea_module_ctx(),
					  RedisModule_Milliseconds()));
	NUMBER("masks", f->settings.masks_count);
	kea_expire_info(ctx);
	kea_snapshot_info(ctx);
	NUMBER("goroutines", c.goroutines);
	if (f->home.cluster) {
		ATOMIC("settings_version", settings_version);
		ATOMIC("cluster_messages_ignored", bus_ignored);
	}
#undef ATOMIC
#undef NUMBER
}
