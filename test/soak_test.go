// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

var (
	soakTime = flag.Duration("soak", 20*time.Second, "how long TestSoak runs")
	soakSeed = flag.Uint64("seed", 0, "the seed of TestSoak and TestSameAsTheServersOwn; 0: the time")
)

// batch is how many writes a writer sends at once.
const batch = 10

// ledger is the books of a soak: what was written and acknowledged, and what
// arrived. Each writer numbers its writes.
type ledger struct {
	mu      sync.Mutex
	acked   [][]bool
	arrived [][]bool
	last    []int          // the highest number that has arrived, by writer
	sent    []int          // the highest number that was written
	between []map[int]bool // numbers that failover excuses, by writer
	errors  []string
	events  int
	copies  int
	behind  int // of events, excused
}

// What is written while a FAILOVER begins may come behind the first events of
// the new master (docs/guarantees.md): the numbers from the last ones written
// before to the last ones written after.
func (l *ledger) failover(run func()) {
	l.mu.Lock()
	from := slices.Clone(l.sent)
	l.mu.Unlock()
	run()
	l.mu.Lock()
	defer l.mu.Unlock()
	for w, to := range l.sent {
		for n := from[w] - 2*batch; n <= to; n++ {
			l.between[w][n] = true
		}
	}
}

func (l *ledger) set(bits *[]bool, n int) (was bool) {
	for len(*bits) <= n {
		*bits = append(*bits, make([]bool, n+1)...)
	}
	was = (*bits)[n]
	(*bits)[n] = true
	return was
}

func (l *ledger) arrive(body string) {
	var writer, n int
	if _, err := fmt.Sscanf(body, "0\nset\nsoak-%d-%d", &writer, &n); err != nil {
		return // a script's, or what deletes and expires
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set(&l.arrived[writer], n) {
		l.copies++
		return
	}
	l.events++
	if n < l.last[writer] && l.between[writer][n] {
		l.behind++
	} else if n < l.last[writer] && len(l.errors) < 20 {
		l.errors = append(l.errors, fmt.Sprintf("%s: writer %d: event %d first came after event %d",
			time.Now().Format("15:04:05.000"), writer, n, l.last[writer]))
	}
	l.last[writer] = max(n, l.last[writer])
}

func (l *ledger) missing() (missing, acked int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w, bits := range l.acked {
		for n, ok := range bits {
			if !ok {
				continue
			}
			acked++
			if n >= len(l.arrived[w]) || !l.arrived[w][n] {
				missing++
			}
		}
	}
	return missing, acked
}

// footprint is what must not grow. allocated is Redis's allocator's, without
// what is the server's own (clients, backlog, AOF): with no keys, the module's.
type footprint struct{ rss, allocated, threads, goroutines, descriptors int }

// emptied is the footprint of a server with nothing undelivered, without keys.
func (r *rig) emptied() footprint {
	r.t.Helper()
	r.do("FLUSHALL", "SYNC")
	r.do("MEMORY", "PURGE")
	f := footprintOf(r.t, r.Redis)
	for line := range strings.Lines(r.Info(ctx, "memory").Val()) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory_dataset:"); ok {
			f.allocated, _ = strconv.Atoi(text)
		}
	}
	f.goroutines = r.number("goroutines")
	return f
}

// footprintOf is what the kernel says of a process.
func footprintOf(t *testing.T, r *servers.Redis) (f footprint) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", r.Pid())
	file, err := os.Open(proc + "status")
	must(t, err)
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "VmRSS":
			f.rss = n
		case "Threads":
			f.threads = n
		}
	}
	entries, err := os.ReadDir(proc + "fd")
	must(t, err)
	f.descriptors = len(entries)
	return f
}

// TestSoak: mixed load while faults are drawn at random; at the end nothing is
// missing, and nothing has grown. make soak runs it for longer.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%v with seed %d", *soakTime, seed)
	random := rand.New(rand.NewPCG(seed, 0))

	b := ownBroker(t)
	proxy, err := servers.NewProxy(fmt.Sprintf("127.0.0.1:%d", b.Port))
	must(t, err)
	t.Cleanup(proxy.Cut)
	conf := []string{
		"appendonly yes", "appendfsync always", "key_evt_amqp.outbox yes", "key_evt_amqp.reconnect_delay_max 500",
		"key_evt_amqp.heartbeat 5", "repl-backlog-size 8mb", "auto-aof-rewrite-min-size 256mb",
	}
	// Two servers, of which one is the other's replica.
	one := start(t, options{port: proxy.Port, events: "$gx", silent: true, config: conf})
	two := start(t, options{port: proxy.Port, events: "$gx", silent: true, key: one.name, config: conf})
	must(t, b.Bind(one.name, "amq.direct", one.name, nil))
	const writers = 4
	books := &ledger{acked: make([][]bool, writers), arrived: make([][]bool, writers), last: make([]int, writers), sent: make([]int, writers)}
	for range writers {
		books.between = append(books.between, map[int]bool{})
	}
	consumer := b.ConsumeWith(one.name, func(body []byte) { books.arrive(string(body)) })
	defer consumer.Close()
	two.do("REPLICAOF", "127.0.0.1", one.Port)

	master, replica := one, two
	lines := len(one.Config)
	restart := func(r *rig) {
		r.Config = r.Config[:lines:lines]
		if r == replica {
			r.Config = append(r.Config, fmt.Sprintf("replicaof 127.0.0.1 %d", master.Port))
		}
		must(t, r.Start())
	}
	var roles sync.RWMutex
	leader := func() *redis.Client {
		roles.RLock()
		defer roles.RUnlock()
		return master.Client
	}
	done := make(chan struct{})
	var load sync.WaitGroup
	for w := range writers {
		load.Add(1)
		go func() {
			defer load.Done()
			for n := 0; ; {
				select {
				case <-done:
					return
				case <-time.After(40 * time.Millisecond):
				}
				client := leader()
				pipe := client.Pipeline()
				var replies []*redis.StatusCmd
				for range batch {
					n++
					replies = append(replies, pipe.Set(ctx, fmt.Sprintf("soak-%d-%d", w, n), "v", time.Minute))
				}
				books.mu.Lock()
				books.sent[w] = n
				books.mu.Unlock()
				_, _ = pipe.Exec(ctx)
				books.mu.Lock()
				for i, reply := range replies {
					if reply.Err() == nil {
						books.set(&books.acked[w], n-len(replies)+1+i)
					}
				}
				books.mu.Unlock()
			}
		}()
	}
	stopLoad := sync.OnceFunc(func() { close(done); load.Wait() })
	defer stopLoad()

	inSync := func() {
		eventually(t, func() error {
			info, err := replica.Info(ctx, "replication").Result()
			if err == nil && !strings.Contains(info, "master_link_status:up") {
				err = fmt.Errorf("the replica is not in sync: %s", info)
			}
			return err
		})
	}
	nap := func(most time.Duration) { time.Sleep(time.Duration(random.Int64N(int64(most)))) }
	// A broker accepts connections before it takes rabbitmqctl's commands.
	ctl := func(args ...string) {
		eventually(t, func() error { _, err := b.Ctl(args...); return err })
	}
	faults := []struct {
		name string
		run  func()
	}{
		{"the network is cut", func() { proxy.Cut(); nap(time.Second); must(t, proxy.Mend()) }},
		{"the broker is killed", func() { b.Kill(); nap(time.Second); must(t, b.Start()) }},
		{"the broker restarts", func() { b.Stop(); must(t, b.Start()) }},
		{"memory alarm", func() {
			ctl("set_vm_memory_high_watermark", "0.0000001")
			nap(3 * time.Second)
			ctl("set_vm_memory_high_watermark", "0.4")
		}},
		{"rights are revoked", func() {
			ctl("set_permissions", "guest", ".*", "^$", ".*")
			nap(time.Second)
			ctl("set_permissions", "guest", ".*", ".*", ".*")
		}},
		{"the master is killed", func() {
			master.Kill()
			nap(300 * time.Millisecond)
			restart(master)
			inSync()
		}},
		{"the master restarts", func() { master.Terminate(); restart(master); inSync() }},
		{"the replica is killed", func() { replica.Kill(); restart(replica); inSync() }},
		{"failover", func() {
			inSync()
			roles.Lock()
			defer roles.Unlock()
			books.failover(func() {
				must(t, master.Do(ctx, "FAILOVER").Err())
				isMaster(t, replica.Redis)
			})
			master, replica = replica, master
		}},
		{"CLIENT PAUSE", func() { must(t, master.Do(ctx, "CLIENT", "PAUSE", 500, "WRITE").Err()); nap(time.Second) }},
		{"AOF rewrite", func() { master.Do(ctx, "BGREWRITEAOF") }},
		{"BGSAVE", func() { master.Do(ctx, "BGSAVE") }},
		{"a script makes 20,000 events", func() {
			must(t, master.Do(ctx, "EVAL", "for i = 1, 20000 do redis.call('SET', KEYS[1] .. i, 'v', 'PX', 20000) end return 1", 1, "script").Err())
		}},
		{"the module is loaded anew", func() {
			eventually(t, func() error { return master.Do(ctx, "MODULE", "UNLOAD", "key_evt_amqp").Err() })
			args := append([]any{"MODULE", "LOADEX", module(t), "CONFIG", "key_evt_amqp.outbox", "yes",
				"CONFIG", "key_evt_amqp.reconnect_delay_max", "500", "ARGS"}, anys(master.loadArgs(options{events: "$gx"})[1:])...)
			must(t, master.Do(ctx, args...).Err())
		}},
	}
	// progress waits for a condition as long as events are confirmed: how much
	// has to be delivered depends on the faults, how fast on the machine.
	progress := func(condition func() error) {
		t.Helper()
		confirmed, deadline := -1, time.Now()
		for err := condition(); err != nil; err = condition() {
			sum := one.number("events_confirmed") + two.number("events_confirmed")
			if sum != confirmed {
				confirmed, deadline = sum, time.Now().Add(patience)
			} else if time.Now().After(deadline) {
				t.Fatalf("nothing is confirmed for %v, and %v", patience, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	const backlog = 200000
	drawn := map[string]int{}
	until := time.Now().Add(*soakTime * 2 / 3)
	for time.Now().Before(until) {
		f := faults[random.IntN(len(faults))]
		t.Logf("%s: %s, fallback_length %s", time.Now().Format("15:04:05.000"), f.name, master.info("fallback_length"))
		if f.name == "the module is loaded anew" {
			// What is written while it is away has no events.
			func() {
				defer pause(&roles)()
				f.run()
			}()
		} else {
			f.run()
		}
		drawn[f.name]++
		nap(time.Second)
		progress(func() error {
			if n := master.number("fallback_length"); n > backlog {
				return fmt.Errorf("fallback_length is %d", n)
			}
			return nil
		})
	}
	settled := func() {
		t.Helper()
		progress(func() error {
			for _, r := range []*rig{one, two} {
				info, err := r.ModuleInfo()
				if err != nil {
					return err
				}
				for _, field := range []string{"events_buffered", "inflight", "buffer_bytes", "events_dropped"} {
					if info[field] != "0" {
						return fmt.Errorf("%s is %s: %v", field, info[field], info)
					}
				}
			}
			if n := master.number("fallback_length"); n != 0 {
				return fmt.Errorf("fallback_length is %d", n)
			}
			return nil
		})
	}

	// Growth: of one process, under load and faults that don't restart it.
	quiet := func() footprint {
		defer pause(&roles)()
		settled()
		return master.emptied()
	}
	before := quiet()
	until = time.Now().Add(*soakTime / 3)
	for time.Now().Before(until) {
		proxy.Cut()
		nap(time.Second)
		must(t, proxy.Mend())
		nap(2 * time.Second)
	}
	stopLoad()
	after := quiet()

	eventually(t, func() error {
		if missing, acked := books.missing(); missing > 0 {
			return fmt.Errorf("of %d acknowledged writes %d events are missing", acked, missing)
		}
		return nil
	})
	_, acked := books.missing()
	books.mu.Lock()
	defer books.mu.Unlock()
	for _, e := range books.errors {
		t.Error(e)
	}
	t.Logf("faults: %v", drawn)
	t.Logf("%d acknowledged writes, %d events, %d duplicates, %d late by a failover; rss %d -> %d kB, allocated %d -> %d bytes, threads %d -> %d, goroutines %d -> %d, descriptors %d -> %d",
		acked, books.events, books.copies, books.behind, before.rss, after.rss, before.allocated, after.allocated, before.threads, after.threads,
		before.goroutines, after.goroutines, before.descriptors, after.descriptors)
	if after.allocated > before.allocated+1<<20 || after.goroutines > before.goroutines+4 {
		t.Errorf("allocations or goroutines have grown")
	}
	if after.rss > before.rss+before.rss/4+16<<10 {
		t.Errorf("rss has grown from %d to %d kB", before.rss, after.rss)
	}
	if after.threads > before.threads+2 || after.descriptors > before.descriptors+8 {
		t.Errorf("threads or descriptors have grown")
	}
}

func anys(texts []string) (out []any) {
	for _, text := range texts {
		out = append(out, text)
	}
	return out
}

// pause keeps writers from starting anything until the returned function is
// called.
func pause(m *sync.RWMutex) func() {
	m.Lock()
	time.Sleep(300 * time.Millisecond) // what is under way
	return m.Unlock
}
