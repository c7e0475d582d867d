/* SPDX-License-Identifier: BSD-3-Clause */
/* dataset.c: see dataset.h. */
#include "dataset.h"

#include "flow.h"
#include "hook.h"
#include "loop.h"
#include "record.h"

/* append: whatever the classes and masks, except that without masks nothing is
 * forwarded at all. A replica's databases are its master's to report. */
static void append(const char *event, const char *key, size_t len, int db)
{
	if (!kea_flow.settings.dataset_events || !kea_hook.masks ||
	    !kea_hook.active_master)
		return;
	kea_hook_append(event, key, len, db, NULL);
	/*
	 * In the gap of 7.0 (hook.c, after_turn) the list is not written here,
	 * for what a command causes is propagated before the command itself: a
	 * FLUSHALL would take the list away from replicas and the AOF.
	 */
	if (kea_loop.past_turn)
		kea_loop_nudge();
}

void kea_dataset_flushed(int db)
{
	if (db < 0)
		append("flushall", "", 0, 0);
	else
		append("flushdb", "", 0, db);
}

void kea_dataset_swapped(int first, int second)
{
	struct kea_event digits;

	kea_event_set_db(&digits, second);
	append("swapdb", digits.db, digits.db_len, first);
}
