/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bus.c: messages over the cluster bus, by which the nodes agree on settings.
 * What they say is Go's (module/cluster.go); here is the way in and out. Best
 * effort: a message may be lost, come twice, or be somebody else's.
 */
#include "_cgo_export.h"
#include "bus.h"

#include "flow.h"
#include "hook.h"
#include "kea.h"
#include "module.h"

#include <string.h>

/* All modules whose names have not exactly nine letters share one id, so what
 * arrives may be any module's; a number that nobody is known to use. */
#define MESSAGE_TYPE 163

static void receive(RedisModuleCtx *unused, const char *sender, uint8_t type,
		    const unsigned char *payload, uint32_t len)
{
	/* The context's module may have been unloaded since we registered;
	 * nothing of it is used. */
	(void)unused;
	(void)type;
	if (kea_hook.loaded)
		keaGoBusReceive((char *)sender, (char *)payload, len);
}

void kea_bus_init(RedisModuleCtx *ctx)
{
	/* Never unregistered: the server's list breaks. A second load replaces
	 * the first one's. */
	if (kea_flow.home.cluster)
		RedisModule_RegisterClusterMessageReceiver(ctx, MESSAGE_TYPE,
							   receive);
}

bool kea_bus_send(const char *target, const void *bytes, size_t len)
{
	char id[KEA_NODE_ID + 1];

	if (!target)
		return RedisModule_SendClusterMessage(
			       kea_module_ctx(), NULL, MESSAGE_TYPE, bytes,
			       (uint32_t)len) == REDISMODULE_OK;
	memcpy(id, target, KEA_NODE_ID);
	id[KEA_NODE_ID] = 0;
	return RedisModule_SendClusterMessage(kea_module_ctx(), id, MESSAGE_TYPE, bytes,
					      (uint32_t)len) == REDISMODULE_OK;
}

char **kea_bus_nodes(size_t *n)
{
	*n = 0;
	return RedisModule_GetClusterNodesList(kea_module_ctx(), n);
}

void kea_bus_free_nodes(char **nodes)
{
	if (nodes)
		RedisModule_FreeClusterNodesList(nodes);
}

const char *kea_bus_self(void)
{
	return kea_flow.home.cluster ? RedisModule_GetMyClusterID() : NULL;
}
