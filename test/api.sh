#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Compares c/redisapi.h with real redismodule.h files: constants, structures,
# every function's prototype.
#
#   api.sh [HEADER ...]     default: those of Redis 7.0, Redis 8.0, Valkey 8.1
set -eu
cd "$(dirname "$0")/.."

if [ $# = 0 ]; then
	for source in redis7-source redis8-source valkey81-source; do
		set -- "$@" "$(sh test/fetch-server.sh $source build/servers)/src/redismodule.h"
	done
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# RedisModule_ names are functions, REDISMODULE_ ones constants; types that we
# define, and not only declare, get a name of our own where they are defined.
sed -e 's/RedisModule_/Ours_/g' -e 's/REDISMODULE_/OURS_/g' \
	-e '/^typedef \(struct\|enum\) [A-Za-z]* *{$/,/^}/s/RedisModule/Ours/g' \
	-e '/^typedef enum {/,/}.*;$/s/RedisModule/Ours/g' \
	-e '/^_Static_assert/s/RedisModule/Ours/g' c/redisapi.h >"$scratch/ours.h"
constants=$(sed -n -e 's/^#define \(REDISMODULE_[A-Z0-9_]*\) .*/\1/p' \
	-e 's/.*\(REDISMODULE_ARG_TYPE_[A-Z]*\) = .*/\1/p' c/redisapi.h)
optional=$(sed -n '/^#define KEA_API_OPTIONAL/,/[^\\]$/s/.*X([^,]*, *\([A-Za-z]*\),.*/\1/p' c/redisapi.h)
if [ "$(echo "$constants" | wc -l)" -le 40 ] || [ -z "$optional" ]; then
	echo "api.sh no longer understands redisapi.h" >&2
	exit 1
fi

for header; do
	: >"$scratch/absent.h"
	for name in $optional; do
		grep -q "RedisModule_$name\>" "$header" || echo "#define RedisModule_$name Ours_$name" >>"$scratch/absent.h"
	done
	for name in $constants; do
		# An enumerator or a macro: it must be there.
		echo "_Static_assert((int)$name == (int)OURS_${name#REDISMODULE_}, \"$name\");"
	done >"$scratch/constants.h"
	set --
	# Valkey's redismodule.h only gives its own valkeymodule.h the old names.
	! grep -q display_text "$(dirname "$header")"/*module.h || set -- -DHAVE_DISPLAY_TEXT
	# The headers' own warnings are not ours: -isystem.
	${CC:-cc} -std=gnu11 -Wall -Wextra -Werror -fsyntax-only "$@" -I "$scratch" -isystem "$(dirname "$header")" c/test/api_test.c
	echo "ok $header: $(echo "$constants" | wc -l) constants, $(grep -c '^	X(' c/redisapi.h) functions, $(grep -c . "$scratch/absent.h" || true) of them not in it"
done
