/* SPDX-License-Identifier: BSD-3-Clause */
/* needs.c: looks for what needs.h names. */
#include "needs.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>

/* Go has seven when it delivers, of which some are there at load, and makes more
 * while others are in system calls. The server makes its own after the load. */
#define THREADS 12

static const struct need {
	const char *name;
	bool cluster; /* needed in a cluster only */
	const char *why;
} needs[] = {
	{ "RPUSH", false,
	  "replicas and the append-only file get stored events by it" },
	{ "LPOP", false,
	  "replicas and the append-only file learn by it what was delivered" },
	{ "LSET", false,
	  "with LREM it removes on replicas what is not an event" },
	{ "LREM", false,
	  "with LSET it removes on replicas what is not an event" },
	{ "LPUSH", true, "it moves events between fallback lists" },
	{ "RPOP", true, "it moves events between fallback lists" },
	{ "CLUSTER", true, "it lists the slots of this node" },
	{ "SPUBLISH", true, "it tells whose a slot is" },
	{ "PING", true, "it shows whether the server knows dry runs" },
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
 * a name stands for; where COMMAND itself is renamed nothing does. */
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

static bool commands_met(RedisModuleCtx *ctx, bool cluster)
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

static void *wait_at(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

/* count_threads makes up to THREADS threads that are there at once, ends them,
 * and returns how many there were. */
static size_t count_threads(void)
{
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
	pthread_t made[THREADS];
	sigset_t all, before;
	size_t n = 0;

	/* The server's signals are for the server's threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_mutex_lock(&gate);
	while (n < THREADS && pthread_create(&made[n], NULL, wait_at, &gate) == 0)
		n++;
	pthread_mutex_unlock(&gate);
	for (size_t i = 0; i < n; i++)
		pthread_join(made[i], NULL);
	pthread_mutex_destroy(&gate);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return n;
}

static bool threads_met(RedisModuleCtx *ctx)
{
	size_t n = count_threads();

	if (n == THREADS)
		return true;
	RedisModule_Log(ctx, "warning",
			"only %d more threads can be made here, and the module "
			"needs room for %d: raise the limit on processes "
			"(ulimit -u, LimitNPROC, TasksMax, a container's pids "
			"limit) or on the address space (ulimit -v)",
			(int)n, THREADS);
	return false;
}

static bool calls_met(RedisModuleCtx *ctx)
{
	struct epoll_event event;
	const char *missing = NULL;
	stack_t stack;

	if (sigaltstack(NULL, &stack) != 0)
		missing = "sigaltstack";
	else if (epoll_pwait(-1, &event, 1, 0, NULL) < 0 && errno != EBADF)
		missing = "epoll_pwait";
	if (!missing)
		return true;
	RedisModule_Log(ctx, "warning",
			"the system call %s is forbidden here (%s), and the "
			"module needs it: allow it in the seccomp filter",
			missing, strerror(errno));
	return false;
}

bool kea_needs_met(RedisModuleCtx *ctx, bool cluster)
{
	return commands_met(ctx, cluster) && calls_met(ctx) && threads_met(ctx);
}
