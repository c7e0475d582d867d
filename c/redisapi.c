/* SPDX-License-Identifier: BSD-3-Clause */
/* redisapi.c: asks the server for each function of redisapi.h by name. */
#include "redisapi.h"

#define KEA_API_DEFINE(ret, name, params) ret(*RedisModule_##name) params;
KEA_API_REQUIRED(KEA_API_DEFINE)
KEA_API_OPTIONAL(KEA_API_DEFINE)
#undef KEA_API_DEFINE

int (*kea_api_valkey_options)(void);
bool kea_api_is_valkey;

/* The first word of every context is the server's look-up function: 0 when the
 * name is known, else non-zero and the target stays as it was. */
typedef int (*kea_get_api)(const char *name, void *target);

const char *kea_api_bind(RedisModuleCtx *ctx)
{
	kea_get_api get = *(kea_get_api *)(void *)ctx;
	const char *missing = NULL;
	void *valkey;

#define KEA_API_BIND(ret, name, params)                                        \
	RedisModule_##name = NULL;                                             \
	if (get("RedisModule_" #name, (void *)&RedisModule_##name) != 0 &&     \
	    !missing)                                                          \
		missing = #name;
	KEA_API_REQUIRED(KEA_API_BIND)
#undef KEA_API_BIND
#define KEA_API_BIND(ret, name, params)                                        \
	RedisModule_##name = NULL;                                             \
	get("RedisModule_" #name, (void *)&RedisModule_##name);
	KEA_API_OPTIONAL(KEA_API_BIND)
#undef KEA_API_BIND
	kea_api_is_valkey = get("ValkeyModule_Alloc", (void *)&valkey) == 0;
	kea_api_valkey_options = NULL;
	get("ValkeyModule_GetModuleOptionsAll", (void *)&kea_api_valkey_options);
	return missing;
}
