/*
 * info.c: INFO's section. Plain counters and lock-free texts: it also runs in
 * the crash handler, where nothing may be allocated, locked, or asked of Go.
 */
#include "state.h"

#include <string.h>

static const char *const state_names[] = {
	[KEA_DISABLED] = "disabled",	 [KEA_IDLE] = "idle",
	[KEA_CONNECTING] = "connecting", [KEA_CONNECTED] = "connected",
	[KEA_BLOCKED] = "blocked",	 [KEA_BACKOFF] = "backoff",
};

#define TEXT_BYTES sizeof(((struct kea_text *)0)->words)

static void text_write(struct kea_text *t, const char *text, size_t len)
{
	char bytes[TEXT_BYTES] = { 0 };
	uint64_t words[TEXT_BYTES / 8];

	if (len > TEXT_BYTES - 1)
		len = TEXT_BYTES - 1;
	for (size_t i = 0; i < len; i++) {
		/* Exporters split lines at ':'. */
		char c = text[i];

		bytes[i] = c == ':' ? ';' : (unsigned char)c < ' ' ? ' ' : c;
	}
	memcpy(words, bytes, sizeof(words));
	/* A reader that sees an odd or a changed version tries again; release
	 * and acquire on each word keep them between the two increments. */
	atomic_fetch_add_explicit(&t->version, 1, memory_order_acq_rel);
	for (size_t i = 0; i < TEXT_BYTES / 8; i++)
		atomic_store_explicit(&t->words[i], words[i],
				      memory_order_release);
	atomic_fetch_add_explicit(&t->version, 1, memory_order_release);
}

static void text_read(struct kea_text *t, char out[TEXT_BYTES])
{
	uint64_t words[TEXT_BYTES / 8];

	for (int tries = 0; tries < 100; tries++) {
		uint32_t before = atomic_load_explicit(&t->version,
						       memory_order_acquire);

		for (size_t i = 0; i < TEXT_BYTES / 8; i++)
			words[i] = atomic_load_explicit(&t->words[i],
							memory_order_acquire);
		if ((before & 1) == 0 &&
		    atomic_load_explicit(&t->version, memory_order_acquire) ==
			    before)
			break;
	}
	memcpy(out, words, TEXT_BYTES);
	out[TEXT_BYTES - 1] = 0;
}

void kea_info_link(int state, const char *host, size_t host_len, int port)
{
	text_write(&kea.host, host, host_len);
	atomic_store_explicit(&kea.port, port, memory_order_relaxed);
	atomic_store_explicit(&kea.state, state, memory_order_relaxed);
}

void kea_info_error(const char *text, size_t len)
{
	text_write(&kea.error, text, len);
}

void kea_info_counters(const struct kea_counters *c)
{
	/* Each is a figure of its own: no order among them is promised. */
#define SET(to, from)                                                          \
	atomic_store_explicit(&kea.to, c->from, memory_order_relaxed)
	SET(connects, connects);
	SET(connect_failures, connect_failures);
	SET(published, published);
	SET(confirmed, confirmed);
	SET(returned, returned);
	SET(nacked, nacked);
	SET(poisoned, dropped);
	SET(inflight, inflight);
	SET(goroutines, goroutines);
#undef SET
}

static long long wall_ms(void)
{
	return RedisModule_Milliseconds();
}

void kea_info(RedisModuleInfoCtx *ctx, int for_crash_report)
{
	const struct kea_flow *f = &kea.flow;
	char text[TEXT_BYTES];
	int state = atomic_load_explicit(&kea.state, memory_order_relaxed);

	if (for_crash_report)
		kea_crash_ready_for_memory_test();
	if (RedisModule_InfoAddSection(ctx, NULL) != REDISMODULE_OK)
		return;
#define NUMBER(name, value)                                                    \
	RedisModule_InfoAddFieldULongLong(ctx, name,                           \
					  (unsigned long long)(value))
#define COUNTER(name, field)                                                   \
	NUMBER(name, atomic_load_explicit(&kea.field, memory_order_relaxed))
	NUMBER("version", KEA_VERSION);
	RedisModule_InfoAddFieldCString(ctx, "state", state_names[state]);
	text_read(&kea.host, text);
	RedisModule_InfoAddFieldCString(ctx, "broker_host", text);
	COUNTER("broker_port", port);
	text_read(&kea.error, text);
	RedisModule_InfoAddFieldCString(ctx, "last_error", text);
	COUNTER("connects", connects);
	COUNTER("connect_failures", connect_failures);
	NUMBER("events_captured", kea.captured);
	NUMBER("events_filtered", kea.filtered);
	COUNTER("events_published", published);
	COUNTER("events_confirmed", confirmed);
	COUNTER("events_returned", returned);
	COUNTER("events_nacked", nacked);
	NUMBER("events_stored", f->stored);
	NUMBER("events_dropped",
	       f->dropped + atomic_load_explicit(&kea.poisoned,
						 memory_order_relaxed));
	NUMBER("events_buffered", kea_flow_unstored(f));
	COUNTER("inflight", inflight);
	NUMBER("buffer_bytes", f->queue.bytes + f->lent->bytes);
	NUMBER("fallback_length", kea_mirror_length(&f->mirror) + f->home.waiting);
	RedisModule_InfoAddFieldCString(ctx, "fallback_key", f->home.name.text);
	/* The oldest event may have to be read from the dataset. */
	if (!for_crash_report)
		NUMBER("oldest_event_ms",
		       kea_flow_oldest_ms(&kea.flow, kea.ctx, wall_ms()));
	NUMBER("masks", kea.masks_count);
	COUNTER("goroutines", goroutines);
	if (f->home.cluster) {
		COUNTER("settings_version", settings_version);
		COUNTER("cluster_messages_ignored", bus_ignored);
	}
#undef COUNTER
#undef NUMBER
}
