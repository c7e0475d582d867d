/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * kea.h: what C promises to Go. What Go promises to C is in export.go.
 *
 * Threads, by the marks used below:
 *   [main]  whoever holds the server's lock: the main thread, in practice
 *   [pub]   the publisher's goroutine, on whichever OS thread it runs
 *   [any]   any thread
 */
#ifndef KEA_H
#define KEA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What events carry of a key's value. */
enum kea_values {
	KEA_VALUES_NEW = 1, /* what the key holds after the change */
	KEA_VALUES_OLD = 2, /* what it held when it went */
};

/* What the main thread needs of the settings. */
struct kea_settings {
	uint32_t classes;       /* REDISMODULE_NOTIFY_* of argument "events" */
	int64_t list_limit;     /* fallback_storage_size */
	uint64_t buffer_limit;  /* bytes */
	uint32_t window;        /* events lent to the publisher, at most */
	bool outbox;
	bool expire_on_time;
	uint64_t expire_watch_limit; /* bytes */
	bool dataset_events;    /* flushdb, flushall, swapdb */
	uint32_t shutdown_timeout_ms;
	uint32_t values;        /* enum kea_values */
	size_t value_limit;     /* bytes */
	const void *masks;      /* compiled by keymask; NULL: forward nothing */
	size_t masks_len;
	uint64_t masks_count;
};

/* [main] kea_configure takes the settings over; it copies the masks. Returns
 * NULL, or why they can't be used (static text), with nothing changed. */
const char *kea_configure(const struct kea_settings *s);

/* [main] Whether this server shows what a key held that goes. */
bool kea_old_values(void);

/* [main] kea_snapshot_begin begins a snapshot of the keys that the masks match; it
 * copies them, and the id (KEA_SNAPSHOT_ID bytes). Returns NULL, or why there can
 * be none (static text). kea_snapshot_cancel ends it; false: none is under way. */
#define KEA_SNAPSHOT_ID 16
const char *kea_snapshot_begin(const char *id, const void *masks, size_t len);
bool kea_snapshot_cancel(void);

/* [main] Whether this server is a master and not loading. */
bool kea_is_active_master(void);

/* [main] The classes of events that this server knows. */
uint32_t kea_server_classes(void);

/* [pub] One run of records, readable until it is settled, or the
 * publisher has rewound. */
struct kea_span {
	const uint8_t *start;
	uint64_t count;
};

/* [pub] See lent.h. */
bool kea_take(struct kea_span *span);
void kea_settle(uint64_t n);
void kea_rewind(void);
bool kea_sleep(void);

/* [main] The descriptor that becomes readable when the publisher is woken. The
 * caller closes it, after the publisher has stopped. */
int kea_event_fd(void);

/* [any] kea_away: whether the session is down or blocked: events are stored
 * then, and none are lent. Wakes the main thread when it changes. */
void kea_away(bool away);

enum kea_state_name {
	KEA_DISABLED,
	KEA_IDLE,
	KEA_CONNECTING,
	KEA_CONNECTED,
	KEA_BLOCKED,
	KEA_BACKOFF,
};

/* [any] What INFO shows of the session. Texts are cut at 255 bytes; line ends and
 * colons in them are replaced. */
void kea_info_session(int state, const char *host, size_t host_len, int port);
void kea_info_error(const char *text, size_t len);

/* Counters of the publisher, absolute; dropped: by it, not by the policy. */
struct kea_counters {
	uint64_t connects, connect_failures, published, confirmed, returned,
		nacked, dropped, inflight, goroutines;
};

/* [any] */
void kea_info_counters(const struct kea_counters *c);

/* [any] level: debug, verbose, notice or warning. */
void kea_log(const char *level, const char *text);

/* [any] kea_unblock answers the client that keaGoConnect was given: with OK
 * when error is NULL, else with the error, which is copied. Exactly once for
 * each client. */
void kea_unblock(void *client, const char *error);

/* [main] The cluster bus. kea_bus_self is this node's id (40 bytes, no NUL),
 * NULL without cluster mode. kea_bus_send sends to one node, or to all that
 * are linked when target is NULL; false: no link. kea_bus_nodes lists the
 * nodes, this one among them; to be freed. */
const char *kea_bus_self(void);
bool kea_bus_send(const char *target, const void *bytes, size_t len);
char **kea_bus_nodes(size_t *n);
void kea_bus_free_nodes(char **nodes);

/* [main] What INFO shows of the agreement on settings. */
void kea_info_bus(uint64_t version, uint64_t ignored);

/* One setting as a module configuration. */
enum kea_config_kind { KEA_CONFIG_TEXT, KEA_CONFIG_NUMBER, KEA_CONFIG_BOOL };

struct kea_config {
	char *name;
	int kind;
	char *text_default;
	long long number_default, min, max;
};

/* [main] in OnLoad: the server copies names and defaults, so the table may go
 * afterwards. */
int kea_register_configs(void *ctx, struct kea_config *table, size_t n);

/* One string argument of a command. */
struct kea_arg {
	const char *bytes;
	size_t len;
};

#endif /* KEA_H */
