/* SPDX-License-Identifier: BSD-3-Clause */
/* fault.c: $KEA_FAULT, "name:count", makes the process kill itself when it
 * passes the step of that name for the count-th time. The name is left behind
 * in the file key_evt_amqp.fault of the server's dir. */
#include "fault.h"

#ifdef KEA_FAULTS
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void mark(const char *name, size_t len)
{
	int fd = open("key_evt_amqp.fault", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd >= 0 && write(fd, name, len) == (ssize_t)len)
		close(fd);
}

void kea_fault(const char *name)
{
	static _Atomic long passed;
	/* Read each time: nothing is prepared, and only tests pay. */
	const char *wanted = getenv("KEA_FAULT");
	size_t len = strlen(name);

	if (!wanted || strncmp(wanted, name, len) != 0 || wanted[len] != ':')
		return;
	if (atomic_fetch_add(&passed, 1) + 1 < atol(wanted + len + 1))
		return;
	mark(name, len);
	for (;;) /* the signal may take a moment */
		kill(getpid(), SIGKILL);
}
#endif

/* C wants at least one declaration in a file. */
typedef int kea_fault_is_compiled;
