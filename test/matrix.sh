#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs the end-to-end tests, and amqp's, on each server and broker that the
# README names, the long ones longer than make test does. The servers are
# Debian's own packages (test/fetch-server.sh), so the outcome does not depend on
# what this machine has installed.
#
#   matrix.sh [ROW ...]      default: all; a row is server/broker
#   matrix.sh table          only write README's table anew
#
# $KEA_MATRIX_RUN is a pattern for go test -run, $KEA_SERVERS the folder of the
# servers (default build/servers). Each test that ends is shown. Each row's whole
# output goes to build/matrix/ROW.log, what README says of it to
# build/matrix/ROW.row: README's table is made of these files, so rows may be run
# one by one. A narrowed run leaves no .row.
set -eu
cd "$(dirname "$0")/.."
out=build/matrix
servers=${KEA_SERVERS:-build/servers}

# Every server with one broker, every broker with one server.
rows="redis7/rabbitmq3 redis8/rabbitmq4 redis86/rabbitmq43 valkey80/rabbitmq3 valkey81/rabbitmq4 valkey91/rabbitmq43"

# table replaces what is between README's two marks.
table() {
	ls "$out"/*.row >/dev/null 2>&1 || { echo "no row was run: README's table stays" >&2; exit 1; }
	{
		echo "| server | broker | tests passed | failed | skipped | of the commit |"
		echo "|---|---|---|---|---|---|"
		for row in $rows; do
			cat "$out/$(echo "$row" | tr / -).row" 2>/dev/null || true
		done
	} >"$out/table"
	awk -v table="$out/table" '
		/^<!-- end of the matrix -->$/ { inside = 0 }
		!inside { print }
		/^<!-- matrix: / { inside = 1; while ((getline line < table) > 0) print line }
	' README.md >"$out/README.md"
	cat "$out/README.md" >README.md
	cat "$out/table"
}

mkdir -p "$out" "$servers"
if [ "${1:-}" = table ]; then
	table
	exit
fi
narrowed=${KEA_MATRIX_RUN:-}
failed=0

# Copies: the runs take long, and a make meanwhile would change what they test.
cp build/libredis_keyspace_amqp.so "$out/"
KEA_MODULE=$(pwd)/$out/libredis_keyspace_amqp.so
export KEA_MODULE
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)

# shellcheck disable=SC2086 # a list of words
[ $# -gt 0 ] || set -- $rows
number=0
for row; do
	number=$((number + 1))
	redis=$(sh test/fetch-server.sh "${row%/*}" "$servers")
	rabbit=$(dirname "$(sh test/fetch-server.sh "${row#*/}" "$servers")")
	tools=$(dirname "$redis")
	name=$out/$(echo "$row" | tr / -)
	KEA_REDIS_SERVER=$redis
	KEA_RABBITMQ_SERVER=$rabbit/rabbitmq-server
	KEA_RABBITMQCTL=$rabbit/rabbitmqctl
	KEA_EPMD=$rabbit/epmd
	export KEA_REDIS_SERVER KEA_RABBITMQ_SERVER KEA_RABBITMQCTL KEA_EPMD
	versions="$("$redis" --version | sed -n 's/^\([A-Z][a-z]*\) server v=\([0-9.]*\) .*/\1 \2/p') | RabbitMQ $(
		basename "$(find "$rabbit/../root/usr/lib/rabbitmq/lib" -maxdepth 1 -name 'rabbitmq_server-*')" | sed 's/.*-//')"
	echo "== row $number of $#: $versions: $name.log"
	start=$(date +%s)
	# -p 1: two packages that start servers at once are not what we test.
	# Without a shell's pipefail the status goes through a file.
	{
		status=0
		PATH=$tools:$PATH ${GO:-go} test -p 1 -count=1 -timeout 90m -v -run "${narrowed:-.}" ./amqp 2>&1 || status=$?
		PATH=$tools:$PATH ${GO:-go} test -p 1 -count=1 -timeout 90m -v -run "${narrowed:-.}" ./test \
			-soak "${KEA_MATRIX_SOAK:-2m}" -differential "${KEA_MATRIX_DIFFERENTIAL:-20000}" 2>&1 || status=$?
		echo $status >"$name.status"
	} | tee "$name.log" | awk '/^--- / { n++; printf "%4d %s %s %s\n", n, $2, $3, $4; fflush() }'
	status=$(cat "$name.status")
	passed=$(grep -c '^--- PASS' "$name.log" || true)
	skipped=$(grep -c '^--- SKIP' "$name.log" || true)
	broken=$(grep -c '^--- FAIL' "$name.log" || true)
	grep '^ *--- FAIL' "$name.log" || true
	# A crash of the tests themselves ends them before the rest is counted.
	[ "$status" = 0 ] || failed=1
	echo "== $versions: $passed passed, $broken failed, $skipped skipped, $(($(date +%s) - start)) s, status $status"
	if [ -n "$narrowed" ]; then
		continue
	fi
	[ "$status" = 0 ] || [ "$broken" != 0 ] || broken="did not end"
	echo "| $versions | $passed | $broken | $skipped | $commit |" >"$name.row"
done
[ -n "$narrowed" ] || table
exit $failed
