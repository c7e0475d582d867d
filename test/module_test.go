// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func (r *rig) load(o options) error {
	args := []any{"MODULE", "LOAD"}
	for _, a := range r.loadArgs(o) {
		args = append(args, a)
	}
	return r.Do(ctx, args...).Err()
}

func (r *rig) threads() int {
	r.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.Pid()))
	must(r.t, err)
	return len(tasks)
}

func (r *rig) descriptors() int {
	r.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.Pid()))
	must(r.t, err)
	return len(fds)
}

// slacks are the timer slack of the main thread, and how many threads have which,
// in nanoseconds.
func (r *rig) slacks() (main string, threads map[string]int) {
	r.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", r.Pid()))
	must(r.t, err)
	threads = map[string]int{}
	for _, task := range tasks {
		b, err := os.ReadFile(filepath.Join("/proc", task.Name(), "timerslack_ns"))
		if errors.Is(err, os.ErrPermission) {
			r.t.Skip("only root may look at another process's timer slack")
		}
		must(r.t, err)
		slack := strings.TrimSpace(string(b))
		threads[slack]++
		if task.Name() == fmt.Sprint(r.Pid()) {
			main = slack
		}
	}
	return main, threads
}

// Go's threads need no exact timers, and each wake-up costs; Redis's own keep
// what they have, whether the module comes at the start or later.
func TestOnlyGoThreadsHaveInexactTimers(t *testing.T) {
	later := start(t, options{noLoad: true})
	main, bare := later.slacks()
	must(t, later.load(options{}))
	atStart := start(t, options{})
	for _, r := range []*rig{later, atStart} {
		own, threads := r.slacks()
		if own != main || threads[main] < bare[main] || threads["1000000"] < 3 || len(threads) != 2 {
			t.Errorf("the main thread has %s ns, all threads %v; without the module %s and %v", own, threads, main, bare)
		}
	}
}

func TestAWrongArgumentRefusesTheLoadAndLeavesNothing(t *testing.T) {
	r := start(t, options{noLoad: true})
	good := r.loadArgs(options{})
	for _, test := range []struct {
		at    int // argument of section 1 of the spec
		value string
		names string
	}{
		{1, "", "events"}, {1, "Q", "events"}, {1, "KE", "events"},
		{2, "", "hostname"}, {2, "a:b:c", "hostname"},
		{3, "0", "port"}, {3, "65536", "port"}, {3, "x", "port"},
		{6, "-1", "heartbeat"}, {6, "65536", "heartbeat"},
		{7, strings.Repeat("x", 256), "exchange_name"}, {8, strings.Repeat("x", 256), "routing_key"},
		{9, "3", "delivery_mode"}, {9, "0", "delivery_mode"},
		{10, "many", "fallback_storage_size"}, {11, strings.Repeat("x", 70000), "key_mask"},
	} {
		args := []any{"MODULE", "LOAD"}
		for i, a := range good {
			if i == test.at {
				a = test.value
			}
			args = append(args, a)
		}
		before := len(r.Log())
		if err := r.Do(ctx, args...).Err(); err == nil {
			t.Fatalf("argument %d = %.20q was taken", test.at, test.value)
		}
		if log := r.Log()[before:]; !strings.Contains(log, test.names+": ") {
			t.Errorf("argument %d = %.20q: the log does not name %s:\n%s", test.at, test.value, test.names, log)
		}
	}
	if n := r.do("COMMAND", "INFO", "key_evt_amqp.connect").([]any); n[0] != nil {
		t.Error("a command is left behind")
	}
	r.sets("k", 100) // an event after a refused load
	var want []string
	fds := 0
	for i := range 3 {
		must(t, r.load(options{}))
		r.do("SET", fmt.Sprint(i), "v")
		want = append(want, fmt.Sprintf("0\nset\n%d", i))
		r.arrives(want)
		r.do("MODULE", "UNLOAD", "key_evt_amqp")
		if i == 0 { // Go's runtime stays, and with it its poller
			fds = r.descriptors()
		}
	}
	if got := r.descriptors(); got > fds {
		t.Errorf("%d descriptors after one load, %d after three", fds, got)
	}
}

func TestFiftyReloadsUnderTraffic(t *testing.T) {
	r := start(t, options{noLoad: true})
	var stop atomic.Bool
	var load sync.WaitGroup
	must(t, r.load(options{events: "$"}))
	load.Add(1)
	written := 0
	go func() {
		defer load.Done()
		for ; !stop.Load(); written++ {
			if err := r.Set(ctx, fmt.Sprintf("k%d", written), "v", 0).Err(); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	threads, fds := 0, 0
	for i := range 50 {
		o := options{events: []string{"$", "$x", "A"}[i%3], limit: fmt.Sprint(1000000 + i)}
		// In one transaction, so that no event falls between the two.
		pipe := r.TxPipeline()
		pipe.Do(ctx, "MODULE", "UNLOAD", "key_evt_amqp")
		args := []any{"MODULE", "LOAD"}
		for _, a := range r.loadArgs(o) {
			args = append(args, a)
		}
		pipe.Do(ctx, args...)
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatal(err)
		}
		r.until("events_confirmed", func(v string) bool { return v != "0" })
		if i == 10 {
			threads, fds = r.threads(), r.descriptors()
		}
	}
	stop.Store(true)
	load.Wait()
	r.arrives(setBodies("k", written))
	eventually(t, func() error {
		if got := r.threads(); got > threads+2 {
			return fmt.Errorf("%d threads after 10 reloads, %d after 50", threads, got)
		}
		if got := r.descriptors(); got > fds+1 {
			return fmt.Errorf("%d descriptors after 10 reloads, %d after 50", fds, got)
		}
		return nil
	})
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	out, err := broker.Ctl("list_connections", "client_properties")
	must(t, err)
	if n := strings.Count(out, fmt.Sprintf("redis pid %d", r.Pid())); n != 0 {
		t.Errorf("%d connections are left:\n%s", n, out)
	}
	t.Logf("%d events through 50 reloads, %d duplicates", written, r.queue.Duplicates())
}

func TestUnloadStoresWhatIsUndelivered(t *testing.T) {
	r, p := proxied(t, options{events: "$"})
	r.do("SET", "first", "v")
	r.arrives([]string{"0\nset\nfirst"})
	r.until("events_confirmed", is("1"))
	p.Cut()
	r.sets("k", 300)
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	if n := r.do("LLEN", "key_evt_amqp.fallback"); n != int64(300) {
		t.Errorf("the list has %v elements, want 300", n)
	}
	must(t, p.Mend())
	must(t, r.load(options{events: "$"}))
	r.arrives(append([]string{"0\nset\nfirst"}, setBodies("k", 300)...))
	r.balanced(300, 0)
}

func TestUnloadSpoolsWhatTheListDoesNotTake(t *testing.T) {
	r, p := proxied(t, options{events: "$", limit: "-1"})
	p.Cut()
	r.sets("k", 10)
	r.until("events_buffered", is("10"))
	// Where the file can't be made, nothing is unloaded.
	clear := r.noSpool()
	if err := r.Do(ctx, "MODULE", "UNLOAD", "key_evt_amqp").Err(); err == nil {
		t.Fatal("unloaded, though 10 events can't be put away")
	}
	if !strings.Contains(r.Log(), "not unloaded: 10 events") {
		t.Error("the log does not say why")
	}
	clear()
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	must(t, p.Mend())
	must(t, r.load(options{events: "$", limit: "-1"}))
	r.arrives(setBodies("k", 10))
	r.balanced(10, 0)
}

// TestUnloadIsNotPropagated: a command that changes the dataset is, as it is.
func TestUnloadIsNotPropagated(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{"appendonly yes", "key_evt_amqp.outbox yes"}})
	replica := start(t, options{silent: true})
	replica.do("REPLICAOF", "127.0.0.1", r.Port)
	eventually(t, func() error {
		if info := replica.Info(ctx, "replication").Val(); !strings.Contains(info, "master_link_status:up") {
			return errors.New(info)
		}
		return nil
	})
	p.Cut()
	r.sets("k", 100)
	// One turn makes an event and unloads.
	pipe := r.Pipeline()
	pipe.Set(ctx, "last", "v", 0)
	pipe.Do(ctx, "MODULE", "UNLOAD", "key_evt_amqp")
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	r.do("SET", "without the module", "v")
	r.do("WAIT", 1, 0)
	if list := fmt.Sprint(replica.do("MODULE", "LIST")); !strings.Contains(list, "key_evt_amqp") {
		t.Errorf("the replica's modules: %s", list)
	}
	r.Kill()
	must(t, r.Start())
	must(t, p.Mend())
	if list := fmt.Sprint(r.do("MODULE", "LIST")); !strings.Contains(list, "key_evt_amqp") {
		t.Errorf("after its AOF was read the server has the modules: %s", list)
	}
	r.arrives(append(setBodies("k", 100), "0\nset\nlast"))
}

func TestCommands(t *testing.T) {
	r := start(t, options{events: "$", masks: "^a"})
	config := func(name string) string { return r.ConfigGet(ctx, "key_evt_amqp."+name).Val()["key_evt_amqp."+name] }
	check := func(name, want string) {
		t.Helper()
		if got := config(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	ok := func(args ...any) {
		t.Helper()
		if got := r.do(args...); got != "OK" {
			t.Errorf("%v: got %v", args, got)
		}
	}
	port := fmt.Sprint(broker.Port)
	ok("key_evt_amqp.keymask_add", "^b", "^c")
	check("key_mask", "^a ^b ^c")
	ok("key_evt_amqp.keymask_set", "^d")
	check("key_mask", "^d")
	ok("key_evt_amqp.keymask_clean")
	check("key_mask", "")
	ok("key_evt_amqp.keymask_set", "ALL", "x")
	check("key_mask", "ALL")
	ok("key_evt_amqp.config_set", "127.0.0.1", port, "guest", "guest", "25")
	check("heartbeat", "25")
	check("exchange_name", "amq.direct")
	ok("key_evt_amqp.config_set", "127.0.0.1", port, "guest", "guest", "20", "amq.direct", r.name, "1", "55", "^e", "^f")
	check("delivery_mode", "1")
	check("fallback_storage_size", "55")
	check("key_mask", "^e ^f")
	ok("key_evt_amqp.fallback_storage_size_set", "-5")
	check("fallback_storage_size", "-5")
	ok("key_evt_amqp.fallback_storage_size_set", "0")
	ok("key_evt_amqp.connect")
	r.until("state", is("connected"))
	ok("key_evt_amqp.disconnect")
	r.until("state", is("disabled"))
	r.do("SET", "e1", "v")
	r.until("fallback_length", is("1"))
	ok("key_evt_amqp.connect", "127.0.0.1")
	r.arrives([]string{"0\nset\ne1"})

	for _, wrong := range []struct {
		names string
		args  []any
	}{
		{"wrong number", []any{"config_set"}}, {"hostname", []any{"config_set", ""}},
		{"port", []any{"config_set", "h", "x"}}, {"heartbeat", []any{"config_set", "h", "1", "u", "p", "70000"}},
		{"delivery_mode", []any{"config_set", "h", "1", "u", "p", "1", "e", "r", "3"}},
		{"fallback_storage_size", []any{"config_set", "h", "1", "u", "p", "1", "e", "r", "1", ""}},
		{"hostname", []any{"connect", ""}}, {"port", []any{"connect", "h", "0"}},
		{"wrong number", []any{"disconnect", "x"}}, {"wrong number", []any{"fallback_storage_size_set"}},
		{"n: ", []any{"fallback_storage_size_set", "x"}}, {"wrong number", []any{"keymask_clean", "x"}},
		{"wrong number", []any{"keymask_add"}}, {"wrong number", []any{"keymask_set"}},
		{"key_mask", []any{"keymask_add", strings.Repeat("x", 70000)}},
	} {
		wrong.args[0] = "key_evt_amqp." + wrong.args[0].(string)
		r.fails(wrong.names, wrong.args...)
	}
	check("key_mask", "^e ^f")
	check("port", port)
	r.fails("not allowed from script", "EVAL", "return redis.call('key_evt_amqp.keymask_clean')", "0")
	pipe := r.TxPipeline()
	inside := pipe.Do(ctx, "key_evt_amqp.connect")
	_, err := pipe.Exec(ctx)
	must(t, err)
	if inside.Val() != "OK" {
		t.Errorf("connect inside MULTI: %v", inside.Val())
	}
	slow := r.do("CONFIG", "SET", "slowlog-log-slower-than", "0")
	_ = slow
	r.do("key_evt_amqp.config_set", "127.0.0.1", port, "guest", "guest")
	for _, entry := range r.SlowLogGet(ctx, 5).Val() {
		if len(entry.Args) > 4 && entry.Args[0] == "key_evt_amqp.config_set" && entry.Args[4] == "guest" {
			t.Error("SLOWLOG shows the password")
		}
	}
	r.balanced(0, 0)
}

func TestConnectAnswersWithTheBrokersReasonAndBlocksNobody(t *testing.T) {
	port, stop := silence(t)
	defer stop()
	r := start(t, options{config: []string{"key_evt_amqp.connect_timeout 1500"}})
	answer := make(chan error, 1)
	go func() { answer <- r.Do(ctx, "key_evt_amqp.connect", "127.0.0.1", fmt.Sprint(port)).Err() }()
	r.until("state", is("connecting"))
	pings := 0
	for done := false; !done; {
		select {
		case err := <-answer:
			if err == nil || !strings.Contains(err.Error(), "no answer") {
				t.Errorf("connect answered %v", err)
			}
			done = true
		default:
			r.do("PING")
			pings++
		}
	}
	if pings < 10 {
		t.Errorf("only %d PINGs were answered while connect waited", pings)
	}
}

// The server does not say why a load is refused; the module has to.
func TestASecondLoadIsRefusedWithTheReason(t *testing.T) {
	r := start(t, options{events: "$"})
	if err := r.load(options{events: "$"}); err == nil {
		t.Error("it is loaded twice")
	}
	if !strings.Contains(r.Log(), "a module named key_evt_amqp is loaded already") {
		t.Error("the log does not say why")
	}
	r.sets("k", 10)
	r.arrives(setBodies("k", 10))
	r.balanced(0, 0)
}
