// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// command runs a program in the source tree; it must succeed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = ".."
	// Of the make that runs the tests.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v (test/install.sh installs what is missing)\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// asRoot runs what only root may: as root, or as the root of a user namespace.
func asRoot(t *testing.T, name string, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		name, args = "unshare", append([]string{"--user", "--map-root-user", name}, args...)
	}
	return command(t, name, args...)
}

// files lists what is not a folder below a folder, with its mode.
func files(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	found := map[string]fs.FileMode{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			found[strings.TrimPrefix(path, dir)] = info.Mode()
		}
		return err
	}))
	return found
}

// loads starts a server with an installed file and sees an event arrive.
func loads(t *testing.T, module string) {
	t.Helper()
	r := prepare(t, options{noLoad: true})
	args := r.loadArgs(options{})
	args[0] = module
	r.Config = append(r.Config, "loadmodule "+strings.Join(args, " "))
	must(t, r.Start())
	must(t, r.Alive())
	r.do("SET", "installed", "1")
	r.arrives([]string{"0\nset\ninstalled"})
	r.balanced(0, 0)
}

const so = "libredis_keyspace_amqp.so"

func TestInstallAndUninstall(t *testing.T) {
	module := module(t)
	before, err := os.ReadFile(module)
	must(t, err)
	for name, c := range map[string]struct {
		args     []string
		so, man  string
		contains string
	}{
		"defaults":     {nil, "/usr/local/lib/redis/modules/" + so, "/usr/local/share/man/man7/key_evt_amqp.7", "/usr/local/share/doc/key_evt_amqp/README.md"},
		"a prefix":     {[]string{"PREFIX=/opt/kea"}, "/opt/kea/lib/redis/modules/" + so, "/opt/kea/share/man/man7/key_evt_amqp.7", "/opt/kea/share/doc/key_evt_amqp/examples/redis.conf"},
		"a module dir": {[]string{"PREFIX=/usr", "MODULEDIR=/usr/lib/redis/modules"}, "/usr/lib/redis/modules/" + so, "/usr/share/man/man7/key_evt_amqp.7", "/usr/share/doc/key_evt_amqp/docs/operations.md"},
	} {
		t.Run(name, func(t *testing.T) {
			dest := t.TempDir()
			// What other packages have there stays.
			other := filepath.Join(dest, filepath.Dir(c.so), "other.so")
			must(t, os.MkdirAll(filepath.Dir(other), 0o755))
			must(t, os.WriteFile(other, nil, 0o755))

			command(t, "make", append([]string{"install", "DESTDIR=" + dest}, c.args...)...)
			got := files(t, dest)
			for path, mode := range map[string]fs.FileMode{c.so: 0o755, c.man: 0o644, c.contains: 0o644} {
				if m, ok := got[path]; !ok || m != mode {
					t.Errorf("%s: there %v, mode %v, want %v", path, ok, m, mode)
				}
			}
			installed, err := os.ReadFile(filepath.Join(dest, c.so))
			must(t, err)
			if !bytes.Equal(installed, before) {
				t.Error("the installed module is not the one that was built")
			}
			loads(t, filepath.Join(dest, c.so))

			command(t, "make", append([]string{"uninstall", "DESTDIR=" + dest}, c.args...)...)
			if left := files(t, dest); len(left) != 1 {
				t.Errorf("uninstall leaves %v", left)
			}
			if _, err := os.Stat(filepath.Join(dest, filepath.Dir(filepath.Dir(c.contains)), "key_evt_amqp")); err == nil {
				t.Error("uninstall leaves the folder of the documentation")
			}
		})
	}
}

// packaged makes the packages once, and returns the path of one.
func packaged(t *testing.T, suffix string) string {
	t.Helper()
	command(t, "make", "package")
	arch := map[string]map[string]string{
		".deb": {"amd64": "_amd64.deb", "arm64": "_arm64.deb"},
		".rpm": {"amd64": ".x86_64.rpm", "arm64": ".aarch64.rpm"},
	}[suffix][runtime.GOARCH]
	paths, err := filepath.Glob("../build/package/redis-key-evt-amqp*" + moduleVersion(t) + "-1" + arch)
	must(t, err)
	if len(paths) != 1 {
		t.Fatalf("make package made %v", paths)
	}
	path, err := filepath.Abs(paths[0])
	must(t, err)
	return path
}

// moduleVersion is what a server's MODULE LIST and INFO show, as packages
// write it.
func moduleVersion(t *testing.T) string {
	t.Helper()
	r := start(t, options{})
	n := r.number("version")
	return fmt.Sprintf("%d.%d.%d", n/10000, n/100%100, n%100)
}

// packageFiles is what a package holds: the tree's path by the package's.
func packageFiles(modules, license string) map[string]string {
	want := map[string]string{
		modules + so: "build/" + so,
		"/usr/share/doc/redis-key-evt-amqp/README.md":           "README.md",
		"/usr/share/doc/redis-key-evt-amqp/CHANGELOG.md":        "CHANGELOG.md",
		"/usr/share/doc/redis-key-evt-amqp/examples/redis.conf": "examples/redis.conf",
		"/usr/share/man/man7/key_evt_amqp.7.gz":                 "",
		license:                                                 "LICENSE",
	}
	for _, pattern := range []string{"docs/*.md", "docs/monitoring/*"} {
		paths, _ := filepath.Glob("../" + pattern)
		for _, path := range paths {
			path = strings.TrimPrefix(path, "../")
			want["/usr/share/doc/redis-key-evt-amqp/"+path] = path
		}
	}
	return want
}

// holds compares an unpacked package with the tree.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := files(t, dir)
	for path, source := range want {
		mode, ok := got[path]
		if !ok {
			t.Errorf("the package has no %s", path)
			continue
		}
		delete(got, path)
		if wantMode := map[bool]fs.FileMode{true: 0o755, false: 0o644}[strings.HasSuffix(path, ".so")]; mode != wantMode {
			t.Errorf("%s: mode %v, want %v", path, mode, wantMode)
		}
		if source == "" {
			continue
		}
		a, err := os.ReadFile(filepath.Join(dir, path))
		must(t, err)
		b, err := os.ReadFile(filepath.Join("..", source))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not %s", path, source)
		}
	}
	for path := range got {
		t.Errorf("the package also has %s", path)
	}
}

func TestDebIsInstalledLoadedAndRemoved(t *testing.T) {
	deb := packaged(t, ".deb")
	field := func(name string) string { return strings.TrimSpace(command(t, "dpkg-deb", "-f", deb, name)) }
	for name, want := range map[string]string{
		"Package": "redis-key-evt-amqp", "Version": moduleVersion(t) + "-1", "Architecture": runtime.GOARCH,
		"Recommends": "redis-server (>= 5:7.0) | valkey-server",
	} {
		if got := field(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got, want := field("Depends"), "libc6 (>= "+glibc(t)+")"; got != want {
		t.Errorf("Depends: %q, want %q", got, want)
	}

	// Into a folder, by a database of its own that knows this system's C library
	// and nothing else: the dependency is really checked.
	root, admin := t.TempDir(), t.TempDir()
	for _, dir := range []string{"info", "updates", "triggers"} {
		must(t, os.Mkdir(filepath.Join(admin, dir), 0o755))
	}
	status := command(t, "dpkg-query", "--status", "libc6")
	must(t, os.WriteFile(filepath.Join(admin, "status"), []byte(status+"\n"), 0o644))
	dpkg := func(args ...string) string {
		t.Helper()
		return asRoot(t, "dpkg", append([]string{"--admindir=" + admin, "--instdir=" + root, "--log=/dev/null"}, args...)...)
	}
	dpkg("-i", deb)
	if got := command(t, "dpkg-query", "--admindir="+admin, "-W", "-f", "${db:Status-Status}", "redis-key-evt-amqp"); got != "installed" {
		t.Errorf("the package's status is %q", got)
	}
	want := packageFiles("/usr/lib/redis/modules/", "/usr/share/doc/redis-key-evt-amqp/copyright")
	holds(t, root, want)
	loads(t, filepath.Join(root, "/usr/lib/redis/modules", so))
	page := command(t, "mandoc", "-T", "utf8", filepath.Join(root, "/usr/share/man/man7/key_evt_amqp.7.gz"))
	if !strings.Contains(page, "CONFIG REWRITE") {
		t.Errorf("the installed man page is\n%.300s", page)
	}

	dpkg("-r", "redis-key-evt-amqp")
	left, err := os.ReadDir(root)
	must(t, err)
	if len(files(t, root)) != 0 || len(left) != 0 {
		t.Errorf("removing the package leaves %v %v", left, files(t, root))
	}
	if out, err := exec.Command("dpkg-query", "--admindir="+admin, "-W", "redis-key-evt-amqp").CombinedOutput(); err == nil {
		t.Errorf("a removed package is still known: %s", out)
	}
}

func TestRpmHoldsTheSame(t *testing.T) {
	rpm := packaged(t, ".rpm")
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	got := command(t, "rpm", "-qp", "--queryformat", "%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{LICENSE} %{BUILDHOST}", rpm)
	if want := "redis-key-evt-amqp " + moduleVersion(t) + " 1 " + arch + " BSD-3-Clause localhost"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := command(t, "rpm", "-qp", "--requires", rpm), "libc.so.6(GLIBC_"+glibc(t)+")(64bit)"; !slices.Contains(strings.Split(got, "\n"), want) {
		t.Errorf("it requires %q, not %q", got, want)
	}
	command(t, "rpm", "-K", "--nosignature", rpm) // the digests
	if got := command(t, "rpm", "-qp", "--licensefiles", rpm); strings.TrimSpace(got) != "/usr/share/licenses/redis-key-evt-amqp/LICENSE" {
		t.Errorf("its licence file is %q", got)
	}
	for _, line := range strings.Split(strings.TrimSpace(command(t, "rpm", "-qp", "--queryformat", "[%{FILEUSERNAME} %{FILEGROUPNAME} %{FILENAMES}\n]", rpm)), "\n") {
		if !strings.HasPrefix(line, "root root /usr/") {
			t.Errorf("owner, group and path are %q", line)
		}
	}
	root := t.TempDir()
	cpio := exec.Command("sh", "-c", `rpm2archive -n - <"$1" | tar -x -C "$2"`, "sh", rpm, root)
	if out, err := cpio.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	holds(t, root, packageFiles("/usr/lib64/redis/modules/", "/usr/share/licenses/redis-key-evt-amqp/LICENSE"))
	loads(t, filepath.Join(root, "/usr/lib64/redis/modules", so))
}

// glibc is the newest version of the C library's symbols that the module asks
// for, as binutils see it.
func glibc(t *testing.T) string {
	t.Helper()
	f, err := elf.Open(module(t))
	must(t, err)
	f.Close()
	newest := 0
	for _, m := range regexp.MustCompile(`GLIBC_2\.(\d+)`).FindAllStringSubmatch(command(t, "nm", "-D", "--undefined-only", module(t)), -1) {
		n, _ := strconv.Atoi(m[1])
		newest = max(newest, n)
	}
	return fmt.Sprintf("2.%d", newest)
}

// The same source and time give the same packages, byte for byte.
func TestPackagesAreReproducible(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	var first map[string][]byte
	for range 2 {
		now := map[string][]byte{}
		for _, suffix := range []string{".deb", ".rpm"} {
			bytes, err := os.ReadFile(packaged(t, suffix))
			must(t, err)
			now[suffix] = bytes
		}
		for suffix := range first {
			if !bytes.Equal(first[suffix], now[suffix]) {
				t.Errorf("the %s differs", suffix)
			}
		}
		first = now
	}
}

// A server takes the example as it is, except what lies elsewhere here.
func TestExampleConfiguration(t *testing.T) {
	text, err := os.ReadFile("../examples/redis.conf")
	must(t, err)
	r := prepare(t, options{noLoad: true})
	here := strings.NewReplacer(
		"loadmodule /usr/lib/redis/modules/"+so, "loadmodule "+module(t),
		"port 5672", "port "+strconv.Itoa(broker.Port),
		"routing_key redis_keyspace_events", "routing_key "+r.name,
		"events xe\n", "events A\n",
	).Replace(string(text))
	file := filepath.Join(r.Dir, "key_evt_amqp.conf")
	must(t, os.WriteFile(file, []byte(here), 0o600))
	r.Config = append(r.Config, "include "+file)
	must(t, r.Start())
	must(t, r.Alive())
	r.do("SET", "example", "1")
	r.arrives([]string{"0\nset\nexample"})
	r.balanced(0, 0)

	// It names every setting, and says of each whether it is the default.
	plain := start(t, options{noLoad: true})
	plain.do("MODULE", "LOAD", module(t))
	defaults := plain.configurations()
	named := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(?:# )?key_evt_amqp\.(\w+) (.*)$`).FindAllStringSubmatch(string(text), -1) {
		named[m[1]] = m[2]
	}
	others := map[string]bool{"key_mask": true, "delivery_mode": true, "password_file": true,
		"tls_ca_cert_file": true, "tls_cert_file": true, "tls_key_file": true, "tls_server_name": true}
	for name, value := range defaults {
		if got, ok := named[name]; !ok {
			t.Errorf("the example has no %s", name)
		} else if (got == value) == others[name] {
			t.Errorf("%s: the example has %q, the default is %q, and its comment says otherwise", name, got, value)
		}
	}
	for name := range named {
		if _, ok := defaults[name]; !ok {
			t.Errorf("the example has %s, which is not a setting", name)
		}
	}
}

// configurations are all of CONFIG GET, without the prefix.
func (r *rig) configurations() map[string]string {
	r.t.Helper()
	got, err := r.ConfigGet(ctx, "key_evt_amqp.*").Result()
	must(r.t, err)
	settings := map[string]string{}
	for name, value := range got {
		settings[strings.TrimPrefix(name, "key_evt_amqp.")] = value
	}
	if len(settings) == 0 {
		r.t.Fatal("CONFIG GET key_evt_amqp.* is empty")
	}
	return settings
}

// The man page names what there is, and nothing else, and is well formed.
func TestManPage(t *testing.T) {
	const path = "docs/key_evt_amqp.7"
	lint := exec.Command("mandoc", "-T", "lint", path)
	lint.Dir = ".."
	out, _ := lint.CombinedOutput() // its status is 2 for the lines passed over, too
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		// Whether other pages are installed is not ours.
		if line != "" && !strings.Contains(line, "outdated mandoc.db") && !strings.Contains(line, "referenced manual not found") {
			t.Error(line)
		}
	}
	if out := command(t, "groff", "-mandoc", "-Tutf8", "-ww", "-z", path); out != "" {
		t.Errorf("groff: %s", out)
	}
	text, err := os.ReadFile("../" + path)
	must(t, err)
	r := start(t, options{})

	section := func(name string) string {
		_, after, ok := strings.Cut(string(text), ".Sh "+name+"\n")
		if !ok {
			t.Fatalf("no section %s", name)
		}
		body, _, _ := strings.Cut(after, "\n.Sh ")
		return body
	}
	items := func(section, macro string) (names []string) {
		for _, m := range regexp.MustCompile(`(?m)^\.It `+macro+` (.*)$`).FindAllStringSubmatch(section, -1) {
			for _, name := range strings.Split(m[1], " , ") {
				names = append(names, strings.Fields(name)[0])
			}
		}
		return names
	}
	same := func(what string, got, want []string) {
		t.Helper()
		slices.Sort(got)
		slices.Sort(want)
		for _, name := range want {
			if !slices.Contains(got, name) {
				t.Errorf("%s %s is not in the man page", what, name)
			}
		}
		for _, name := range got {
			if !slices.Contains(want, name) {
				t.Errorf("the man page has %s, which is no %s", name, what)
			}
		}
	}
	var settings, fields, commands []string
	for name := range r.configurations() {
		settings = append(settings, name)
	}
	info, err := r.ModuleInfo()
	must(t, err)
	for name := range info {
		fields = append(fields, name)
	}
	commands, err = r.CommandList(ctx, &redis.FilterBy{Module: "key_evt_amqp"}).Result()
	must(t, err)
	same("setting", items(section("CONFIGURATION"), "Cm"), settings)
	same("field", items(section("OBSERVABILITY"), "Va"), fields)
	same("command", items(section("COMMANDS"), "Ic"), commands)
}
