/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * alarm.c: see alarm.h. A timerfd and not a timer of the module API: while one of
 * those is pending the server refuses MODULE UNLOAD before it asks us.
 */
#include "alarm.h"

#include "redisapi.h"

#include <stdbool.h>
#include <sys/timerfd.h>
#include <unistd.h>

static struct {
	int fd;        /* 0: none yet */
	int64_t armed; /* when it goes off; 0: it does not */
} timer;

/* Only wakes the loop: a callback may run in the middle of a script. */
static void fired(int fd, void *unused, int mask)
{
	uint64_t times;

	(void)unused;
	(void)mask;
	/* ECANCELED when the clock was set. The end of the turn looks at the
	 * clock in any case. */
	if (read(fd, &times, sizeof(times)) < 0)
		times = 0;
	timer.armed = 0;
}

static bool have_timer(void)
{
	int fd;

	if (timer.fd > 0)
		return true;
	fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (fd < 0)
		return false;
	if (RedisModule_EventLoopAdd(fd, REDISMODULE_EVENTLOOP_READABLE, fired,
				     NULL) != REDISMODULE_OK) {
		close(fd);
		return false;
	}
	timer.fd = fd;
	return true;
}

void kea_alarm_set(int64_t at_ms)
{
	struct itimerspec t = { .it_value = { at_ms / 1000,
					      at_ms % 1000 * 1000000 } };

	/* Without a timer the server's own cron wakes the loop. */
	if (timer.armed == at_ms || !have_timer())
		return;
	if (timerfd_settime(timer.fd,
			    TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &t,
			    NULL) == 0)
		timer.armed = at_ms;
}

void kea_alarm_free(void)
{
	if (timer.fd > 0) {
		RedisModule_EventLoopDel(timer.fd,
					 REDISMODULE_EVENTLOOP_READABLE);
		close(timer.fd);
	}
	timer.fd = 0;
	timer.armed = 0;
}
