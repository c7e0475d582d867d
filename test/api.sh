#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Compares c/redisapi.h with real redismodule.h files: constants, structures,
# every function's prototype.
#
# What only newer servers or one fork have is compared with the headers that have
# it. VALKEYMODULE_ constants are Valkey's own: Redis may use the same number for
# something else.
#
#   api.sh [HEADER ...]     default: those of Redis 7.0, 8.0 and 8.6, and of
#                           Valkey 8.1 and 9.1: among them they have everything
set -eu
cd "$(dirname "$0")/.."

all=
if [ $# = 0 ]; then
	all=yes
	for source in redis7-source redis8-source redis86-source valkey81-source valkey91-source; do
		set -- "$@" "$(sh test/fetch-server.sh $source build/servers)/src/redismodule.h"
	done
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# RedisModule_ names are functions, REDISMODULE_ ones constants; types that we
# define, and not only declare, get a name of our own where they are defined.
sed -e 's/RedisModule_/Ours_/g' -e 's/REDISMODULE_/OURS_/g' -e 's/VALKEYMODULE_/OURS_VALKEY_/g' \
	-e '/^typedef \(struct\|enum\) [A-Za-z]* *{$/,/^}/s/RedisModule/Ours/g' \
	-e '/^typedef enum {/,/}.*;$/s/RedisModule/Ours/g' \
	-e '/^_Static_assert/s/RedisModule/Ours/g' c/redisapi.h >"$scratch/ours.h"
constants=$(sed -n -e 's/^#define \(\(REDIS\|VALKEY\)MODULE_[A-Z0-9_]*\) .*/\1/p' \
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
		# An enumerator or a macro.
		grep -q "\<$name\>" "$(dirname "$header")"/*module.h || continue
		echo "$name" >>"$scratch/compared"
		case $name in
		REDIS*) ours=OURS_${name#REDISMODULE_} ;;
		*) ours=OURS_VALKEY_${name#VALKEYMODULE_} ;;
		esac
		echo "_Static_assert((int)$name == (int)$ours, \"$name\");"
	done >"$scratch/constants.h"
	set --
	# Valkey's redismodule.h only gives its own valkeymodule.h the old names.
	! grep -q display_text "$(dirname "$header")"/*module.h || set -- -DHAVE_DISPLAY_TEXT
	# The headers' own warnings are not ours: -isystem.
	${CC:-cc} -std=gnu11 -Wall -Wextra -Werror -fsyntax-only "$@" -I "$scratch" -isystem "$(dirname "$header")" c/test/api_test.c
	echo "ok $header: $(grep -c . "$scratch/constants.h") of $(echo "$constants" | wc -l) constants, $(grep -c '^	X(' c/redisapi.h) functions, $(grep -c . "$scratch/absent.h" || true) of them not in it"
done

if [ -n "$all" ]; then
	for name in $constants; do
		grep -qx "$name" "$scratch/compared" || { echo "$name is in no header" >&2; exit 1; }
	done
fi
