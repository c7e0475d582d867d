#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Builds the module both ways and checks what comes out: the file's mode, and
# that it shows the server two entry points and nothing else of ours, and that it
# is built and linked as what runs in somebody's server should be.
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

check() {
	[ "$(stat -c %a "$1")" = 755 ] || { echo "$1: mode $(stat -c %a "$1"), not 755"; exit 1; }
	for symbol in RedisModule_OnLoad RedisModule_OnUnload; do
		nm -D --defined-only "$1" | grep -q " T $symbol\$" || { echo "$1: no $symbol"; exit 1; }
	done
	if nm -D --defined-only "$1" | grep -E ' [A-Z] kea_'; then
		echo "$1: shows inner symbols"; exit 1
	fi
	# The server that loads it may be reached by anybody.
	readelf -dW "$1" | grep -q BIND_NOW || { echo "$1: not linked with -z now"; exit 1; }
	readelf -lW "$1" | grep -q GNU_RELRO || { echo "$1: not linked with -z relro"; exit 1; }
	for function in __stack_chk_fail __snprintf_chk; do
		nm -D "$1" | grep -q "U $function@" || { echo "$1: no $function: built without protection"; exit 1; }
	done
	echo "ok $1"
}

make --no-print-directory
check build/libredis_keyspace_amqp.so
cmake -DCMAKE_BUILD_TYPE=Release -S . -B "$scratch/build" >/dev/null
cmake --build "$scratch/build" --target redis_keyspace_amqp
check "$scratch/build/libredis_keyspace_amqp.so"
