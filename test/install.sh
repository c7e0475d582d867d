#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Installs the tools that are missing, from the system's packages (apt), and
# nothing when all are there.
#
#   install.sh run    what `make run` needs: C compiler, Redis, RabbitMQ
#   install.sh test   the same, CMake, nm and shellcheck; what runs the example consumers
#                     (Node with npm, Python with pika); what the tests of
#                     packages and monitoring need (rpm, man page checkers,
#                     Prometheus and its exporter)
#   install.sh redis-suite
#                    the same as run, Tcl and what unpacks source packages
#   install.sh container
#                    the same as run, what builds images and their base images
#   install.sh arm64 the same as run, a cross compiler and an emulator
#
# Go comes from there, too, if the system's is new enough; else a line says what
# to do. No service is started.
set -eu

usage() {
	echo "usage: $0 run|test|redis-suite|container|arm64 ..." >&2
	exit 2
}

have() {
	command -v "$1" >/dev/null 2>&1
}

have_rabbitmq() {
	[ -n "${KEA_RABBITMQ_SERVER:-}" ] || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] ||
		have rabbitmq-server
}

# Any python3 will do that finds the library; see test/consumers_test.go.
have_pika() {
	for python in "${KEA_PYTHON:-python3}" python3 /usr/bin/python3; do
		"$python" -c 'import pika' >/dev/null 2>&1 && return
	done
	return 1
}

# A compiler without the C library's headers compiles nothing.
have_compiler() {
	have "${CC:-cc}" && echo '#include <stdlib.h>' | "${CC:-cc}" -E - >/dev/null 2>&1
}

missing=
need() {
	for package; do
		case " $missing " in
		*" $package "*) ;;
		*) missing="${missing:+$missing }$package" ;;
		esac
	done
}

[ $# -gt 0 ] || set -- test
for what; do
	case $what in
	run) ;;
	test)
		have cmake || need cmake
		have shellcheck || need shellcheck
		have nm || need binutils
		have_pika || need python3 python3-pika
		have node || need nodejs
		have npm || need npm
		have rpm2archive || need rpm
		have mandoc || need mandoc
		have groff || need groff-base
		have prometheus-redis-exporter || need prometheus-redis-exporter
		have promtool || need prometheus
		;;
	redis-suite)
		have tclsh || need tcl
		have dpkg-source || need dpkg-dev
		;;
	container)
		have buildah || need buildah
		have debootstrap || need debootstrap
		;;
	arm64)
		have aarch64-linux-gnu-gcc || need gcc-aarch64-linux-gnu libc6-dev-arm64-cross
		have qemu-aarch64-static || have qemu-aarch64 || need qemu-user-static
		;;
	*) usage ;;
	esac
	have_compiler || need gcc libc6-dev
	have make || need make
	[ -n "${KEA_REDIS_SERVER:-}" ] || have redis-server || need redis-server
	have redis-cli || need redis-tools
	have_rabbitmq || need rabbitmq-server
done

# Go: what is there, else the distribution's if it can build us.
oldest=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$(dirname "$0")/../go.mod")
offered_go() {
	apt-cache policy golang-go 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'
}
status=0
if ! have "${GO:-go}"; then
	# A new system has no lists yet.
	[ "$(id -u)" != 0 ] || [ -n "$(offered_go)" ] || apt-get update -qq >/dev/null 2>&1 || :
	if [ -x /usr/local/go/bin/go ]; then
		echo "Go is installed and not in PATH: PATH=\$PATH:/usr/local/go/bin" >&2
		status=1
	elif [ "$(printf '%s\n' "$oldest" "$(offered_go)" | sort -V | head -n 1)" = "$oldest" ]; then
		need golang-go
	else
		echo "Go is missing: install Go $oldest or newer (https://go.dev/dl/) and put it into PATH." >&2
		status=1
	fi
elif [ "$(printf 'go%s\n%s\n' "$oldest" "$("${GO:-go}" env GOVERSION)" | sort -V | head -n 1)" != "go$oldest" ]; then
	echo "Go here is $("${GO:-go}" env GOVERSION): install Go $oldest or newer (https://go.dev/dl/) and put it into PATH." >&2
	status=1
fi
[ -n "$missing" ] || exit $status

if ! have apt-get; then
	echo "Missing, and this system has no apt-get: $missing (Debian's names)" >&2
	exit 1
fi
if [ "$(id -u)" = 0 ]; then
	as_root=
elif have sudo && sudo -n true 2>/dev/null; then
	as_root="sudo -n"
elif have sudo && [ -t 0 ] && [ -t 2 ]; then
	as_root=sudo
else
	echo "Missing, and only root can install: please run" >&2
	echo "    apt-get install --no-install-recommends $missing" >&2
	exit 1
fi

# One shell as root does it all, so that sudo asks once. The packages would
# start their services at once, on ports 6379 and 5672; we only want the
# programs, so starts are denied meanwhile, unless the system has a policy of
# its own. What is running already is left alone.
echo "Installing: $missing"
# shellcheck disable=SC2086 # both are lists of words
$as_root sh -eu -s -- $missing <<'ROOT' || exit 1
policy=/usr/sbin/policy-rc.d
ours=
cleanup() {
	[ -z "$ours" ] || rm -f "$policy"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if ! [ -e "$policy" ] && ! [ -L "$policy" ]; then
	ours=1
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
# Go on when a source does not answer: what we need may be in
# another.
apt-get update </dev/null || echo "apt-get update had failures, going on" >&2
apt-get install --yes --no-install-recommends "$@" </dev/null
ROOT

exit $status
