#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Builds the images of packaging/container with buildah, without a container
# engine and without an image registry: the base images are made of Debian's
# packages, and of the Go that is installed here. Then it does with them what
# docs/containers.md tells: the init container's copy, a server with the module,
# the consumer, and an event that goes all the way.
#
# Needs root (a chroot), buildah and debootstrap. All is under build/container,
# and is used again by the next run; $KEA_DEBIAN_MIRROR names another mirror.
set -eu
cd "$(dirname "$0")/.."
out=$(pwd)/build/container
mkdir -p "$out"
cache=$(${GO:-go} env GOMODCACHE)
goroot=$(${GO:-go} env GOROOT)
mirror=${KEA_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Identifier: Packages' | sed -n 's/^Debian //p' | head -n 1)}

buildah() {
	command buildah --storage-driver vfs --root "$out/storage" --runroot "$out/run" "$@"
}

say() {
	echo "== $*"
}

# base NAME PACKAGES makes an image of Debian 12 with some packages.
base() {
	name=$1 packages=$2
	[ ! -e "$out/$name.done" ] || return 0
	say "base image $name"
	rm -rf "${out:?}/$name"
	debootstrap --variant=minbase ${packages:+--include="$packages"} bookworm "$out/$name" "$mirror" >"$out/$name.log" 2>&1 ||
		{ tail -n 20 "$out/$name.log" >&2; exit 1; }
	rm -rf "$out/$name"/var/cache/apt/archives/*.deb "$out/$name"/var/lib/apt/lists/*
	[ "$name" != go ] || cp -a "$goroot" "$out/$name/usr/local/go"
	printf 'FROM scratch\nCOPY . /\nENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' >"$out/$name.Dockerfile"
	buildah bud --isolation chroot -q -f "$out/$name.Dockerfile" -t "base-$name" "$out/$name" >/dev/null
	rm -rf "${out:?}/$name"
	touch "$out/$name.done"
}

base go gcc,libc6-dev,make
base carrier ""
base redis redis-server,redis-tools

for target in module server consumer; do
	say "image $target"
	# The modules are here already: nothing is fetched.
	buildah bud --isolation chroot -q -f packaging/container/Dockerfile --ignorefile packaging/container/Dockerfile.dockerignore \
		--build-arg GO_IMAGE=localhost/base-go --build-arg CARRIER_IMAGE=localhost/base-carrier --build-arg SERVER_IMAGE=localhost/base-redis \
		--volume "$cache:/root/go/pkg/mod" --env GOPROXY=off --env GOFLAGS=-mod=readonly --layers \
		--target "$target" -t "key_evt_amqp:$target" . >/dev/null
	buildah inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Cmd}} {{.OCIv1.Config.Entrypoint}}' "key_evt_amqp:$target"
done

# As the kubelet does: a shared volume, the image's own user and command.
say "init container"
modules=$(mktemp -d)
chmod 777 "$modules"
init=$(buildah from "key_evt_amqp:module")
buildah run --isolation chroot --volume "$modules:/modules" "$init" -- cp /libredis_keyspace_amqp.so /modules/
buildah rm "$init" >/dev/null
KEA_MODULE=$modules/libredis_keyspace_amqp.so
[ "$(stat -c %a "$KEA_MODULE")" = 755 ] || { echo "the copy is not executable" >&2; exit 1; }

say "server and consumer"
server=$(buildah from "key_evt_amqp:server")
consumer=$(buildah from "key_evt_amqp:consumer")
root=$(buildah mount "$server")
cmp "$KEA_MODULE" "$root/usr/local/lib/redis/modules/libredis_keyspace_amqp.so"
# within FILE ROOT PROGRAM writes a program that runs one of an image, with this
# machine's /tmp and network, and the same process id.
within() {
	printf '#!/bin/sh\nexec unshare --mount sh -c '"'"'mount --bind /tmp "%s/tmp" && exec chroot "%s" %s "$@"'"'"' sh "$@"\n' "$2" "$2" "$3" >"$1"
	chmod 755 "$1"
}
within "$modules/redis-server" "$root" redis-server
within "$modules/consumer" "$(buildah mount "$consumer")" consumer-go
status=0
export KEA_MODULE
KEA_REDIS_SERVER=$modules/redis-server KEA_CONTAINER_CONSUMER=$modules/consumer \
	${GO:-go} test -count=1 -v ./test -run '^(TestContainers|TestEachClassOfEvent|TestAFullListSurvivesARestart)$' || status=$?
buildah umount --all >/dev/null
buildah rm "$server" "$consumer" >/dev/null
rm -rf "$modules"
exit $status
