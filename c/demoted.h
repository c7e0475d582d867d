/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * demoted.h: what a master that has become a replica still has in memory. Its
 * list is its new master's, which delivers it. Younger events are those of the
 * turn in which the server forbade writes, and could not go behind it: they
 * wait here until the new master has come that far, which the replica's copy
 * of the list shows. Main thread only.
 */
#ifndef KEA_DEMOTED_H
#define KEA_DEMOTED_H

#include "home.h"
#include "queue.h"

struct kea_demoted {
	bool waits;
	uint64_t youngest_ms; /* capture of the youngest event in memory */
	uint64_t heads;       /* what changes with the lists' heads */
	long long since_ms;   /* since when it has not */
};

/* kea_demoted_reset: what was seen of the lists holds no more. */
void kea_demoted_reset(struct kea_demoted *d);

/*
 * kea_demoted_look settles whether a replica's events in memory have to wait
 * (waits), for there are older ones in the lists. To be called at each turn,
 * while the dataset is whole. away: the publisher delivers nothing now, so
 * waiting costs no time.
 */
void kea_demoted_look(struct kea_demoted *d, const struct kea_queue *memory,
		      const struct kea_home *lists, RedisModuleCtx *ctx,
		      bool away);

#endif /* KEA_DEMOTED_H */
