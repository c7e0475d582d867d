/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * args.h: the arguments of a command, or of the load, on their way to Go. They
 * come from clients and may be of any size and number, so they are bounded here,
 * before anything is copied: Go's own limit for one is 2 GiB, and a fatal error.
 * Main thread only.
 */
#ifndef KEA_ARGS_H
#define KEA_ARGS_H

#include "kea.h"
#include "redisapi.h"

/* Ten arguments and as many masks as module/settings.go takes, of 1 MiB in all;
 * and more bytes than all of them may have. */
#define KEA_ARGS_MAX 100010
#define KEA_ARGS_MAX_BYTES ((size_t)8 << 20)

/*
 * kea_args_view shows argc strings as Go reads them. The bytes stay the
 * strings'; the caller frees the view with RedisModule_Free. NULL: there are too
 * many, or they are too long, and *error says so behind prefix; the caller frees
 * it with free.
 */
struct kea_arg *kea_args_view(RedisModuleString **argv, int argc,
			      const char *prefix, char **error);

/* kea_args_too_long is such an error for texts of len bytes together; NULL when
 * they are not too long. */
char *kea_args_too_long(size_t len, const char *prefix);

#endif /* KEA_ARGS_H */
