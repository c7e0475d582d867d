/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * slack.c: makes the timers of Go's threads less exact, and of no others.
 *
 * While goroutines come and go, Go's watchman (sysmon) asks to be woken each
 * 20 microseconds; Linux adds 50 of slack to it by default. A wake-up costs some
 * microseconds: a fifth of what a delivery took (docs/performance.md). With
 * a millisecond of slack it sleeps that long. The publisher's own timers are of
 * four milliseconds and more, and what comes in by a descriptor needs none.
 *
 * A thread gets the slack of the one that makes it. Go makes its first ones
 * while the server loads the library, in a constructor without a priority, and
 * they make the others. What is made later from Redis's own threads, theirs or
 * Go's, has the usual slack.
 */
#include "slack.h"

#include <sys/prctl.h>

#define SLACK_NS 1000000UL

static int before; /* this thread's; 0: as it was, or restored */

/* 101 is the first priority that is not the compiler's own: before Go's. */
__attribute__((constructor(101))) static void loosen(void)
{
	int slack = prctl(PR_GET_TIMERSLACK);

	/* Real-time threads have none. */
	if (slack <= 0 || (unsigned long)slack >= SLACK_NS)
		return;
	if (prctl(PR_SET_TIMERSLACK, SLACK_NS) == 0)
		before = slack;
}

void kea_slack_restore(void)
{
	if (before > 0)
		prctl(PR_SET_TIMERSLACK, (unsigned long)before);
	before = 0;
}
