/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * config.c: settings as Redis configuration. The table, the checks and the
 * values are Go's (module/settings.go); main thread only.
 */
#include "_cgo_export.h"
#include "config.h"

#include "args.h"
#include "kea.h"
#include "redisapi.h"

#include <stdlib.h>
#include <string.h>

static RedisModuleString *text_of(const char *name)
{
	/* The server copies what a getter returns and leaves the string to
	 * us; one at a time is out, so the last one is freed here. */
	static RedisModuleString *last;
	size_t len = 0;
	char *text;

	if (last)
		RedisModule_FreeString(NULL, last);
	last = NULL;
	if (!name)
		return NULL;
	text = keaGoConfigText((char *)name, &len);
	last = RedisModule_CreateString(NULL, text, len);
	free(text);
	return last;
}

static RedisModuleString *get_text(const char *name, void *priv)
{
	(void)priv;
	return text_of(name);
}

static long long get_number(const char *name, void *priv)
{
	(void)priv;
	return keaGoConfigNumber((char *)name);
}

static int get_bool(const char *name, void *priv)
{
	(void)priv;
	return keaGoConfigNumber((char *)name) != 0;
}

static int report(char *error, RedisModuleString **err)
{
	if (!error)
		return REDISMODULE_OK;
	*err = RedisModule_CreateString(NULL, error, strlen(error));
	free(error);
	return REDISMODULE_ERR;
}

static int set_text(const char *name, RedisModuleString *value, void *priv,
		    RedisModuleString **err)
{
	size_t len;
	const char *bytes = RedisModule_StringPtrLen(value, &len);
	char *error = kea_args_too_long(len, "");

	(void)priv;
	if (!error)
		error = keaGoConfigSetText((char *)name, (char *)bytes, len);
	return report(error, err);
}

static int set_number(const char *name, long long value, void *priv,
		      RedisModuleString **err)
{
	(void)priv;
	return report(keaGoConfigSetNumber((char *)name, value), err);
}

static int set_bool(const char *name, int value, void *priv,
		    RedisModuleString **err)
{
	return set_number(name, value, priv, err);
}

/* Same function and same private data for all, so that the server calls it
 * once for a CONFIG SET of several. */
static int apply(RedisModuleCtx *ctx, void *priv, RedisModuleString **err)
{
	(void)ctx;
	(void)priv;
	return report(keaGoConfigApply(), err);
}

int kea_register_configs(void *ctx, struct kea_config *table, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct kea_config *c = &table[i];
		int rc;

		if (c->kind == KEA_CONFIG_NUMBER)
			rc = RedisModule_RegisterNumericConfig(
				ctx, c->name, c->number_default,
				REDISMODULE_CONFIG_DEFAULT, c->min, c->max,
				get_number, set_number, apply, NULL);
		else if (c->kind == KEA_CONFIG_BOOL)
			rc = RedisModule_RegisterBoolConfig(
				ctx, c->name, c->number_default != 0,
				REDISMODULE_CONFIG_DEFAULT, get_bool, set_bool,
				apply, NULL);
		else
			rc = RedisModule_RegisterStringConfig(
				ctx, c->name, c->text_default,
				REDISMODULE_CONFIG_DEFAULT, get_text, set_text,
				apply, NULL);
		if (rc != REDISMODULE_OK) {
			RedisModule_Log(ctx, "warning",
					"can't register the configuration %s",
					c->name);
			return REDISMODULE_ERR;
		}
	}
	return REDISMODULE_OK;
}

void kea_config_free(void)
{
	text_of(NULL);
}
