#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Builds the module for arm64 with Debian's cross compiler, and runs under qemu:
# the C tests, Go's unit tests, and a Redis 7.0 of Debian's for arm64 with the
# module, whose events must reach a RabbitMQ of this machine's own kind.
set -eu
cd "$(dirname "$0")/.."

out=$(pwd)/build/arm64
sysroot=/usr/aarch64-linux-gnu
gcc=aarch64-linux-gnu-gcc
go=${GO:-go}
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || { echo "qemu-aarch64 is missing (package qemu-user-static)" >&2; exit 1; }
command -v $gcc >/dev/null || { echo "$gcc is missing (package gcc-aarch64-linux-gnu)" >&2; exit 1; }
mkdir -p "$out"

make --no-print-directory BUILD="$out" GO="env GOOS=linux GOARCH=arm64 CC=$gcc $go"
aarch64-linux-gnu-readelf -h "$out/libredis_keyspace_amqp.so" | grep -q AArch64
echo "ok the module builds"

# Tests that compile C use this as their compiler: what it makes is a script,
# for the kernel can't run the program itself. No sanitizers: they need more
# address space than qemu gives.
cat >"$out/cc" <<SCRIPT
#!/bin/sh
set -eu
out= last=
for arg; do
	shift
	case \$arg in
	-fsanitize=* | -fno-sanitize-recover=*) continue ;;
	esac
	[ "\$last" != -o ] || { out=\$arg; arg=\$arg.arm64; }
	last=\$arg
	set -- "\$@" "\$arg"
done
$gcc -static "\$@"
printf '#!/bin/sh\nexec $qemu %s "\$@"\n' "\$out.arm64" >"\$out"
chmod 755 "\$out"
SCRIPT
chmod 755 "$out/cc"

# shellcheck disable=SC2013 # words, not lines
for test in $(sed -n 's/^C_TESTS := //p' Makefile); do
	# shellcheck disable=SC2046 # a list of files
	"$out/cc" @c/flags -O1 -g -Ic -o "$out/$test" "c/test/${test}_test.c" $(sed -n 's/^C_PLAIN := //p' Makefile) -lpthread
	(cd "$out" && "./$test" </dev/null)
	echo "ok c/test/$test"
done

for package in keymask fallback module; do
	CGO_ENABLED=1 GOOS=linux GOARCH=arm64 CC=$gcc $go test -c -o "$out/$package.test" "./$package"
	(cd $package && CC="$out/cc" "$qemu" -L $sysroot "$out/$package.test" -test.timeout 30m >"$out/$package.log" 2>&1) ||
		{ tail -n 40 "$out/$package.log"; exit 1; }
	echo "ok $package: $(tail -n 1 "$out/$package.log")"
done

KEA_REDIS_SERVER=$(sh test/fetch-server.sh redis7 build/servers arm64)
KEA_MODULE=$out/libredis_keyspace_amqp.so
export KEA_REDIS_SERVER KEA_MODULE
status=0
$go test -count=1 -timeout 30m -v -run "${KEA_ARM64_RUN:-^(TestCommands|TestUnloadStoresWhatIsUndelivered|TestFiftyReloadsUnderTraffic)$}" \
	./test >"$out/e2e.log" 2>&1 || status=1
grep -e '^--- ' -e '^ok' -e FAIL "$out/e2e.log"
exit $status
