/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * owner.h: which of the servers that use a dir this one is. Its spool files
 * have its id in their names; the file key_evt_amqp.<id>.owner has what the
 * server with that id looked like at its last load, and is locked while that
 * server runs. Main thread only; knows nothing of Redis or Go.
 *
 * Nothing that a server could be named by stays for ever: ports, sockets and
 * file names are settings, run ids are new at each start, node ids can be
 * reset. So a server is known again by what it has kept: kea_owner_judge.
 */
#ifndef KEA_OWNER_H
#define KEA_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a server looks like; "" is none, or not known. */
enum kea_fact {
	KEA_FACT_CONFIG,  /* path of its configuration file */
	KEA_FACT_DATASET, /* names of its RDB and AOF */
	KEA_FACT_NODE,    /* its node id in a cluster */
	KEA_FACT_SOCKET,  /* path of its Unix socket */
	KEA_FACT_PORT,
	KEA_FACT_TLS_PORT,
	KEA_FACTS
};

struct kea_facts {
	char text[KEA_FACTS][512];
};

/* kea_facts_set sets one, on one line: other bytes are replaced. */
void kea_facts_set(struct kea_facts *f, enum kea_fact which, const char *text);

/*
 * kea_owner_judge says how well a server fits an owner: negative, not at all;
 * else, the more the better. Two of configuration, addresses and dataset that
 * differ make it another server, unless it is the same node of a cluster.
 */
int kea_owner_judge(const struct kea_facts *server,
		    const struct kea_facts *owner);

#define KEA_OWNER_ID_LEN 16 /* hexadecimal digits */

struct kea_owner {
	char id[KEA_OWNER_ID_LEN + 1];
	int lock;  /* the file's descriptor, which holds the lock; -1: none */
	int error; /* errno: why the file couldn't be written; 0: it was */
	bool changed; /* it looked otherwise at its last load: */
	struct kea_facts was;
};

/*
 * kea_owner_claim finds the id of a server that looks like mine in dir: that of
 * the owner who fits best and doesn't run, or a new one. It writes what the
 * server looks like now. Always gives an id: where nothing can be written, one
 * that will not be found again (error).
 */
void kea_owner_claim(struct kea_owner *o, int dir,
		     const struct kea_facts *mine);

/* kea_owner_release ends the claim; the file stays. */
void kea_owner_release(struct kea_owner *o);

enum kea_owner_state {
	KEA_OWNER_UNKNOWN, /* no such owner */
	KEA_OWNER_AWAY,    /* it doesn't run */
	KEA_OWNER_RUNS,
};

/* kea_owner_look says what is known of the owner with an id, not ours; facts
 * are filled in, unless it is unknown. */
enum kea_owner_state kea_owner_look(int dir, const char *id,
				    struct kea_facts *facts);

#endif /* KEA_OWNER_H */
