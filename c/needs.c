/* needs.c: looks for the commands of needs.h. */
#include "needs.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

static const struct need {
	const char *name;
	bool cluster; /* needed in a cluster only */
	const char *why;
} needs[] = {
	{ "RPUSH", false,
	  "replicas and the append-only file get stored events by it" },
	{ "LPOP", false,
	  "replicas and the append-only file learn by it what was delivered" },
	{ "LPUSH", true, "it moves events between fallback lists" },
	{ "RPOP", true, "it moves events between fallback lists" },
	{ "CLUSTER", true, "it lists the slots of this node" },
	{ "SPUBLISH", true, "it tells whose a slot is" },
	{ "PING", true, "it tells whether the server knows dry runs" },
};

/* exists: a call without arguments is never made where some are needed, but the
 * command is looked up first. PING answers. */
static bool exists(RedisModuleCtx *ctx, const char *name)
{
	RedisModuleCallReply *reply;

	errno = 0;
	reply = RedisModule_Call(ctx, name, "");
	if (!reply)
		return errno != ENOENT;
	RedisModule_FreeCallReply(reply);
	return true;
}

/* another: the name is that of another command. COMMAND INFO says which command
 * a name stands for; where COMMAND itself is renamed there is no telling. */
static bool another(RedisModuleCtx *ctx, const char *name)
{
	RedisModuleCallReply *reply =
		RedisModule_Call(ctx, "COMMAND", "cc", "INFO", name);
	RedisModuleCallReply *entry, *first;
	const char *real;
	size_t len = 0;
	bool other;

	/* What is not an array has no elements, and only texts have text. */
	entry = reply ? RedisModule_CallReplyArrayElement(reply, 0) : NULL;
	first = entry ? RedisModule_CallReplyArrayElement(entry, 0) : NULL;
	real = first ? RedisModule_CallReplyStringPtr(first, &len) : NULL;
	other = real &&
		(len != strlen(name) || strncasecmp(real, name, len) != 0);
	if (reply)
		RedisModule_FreeCallReply(reply);
	return other;
}

bool kea_needs_met(RedisModuleCtx *ctx, bool cluster)
{
	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		const struct need *n = &needs[i];
		bool there;

		if (n->cluster && !cluster)
			continue;
		there = exists(ctx, n->name);
		if (there && !another(ctx, n->name))
			continue;
		RedisModule_Log(ctx, "warning",
				"the command %s %s on this server, and the "
				"module needs it: %s. Take its rename-command "
				"line out of the configuration",
				n->name,
				there ? "is the name of another command" :
					"has been renamed or removed",
				n->why);
		return false;
	}
	return true;
}
