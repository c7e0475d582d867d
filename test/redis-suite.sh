#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs Redis's own test suite, or Valkey's, that of Debian's source package,
# with our module loaded into every server that it starts, and sees whether
# Redis still passes. The module forwards every event of every class to a
# private RabbitMQ: with the broker there, and much room in memory, the fallback
# list stays unused, so that tests which count keys see their own.
#
#   redis-suite.sh [SERVER] [UNIT ...]
#
# SERVER is redis7 (the default), redis8, redis86, valkey81 or valkey91; without
# units all are run, and those of the module API. $KEA_SERVERS is the folder of
# the servers (default build/servers). $KEA_SUITE_SETTINGS are more settings of the
# module, names and values with blanks between: "key_evt_amqp.value new".
#
# Tests that are left out are in redis-suite.skip, each with the reason. Many of
# the suite's tests depend on time, so a unit that fails is run once more, and
# then without the module. What fails twice with the module and passes without
# it is a failure of ours. Logs are in build/redis-suite/SERVER/log.
set -eu
cd "$(dirname "$0")/.."

server_name=${KEA_SUITE_SERVER:-redis7}
case ${1:-} in
redis[0-9]* | valkey[0-9]*)
	server_name=$1
	shift
	;;
esac
KEA_SUITE_SERVER=$server_name
export KEA_SUITE_SERVER
folder=$(pwd)/build/redis-suite/$server_name
tree=$folder/tree
module=$folder/libredis_keyspace_amqp.so

if [ -z "${KEA_BROKER_PORT:-}" ]; then
	command -v tclsh >/dev/null || { echo "tclsh is missing (package tcl)" >&2; exit 1; }
	servers=${KEA_SERVERS:-build/servers}
	mkdir -p "$servers"
	server=$(sh test/fetch-server.sh "$server_name" "$servers")
	source=$(sh test/fetch-server.sh "$server_name-source" "$servers")
	rm -rf "$folder"
	mkdir -p "$folder/log"
	cp build/libredis_keyspace_amqp.so "$module"
	cp -a "$source/." "$tree"
	program=${server##*/}
	for tool in cli benchmark check-aof check-rdb; do
		ln -s "$(dirname "$server")/${program%-server}-$tool" "$tree/src/${program%-server}-$tool"
	done
	# A test that loads a module of its own by a line of the configuration
	# replaces ours: then it is loaded by an argument.
	cat >"$tree/src/$program" <<-end
		#!/bin/sh
		if [ -f "\${1:-}" ] && grep -q '^key_evt_amqp\.' "\$1" && ! grep -q "^loadmodule $module " "\$1"; then
			set -- "\$@" --loadmodule \$KEA_LOAD
		fi
		exec "$server" "\$@"
	end
	chmod 755 "$tree/src/$program"
	make -C "$tree/tests/modules" >"$folder/log/modules" 2>&1 ||
		{ echo "the suite's own modules don't build: $folder/log/modules" >&2; exit 1; }
	${GO:-go} build -o "$folder/withbroker" ./test/withbroker
	exec "$folder/withbroker" sh "$0" "$@"
fi

grep -v -e '^#' -e '^$' test/redis-suite.skip >"$folder/skip" || true

# One client at a time: two would disturb each other's sense of time. The ports
# are none that our own tests use.
suite() { # log option ...
	suite_log=$1
	shift
	(cd "$tree" && TERM=dumb tclsh tests/test_helper.tcl --durable --clients 1 --timeout 2400 \
		--baseport 11000 --portcount 2500 --skipfile "$folder/skip" "$@") >"$suite_log" 2>&1
}
settings() { # name value ...
	[ $# = 0 ] || printf -- '--config %s %s ' "$@"
}
with_module() { # log option ...
	with_log=$1
	shift
	KEA_LOAD="$module Amn 127.0.0.1 $KEA_BROKER_PORT guest guest 20 amq.fanout redis 1 10000000 ALL"
	export KEA_LOAD
	# shellcheck disable=SC2046,SC2086 # lists of words
	suite "$with_log" --config loadmodule "$KEA_LOAD" --config key_evt_amqp.buffer_limit 4294967296 \
		$(settings ${KEA_SUITE_SETTINGS:-}) "$@"
}

# The tests that a log says failed; an exception ends the whole unit.
errors() {
	grep -a -e '^\[err\]' -e '^\[exception\]' "$1" | sort -u
}

if [ $# = 0 ]; then
	# Up to Redis 7.0 a list names the units, later the folders are searched.
	# shellcheck disable=SC2046 # a list of words
	set -- $(sed -n '/^set ::all_tests {/,/^}/s/^ *\([a-z].*\/.*\)/\1/p' "$tree/tests/test_helper.tcl"
		sed -n 's/^--single \([^ ]*\).*/\1/p' "$tree/runtest-moduleapi")
	if [ $# -lt 20 ]; then
		# shellcheck disable=SC2046 # a list of words
		set -- $(cd "$tree/tests" && find unit integration -name '*.tcl' | sed 's/[.]tcl$//' | sort)
	fi
fi
[ $# -gt 0 ] || { echo "no units found" >&2; exit 1; }

passed=0
failures=0
start=$(date +%s)
for unit; do
	log=$folder/log/$(echo "$unit" | tr / -)
	began=$(date +%s)
	if with_module "$log" --single "$unit"; then
		verdict=ok
	elif mv "$log" "$log.first" && with_module "$log" --single "$unit"; then
		verdict="ok, the second time"
	elif ! suite "$log.bare" --single "$unit" && errors "$log.bare" >"$folder/bare" &&
		! errors "$log" | grep -qvxF -f "$folder/bare"; then
		verdict="fails without the module too"
	else
		verdict=FAILS
		failures=$((failures + 1))
	fi
	count=$(grep -a -c '^\[ok\]' "$log" || true)
	passed=$((passed + count))
	echo "$unit: $verdict, $count tests passed, $(($(date +%s) - began)) s"
	[ "$verdict" = ok ] || grep -a -h -A 3 -e '^\[err\]' -e '^\[exception\]' "$log" "$log.first" || true
done
echo "$# units, $passed tests passed, $(grep -c . "$folder/skip" || true) left out, $(($(date +%s) - start)) s, $failures units fail because of the module"
[ $failures = 0 ]
