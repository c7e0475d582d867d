/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * flow_driver.c: the main thread's half of the module inside a small Redis in
 * memory, led over pipes by the model in fallback/model. What is real: capture,
 * queue, lending, list, turns, shutdown, spool, INFO's counters (module.c and
 * all that it needs but commands, configurations and the cluster). What stands
 * for Redis: one key, an event loop that turns when it is told to, a log of
 * replicated commands, and a durable copy.
 *
 * One request a line on stdin, the answer on stdout: any number of lines
 * "name value…", then a line ".". A line "!name" in between says that the
 * request has come to the armed step of that name (fault.h): requests of the
 * publisher may follow, then "go" or "crash".
 *
 * What a real server would not forgive ends the driver with a line "broken …":
 * a write while it is forbidden, a replicated command that does not do to a
 * replica what was done here, a string or a key that is not given back.
 */
#include "../fault.h"
#include "../queue.c" /* the queue's order is shown from inside */
#include "../commands.h"
#include "../config.h"
#include "../crash.h"
#include "../bus.h"
#include "../flow.h"
#include "../hook.h"
#include "../loop.h"
#include "../needs.h"
#include "_cgo_export.h"

#include <glob.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

static void broken(const char *what, ...) __attribute__((format(printf, 1, 2)));

static void broken(const char *what, ...)
{
	va_list args;

	va_start(args, what);
	printf("broken ");
	vprintf(what, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	_exit(3);
}

/* ---- memory of the module, freed when its server is killed --------------- */

struct block {
	struct block *prev, *next;
	_Alignas(16) uint8_t data[];
};

static struct block blocks = { &blocks, &blocks };
static size_t strings, keys; /* handed out and not given back */

static void *block_new(size_t n)
{
	struct block *b = malloc(sizeof(*b) + n);

	if (!b)
		abort();
	b->next = &blocks;
	b->prev = blocks.prev;
	b->prev->next = blocks.prev = b;
	return b->data;
}

static void block_free(void *data)
{
	struct block *b;

	if (!data)
		return;
	b = (struct block *)(void *)((uint8_t *)data -
				     offsetof(struct block, data));
	b->prev->next = b->next;
	b->next->prev = b->prev;
	free(b);
}

static void *api_calloc(size_t n, size_t size)
{
	return memset(block_new(n * size), 0, n * size);
}

/* ---- strings ------------------------------------------------------------ */

struct RedisModuleString {
	size_t len;
	char bytes[];
};

static RedisModuleString *string_new(RedisModuleCtx *ctx, const char *bytes,
				     size_t len)
{
	RedisModuleString *s = block_new(sizeof(*s) + len);

	(void)ctx;
	s->len = len;
	memcpy(s->bytes, bytes, len);
	strings++;
	return s;
}

static void string_free(RedisModuleCtx *ctx, RedisModuleString *s)
{
	(void)ctx;
	strings--;
	block_free(s);
}

static const char *string_bytes(const RedisModuleString *s, size_t *len)
{
	*len = s->len;
	return s->bytes;
}

/* ---- the dataset: one key ----------------------------------------------- */

struct element {
	size_t refs, len;
	char bytes[];
};

struct value {
	int type; /* of the API; 1 is a string */
	struct element **row;
	size_t head, count, room;
};

/* What Redis holds, what its replicas and its AOF have been told, and what of
 * that would survive a kill. */
static struct value dataset, told, durable;

static void element_drop(struct element *e)
{
	if (--e->refs == 0)
		free(e);
}

static struct element *element_new(const char *bytes, size_t len)
{
	struct element *e = malloc(sizeof(*e) + len);

	if (!e)
		abort();
	e->refs = 1;
	e->len = len;
	memcpy(e->bytes, bytes, len);
	return e;
}

static void value_clear(struct value *v)
{
	for (size_t i = 0; i < v->count; i++)
		element_drop(v->row[v->head + i]);
	free(v->row);
	memset(v, 0, sizeof(*v));
}

static void value_make_room(struct value *v)
{
	size_t room = 2 * v->count + 16, head = room / 4;
	struct element **row = calloc(room, sizeof(struct element *));

	if (!row)
		abort();
	if (v->count > 0)
		memcpy(row + head, v->row + v->head,
		       v->count * sizeof(struct element *));
	free(v->row);
	v->row = row;
	v->room = room;
	v->head = head;
}

static void value_push(struct value *v, int where, struct element *e)
{
	if (v->head == 0 || v->head + v->count == v->room)
		value_make_room(v);
	v->type = REDISMODULE_KEYTYPE_LIST;
	if (where == REDISMODULE_LIST_HEAD)
		v->row[--v->head] = e;
	else
		v->row[v->head + v->count] = e;
	v->count++;
}

static struct element *value_pop(struct value *v, int where)
{
	struct element *e;

	if (where == REDISMODULE_LIST_HEAD)
		e = v->row[v->head++];
	else
		e = v->row[v->head + v->count - 1];
	if (--v->count == 0)
		v->type = REDISMODULE_KEYTYPE_EMPTY;
	return e;
}

static void value_copy(struct value *to, const struct value *from)
{
	value_clear(to);
	to->type = from->type;
	for (size_t i = 0; i < from->count; i++) {
		struct element *e = from->row[from->head + i];

		e->refs++;
		value_push(to, REDISMODULE_LIST_TAIL, e);
	}
}

static void check_told(void)
{
	if (dataset.type != told.type || dataset.count != told.count)
		broken("the dataset has type %d and %zu elements, its replicas "
		       "type %d and %zu",
		       dataset.type, dataset.count, told.type, told.count);
	for (size_t i = 0; i < told.count; i++) {
		struct element *a = dataset.row[dataset.head + i],
			       *b = told.row[told.head + i];

		if (a->len != b->len || memcmp(a->bytes, b->bytes, a->len) != 0)
			broken("element %zu is another one on replicas", i);
	}
}

/* ---- the module API ----------------------------------------------------- */

struct RedisModuleCtx {
	int (*get)(const char *name, void *target);
};

struct RedisModuleKey {
	bool write;
};

/* module.c declares them for the server alone. */
int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);
int RedisModule_OnUnload(RedisModuleCtx *ctx);

static struct RedisModuleCtx context;
static bool replica, guarded, has_jobs;
static long long clock_ms = 1700000000000;
static uint64_t life;
static RedisModuleNotificationFunc on_key;
static int on_key_types;
static RedisModuleEventCallback on_event;
static RedisModuleInfoFunc on_info;
static void (*one_shot[16])(void *);
static size_t one_shots;

static bool may_write(void)
{
	return !replica && !guarded;
}

static RedisModuleKey *open_key(RedisModuleCtx *ctx, RedisModuleString *name,
				int mode)
{
	RedisModuleKey *k;

	(void)ctx;
	if (name->len != strlen(KEA_HOME_PREFIX) ||
	    memcmp(name->bytes, KEA_HOME_PREFIX, name->len) != 0)
		broken("another key is opened");
	if (!(mode & REDISMODULE_WRITE) &&
	    dataset.type == REDISMODULE_KEYTYPE_EMPTY)
		return NULL;
	k = block_new(sizeof(*k));
	k->write = mode & REDISMODULE_WRITE;
	keys++;
	return k;
}

static void close_key(RedisModuleKey *k)
{
	keys--;
	block_free(k);
}

static int key_type(RedisModuleKey *k)
{
	return k ? dataset.type : REDISMODULE_KEYTYPE_EMPTY;
}

static size_t value_length(RedisModuleKey *k)
{
	return k ? dataset.count : 0;
}

static int list_push(RedisModuleKey *k, int where, RedisModuleString *s)
{
	if (!k || !k->write || !may_write())
		broken("a push to a key that may not be written");
	if (dataset.type != REDISMODULE_KEYTYPE_EMPTY &&
	    dataset.type != REDISMODULE_KEYTYPE_LIST)
		broken("a push to what is not a list");
	value_push(&dataset, where, element_new(s->bytes, s->len));
	return REDISMODULE_OK;
}

static RedisModuleString *list_pop(RedisModuleKey *k, int where)
{
	struct element *e;
	RedisModuleString *s;

	if (!k || !k->write || !may_write())
		broken("a pop from a key that may not be written");
	if (dataset.type != REDISMODULE_KEYTYPE_LIST)
		return NULL;
	e = value_pop(&dataset, where);
	s = string_new(NULL, e->bytes, e->len);
	element_drop(e);
	return s;
}

static RedisModuleString *list_get(RedisModuleKey *k, long index)
{
	struct element *e;

	if (!k || dataset.type != REDISMODULE_KEYTYPE_LIST)
		return NULL;
	if (index < 0)
		index += (long)dataset.count;
	if (index < 0 || (size_t)index >= dataset.count)
		return NULL;
	e = dataset.row[dataset.head + (size_t)index];
	return string_new(NULL, e->bytes, e->len);
}

/* value_remove removes the element at index. */
static void value_remove(struct value *v, size_t index)
{
	struct element **row = v->row + v->head;

	if (index >= v->count)
		broken("element %zu is removed where there are %zu", index,
		       v->count);
	element_drop(row[index]);
	memmove(row + index, row + index + 1,
		(v->count - index - 1) * sizeof(*row));
	if (--v->count == 0)
		v->type = REDISMODULE_KEYTYPE_EMPTY;
}

static int list_delete(RedisModuleKey *k, long index)
{
	if (!k || !k->write || !may_write())
		broken("an element is removed from a key that may not be written");
	value_remove(&dataset, (size_t)index);
	return REDISMODULE_OK;
}

/* What LSET has named is removed by LREM, the next command. */
static void remove_named(const char *command, long long n, const char *name)
{
	static char named[64];
	static size_t index;

	if (strcmp(command, "LSET") == 0) {
		index = (size_t)n;
		snprintf(named, sizeof(named), "%s", name);
	} else if (strcmp(command, "LREM") == 0 && n == 1 &&
		   strcmp(name, named) == 0) {
		value_remove(&told, index);
		named[0] = 0;
	} else {
		broken("unexpected: %s %lld %s", command, n, name);
	}
}

static int replicate(RedisModuleCtx *ctx, const char *command,
		     const char *format, ...)
{
	bool push = strcmp(command + 1, "PUSH") == 0;
	int where = command[0] == 'L' ? REDISMODULE_LIST_HEAD :
					REDISMODULE_LIST_TAIL;
	va_list args;

	(void)ctx;
	if (!may_write())
		broken("%s is propagated while that is forbidden", command);
	va_start(args, format);
	(void)va_arg(args, RedisModuleString *);
	if (push && strcmp(format, "sv") == 0) {
		RedisModuleString **row = va_arg(args, RedisModuleString **);
		size_t n = va_arg(args, size_t);

		if (n == 0)
			broken("%s of nothing", command);
		for (size_t i = 0; i < n; i++)
			value_push(&told, where,
				   element_new(row[i]->bytes, row[i]->len));
	} else if (!push && strcmp(format, "sl") == 0) {
		long long n = va_arg(args, long long);

		if (n <= 0 || (size_t)n > told.count)
			broken("%s of %lld where there are %zu", command, n,
			       told.count);
		while (n-- > 0)
			element_drop(value_pop(&told, where));
	} else if (strcmp(format, "slc") == 0) {
		long long n = va_arg(args, long long);

		remove_named(command, n, va_arg(args, const char *));
	} else {
		broken("unexpected: %s with %s", command, format);
	}
	va_end(args);
	return REDISMODULE_OK;
}

static int signal_modified(RedisModuleCtx *ctx, RedisModuleString *name)
{
	(void)ctx;
	(void)name;
	if (!may_write())
		broken("the list is signalled as modified while that is forbidden");
	return REDISMODULE_OK;
}

static int context_flags(RedisModuleCtx *ctx)
{
	(void)ctx;
	return replica ? REDISMODULE_CTX_FLAGS_SLAVE :
			 REDISMODULE_CTX_FLAGS_MASTER;
}

static int avoid_replica_traffic(void)
{
	return guarded;
}

static int select_db(RedisModuleCtx *ctx, int db)
{
	(void)ctx;
	(void)db;
	return REDISMODULE_OK;
}

static int selected_db(RedisModuleCtx *ctx)
{
	(void)ctx;
	return 0;
}

static void log_line(RedisModuleCtx *ctx, const char *level, const char *format,
		     ...)
{
	static bool asked, wanted;
	va_list args;

	(void)ctx;
	if (!asked)
		wanted = getenv("KEA_MODEL_LOG") != NULL;
	asked = true;
	va_start(args, format);
	if (strstr(format, "are leaked"))
		broken("the queue leaks");
	if (wanted) {
		fprintf(stderr, "%s: ", level);
		vfprintf(stderr, format, args);
		fprintf(stderr, "\n");
	}
	va_end(args);
}

static long long milliseconds(void)
{
	return clock_ms;
}

static int all_classes(void)
{
	return 0x7fff;
}

static int subscribe_keys(RedisModuleCtx *ctx, int types,
			  RedisModuleNotificationFunc f)
{
	(void)ctx;
	on_key = f;
	on_key_types |= types;
	return REDISMODULE_OK;
}

static int subscribe_event(RedisModuleCtx *ctx, RedisModuleEvent e,
			   RedisModuleEventCallback f)
{
	(void)ctx;
	(void)e;
	on_event = f;
	return REDISMODULE_OK;
}

static int add_one_shot(void (*f)(void *), void *data)
{
	(void)data;
	if (one_shots == sizeof(one_shot) / sizeof(one_shot[0]))
		broken("too many one-shots");
	one_shot[one_shots++] = f;
	return REDISMODULE_OK;
}

static int register_info(RedisModuleCtx *ctx, RedisModuleInfoFunc f)
{
	(void)ctx;
	on_info = f;
	return REDISMODULE_OK;
}

static int info_section(RedisModuleInfoCtx *ctx, const char *name)
{
	(void)ctx;
	(void)name;
	return REDISMODULE_OK;
}

static int info_number(RedisModuleInfoCtx *ctx, const char *name,
		       unsigned long long n)
{
	(void)ctx;
	printf("%s %llu\n", name, n);
	return REDISMODULE_OK;
}

static int info_text(RedisModuleInfoCtx *ctx, const char *name,
		     const char *text)
{
	(void)ctx;
	(void)name;
	(void)text;
	return REDISMODULE_OK;
}

static RedisModuleServerInfoData *server_info(RedisModuleCtx *ctx,
					      const char *section)
{
	(void)ctx;
	(void)section;
	return NULL;
}

static void free_server_info(RedisModuleCtx *ctx, RedisModuleServerInfoData *i)
{
	(void)ctx;
	(void)i;
}

static const char *info_field(RedisModuleServerInfoData *i, const char *name)
{
	(void)i;
	return strcmp(name, "tcp_port") == 0 ? "6379" : NULL;
}

/* Only CONFIG GET is called; it may be missing. */
static RedisModuleCallReply *call(RedisModuleCtx *ctx, const char *name,
				  const char *format, ...)
{
	(void)ctx;
	(void)format;
	if (strcmp(name, "CONFIG") != 0)
		broken("not to be called: %s", name);
	return NULL;
}

static RedisModuleCtx *detached(RedisModuleCtx *ctx)
{
	return ctx;
}

static void free_detached(RedisModuleCtx *ctx)
{
	(void)ctx;
}

static int name_busy(const char *name)
{
	(void)name;
	return 0;
}

static void attributes(RedisModuleCtx *ctx, const char *name, int version,
		       int api)
{
	(void)ctx;
	(void)name;
	(void)version;
	(void)api;
}

static void set_options(RedisModuleCtx *ctx, int options)
{
	(void)ctx;
	(void)options;
}

static int load_configs(RedisModuleCtx *ctx)
{
	(void)ctx;
	return REDISMODULE_OK;
}

static int post_job(RedisModuleCtx *ctx, void (*f)(RedisModuleCtx *, void *),
		    void *data, void (*release)(void *))
{
	(void)ctx;
	(void)f;
	(void)data;
	(void)release;
	broken("a job after a notification: the module is not to need any");
	return REDISMODULE_ERR;
}

static void unexpected(void)
{
	broken("a call of an API function that the driver lacks");
}

static int get_api(const char *name, void *target)
{
	static const struct {
		const char *name;
		void (*f)(void);
	} table[] = {
#define HAS(name, f) { "RedisModule_" name, (void (*)(void))(f) }
		HAS("Alloc", block_new),
		HAS("Calloc", api_calloc),
		HAS("Free", block_free),
		HAS("CreateString", string_new),
		HAS("FreeString", string_free),
		HAS("StringPtrLen", string_bytes),
		HAS("OpenKey", open_key),
		HAS("CloseKey", close_key),
		HAS("KeyType", key_type),
		HAS("ValueLength", value_length),
		HAS("ListPush", list_push),
		HAS("ListPop", list_pop),
		HAS("ListGet", list_get),
		HAS("ListDelete", list_delete),
		HAS("Replicate", replicate),
		HAS("SignalModifiedKey", signal_modified),
		HAS("GetContextFlags", context_flags),
		HAS("AvoidReplicaTraffic", avoid_replica_traffic),
		HAS("SelectDb", select_db),
		HAS("GetSelectedDb", selected_db),
		HAS("Log", log_line),
		HAS("Milliseconds", milliseconds),
		HAS("GetKeyspaceNotificationFlagsAll", all_classes),
		HAS("SubscribeToKeyspaceEvents", subscribe_keys),
		HAS("SubscribeToServerEvent", subscribe_event),
		HAS("EventLoopAddOneShot", add_one_shot),
		HAS("RegisterInfoFunc", register_info),
		HAS("InfoAddSection", info_section),
		HAS("InfoAddFieldULongLong", info_number),
		HAS("InfoAddFieldCString", info_text),
		HAS("GetServerInfo", server_info),
		HAS("FreeServerInfo", free_server_info),
		HAS("ServerInfoGetFieldC", info_field),
		HAS("Call", call),
		HAS("GetDetachedThreadSafeContext", detached),
		HAS("FreeThreadSafeContext", free_detached),
		HAS("IsModuleNameBusy", name_busy),
		HAS("SetModuleAttribs", attributes),
		HAS("SetModuleOptions", set_options),
		HAS("LoadConfigs", load_configs),
#undef HAS
	};
	void (*f)(void) = NULL;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(table[i].name, name) == 0)
			f = table[i].f;
	if (strcmp(name, "RedisModule_AddPostNotificationJob") == 0) {
		if (!has_jobs)
			return 1;
		f = (void (*)(void))post_job;
	} else if (!f) {
#define OPTIONAL(ret, optional, params)                                        \
	if (strcmp(name, "RedisModule_" #optional) == 0)                       \
		return 1;
		KEA_API_OPTIONAL(OPTIONAL)
#undef OPTIONAL
		if (strncmp(name, "RedisModule_", 12) != 0)
			return 1; /* Valkey's own */
		f = unexpected;
	}
	memcpy(target, &f, sizeof(f));
	return 0;
}

/* ---- what stands for Go ------------------------------------------------- */

static struct kea_settings settings;
static int event_fd = -1;

char *keaGoLoad(struct kea_arg *args, int n)
{
	(void)args;
	(void)n;
	return NULL;
}

int keaGoRegister(void *ctx)
{
	(void)ctx;
	return REDISMODULE_OK;
}

static void configure(void)
{
	const char *wrong = kea_configure(&settings);

	if (wrong)
		broken("settings refused: %s", wrong);
}

char *keaGoStart(void)
{
	configure();
	event_fd = kea_event_fd();
	return NULL;
}

void keaGoStop(void)
{
	if (event_fd < 0)
		return;
	/* As the publisher and its source end. */
	kea_away(true);
	kea_rewind();
	close(event_fd);
	event_fd = -1;
}

void keaGoBusTick(void)
{
}

int kea_create_commands(RedisModuleCtx *ctx)
{
	(void)ctx;
	return REDISMODULE_OK;
}

void kea_replicate_deferred(RedisModuleCtx *ctx)
{
	(void)ctx;
}

void kea_drop_deferred(void)
{
}

void kea_config_free(void)
{
}

bool kea_needs_met(RedisModuleCtx *ctx, bool cluster)
{
	(void)ctx;
	(void)cluster;
	return true;
}

void kea_crash_prepare(RedisModuleCtx *ctx)
{
	(void)ctx;
}

void kea_crash_ready_for_memory_test(void)
{
}

void kea_bus_init(RedisModuleCtx *ctx)
{
	(void)ctx;
}

/* The model repeats itself by a seed, so origins are not random here; and the
 * file system need not be waited for. */
ssize_t getrandom(void *to, size_t len, unsigned flags)
{
	(void)flags;
	memset(to, 0, len);
	memcpy(to, &life, len < sizeof(life) ? len : sizeof(life));
	return (ssize_t)len;
}

int fsync(int fd)
{
	(void)fd;
	return 0;
}

int usleep(useconds_t us)
{
	(void)us;
	clock_ms++;
	return 0;
}

/* ---- the answer --------------------------------------------------------- */

struct ids {
	uint64_t origin, from, to;
	bool any;
};

static void ids_end(struct ids *r)
{
	if (r->any)
		printf(" %" PRIu64 ":%" PRIu64 "-%" PRIu64, r->origin, r->from,
		       r->to);
	r->any = false;
}

static void ids_add(struct ids *r, const struct kea_record *id)
{
	if (r->any && r->origin == id->origin && r->to + 1 == id->seq) {
		r->to++;
		return;
	}
	ids_end(r);
	*r = (struct ids){ id->origin, id->seq, id->seq, true };
}

static void show_run(struct ids *r, uint8_t *pos, uint32_t count, uint64_t *skip)
{
	size_t len;

	for (; count > 0; count--, pos = kea_record_after(pos)) {
		if (*skip > 0)
			(*skip)--;
		else
			ids_add(r, kea_record_at(pos, &len));
	}
}

static void show_value(const char *name, const struct value *v)
{
	struct ids r = { 0 };
	struct kea_record id;

	printf("%s", name);
	for (size_t i = 0; i < v->count; i++) {
		struct element *e = v->row[v->head + i];

		if (!kea_record_valid(e->bytes, e->len)) {
			ids_end(&r);
			printf(" 0:0-0");
			continue;
		}
		memcpy(&id, e->bytes, sizeof(id));
		ids_add(&r, &id);
	}
	ids_end(&r);
	printf("\n");
}

static void show_lent(void)
{
	struct kea_lent *l = kea_flow.lent;
	struct kea_lent_run *run;
	struct ids r = { 0 };
	uint64_t none = 0;

	printf("lent");
	for (uint64_t i = 0; (run = kea_lent_nth(l, i)); i++)
		show_run(&r, run->run.start, run->run.count, &none);
	ids_end(&r);
	printf("\nlent_not_stored");
	for (uint64_t i = 0; (run = kea_lent_nth(l, i)); i++)
		if (!run->stored)
			show_run(&r, run->run.start, run->run.count, &none);
	ids_end(&r);
	printf("\n");
}

static void show_memory(void)
{
	struct kea_queue *q = &kea_flow.queue;
	struct ids r = { 0 };
	uint64_t none = 0;

	printf("memory");
	for (struct kea_front *f = q->front; f; f = f->next)
		show_run(&r, f->run.start, f->run.count, &none);
	for (struct kea_chunk *c = q->head; c; c = c->next)
		show_run(&r, c->data + (c == q->head ? q->head_read : 0),
			 c->unread, &none);
	ids_end(&r);
	printf("\n");
}

/* spool_files are the spool files' names, in their order. */
static size_t spool_files(glob_t *found)
{
	static const char *const patterns[] = { "?", "??", "???", "????", "?????" };
	char name[64];

	/* Numbers of one length, and of the next. Events past a turn's end are
	 * each in a file of their own. */
	memset(found, 0, sizeof(*found));
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		snprintf(name, sizeof(name), "key_evt_amqp.*.%s.spool", patterns[i]);
		glob(name, i > 0 ? GLOB_APPEND : 0, NULL, found);
	}
	return found->gl_pathc;
}

/* The spool files' events; false when there is no file. */
static bool show_spool(void)
{
	struct ids r = { 0 };
	glob_t found;
	size_t n = spool_files(&found);

	if (n > 0)
		printf("spool_has");
	for (size_t i = 0; i < n; i++) {
		FILE *f = fopen(found.gl_pathv[i], "rb");
		struct kea_record head;
		uint32_t len;

		/* Behind 16 bytes: length, sum and record of each. */
		for (long at = 16; f && fseek(f, at, SEEK_SET) == 0 &&
				   fread(&len, sizeof(len), 1, f) == 1 &&
				   len != UINT32_MAX &&
				   fseek(f, sizeof(uint64_t), SEEK_CUR) == 0 &&
				   fread(&head, sizeof(head), 1, f) == 1;
		     at += 12 + (long)len)
			ids_add(&r, &head);
		if (f)
			fclose(f);
	}
	if (n > 0) {
		ids_end(&r);
		printf("\n");
	}
	globfree(&found);
	return n > 0;
}

static void answer(void)
{
	struct kea_flow *f = &kea_flow;
	uint64_t woken = 0;

	show_value("list", &dataset);
	printf("type %d\n", dataset.type);
	printf("spool %d\n", show_spool());
	if (kea_hook.loaded) {
		if (event_fd >= 0 &&
		    read(event_fd, &woken, sizeof(woken)) < 0)
			woken = 0;
		show_lent();
		show_memory();
		printf("held %" PRIu64 "\npending %" PRIu64 "\ntrimmed %" PRIu64
		       "\nknown %d\ncheck %d\n",
		       f->mirror.held, f->mirror.pending, f->mirror.trimmed,
		       kea_mirror_known(&f->mirror), f->mirror.check);
		printf("settling %" PRIu64 "\nundelivered %" PRIu64 "\n",
		       kea_lent_to_release(f->lent), kea_flow_undelivered(f));
		printf("returned %d\npast_turn %d\n",
		       kea_lent_rewound(f->lent), kea_loop.past_turn);
		printf("woken %d\none_shots %zu\n", woken > 0, one_shots);
		printf("queue_bytes %zu\nlent_bytes %zu\n", f->queue.bytes,
		       f->lent->bytes);
		on_info((RedisModuleInfoCtx *)&context, 0);
	}
	printf(".\n");
	fflush(stdout);
}

/* ---- requests ----------------------------------------------------------- */

static jmp_buf killed;
static char armed[32];
static long armed_count;
static bool at_step; /* within a request that has come to a step */
static bool asleep;  /* between BEFORE_SLEEP and AFTER_SLEEP */

static void fire(uint64_t id, uint64_t sub)
{
	if (kea_hook.loaded)
		on_event(&context, (RedisModuleEvent){ .id = id, .dataver = 1 },
			 sub, NULL);
	if (keys != 0)
		broken("%zu keys are left open", keys);
	if (kea_hook.loaded && strings != 1)
		broken("%zu strings are left", strings - 1);
}

/* The loop wakes up: what was asked of it is done. */
static void wake(void)
{
	if (!asleep)
		return;
	asleep = false;
	fire(REDISMODULE_EVENT_EVENTLOOP,
	     REDISMODULE_SUBEVENT_EVENTLOOP_AFTER_SLEEP);
	while (one_shots > 0)
		one_shot[--one_shots](NULL);
}

static void notify(int type, const char *event, const char *key, size_t len)
{
	RedisModuleString *s;

	if (!on_key || !(on_key_types & type))
		return;
	s = string_new(NULL, key, len);
	on_key(&context, type, event, s);
	string_free(NULL, s);
	if (keys != 0)
		broken("%zu keys are left open", keys);
}

static void notify_list(int type, const char *event)
{
	notify(type, event, KEA_HOME_PREFIX, strlen(KEA_HOME_PREFIX));
}

/* The process has ended: nothing of the module's memory remains. */
static void clear_process(void)
{
	while (blocks.next != &blocks)
		block_free(blocks.next->data);
	if (event_fd >= 0)
		close(event_fd);
	event_fd = -1;
	if (allocated != 0) /* the queue's own account, static */
		allocated = 0;
	kea_hook.loaded = false;
	strings = keys = one_shots = 0;
	on_key = NULL;
	on_key_types = 0;
	armed[0] = 0;
	at_step = asleep = false;
}

/* All of Redis's list is lost except what was durable. */
static void restart(void)
{
	clear_process();
	value_copy(&dataset, &durable);
	value_copy(&told, &durable);
}

static void unload(void)
{
	int rc = RedisModule_OnUnload(&context);

	printf("unloaded %d\n", rc == REDISMODULE_OK);
	if (rc != REDISMODULE_OK)
		return;
	if (strings != 0 || keys != 0 || blocks.next != &blocks)
		broken("the module leaves %zu strings, %zu keys and memory",
		       strings, keys);
	clear_process();
}

static void edit(const char *how, size_t n, int told_of)
{
	struct element *junk;
	int where = how[0] == 'h' ? REDISMODULE_LIST_HEAD :
				    REDISMODULE_LIST_TAIL;
	int type = REDISMODULE_NOTIFY_LIST;

	if (strcmp(how, "del") == 0) {
		value_clear(&dataset);
		type = REDISMODULE_NOTIFY_GENERIC;
	} else if (strcmp(how, "string") == 0) {
		value_clear(&dataset);
		dataset.type = 1;
		type = REDISMODULE_NOTIFY_STRING;
	} else if (strcmp(how + 1, "trim") == 0) {
		for (; n > 0 && dataset.count > 0; n--)
			element_drop(value_pop(&dataset, where));
	} else if (strcmp(how + 1, "junk") == 0 && dataset.type != 1) {
		junk = element_new("\xea\x01 no event", 11);
		value_push(&dataset, where, junk);
	}
	value_copy(&told, &dataset);
	if (told_of)
		notify_list(type, "edited");
	else
		kea_flow.mirror.check = true; /* as FLUSHDB and others do */
}

/* Another node's master pushes events of its own, or has delivered some. */
static void peer(const char *what, uint64_t origin, uint64_t seq, size_t n)
{
	struct kea_record r = { .magic = KEA_RECORD_MAGIC,
				.version = KEA_RECORD_PLAIN,
				.db_len = 1,
				.event_len = 3,
				.origin = origin,
				.time_ms = 1 };
	char bytes[sizeof(r) + 6];

	for (; n > 0; n--) {
		if (strcmp(what, "pop") == 0) {
			if (dataset.type == REDISMODULE_KEYTYPE_LIST)
				element_drop(value_pop(&dataset,
						       REDISMODULE_LIST_HEAD));
			continue;
		}
		r.seq = seq++;
		memcpy(bytes, &r, sizeof(r));
		memcpy(bytes + sizeof(r), "0\nset\n", 6);
		value_push(&dataset, REDISMODULE_LIST_TAIL,
			   element_new(bytes, sizeof(bytes)));
	}
	value_copy(&told, &dataset);
}

static void capture(size_t n, size_t len)
{
	char *key = malloc(len + 1);

	if (!key)
		abort();
	memset(key, 'k', len + 1);
	while (n-- > 0)
		notify(REDISMODULE_NOTIFY_STRING, "set", key, len);
	free(key);
}

static void load(void)
{
	life++;
	printf("origin %" PRIu64 "\n", life);
	context.get = get_api;
	if (RedisModule_OnLoad(&context, NULL, 0) != REDISMODULE_OK)
		broken("not loaded");
}

/* Requests of the publisher: at any time. */
static bool publish(const char *line)
{
	struct kea_span span;
	struct ids r = { 0 };
	uint64_t n, none = 0;

	if (strcmp(line, "take") == 0) {
		printf("taken");
		if (kea_take(&span))
			show_run(&r, (uint8_t *)(uintptr_t)span.start,
				 (uint32_t)span.count, &none);
		ids_end(&r);
		printf("\n");
	} else if (sscanf(line, "settle %" SCNu64, &n) == 1) {
		kea_settle(n);
	} else if (strcmp(line, "rewind") == 0) {
		kea_away(true);
		kea_rewind();
	} else if (strcmp(line, "sleep") == 0) {
		printf("slept %d\n", kea_sleep());
	} else if (strcmp(line, "away 1") == 0) {
		kea_away(true);
	} else if (strcmp(line, "away 0") == 0) {
		kea_away(false);
	} else {
		return false;
	}
	return true;
}

static void arm(const char *line)
{
	if (sscanf(line, "arm %31s %ld", armed, &armed_count) != 2)
		broken("not understood: %s", line);
}

void kea_fault(const char *name)
{
	char line[256];

	if (at_step || strcmp(name, armed) != 0 || --armed_count > 0)
		return;
	armed[0] = 0;
	at_step = true;
	printf("!%s\n", name);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (strcmp(line, "go") == 0)
			break;
		if (strcmp(line, "crash") == 0)
			longjmp(killed, 1);
		if (strncmp(line, "arm ", 4) == 0)
			arm(line);
		else if (!publish(line))
			broken("not understood at a step: %s", line);
		printf(".\n");
		fflush(stdout);
	}
	at_step = false;
}

static void server(const char *line)
{
	char word[16];
	size_t n, len;
	int flag;
	uint64_t a, b;

	if (sscanf(line, "load %d", &flag) == 1) {
		has_jobs = flag;
		load();
	} else if (strcmp(line, "unload") == 0) {
		wake();
		unload();
	} else if (sscanf(line, "capture %zu %zu", &n, &len) == 2) {
		wake();
		capture(n, len);
	} else if (sscanf(line, "late %zu %zu", &n, &len) == 2) {
		capture(n, len); /* of a client that was just unblocked */
	} else if (strcmp(line, "turn") == 0) {
		wake();
		fire(REDISMODULE_EVENT_EVENTLOOP,
		     REDISMODULE_SUBEVENT_EVENTLOOP_BEFORE_SLEEP);
		asleep = true;
	} else if (strcmp(line, "cron") == 0) {
		wake();
		for (int i = 0; i < 10; i++)
			fire(REDISMODULE_EVENT_CRON_LOOP, 0);
	} else if (strcmp(line, "flush") == 0) {
		value_copy(&durable, &told);
	} else if (sscanf(line, "role %d", &flag) == 1) {
		wake();
		replica = flag;
		fire(REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
		     (uint64_t)flag);
	} else if (sscanf(line, "guard %d", &flag) == 1) {
		guarded = flag;
	} else if (sscanf(line, "edit %15s %zu %d", word, &n, &flag) == 3) {
		wake();
		edit(word, n, flag);
	} else if (sscanf(line, "peer %15s %" SCNu64 " %" SCNu64 " %zu", word,
			  &a, &b, &n) == 4) {
		wake();
		peer(word, a, b, n);
	} else if (sscanf(line, "settings %" SCNd64 " %" SCNu64 " %" SCNu32
				" %d %" SCNu32,
			  &settings.list_limit, &settings.buffer_limit,
			  &settings.window, &flag,
			  &settings.shutdown_timeout_ms) == 5) {
		wake();
		settings.outbox = flag;
		if (kea_hook.loaded)
			configure();
	} else if (strcmp(line, "shutdown") == 0) {
		wake();
		/* Redis saves first, and tells modules then. */
		value_copy(&durable, &told);
		fire(REDISMODULE_EVENT_SHUTDOWN, 0);
		restart();
	} else if (strcmp(line, "crash") == 0) {
		restart();
	} else if (strcmp(line, "reset") == 0) {
		value_clear(&durable);
		restart();
		replica = guarded = false;
		life = 0;
		if (system("rm -f key_evt_amqp.*") != 0)
			broken("the spool files can't be removed");
	} else {
		broken("not understood: %s", line);
	}
}

static void read_masks(const char *hex)
{
	size_t len = strlen(hex) / 2;
	uint8_t *bytes = malloc(len);
	unsigned byte;

	if (!bytes)
		abort();
	for (size_t i = 0; i < len && sscanf(hex + 2 * i, "%2x", &byte) == 1;
	     i++)
		bytes[i] = (uint8_t)byte;
	settings.masks = bytes;
	settings.masks_len = len;
	settings.masks_count = 1;
}

/* flow_driver <folder for the spool file> <compiled masks in hexadecimal> */
int main(int argc, char **argv)
{
	char line[256];

	if (argc != 3 || chdir(argv[1]) != 0)
		return 2;
	read_masks(argv[2]);
	settings.classes = REDISMODULE_NOTIFY_STRING | REDISMODULE_NOTIFY_LIST |
			 REDISMODULE_NOTIFY_GENERIC;
	settings.window = 8;
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (setjmp(killed) != 0)
			restart();
		else if (strncmp(line, "arm ", 4) == 0)
			arm(line);
		else if (!publish(line))
			server(line);
		check_told();
		answer();
	}
	_exit(0); /* files of killed processes are not to be written now */
}
