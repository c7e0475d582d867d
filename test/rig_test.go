// SPDX-License-Identifier: BSD-3-Clause

// Package test holds the end-to-end tests: real redis-servers with the module,
// a real RabbitMQ. Each test balances the books at its end.
package test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

var (
	ctx    = context.Background()
	broker *servers.Broker // shared by all tests; each has queues of its own
	queues int
)

const patience = 90 * time.Second

// long asks for the tests that take minutes too: make test-matrix does.
var long = flag.Bool("long", false, "run the tests that take minutes, too")

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if broker, err = servers.NewBroker(); err == nil {
		err = broker.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer broker.Close()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("github.com/key-evt-amqp/key_evt_amqp/test/servers.init.func1.1"),
			goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// module is the built module's path, or what $KEA_MODULE names; a missing one
// fails the test.
func module(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(or(os.Getenv("KEA_MODULE"), "../build/libredis_keyspace_amqp.so"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v (make builds it)", err)
	}
	return path
}

// rig is one Redis with the module, and a queue that its events reach.
type rig struct {
	*servers.Redis
	t     *testing.T
	queue *servers.Consumer
	name  string // of the queue, and the routing key
	// crashed: the test made the server crash.
	crashed bool
	port    int // where the module finds the broker
}

type options struct {
	events string   // default A
	masks  string   // default ALL, as in a loadmodule line
	limit  string   // default 10000000
	port   int      // default the shared broker's
	config []string // more lines of redis.conf
	noLoad bool     // start without the module
	silent bool     // declare no queue
	key    string   // routing key; default the rig's own
}

func name(t *testing.T) string {
	queues++
	return fmt.Sprintf("q%d-%s", queues, strings.ReplaceAll(t.Name(), "/", "-"))
}

func start(t *testing.T, o options) *rig {
	t.Helper()
	r := prepare(t, o)
	must(t, r.Start())
	must(t, r.Alive())
	return r
}

func prepare(t *testing.T, o options) *rig {
	t.Helper()
	r := &rig{t: t, name: or(o.key, name(t)), port: or(o.port, broker.Port)}
	config := o.config
	if !o.noLoad {
		config = append(config, "loadmodule "+r.loadLine(o))
	}
	var err error
	r.Redis, err = servers.NewRedis(config...)
	must(t, err)
	if !o.silent {
		r.bind()
	}
	t.Cleanup(func() {
		if r.queue != nil {
			r.queue.Close()
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", r.LogTail(60))
		}
		for _, bad := range []string{"BUG REPORT", "ASSERTION FAILED", "panic:", "crashed by signal", "are leaked", "internal error"} {
			if !r.crashed && strings.Contains(r.Log(), bad) {
				t.Errorf("the server's log has %q", bad)
			}
		}
		r.Close()
	})
	return r
}

func (r *rig) bind() {
	r.t.Helper()
	must(r.t, broker.Bind(r.name, "amq.direct", r.name, nil))
	r.queue = broker.Consume(r.name)
}

// loadLine is what follows loadmodule.
func (r *rig) loadLine(o options) string {
	return strings.Join(r.loadArgs(o), " ")
}

func (r *rig) loadArgs(o options) []string {
	args := []string{module(r.t), or(o.events, "A"), "127.0.0.1", strconv.Itoa(r.port), "guest", "guest", "20",
		"amq.direct", r.name, "2", or(o.limit, "10000000")}
	return append(args, strings.Fields(or(o.masks, "ALL"))...)
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// do runs a command that must succeed.
func (r *rig) do(args ...any) any {
	r.t.Helper()
	got, err := r.Do(ctx, args...).Result()
	if err != nil && err != redis.Nil {
		r.t.Fatalf("%v: %v", args, err)
	}
	return got
}

// fails runs a command that must be refused with an error that names something.
func (r *rig) fails(names string, args ...any) {
	r.t.Helper()
	got, err := r.Do(ctx, args...).Result()
	if err == nil || !strings.Contains(err.Error(), names) {
		r.t.Errorf("%v: got %v, error %v; want an error that names %q", args, got, err, names)
	}
}

// sets makes n events, set of key prefix0 … in one pipeline after another.
func (r *rig) sets(prefix string, n int) {
	r.t.Helper()
	for from := 0; from < n; from += 1000 {
		pipe := r.Pipeline()
		for i := from; i < min(from+1000, n); i++ {
			pipe.Set(ctx, prefix+strconv.Itoa(i), "v", 0)
		}
		_, err := pipe.Exec(ctx)
		must(r.t, err)
	}
}

func setBodies(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "0\nset\n" + prefix + strconv.Itoa(i)
	}
	return out
}

func (r *rig) info(field string) string {
	r.t.Helper()
	info, err := r.ModuleInfo()
	must(r.t, err)
	value, ok := info[field]
	if !ok {
		r.t.Fatalf("INFO has no field %s", field)
	}
	return value
}

func (r *rig) number(field string) int {
	r.t.Helper()
	n, err := strconv.Atoi(r.info(field))
	must(r.t, err)
	return n
}

// until waits for a field of INFO.
func (r *rig) until(field string, ok func(value string) bool) {
	r.t.Helper()
	eventually(r.t, func() error {
		if value := r.info(field); !ok(value) {
			return fmt.Errorf("%s is %q", field, value)
		}
		return nil
	})
}

func is(want string) func(string) bool { return func(got string) bool { return got == want } }

func eventually(t *testing.T, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// arrives checks that exactly these bodies arrive first and in this order.
func (r *rig) arrives(want []string) {
	r.t.Helper()
	if err := r.queue.Wait(len(want), patience); err != nil {
		info, _ := r.ModuleInfo()
		r.t.Fatalf("%v; INFO: %v", err, info)
	}
	got := r.queue.Messages()
	for i := range want {
		if string(got[i].Body) != want[i] {
			r.t.Fatalf("message %d: got %.80q, want %.80q", i, got[i].Body, want[i])
		}
	}
	if len(got) > len(want) {
		r.t.Fatalf("%d messages more than the %d expected, the first is %.80q", len(got)-len(want), len(want), got[len(want)].Body)
	}
}

// balanced waits until nothing is under way, and checks that INFO's counters
// agree: captured + what was there at load = settled + dropped.
func (r *rig) balanced(atLoad, dropped int) {
	r.t.Helper()
	eventually(r.t, func() error {
		info, err := r.ModuleInfo()
		if err != nil {
			return err
		}
		for _, field := range []string{"events_buffered", "fallback_length", "inflight", "oldest_event_ms", "buffer_bytes"} {
			if info[field] != "0" {
				return fmt.Errorf("%s is %s", field, info[field])
			}
		}
		if got := info["events_dropped"]; got != strconv.Itoa(dropped) {
			return fmt.Errorf("events_dropped is %s, want %d", got, dropped)
		}
		captured, _ := strconv.Atoi(info["events_captured"])
		confirmed, _ := strconv.Atoi(info["events_confirmed"])
		if confirmed < captured+atLoad-dropped {
			return fmt.Errorf("captured %d, there at load %d, dropped %d, but confirmed %d", captured, atLoad, dropped, confirmed)
		}
		return nil
	})
	if n := r.do("EXISTS", "key_evt_amqp.fallback"); n != int64(0) {
		r.t.Error("the fallback list is still there")
	}
}
