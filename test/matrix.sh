#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs the end-to-end tests, and amqp's, on each server and broker that the
# README names. The servers are Debian's own packages (test/fetch-server.sh),
# so the outcome does not depend on what this machine has installed.
#
#   matrix.sh [ROW ...]      default: all; a row is server/broker
#
# $KEA_MATRIX_RUN is a pattern for go test -run. Each row's whole output goes to
# build/matrix/ROW.log; the last lines are the table.
set -eu
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- redis7/rabbitmq3 redis8/rabbitmq3 valkey80/rabbitmq3 valkey81/rabbitmq3 redis7/rabbitmq4
run=${KEA_MATRIX_RUN:-.}
out=build/matrix
mkdir -p "$out" build/servers
: >"$out/table"
failed=0

# A copy: the runs take long, and a make meanwhile would change what they test.
cp build/libredis_keyspace_amqp.so "$out/"
KEA_MODULE=$(pwd)/$out/libredis_keyspace_amqp.so
export KEA_MODULE

for row; do
	redis=$(sh test/fetch-server.sh "${row%/*}" build/servers)
	rabbit=$(dirname "$(sh test/fetch-server.sh "${row#*/}" build/servers)")
	tools=$(dirname "$redis")
	log=$out/$(echo "$row" | tr / -).log
	KEA_REDIS_SERVER=$redis
	KEA_RABBITMQ_SERVER=$rabbit/rabbitmq-server
	KEA_RABBITMQCTL=$rabbit/rabbitmqctl
	KEA_EPMD=$rabbit/epmd
	export KEA_REDIS_SERVER KEA_RABBITMQ_SERVER KEA_RABBITMQCTL KEA_EPMD
	versions="$("$redis" --version | sed -n 's/^\([A-Z][a-z]*\) server v=\([0-9.]*\) .*/\1 \2/p') | RabbitMQ $(
		basename "$(find "$rabbit/../root/usr/lib/rabbitmq/lib" -maxdepth 1 -name 'rabbitmq_server-*')" | sed 's/.*-//')"
	echo "== $versions: $log"
	start=$(date +%s)
	status=passed
	# -p 1: two packages that start servers at once are no test of ours.
	PATH=$tools:$PATH ${GO:-go} test -p 1 -count=1 -timeout 60m -v -run "$run" ./amqp ./test >"$log" 2>&1 || status=FAILED
	passed=$(grep -c '^--- PASS' "$log" || true)
	skipped=$(grep -c '^--- SKIP' "$log" || true)
	broken=$(grep -c '^--- FAIL' "$log" || true)
	grep '^ *--- FAIL' "$log" || true
	[ $status = passed ] || failed=1
	echo "| $versions | $passed | $broken | $skipped | $(($(date +%s) - start)) s | $status |" >>"$out/table"
done

echo
echo "| server | broker | passed | failed | skipped | time | |"
echo "|---|---|---|---|---|---|---|"
cat "$out/table"
exit $failed
