package harness

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/key-evt-amqp/key_evt_amqp/test/harness/server"
)

// Main runs a package's tests, ends what they share, then makes the checks,
// unless a test failed anyway:
//
//	func TestMain(m *testing.M) { harness.Main(m, harness.NoLeaks()) }
func Main(m *testing.M, checks ...func() error) {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	finished := make(chan struct{})
	go func() {
		select {
		case <-interrupted:
			_ = endShared()
			os.Exit(130)
		case <-finished:
		}
	}()

	code := m.Run()
	close(finished)
	signal.Stop(interrupted)
	if err := endShared(); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		code = max(code, 1)
	}
	for _, check := range checks {
		if code != 0 {
			break
		}
		if err := check(); err != nil {
			fmt.Fprintln(os.Stderr, "harness:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// NoLeaks checks for Main that every goroutine and every open file that was not
// there when NoLeaks was called is gone.
func NoLeaks(opts ...goleak.Option) func() error {
	before := openFiles()
	return func() error {
		err := goleak.Find(opts...)
		// Files close a moment after those who held them.
		return errors.Join(err, server.Poll(2*time.Second, func() error {
			var left []string
			for fd, target := range openFiles() {
				if before[fd] != target {
					left = append(left, target)
				}
			}
			if len(left) > 0 {
				return fmt.Errorf("left open: %s", strings.Join(left, ", "))
			}
			return nil
		}))
	}
}

// openFiles tells what each descriptor is, but for those that the Go runtime
// keeps to itself (epoll, eventfd, pidfd) and the one that lists them.
func openFiles() map[string]string {
	files := make(map[string]string)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/proc/") &&
			!strings.HasPrefix(target, "/sys/") {
			files[e.Name()] = target
		}
	}
	return files
}

var shared struct {
	sync.Mutex
	broker *server.Broker
	err    error
}

func endShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.broker == nil {
		return nil
	}
	err := shared.broker.Close()
	shared.broker = nil
	return err
}

// Module is the path of the module that was built: $KEA_MODULE, or what make
// puts into build/.
func Module(t testing.TB) string {
	t.Helper()
	path := os.Getenv("KEA_MODULE")
	if path == "" {
		path = filepath.Join(repository(t), "build", "libredis_keyspace_amqp.so")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make first", err)
	}
	return path
}

// repository is the folder above the test's that holds go.mod. The path of this
// source file would not do: -trimpath cuts it.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
}

// FreePort is a port that is the test's until it ends.
func FreePort(t testing.TB) int {
	t.Helper()
	p, err := server.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Release)
	return p.Number
}

// Eventually calls cond until it returns nil, and fails the test with its last
// error when that takes longer than timeout.
func Eventually(t testing.TB, timeout time.Duration, cond func() error, what string) {
	t.Helper()
	if err := server.Poll(timeout, cond); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// must fails the test, naming what the harness was asked for.
func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// ended runs at a test's end: it says what a server wrote when the test failed.
func ended(t testing.TB, name, tail string) {
	if t.Failed() {
		t.Logf("last lines of %s:\n%s", name, tail)
	}
}
