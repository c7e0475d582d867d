/* SPDX-License-Identifier: BSD-3-Clause */
/* args.c: see args.h. */
#include "args.h"

#include "queue.h"

#include <stdio.h>

#define ERROR_BYTES 128

char *kea_args_too_long(size_t len, const char *prefix)
{
	char *error;

	if (len <= KEA_ARGS_MAX_BYTES)
		return NULL;
	error = kea_queue_scratch(ERROR_BYTES);
	snprintf(error, ERROR_BYTES,
		 "%sarguments of %zu bytes, at most %zu are taken", prefix, len,
		 KEA_ARGS_MAX_BYTES);
	return error;
}

struct kea_arg *kea_args_view(RedisModuleString **argv, int argc,
			      const char *prefix, char **error)
{
	struct kea_arg *view;
	size_t total = 0;

	if (argc > KEA_ARGS_MAX) {
		*error = kea_queue_scratch(ERROR_BYTES);
		snprintf(*error, ERROR_BYTES,
			 "%s%d arguments, at most %d are taken", prefix, argc,
			 KEA_ARGS_MAX);
		return NULL;
	}
	view = RedisModule_Alloc(sizeof(*view) * (size_t)(argc + 1));
	for (int i = 0; i < argc; i++) {
		view[i].bytes = RedisModule_StringPtrLen(argv[i], &view[i].len);
		total += view[i].len;
	}
	*error = kea_args_too_long(total, prefix);
	if (!*error)
		return view;
	RedisModule_Free(view);
	return NULL;
}
