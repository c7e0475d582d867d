#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Fetches one server of Debian's, of another release than this machine's, and
# unpacks it into a folder, with its own C library and loader. Nothing is
# installed, and root is not needed. Prints the path of the program to run.
#
#   fetch-server.sh NAME FOLDER [ARCHITECTURE]
#
#   redis7     Redis 7.0         Debian 12
#   valkey80   Valkey 8.0        Debian 12, backports
#   redis8     Redis 8.0         Debian 13
#   redis86    Redis 8.6         Debian experimental
#   valkey81   Valkey 8.1        Debian 13
#   valkey91   Valkey 9.1        Debian unstable
#   rabbitmq3  RabbitMQ 3.10     Debian 12
#   rabbitmq4  RabbitMQ 4.0      Debian 13
#   rabbitmq43 RabbitMQ 4.3      Debian unstable
#   redis7-source, redis8-source, redis86-source, valkey81-source,
#   valkey91-source
#              the source package, with Debian's patches; prints its folder
#
# The releases to come move on: the newest point release is taken, and when the
# release has another minor version, that is an error. The source may be the
# authors' tarball alone, when the mirror lacks the rest of the package.
#
# FOLDER/NAME (with -ARCHITECTURE when given, arm64 say: its programs are run by
# qemu) /bin then holds the server and the tools beside it (redis-cli,
# redis-benchmark, …; rabbitmqctl, epmd). A second call fetches nothing. The
# Debian mirror is the one that this machine's apt uses, or $KEA_DEBIAN_MIRROR.
set -eu

usage() {
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
}

[ $# = 2 ] || [ $# = 3 ] || usage
name=$1 arch=${3:-}
mkdir -p "$2"
folder=$(cd "$2" && pwd)
here=$folder/$name${arch:+-$arch}

release='' series='' program=''
case ${name%-source} in
redis7) release=bookworm series=7.0 ;;
redis8) release=trixie series=8.0 ;;
redis86) release=experimental series=8.6 ;;
valkey80) release=bookworm-backports series=8.0 ;;
valkey81) release=trixie series=8.1 ;;
valkey91) release=unstable series=9.1 ;;
rabbitmq3) release=bookworm series=3.10 ;;
rabbitmq4) release=trixie series=4.0 ;;
rabbitmq43) release=unstable series=4.3 ;;
*) usage ;;
esac
case $name in
redis*-source) package=redis ;;
valkey*-source) package=valkey ;;
redis*) package=redis-server ;;
valkey*) package=valkey-server ;;
rabbitmq*) package=rabbitmq-server ;;
esac
[ "${name%-source}" != "$name" ] || program=$package

# Callers may come at once.
if command -v flock >/dev/null && [ -z "${KEA_FETCH_LOCKED:-}" ]; then
	KEA_FETCH_LOCKED=1 exec flock "$folder/.lock" sh "$0" "$name" "$folder" ${arch:+"$arch"}
fi

answer() {
	if [ -n "$program" ]; then
		echo "$here/bin/$program"
	else
		echo "$here/src"
	fi
	exit 0
}
# Paths are written into scripts, so a folder that was moved is of no use.
[ "$(cat "$here/done" 2>/dev/null)" != "$here" ] || answer

say() {
	echo "fetch-server: $*" >&2
}

command -v apt-get >/dev/null || { say "this system has no apt-get"; exit 1; }
mirror=${KEA_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Identifier: Packages' |
	sed -n 's/^Debian [a-z]* //p' | head -n 1)}
[ -n "$mirror" ] || { say "this machine's apt knows no Debian mirror: set KEA_DEBIAN_MIRROR=http://…/debian"; exit 1; }

# An apt of our own: its lists, its cache, and an empty status, so that it
# finds every library down to the C library missing and fetches it.
apt=$folder/apt-$release${arch:+-$arch}
# experimental's other packages are not wanted, only the server.
base=$release target=$release
case $release in
*-backports) base=${release%-backports} ;;
experimental) base=unstable target=unstable ;;
esac
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
by=
[ ! -e "$keys" ] || by="[signed-by=$keys] "
for r in $base $([ "$base" = "$release" ] || echo "$release"); do
	for kind in deb deb-src; do
		echo "$kind $by$mirror $r main"
	done
done >"$apt/sources.new"
if cmp -s "$apt/sources.new" "$apt/sources.list"; then
	rm "$apt/sources.new"
else # lists of other sources, from an earlier version of this script, say
	rm -f "$apt"/lists/*InRelease
	mv "$apt/sources.new" "$apt/sources.list"
fi
# Neither the release's own preferences nor hooks of this machine's apt.
cat >"$apt/apt.conf" <<CONF
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "$apt/preferences";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Pre-Invoke;
${arch:+APT::Architecture "$arch"; APT::Architectures { "$arch"; \};}
CONF
private_apt() {
	APT_CONFIG=$apt/apt.conf apt-get -qq "$@"
}
ask() {
	APT_CONFIG=$apt/apt.conf apt-cache "$@"
}
# An update that was cut short leaves a release without its lists.
if [ -z "$(find "$apt/lists" -maxdepth 1 -name '*InRelease' -mmin -1440)" ] ||
	[ -z "$(find "$apt/lists" -maxdepth 1 -name '*_Sources*' ! -name '*diff_Index')" ]; then
	say "lists of $release"
	private_apt update >&2
fi

rm -rf "$here"
mkdir -p "$here"

# What the release has of the series; a version may begin with an epoch.
: >"$apt/preferences"
if [ -n "$program" ]; then
	offered=$(ask madison "$package" | sed -n 's/^[^|]*| *\([^ |]*\) *|.* Packages$/\1/p')
else
	offered=$(ask showsrc --only-source "$package" | sed -n 's/^Version: //p')
fi
version=$(echo "$offered" | grep "^\([0-9]*:\)\?${series}[.~+-]" | sort -V | tail -n 1)
[ -n "$version" ] || { say "$release has no $package $series, but $(echo "$offered" | tr "\n" " ")"; exit 1; }

if [ -z "$program" ]; then
	command -v dpkg-source >/dev/null || { say "dpkg-source is missing (package dpkg-dev)"; exit 1; }
	say "source of $package $version"
	if ! (cd "$here" && private_apt source --only-source "$package=$version" >&2); then
		say "the mirror has not all of it: the authors' tarball alone"
		# The package's stanza says where it is, and its sum.
		# shellcheck disable=SC2046 # three words
		set -- $(ask showsrc --only-source "$package" | awk -v version="$version" '
			/^Package:/ { sum = ""; right = 0 }
			/^[A-Z]/ { part = $1 }
			$0 == "Version: " version { right = 1 }
			part == "Checksums-Sha256:" && $3 ~ /[.]orig[.]tar[.][a-z0-9]*$/ { sum = $1; file = $3 }
			/^Directory:/ { folder = $2 }
			/^$/ && right && sum != "" { print folder, file, sum; exit }')
		[ $# = 3 ] || { say "$release does not say where the tarball of $package $version is"; exit 1; }
		APT_CONFIG=$apt/apt.conf /usr/lib/apt/apt-helper -qq download-file "${mirror%/}/$1/$2" "$here/$2" "SHA256:$3" >&2
		tar -xf "$here/$2" -C "$here"
	fi
	ln -s "$(cd "$here" && find . -mindepth 1 -maxdepth 1 -type d -name "$package-*" -printf '%f')" "$here/src"
	echo "$here" >"$here/done"
	answer
fi

say "$package $version of $release"
# Its tools are of the same version, and apt would prefer another release's.
cat >"$apt/preferences" <<PIN
Package: $package ${package%-server}-tools
Pin: version $version
Pin-Priority: 1001
PIN
private_apt --download-only --yes -t "$target" install "$package" >&2
root=$here/root
mkdir -p "$root" "$here/bin"
# The cache serves several servers: ask which packages are this one's.
private_apt --simulate --yes -t "$target" install "$package" |
	sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*\[\([a-z0-9]*\)\]).*/\1 \2 \3/p' |
	while read -r p version for; do
		# apt writes an epoch's colon as %3a.
		deb=$apt/archives/${p}_$(printf %s "$version" | sed 's/:/%3a/g')_$for.deb
		dpkg-deb --extract "$deb" "$root"
	done

loader=$(find "$root" -name 'ld-linux*.so.*' ! -type d | head -n 1)
[ -n "$loader" ] || { say "no loader among $package's packages"; exit 1; }
libraries=$(find "$root"/lib* "$root"/usr/lib* -maxdepth 2 -name '*.so.*' ! -type d -printf '%h\n' 2>/dev/null |
	sort -u | paste -sd:)

# The emulator, when the programs are another processor's.
emulator=
if [ -n "$arch" ] && [ "$arch" != "$(dpkg --print-architecture)" ]; then
	case $arch in
	arm64) machine=aarch64 ;;
	*) machine=$arch ;;
	esac
	emulator=$(command -v "qemu-$machine-static" || command -v "qemu-$machine") ||
		{ say "qemu-$machine is missing (package qemu-user-static)"; exit 1; }
fi

# through writes a script that runs a program with its own loader. exec keeps
# the process id, and --argv0 lets the program start itself again.
through() { # program script
	cat >"$2.new" <<SCRIPT
#!/bin/sh
exec ${emulator:+'$emulator'} '$loader' --argv0 "\$0" --library-path '$libraries' '$1' "\$@"
SCRIPT
	chmod 755 "$2.new"
	mv "$2.new" "$2"
}

is_elf() {
	[ -f "$1" ] && ! [ -L "$1" ] && [ "$(head -c 4 "$1" | tail -c 3)" = ELF ]
}

case $program in
rabbitmq-server)
	# Erlang's programs start each other by path: each becomes a script.
	erlang=$root/usr/lib/erlang
	find "$erlang" -type f -perm -u+x | while read -r f; do
		if is_elf "$f" && ! [ "${f%.so}" != "$f" ]; then
			mv "$f" "$f.elf"
			through "$f.elf" "$f"
		fi
	done
	# erl would ask dyn_erl where it is, and not believe the answer.
	rm -f "$erlang"/erts-*/bin/dyn_erl
	sed -i "s|\<ROOTDIR=/.*|ROOTDIR='$erlang'|" "$erlang/bin/erl"
	scripts=$(find "$root/usr/lib/rabbitmq/lib" -maxdepth 2 -name sbin)
	for tool in rabbitmq-server rabbitmqctl rabbitmq-plugins rabbitmq-diagnostics; do
		cat >"$here/bin/$tool" <<SCRIPT
#!/bin/sh
PATH='$erlang/bin':\$PATH
export PATH
exec '$scripts/$tool' "\$@"
SCRIPT
		chmod 755 "$here/bin/$tool"
	done
	ln -sf "$(find "$erlang" -path '*/erts-*/bin/epmd')" "$here/bin/epmd"
	;;
*)
	for f in "$root"/usr/bin/*; do
		case ${f##*/} in
		redis-* | valkey-*)
			# redis-server and others are one program by several names.
			real=$(readlink -f "$f")
			! is_elf "$real" || through "$real" "$here/bin/${f##*/}"
			;;
		esac
	done
	;;
esac
# What does not run here (another processor's, say) is found now. RabbitMQ has
# no harmless question to ask its script, so ask its Erlang.
case $program in
rabbitmq-server) set -- "$erlang/bin/erl" -noshell -boot no_dot_erlang -eval 'halt().' ;;
*) set -- "$here/bin/$program" --version ;;
esac
"$@" </dev/null >/dev/null || { say "$name doesn't run here"; exit 1; }
echo "$here" >"$here/done"
answer
