/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * commands.c: the commands' table and handlers. Their meaning is Go's
 * (module/), peek.c's where nothing is changed; here are the arguments' way in, the reply, the way to replicas,
 * and the blocked client of connect.
 */
#include "_cgo_export.h"
#include "commands.h"

#include "args.h"
#include "flow.h"
#include "kea.h"
#include "peek.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "key_evt_amqp."
#define SINCE "0.1.0"
/* argv position of the password in config_set and connect. */
#define PASSWORD_AT 4

#define ADMIN "admin deny-script allow-loading allow-stale"

#define OPT REDISMODULE_CMD_ARG_OPTIONAL
#define ARG(n, t, f)                                                           \
	{                                                                      \
		.name = n, .type = REDISMODULE_ARG_TYPE_##t,                   \
		.key_spec_index = -1, .flags = f                               \
	}
#define SETTINGS_FROM_PORT                                                     \
	ARG("port", INTEGER, OPT), ARG("username", STRING, OPT),               \
		ARG("password", STRING, OPT), ARG("heartbeat", INTEGER, OPT),  \
		ARG("exchange_name", STRING, OPT),                             \
		ARG("routing_key", STRING, OPT),                               \
		ARG("delivery_mode", INTEGER, OPT),                            \
		ARG("fallback_storage_size", INTEGER, OPT),                    \
		ARG("key_mask", STRING, OPT | REDISMODULE_CMD_ARG_MULTIPLE)

static RedisModuleCommandArg config_set_args[] = {
	ARG("hostname", STRING, 0), SETTINGS_FROM_PORT, { 0 }
};
static RedisModuleCommandArg connect_args[] = {
	ARG("hostname", STRING, OPT), SETTINGS_FROM_PORT, { 0 }
};
static RedisModuleCommandArg size_args[] = { ARG("n", INTEGER, 0), { 0 } };
static RedisModuleCommandArg mask_args[] = {
	ARG("mask", STRING, REDISMODULE_CMD_ARG_MULTIPLE), { 0 }
};

static RedisModuleCommandArg snapshot_args[] = {
	ARG("mask", STRING, OPT | REDISMODULE_CMD_ARG_MULTIPLE), { 0 }
};
static RedisModuleCommandArg peek_args[] = { ARG("n", INTEGER, OPT), { 0 } };

enum {
	CONFIG_SET,
	CONNECT,
	DISCONNECT,
	SIZE_SET,
	CLEAN,
	ADD,
	SET,
	PEEK,
	SNAPSHOT,
	SNAPSHOT_CANCEL,
	COMMANDS
};

static int handle_config_set(RedisModuleCtx *, RedisModuleString **, int);
static int handle_connect(RedisModuleCtx *, RedisModuleString **, int);
static int handle_disconnect(RedisModuleCtx *, RedisModuleString **, int);
static int handle_size(RedisModuleCtx *, RedisModuleString **, int);
static int handle_clean(RedisModuleCtx *, RedisModuleString **, int);
static int handle_add(RedisModuleCtx *, RedisModuleString **, int);
static int handle_set(RedisModuleCtx *, RedisModuleString **, int);
static int handle_snapshot(RedisModuleCtx *, RedisModuleString **, int);
static int handle_snapshot_cancel(RedisModuleCtx *, RedisModuleString **, int);

static const struct {
	const char *name, *flags;
	RedisModuleCmdFunc handler;
	int arity; /* as COMMAND INFO has it: negative is "at least" */
	const char *summary;
	RedisModuleCommandArg *args;
} table[COMMANDS] = {
	[CONFIG_SET] = { PREFIX "config_set", ADMIN, handle_config_set, -2,
			 "Changes the connection's settings and the masks; "
			 "what is left out keeps its value.",
			 config_set_args },
	[CONNECT] = { PREFIX "connect", ADMIN, handle_connect, -1,
		      "Changes settings if given, then connects to the broker "
		      "and answers when connected.",
		      connect_args },
	[DISCONNECT] = { PREFIX "disconnect", ADMIN, handle_disconnect, 1,
			 "Closes the connection until connect; events go on "
			 "into the fallback list.",
			 NULL },
	[SIZE_SET] = { PREFIX "fallback_storage_size_set", ADMIN, handle_size,
		       2,
		       "Sets the most events that the fallback list keeps; 0 "
		       "is unlimited, negative stores none.",
		       size_args },
	[CLEAN] = { PREFIX "keymask_clean", ADMIN, handle_clean, 1,
		    "Removes all key masks: nothing is forwarded.", NULL },
	[ADD] = { PREFIX "keymask_add", ADMIN, handle_add, -2,
		  "Adds key masks.", mask_args },
	[SET] = { PREFIX "keymask_set", ADMIN, handle_set, -2,
		  "Replaces all key masks in one step.", mask_args },
	[PEEK] = { PREFIX "fallback_peek", ADMIN, kea_peek, -1,
		   "Lists the oldest undelivered events of this node: id, time, "
		   "database, event, key.",
		   peek_args },
	[SNAPSHOT] = { PREFIX "snapshot", ADMIN, handle_snapshot, -1,
		       "Sends an event snapshot for each key that matches, then "
		       "snapshot_end, and answers its id.",
		       snapshot_args },
	[SNAPSHOT_CANCEL] = { PREFIX "snapshot_cancel", ADMIN,
			      handle_snapshot_cancel, 1,
			      "Ends the snapshot that is under way.", NULL },
};

/* ---- the way to replicas ------------------------------------------------ */

/* A command that could not be replicated at once: the server was paused. */
struct deferred {
	struct deferred *next;
	int command, argc;
	RedisModuleString *argv[];
};

static struct deferred *deferred_first, **deferred_last = &deferred_first;

static void replicate_now(RedisModuleCtx *ctx, int command,
			  RedisModuleString **argv, int argc)
{
	/* A: never into the append-only file. */
	if (RedisModule_Replicate(ctx, table[command].name, "Av", argv,
				  (size_t)argc) == REDISMODULE_OK)
		return;
	kea_flow_log(&kea_flow, "warning",
		     "the server refuses to replicate %s: give it to each "
		     "replica, too",
		     table[command].name);
}

/*
 * replicate sends a command that took effect to the replicas, so that a
 * failover changes nothing. Clusters have their own way.
 */
static void replicate(RedisModuleCtx *ctx, int command,
		      RedisModuleString **argv, int argc)
{
	int flags = RedisModule_GetContextFlags(ctx);
	struct deferred *d;

	if (!(flags & REDISMODULE_CTX_FLAGS_MASTER) ||
	    (flags & REDISMODULE_CTX_FLAGS_CLUSTER))
		return;
	if (!deferred_first && !RedisModule_AvoidReplicaTraffic()) {
		replicate_now(ctx, command, argv, argc);
		return;
	}
	d = RedisModule_Alloc(sizeof(*d) + (size_t)argc * sizeof(d->argv[0]));
	d->next = NULL;
	d->command = command;
	d->argc = argc;
	for (int i = 0; i < argc; i++) {
		size_t len;
		const char *bytes = RedisModule_StringPtrLen(argv[i], &len);

		d->argv[i] = RedisModule_CreateString(NULL, bytes, len);
	}
	*deferred_last = d;
	deferred_last = &d->next;
}

static struct deferred *pop_deferred(void)
{
	struct deferred *d = deferred_first;

	if (d && !(deferred_first = d->next))
		deferred_last = &deferred_first;
	return d;
}

static void free_deferred(struct deferred *d)
{
	for (int i = 0; i < d->argc; i++)
		RedisModule_FreeString(NULL, d->argv[i]);
	RedisModule_Free(d);
}

void kea_replicate_deferred(RedisModuleCtx *ctx)
{
	while (deferred_first && !RedisModule_AvoidReplicaTraffic()) {
		struct deferred *d = pop_deferred();

		if (RedisModule_GetContextFlags(ctx) &
		    REDISMODULE_CTX_FLAGS_MASTER)
			replicate_now(ctx, d->command, d->argv, d->argc);
		free_deferred(d);
	}
}

void kea_drop_deferred(void)
{
	while (deferred_first)
		free_deferred(pop_deferred());
}

/* ---- handlers ----------------------------------------------------------- */

static int reply_error(RedisModuleCtx *ctx, char *text)
{
	RedisModule_ReplyWithError(ctx, text);
	free(text);
	return REDISMODULE_OK;
}

/* apply hands a command to Go. NULL, or the error reply, to be freed. */
static char *apply(int command, RedisModuleString **argv, int argc)
{
	struct kea_arg *args;
	char *error;

	args = kea_args_view(argv, argc, "ERR ", &error);
	if (args)
		error = keaGoCommand((char *)table[command].name +
					     strlen(PREFIX),
				     args, argc);
	RedisModule_Free(args);
	return error;
}

static bool arity_ok(int command, int argc)
{
	int arity = table[command].arity;

	return arity < 0 ? argc >= -arity : argc == arity;
}

static int handle(RedisModuleCtx *ctx, int command, RedisModuleString **argv,
		  int argc)
{
	char *error;

	if (!arity_ok(command, argc))
		return RedisModule_WrongArity(ctx);
	error = apply(command, argv + 1, argc - 1);
	if (error)
		return reply_error(ctx, error);
	replicate(ctx, command, argv + 1, argc - 1);
	return RedisModule_ReplyWithSimpleString(ctx, "OK");
}

/* redact comes after the last use of the arguments: Valkey 8.1 replaces the
 * password in argv itself, not in a copy for SLOWLOG. */
static void redact(RedisModuleCtx *ctx, int argc)
{
	if (argc > PASSWORD_AT)
		RedisModule_RedactClientCommandArgument(ctx, PASSWORD_AT);
}

static int handle_config_set(RedisModuleCtx *ctx, RedisModuleString **argv,
			     int argc)
{
	int rc = handle(ctx, CONFIG_SET, argv, argc);

	redact(ctx, argc);
	return rc;
}

static int handle_disconnect(RedisModuleCtx *ctx, RedisModuleString **argv,
			     int argc)
{
	return handle(ctx, DISCONNECT, argv, argc);
}

static int handle_size(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	return handle(ctx, SIZE_SET, argv, argc);
}

static int handle_clean(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	return handle(ctx, CLEAN, argv, argc);
}

static int handle_add(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	return handle(ctx, ADD, argv, argc);
}

static int handle_set(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	return handle(ctx, SET, argv, argc);
}

static int handle_snapshot(RedisModuleCtx *ctx, RedisModuleString **argv,
			   int argc)
{
	char id[KEA_SNAPSHOT_ID];
	char *error;
	struct kea_arg *args = kea_args_view(argv + 1, argc - 1, "ERR ", &error);

	if (args)
		error = keaGoSnapshot(args, argc - 1, id);
	RedisModule_Free(args);
	if (error)
		return reply_error(ctx, error);
	return RedisModule_ReplyWithStringBuffer(ctx, id, sizeof(id));
}

/* A replica makes no snapshot, so there is nothing to send it. */
static int handle_snapshot_cancel(RedisModuleCtx *ctx, RedisModuleString **argv,
				  int argc)
{
	char *error;

	if (argc != 1)
		return RedisModule_WrongArity(ctx);
	error = apply(SNAPSHOT_CANCEL, argv + 1, 0);
	if (error)
		return reply_error(ctx, error);
	return RedisModule_ReplyWithSimpleString(ctx, "OK");
}

static int connect_reply(RedisModuleCtx *ctx, RedisModuleString **argv,
			 int argc)
{
	const char *error = RedisModule_GetBlockedClientPrivateData(ctx);

	(void)argv;
	(void)argc;
	if (error)
		return RedisModule_ReplyWithError(ctx, error);
	return RedisModule_ReplyWithSimpleString(ctx, "OK");
}

static void connect_free(RedisModuleCtx *ctx, void *error)
{
	(void)ctx;
	RedisModule_Free(error);
}

void kea_unblock(void *client, const char *error)
{
	char *copy = NULL;

	/* Not strdup: what libc allocates for us is not ours to free. Valkey
	 * loads modules with RTLD_DEEPBIND, so that our free is libc's, while
	 * libc's own malloc is the server's. */
	if (error) {
		size_t size = strlen(error) + 1;

		copy = RedisModule_Alloc(size);
		memcpy(copy, error, size);
	}
	RedisModule_UnblockClient(client, copy);
}

static int handle_connect(RedisModuleCtx *ctx, RedisModuleString **argv,
			  int argc)
{
	const int cannot_wait = REDISMODULE_CTX_FLAGS_LUA |
				REDISMODULE_CTX_FLAGS_MULTI |
				REDISMODULE_CTX_FLAGS_REPLICATED |
				REDISMODULE_CTX_FLAGS_DENY_BLOCKING;
	char *error;

	error = apply(CONNECT, argv + 1, argc - 1);
	if (!error)
		replicate(ctx, CONNECT, argv + 1, argc - 1);
	redact(ctx, argc);
	if (error)
		return reply_error(ctx, error);
	if (RedisModule_GetContextFlags(ctx) & cannot_wait) {
		keaGoConnect(NULL);
		return RedisModule_ReplyWithSimpleString(ctx, "OK");
	}
	keaGoConnect(RedisModule_BlockClient(ctx, connect_reply, NULL,
					     connect_free, 0));
	return REDISMODULE_OK;
}

/*
 * acl_categories are those of all our commands: a category of our own where
 * the server can make one. It has it already after an unload, which leaves
 * categories behind.
 */
static const char *acl_categories(RedisModuleCtx *ctx)
{
	if (RedisModule_AddACLCategory &&
	    (RedisModule_AddACLCategory(ctx, "key_evt_amqp") ==
		     REDISMODULE_OK ||
	     errno == EBUSY))
		return "admin dangerous key_evt_amqp";
	return "admin dangerous";
}

int kea_create_commands(RedisModuleCtx *ctx)
{
	const char *categories = acl_categories(ctx);
	static const RedisModuleCommandInfoVersion version = {
		.version = 1,
		.sizeof_historyentry = 16,
		.sizeof_keyspec = 56,
		.sizeof_arg = sizeof(RedisModuleCommandArg),
	};

	for (int i = 0; i < COMMANDS; i++) {
		RedisModuleCommandInfo info = {
			.version = &version,
			.summary = table[i].summary,
			.complexity = i == PEEK ? "O(n)" : "O(1)",
			.since = SINCE,
			.arity = table[i].arity,
			.args = table[i].args,
		};
		RedisModuleCommand *command;

		if (RedisModule_CreateCommand(ctx, table[i].name,
					      table[i].handler, table[i].flags,
					      0, 0, 0) != REDISMODULE_OK)
			return REDISMODULE_ERR;
		command = RedisModule_GetCommand(ctx, table[i].name);
		if (!command ||
		    RedisModule_SetCommandInfo(command, &info) !=
			    REDISMODULE_OK)
			return REDISMODULE_ERR;
		if (RedisModule_SetCommandACLCategories &&
		    RedisModule_SetCommandACLCategories(
			    command, categories) != REDISMODULE_OK)
			return REDISMODULE_ERR;
	}
	return REDISMODULE_OK;
}
