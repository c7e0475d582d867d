#!/bin/sh
# install.sh run|test: installs what `make run` or `make test` needs and the
# machine lacks, through the package manager (Debian, Ubuntu). Does nothing
# when all is there. Services of the packages are not started: nobody's port
# 6379 or 5672 is taken by surprise.
set -eu

has() { command -v "$1" >/dev/null 2>&1; }
missing=
need() { # need PACKAGE: the one that brings what the last command looked for
	missing="$missing $1"
}

has go || [ -x /usr/local/go/bin/go ] || {
	echo "Go is needed (1.26 or newer): https://go.dev/dl/" >&2
	exit 1
}
has cc && echo 'int main(void){return 0;}' | cc -x c -include stdio.h -o /dev/null - 2>/dev/null || need "gcc libc6-dev"
has redis-server || [ -n "${KEA_REDIS_SERVER:-}" ] || need redis-server
has redis-cli || need redis-tools
has rabbitmq-server || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -n "${KEA_RABBITMQ_SERVER:-}" ] || need rabbitmq-server
if [ "${1:-run}" = test ]; then
	has cmake || need cmake
	has nm || need binutils
fi
[ -n "$missing" ] || exit 0

if ! has apt-get; then
	echo "Please install:$missing" >&2
	exit 1
fi
root=
if [ "$(id -u)" != 0 ]; then
	if has sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		root=sudo
	else
		echo "Please install, as root: apt-get install$missing" >&2
		exit 1
	fi
fi
echo "Installing:$missing"
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' | $root tee $policy >/dev/null
	$root chmod 755 $policy
	trap '$root rm -f $policy' EXIT INT TERM
fi
$root apt-get update
# shellcheck disable=SC2086 # the words of $missing are packages
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
