// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// shared prepares a server without a port, whose dir is others', too, and whose
// shutdown spools what it has; it is not started.
func shared(t *testing.T, dir, socket string, config ...string) (*rig, *servers.Proxy) {
	t.Helper()
	p, err := servers.NewProxy(fmt.Sprintf("127.0.0.1:%d", broker.Port))
	must(t, err)
	t.Cleanup(p.Cut)
	r := prepare(t, options{events: "$", limit: "-1", port: p.Port, config: append([]string{
		"dir " + dir, "port 0", "unixsocket " + socket, "key_evt_amqp.reconnect_delay_max 300",
		"key_evt_amqp.shutdown_timeout 100"}, config...)})
	r.reach(socket)
	return r, p
}

func (r *rig) reach(socket string) {
	r.Client.Close()
	r.Client = redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Protocol: 2, MaxRetries: -1, DisableIdentity: true})
}

// leaves starts the server, makes n events and ends it; they are in a file.
func (r *rig) leaves(p *servers.Proxy, prefix string, n int) {
	r.t.Helper()
	p.Cut()
	must(r.t, r.Start())
	must(r.t, r.Alive())
	r.sets(prefix, n)
	r.until("events_buffered", is(fmt.Sprint(n)))
	r.Terminate()
	must(r.t, p.Mend())
}

func spoolFiles(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, "key_evt_amqp.*.spool"))
	return found
}

func logHas(t *testing.T, r *rig, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(r.Log(), w) {
			t.Errorf("the log does not say %q:\n%s", w, r.LogTail(20))
		}
	}
}

// Each has its own events, though the names by which one could tell them, the
// ports, are the same; and the log of each names the other's file.
func TestServersThatShareADirKeepTheirSpoolFiles(t *testing.T) {
	dir := t.TempDir()
	a, toA := shared(t, dir, filepath.Join(dir, "a"))
	b, toB := shared(t, dir, filepath.Join(dir, "b"))
	count := map[*rig]int{a: 10, b: 20}
	want := map[*rig][]string{}
	for _, prefix := range []string{"first", "then"} { // then both are known
		a.leaves(toA, prefix, count[a])
		b.leaves(toB, prefix, count[b])
		if n := len(spoolFiles(dir)); n != 2 {
			t.Fatalf("%d spool files, want 2: %q", n, spoolFiles(dir))
		}
		logHas(t, b, "is left here: it belongs to another server", "unixsocket "+filepath.Join(dir, "a"))
		for _, r := range []*rig{b, a} {
			must(t, r.Start())
			r.balanced(count[r], 0)
			want[r] = append(want[r], setBodies(prefix, count[r])...)
			r.arrives(want[r])
			r.Terminate()
		}
		if n := len(spoolFiles(dir)); n != 0 {
			t.Fatalf("left: %q", spoolFiles(dir))
		}
	}
}

// A server does not find its files again by a name that a setting gives.
func TestAServerFindsItsSpoolFileAfterChanges(t *testing.T) {
	for _, test := range []struct {
		name   string
		socket string
		change []string
	}{
		{"another port", "s", []string{"port PORT"}},
		{"another socket", "other", nil},
		{"another file name for the dataset", "s", []string{"dbfilename other.rdb"}},
		{"cluster mode", "s", []string{"cluster-enabled yes", "port PORT", "cluster-port 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			r, p := shared(t, dir, filepath.Join(dir, "s"))
			r.leaves(p, "k", 10)
			for _, line := range test.change {
				r.Config = append(r.Config, strings.ReplaceAll(line, "PORT", fmt.Sprint(r.Port)))
			}
			socket := filepath.Join(dir, test.socket)
			r.Config = append(r.Config, "unixsocket "+socket)
			r.reach(socket)
			must(t, r.Start())
			r.arrives(setBodies("k", 10))
			logHas(t, r, "10 events taken in from key_evt_amqp.", "looked otherwise at its last load: port 0, tls-port 0, unixsocket "+filepath.Join(dir, "s"))
			eventually(t, func() error {
				if left := spoolFiles(dir); len(left) > 0 {
					return fmt.Errorf("left: %q", left)
				}
				return nil
			})
		})
	}
}

// The version before named the file by its port.
func TestTheSpoolFileOfTheVersionBeforeIsTakenIn(t *testing.T) {
	r, p := spooling(t, 10)
	must(t, p.Mend())
	must(t, os.Rename(r.spool(), filepath.Join(r.Dir, fmt.Sprintf("key_evt_amqp.%d.spool", r.Port))))
	stranger := filepath.Join(r.Dir, "key_evt_amqp.1.spool")
	must(t, os.WriteFile(stranger, []byte("of a server at port 1"), 0o600))
	must(t, r.Start())
	r.arrives(setBodies("k", 10))
	r.balanced(10, 0)
	logHas(t, r, "key_evt_amqp.1.spool is left here, and no server is known to take it in")
	must(t, os.Remove(stranger))
	r.spoolIsGone()
}

// What cannot be read stays as it is, whatever happens to the server; what comes
// after it is spooled beside it.
func TestASpoolFileThatCannotBeReadStays(t *testing.T) {
	for _, test := range []struct {
		name string
		lay  func(t *testing.T, path string)
		says string
	}{
		{"a link", func(t *testing.T, path string) { must(t, os.Symlink("/dev/zero", path)) }, "not a regular file"},
		{"a pipe", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }, "not a regular file"},
		{"a folder", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "not a regular file"},
		{"of another user", nil, "can't read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, p := spooling(t, 10)
			path := r.spool()
			whole, err := os.ReadFile(path)
			must(t, err)
			if test.lay != nil {
				must(t, os.Remove(path))
				test.lay(t, path)
			} else {
				r.runAsNobody(path)
			}
			before, err := os.Lstat(path)
			must(t, err)
			must(t, r.Start())
			must(t, r.Alive())
			logHas(t, r, test.says)
			r.sets("new", 5)
			r.until("events_buffered", is("5"))
			shutDown(t, r, "SHUTDOWN")
			after, err := os.Lstat(path)
			must(t, err)
			if !os.SameFile(before, after) {
				t.Error("the file is another one")
			}
			if len(r.spools()) != 2 {
				t.Errorf("the spool files are %q, want two", r.spools())
			}
			// Somebody mends it: its events come before those behind it.
			must(t, os.Remove(path))
			must(t, os.WriteFile(path, whole, 0o644))
			must(t, p.Mend())
			must(t, r.Start())
			must(t, r.Alive())
			r.balanced(15, 0)
			r.arrives(append(setBodies("k", 10), setBodies("new", 5)...))
			r.spoolIsGone()
		})
	}
}

// runAsNobody lets the server run as a user who may not read path. A test that is
// not root takes the right to read from itself.
func (r *rig) runAsNobody(path string) {
	r.t.Helper()
	must(r.t, os.Chmod(path, 0))
	if os.Getuid() != 0 {
		return
	}
	const nobody = 65534
	must(r.t, filepath.Walk(r.Dir, func(name string, _ os.FileInfo, err error) error {
		if err == nil && name != path {
			err = os.Chown(name, nobody, nobody)
		}
		return err
	}))
	r.Before = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
}

// Others' links at the name of a file that is being written are not followed,
// and nobody else may read what is in it: there are keys in it.
func TestTheSpoolFileIsWrittenBesideLinks(t *testing.T) {
	r, p := proxied(t, options{events: "$", limit: "-1"})
	p.Cut()
	r.sets("k", 10)
	r.until("events_buffered", is("10"))
	owner, err := filepath.Glob(filepath.Join(r.Dir, "key_evt_amqp.*.owner"))
	must(t, err)
	precious := filepath.Join(t.TempDir(), "precious")
	must(t, os.WriteFile(precious, []byte("precious"), 0o600))
	name := strings.TrimSuffix(owner[0], "owner")
	for i := range 3 {
		must(t, os.Symlink(precious, fmt.Sprintf("%s%d.spool.new", name, i)))
	}
	shutDown(t, r, "SIGTERM")
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("the link's target is %q, error %v", text, err)
	}
	for _, path := range []string{r.spool(), owner[0]} {
		info, err := os.Lstat(path)
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, want -rw-------", path, info.Mode())
		}
	}
	must(t, p.Mend())
	must(t, r.Start())
	r.balanced(10, 0)
	r.arrives(setBodies("k", 10))
}

// A full disk loses what is not on it yet, and nothing else.
func TestAFullDiskKeepsTheOlderSpoolFile(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("%v: only root can make a small disk; c/test/spool_test.c tries one by a limit", err)
	}
	r, p := shared(t, dir, filepath.Join(t.TempDir(), "s"))
	t.Cleanup(func() {
		r.Close()
		must(t, syscall.Unmount(dir, 0))
	})
	r.leaves(p, "k", 100)
	p.Cut()
	must(t, r.Start())
	must(t, r.Alive())
	r.sets("new", 200)
	r.until("events_buffered", is("300"))
	// All that is left.
	filler, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	filler.Close()
	r.Terminate()
	logHas(t, r, "200 of the undelivered events are in no spool file", "No space left on device", "200 events lost")
	must(t, os.Remove(filler.Name()))
	must(t, p.Mend())
	must(t, r.Start())
	r.balanced(100, 0)
	r.arrives(setBodies("k", 100))
}
