/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * floor.c: a module that does nothing: an empty callback for every class of
 * event. What Redis's main thread spends with it loaded is the price of the
 * server's own dispatch, below which no module can go.
 */
#include "redisapi.h"

static int ignore(RedisModuleCtx *ctx, int type, const char *event,
		  RedisModuleString *key)
{
	(void)ctx, (void)type, (void)event, (void)key;
	return REDISMODULE_OK;
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc);

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
	(void)argv, (void)argc;
	if (kea_api_bind(ctx))
		return REDISMODULE_ERR;
	RedisModule_SetModuleAttribs(ctx, "floor", 1, REDISMODULE_APIVER_1);
	return RedisModule_SubscribeToKeyspaceEvents(
		ctx, RedisModule_GetKeyspaceNotificationFlagsAll(), ignore);
}
