/* SPDX-License-Identifier: BSD-3-Clause */
/* publisher.c: where the main thread and the publisher's goroutine meet: kea.h's
 * [pub] half, over lent.h. */
#include "publisher.h"

#include "flow.h"
#include "kea.h"
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static struct kea_lent lent;
static int event_fd = -1;
static bool event_fd_given; /* Go closes it */
static _Atomic uint32_t window;
static uint64_t out; /* the publisher's own: events taken and not settled */

struct kea_lent *kea_publisher_init(void)
{
	memset(&lent, 0, sizeof(lent));
	out = 0;
	event_fd_given = false;
	event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return event_fd < 0 ? NULL : &lent;
}

void kea_publisher_free(void)
{
	if (event_fd >= 0 && !event_fd_given)
		close(event_fd);
	event_fd = -1;
}

void kea_publisher_set_window(uint32_t n)
{
	/* Relaxed, here and in kea_settle: nothing else is read by it. */
	atomic_store_explicit(&window, n, memory_order_relaxed);
}

void kea_wake_publisher(void)
{
	uint64_t one = 1;

	if (!kea_lent_wake(&lent))
		return;
	/* Non-blocking; a full counter means that it is awake already. */
	while (write(event_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

int kea_event_fd(void)
{
	event_fd_given = true;
	return event_fd;
}

/* ---- [pub] ---------------------------------------------------------------- */

bool kea_take(struct kea_span *span)
{
	struct kea_run run;

	if (!kea_lent_take(&lent, &run))
		return false;
	span->start = run.start;
	span->count = run.count;
	out += run.count;
	return true;
}

void kea_settle(uint64_t n)
{
	out -= n;
	kea_lent_report_settled(&lent, n);
	/* The main thread takes it in at its next turn anyway; wake it when
	 * it has more for us, and when all is done, to free what was lent. */
	if (out == 0 ||
	    (atomic_load_explicit(&lent.more, memory_order_relaxed) &&
	     out <= atomic_load_explicit(&window, memory_order_relaxed) / 2))
		kea_wake_main();
}

void kea_rewind(void)
{
	out = 0;
	kea_lent_rewind(&lent);
	kea_wake_main();
}

bool kea_sleep(void)
{
	return kea_lent_sleep(&lent);
}

/* ---- [any] ---------------------------------------------------------------- */

void kea_away(bool away)
{
	/* Relaxed: a hint for the policy, see kea_flow_is_away. */
	if (atomic_exchange_explicit(&kea_flow.away, away,
				     memory_order_relaxed) != away)
		kea_wake_main();
}
