// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// under runs loads against a server while something happens to it, and stops
// them by stopping their clients.
func under(t *testing.T, r *rig, random *rand.Rand, loads []*load, happen func()) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: r.Addr(), Protocol: 2, MaxRetries: -1, DisableIdentity: true, ReadTimeout: patience})
	own := *r
	server := *r.Redis
	own.Redis, server.Client = &server, client
	var work servers.Group
	for _, l := range loads {
		source := rand.New(rand.NewPCG(random.Uint64(), 0))
		work.Go(func() { l.run(&own, source) })
	}
	happen()
	client.Close()
	work.Wait()
}

func steady(prefixes ...string) (loads []*load) {
	for _, p := range prefixes {
		loads = append(loads, &load{prefix: p + ":", pause: time.Millisecond})
	}
	return loads
}

func acknowledged(loads []*load) (n int) {
	for _, l := range loads {
		n += len(l.acknowledged)
	}
	return n
}

// more waits until n events more were captured.
func (r *rig) more(n int) {
	r.t.Helper()
	n += r.number("events_captured")
	eventually(r.t, func() error {
		if got := r.number("events_captured"); got < n {
			return fmt.Errorf("%d captured, not yet %d", got, n)
		}
		return nil
	})
}

// accounted waits until nothing is under way, and checks that every event
// captured has come once, or was counted as dropped.
func (r *rig) accounted() {
	r.t.Helper()
	eventually(r.t, func() error {
		info, err := r.ModuleInfo()
		if err != nil {
			return err
		}
		for _, field := range []string{"events_buffered", "fallback_length", "inflight"} {
			if info[field] != "0" {
				return fmt.Errorf("%s is %s", field, info[field])
			}
		}
		captured, _ := strconv.Atoi(info["events_captured"])
		dropped, _ := strconv.Atoi(info["events_dropped"])
		if came := len(r.queue.Messages()); came+dropped != captured {
			return fmt.Errorf("%d captured, %d came, %d dropped", captured, came, dropped)
		}
		return nil
	})
}

// sameDataset waits until a replica has its master's dataset.
func sameDataset(t *testing.T, master, replica *rig) {
	t.Helper()
	eventually(t, func() error {
		a, b := master.do("DEBUG", "DIGEST"), replica.do("DEBUG", "DIGEST")
		if a != b {
			return fmt.Errorf("the master's digest is %v, the replica's %v", a, b)
		}
		return nil
	})
}

// isMaster waits until a server is one.
func isMaster(t *testing.T, r *servers.Redis) {
	t.Helper()
	eventually(t, func() error {
		info, err := r.Info(ctx, "replication").Result()
		if err == nil && !strings.Contains(info, "role:master") {
			err = fmt.Errorf("no master yet: %s", info)
		}
		return err
	})
}

func (r *rig) linkIsUp() {
	r.t.Helper()
	eventually(r.t, func() error {
		info, err := r.Info(ctx, "replication").Result()
		if err != nil || !strings.Contains(info, "master_link_status:up") {
			return fmt.Errorf("%v %s", err, info)
		}
		return nil
	})
}

func TestClientPauseWithEventsInFlight(t *testing.T) {
	for _, outbox := range []string{"no", "yes"} {
		t.Run("outbox "+outbox, func(t *testing.T) {
			random := seeded(t)
			// AOF: makes a write during the pause fatal to the server.
			r, p := proxied(t, options{events: "$m", config: []string{"appendonly yes", "key_evt_amqp.outbox " + outbox}})
			loads := steady("a", "b")
			misses := 0
			under(t, r, random, loads, func() {
				for i := range 12 {
					r.more(100)
					if i%4 == 3 {
						p.Cut() // what was in flight comes back in the pause
					}
					r.do("CLIENT", "PAUSE", "150", []string{"WRITE", "ALL"}[i%2])
					_ = r.Get(ctx, "miss:"+strconv.Itoa(misses)).Err() // an event in the pause
					misses++
					if i%4 == 3 {
						must(t, p.Mend())
					}
				}
				r.do("CLIENT", "UNPAUSE")
				r.more(100)
			})
			noneMissing(t, r, loads)
			r.accounted()
			if n := gapless(t, r.queue.Messages()); n != 1 {
				t.Errorf("events of %d loads", n)
			}
			came := 0
			for _, m := range r.queue.Messages() {
				if strings.HasPrefix(string(m.Body), "0\nkeymiss\nmiss:") {
					came++
				}
			}
			if came != misses {
				t.Errorf("%d events of %d reads in a pause", came, misses)
			}
		})
	}
}

func TestFailoverCommandUnderLoad(t *testing.T) {
	for _, test := range []struct {
		outbox string
		away   bool
	}{{"no", false}, {"yes", false}, {"no", true}, {"yes", true}} {
		t.Run(fmt.Sprintf("outbox %s, the broker is away %v", test.outbox, test.away), func(t *testing.T) {
			random := seeded(t)
			master, replica, mend := replicated(t, options{events: "$", config: []string{"appendonly yes", "key_evt_amqp.outbox " + test.outbox}})
			if !test.away {
				must(t, mend())
			}
			nodes := [2]*rig{master, replica}
			var loads []*load
			for i := range 3 {
				from, to := nodes[i%2], nodes[(i+1)%2]
				to.linkIsUp()
				now := steady(fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
				under(t, from, random, now, func() {
					from.more(300)
					eventually(t, func() error { // it has to be online first
						return from.Do(ctx, "FAILOVER", "TO", "127.0.0.1", fmt.Sprint(to.Port)).Err()
					})
					isMaster(t, to.Redis)
				})
				loads = append(loads, now...)
			}
			if test.away {
				must(t, mend())
			}
			noneMissing(t, master, loads)
			// The last failover went to the one that began as the replica.
			master.linkIsUp()
			replica.until("fallback_length", is("0"))
			for _, node := range nodes {
				node.until("events_buffered", is("0"))
				if got := node.info("events_dropped"); got != "0" {
					t.Errorf("%s were dropped", got)
				}
			}
			sameDataset(t, replica, master)
			captured := master.number("events_captured") + replica.number("events_captured")
			if came := len(master.queue.Messages()); came != captured {
				t.Errorf("%d events captured by both, %d came", captured, came)
			}
			t.Logf("%d acknowledged writes, %d duplicates", acknowledged(loads), master.queue.Duplicates())
		})
	}
}

// What a demoted master captured and has not delivered is nowhere else.
func TestADemotedMasterDeliversWhatItCapturedAndWritesNothing(t *testing.T) {
	for _, limit := range []string{"-1", "0"} {
		t.Run("fallback_storage_size "+limit, func(t *testing.T) {
			other := start(t, options{noLoad: true, silent: true})
			other.sets("theirs", 1000)
			r, _, g := gated(t, options{events: "$", limit: limit, config: []string{"appendonly yes"}})
			r.do("SET", "first", "v")
			r.arrives([]string{"0\nset\nfirst"})
			r.until("events_buffered", is("0"))
			g.hush()
			// More than max_inflight, so that some are lent and some not.
			r.sets("k", 10000)
			r.until("events_buffered", is("10000"))
			r.do("REPLICAOF", "127.0.0.1", fmt.Sprint(other.Port))
			r.linkIsUp()
			sameDataset(t, other, r)
			other.sets("more", 1000) // of which the replica makes no events
			g.speak()
			r.arrives(append([]string{"0\nset\nfirst"}, setBodies("k", 10000)...))
			r.balanced(0, 0)
			sameDataset(t, other, r)
			if n := other.do("EXISTS", "key_evt_amqp.fallback"); n != int64(0) {
				t.Error("the master has a list")
			}
			// And is a master again.
			r.do("REPLICAOF", "NO", "ONE")
			r.do("SET", "last", "v")
			r.arrives(append(append([]string{"0\nset\nfirst"}, setBodies("k", 10000)...), "0\nset\nlast"))
			r.balanced(0, 0)
		})
	}
}

// What the replica has of the writes, it has of their events, except those of
// the event-loop turn in which the master died.
func TestPromotedAfterTheMastersKillUnderLoad(t *testing.T) {
	random := seeded(t)
	const rounds, turn = 4, 3 * 60
	for range rounds {
		t.Run("", func(t *testing.T) {
			master, replica, mend := replicated(t, options{events: "$", config: []string{"key_evt_amqp.outbox yes"}})
			loads := steady("a", "b", "c")
			under(t, master, random, loads, func() {
				master.more(1000)
				time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond) // a moment like any other
				master.Kill()
			})
			replica.do("REPLICAOF", "NO", "ONE")
			events := int(replica.do("LLEN", "key_evt_amqp.fallback").(int64))
			keys := replica.do("DBSIZE").(int64) - replica.do("EXISTS", "key_evt_amqp.fallback").(int64)
			// The writes of a turn and their events are one stretch of the
			// stream, which the kill may cut.
			if missing := int(keys) - events; missing < 0 || missing > turn {
				t.Errorf("the replica has %d writes and %d events", keys, events)
			}
			must(t, mend())
			must(t, master.queue.Wait(events, patience))
			replica.balanced(events, 0)
			gapless(t, master.queue.Messages())
			for _, m := range master.queue.Messages() {
				if key := strings.TrimPrefix(string(m.Body), "0\nset\n"); replica.Exists(ctx, key).Val() != 1 {
					t.Fatalf("an event of %q, which was not written", key)
				}
			}
			t.Logf("%d acknowledged writes, the replica has %d and %d events", acknowledged(loads), keys, events)
		})
	}
}

func TestFullResyncWhileTheListIsLong(t *testing.T) {
	for _, mode := range []string{"disabled", "swapdb"} {
		t.Run("repl-diskless-load "+mode, func(t *testing.T) {
			random := seeded(t)
			o := options{events: "$", config: []string{"repl-diskless-load " + mode, "repl-diskless-sync yes"}}
			master, replica, mend := replicated(t, o)
			// A past of its own, with a list of its own.
			replica.do("REPLICAOF", "NO", "ONE")
			replica.sets("own", 2000)
			replica.until("fallback_length", is("2000"))
			master.sets("k", 10000)
			loads := steady("a", "b")
			under(t, master, random, loads, func() {
				master.more(500)
				for range 3 {
					replica.do("REPLICAOF", "127.0.0.1", fmt.Sprint(master.Port))
					replica.linkIsUp()
					master.more(500)
					// Makes the next one a full one.
					replica.do("REPLICAOF", "NO", "ONE")
					master.do("DEBUG", "CHANGE-REPL-ID")
				}
				replica.do("REPLICAOF", "127.0.0.1", fmt.Sprint(master.Port))
				replica.linkIsUp()
			})
			sameDataset(t, master, replica)
			if mode == "swapdb" && !strings.Contains(replica.Log(), "Swapping active DB with loaded DB") {
				t.Error("the replica did not load with swapdb")
			}
			captured := master.number("events_captured")
			master.until("fallback_length", is(strconv.Itoa(captured)))
			master.Kill()
			replica.do("REPLICAOF", "NO", "ONE")
			must(t, mend())
			must(t, master.queue.Wait(captured, patience))
			noneMissing(t, master, loads)
			if n := gapless(t, master.queue.Messages()); n != 1 {
				t.Errorf("events of %d loads", n)
			}
			// What the replica captured while it was none was in its list, and
			// went with its dataset.
			replica.until("fallback_length", is("0"))
			replica.until("events_confirmed", is(strconv.Itoa(captured)))
			if got := replica.info("events_captured") + " " + replica.info("events_dropped"); got != "2000 0" {
				t.Errorf("the replica captured and dropped %s", got)
			}
		})
	}
}

func TestEvictionUnderLoadIsAccountedFor(t *testing.T) {
	random := seeded(t)
	r, p := proxied(t, options{events: "$e", config: []string{"maxmemory-policy allkeys-lru", "maxmemory-samples 10"}})
	p.Cut()
	r.sets("k", 1000)
	r.until("fallback_length", is("1000"))
	r.do("CONFIG", "SET", "maxmemory", fmt.Sprint(r.usedMemory()+1<<20))
	loads := steady("a", "b", "c")
	under(t, r, random, loads, func() {
		r.until("events_dropped", func(v string) bool { return v != "0" })
		must(t, p.Mend())
		r.more(1000)
		p.Cut()
		r.more(1000)
	})
	r.do("CONFIG", "SET", "maxmemory", "0")
	must(t, p.Mend())
	r.accounted()
	if n := strings.Count(r.Log(), "events dropped"); n == 0 || n > 20 {
		t.Errorf("the log speaks of dropped events %d times", n)
	}
	t.Logf("%s captured, %s dropped", r.info("events_captured"), r.info("events_dropped"))
}

// Redis refuses writes at its limit. What it has taken has its event stored,
// beyond the limit.
func TestTheListIsWrittenWhenMemoryIsFull(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{"maxmemory-policy noeviction", "key_evt_amqp.outbox yes"}})
	p.Cut()
	r.do("CONFIG", "SET", "maxmemory", "4mb")
	n := 0
	for ; ; n++ {
		if err := r.Set(ctx, "k"+strconv.Itoa(n), strings.Repeat("v", 1000), 0).Err(); err != nil {
			if !strings.HasPrefix(err.Error(), "OOM") {
				t.Fatal(err)
			}
			break
		}
	}
	r.until("fallback_length", is(strconv.Itoa(n)))
	// A script that begins below the limit ends above it.
	r.do("CONFIG", "SET", "maxmemory", "5mb")
	const script = 20000
	r.do("EVAL", fmt.Sprintf("for i = 0, %d do redis.call('SET', 's' .. i, 'v') end", script-1), "0")
	r.until("fallback_length", is(strconv.Itoa(n+script)))
	r.fails("OOM", "SET", "one", "more")
	must(t, p.Mend())
	r.arrives(append(setBodies("k", n), setBodies("s", script)...))
	r.balanced(0, 0)
	t.Logf("%d writes up to the limit", n)
}

func TestAValueOfAnotherTypeInTheListsPlace(t *testing.T) {
	r, p := proxied(t, options{events: "s", config: []string{"key_evt_amqp.outbox yes", "appendonly yes"}})
	var want []string
	sadds := func(prefix string, n int) {
		pipe := r.Pipeline()
		for i := range n {
			pipe.SAdd(ctx, fmt.Sprintf("%s%d", prefix, i), "v")
			want = append(want, fmt.Sprintf("0\nsadd\n%s%d", prefix, i))
		}
		_, err := pipe.Exec(ctx)
		must(t, err)
	}
	sadds("before", 100)
	r.arrives(want)
	r.balanced(0, 0)
	r.do("SET", "key_evt_amqp.fallback", "x")
	sadds("during", 100)
	r.arrives(want) // by way of memory
	r.until("events_buffered", is("0"))
	p.Cut()
	sadds("away", 100)
	r.until("events_buffered", is("100"))
	if n := strings.Count(r.Log(), "a value of another type"); n != 1 {
		t.Errorf("the log speaks of the wrong type %d times", n)
	}
	r.do("DEL", "key_evt_amqp.fallback")
	r.until("fallback_length", is("100"))
	must(t, p.Mend())
	sadds("after", 100)
	r.arrives(want)
	r.balanced(0, 0)
}

// Children are forked under load, and the server is killed while one is at
// work.
func TestForksUnderLoadAndAKill(t *testing.T) {
	random := seeded(t)
	r, p := proxied(t, options{events: "$", config: append([]string{"rdb-key-save-delay 50"}, outboxDurable...)})
	r.sets("k", 2000)
	loads := steady("a", "b", "c")
	for _, l := range loads {
		l.pause = 10 * time.Millisecond
	}
	under(t, r, random, loads, func() {
		for i := range 4 {
			r.do([]any{[]string{"BGSAVE", "BGREWRITEAOF"}[i%2]}...)
			r.more(300)
			if i == 2 {
				p.Cut()
			}
			if i == 3 {
				r.Kill()
				break
			}
			eventually(t, func() error {
				info, err := r.Info(ctx, "persistence").Result()
				if err != nil || !strings.Contains(info, "rdb_bgsave_in_progress:0") || !strings.Contains(info, "aof_rewrite_in_progress:0") ||
					!strings.Contains(info, "aof_rewrite_scheduled:0") {
					return fmt.Errorf("a child is at work, error %v", err)
				}
				return nil
			})
		}
	})
	if log := r.Log(); !strings.Contains(log, "Background saving terminated with success") ||
		!strings.Contains(log, "Background AOF rewrite finished successfully") {
		t.Error("a child failed")
	}
	left := booksAtRest(t, r)
	must(t, p.Mend())
	noneMissing(t, r, loads)
	r.balanced(left, 0)
	gapless(t, r.queue.Messages())
}

func TestReloadsUnderLoad(t *testing.T) {
	random := seeded(t)
	r, p := proxied(t, options{events: "$", config: []string{"appendonly yes"}})
	loads := steady("a", "b")
	under(t, r, random, loads, func() {
		for i := range 6 {
			if i%3 == 2 {
				p.Cut()
				r.until("state", is("backoff"))
			}
			r.more(500)
			r.do("DEBUG", []string{"RELOAD", "LOADAOF"}[i%2])
			r.more(100)
			if i%3 == 2 {
				must(t, p.Mend())
			}
		}
	})
	arrived(t, r, loads)
	r.accounted()
	r.balanced(0, 0)
	gapless(t, r.queue.Messages())
}

func (r *rig) usedMemory() (n int) {
	r.t.Helper()
	for _, line := range strings.Split(r.Info(ctx, "memory").Val(), "\r\n") {
		_, _ = fmt.Sscanf(line, "used_memory:%d", &n)
	}
	return n
}

// Events that wait in memory are none of maxmemory's: nothing is evicted for
// them, and no command is refused.
func TestEventsInMemoryEvictNothing(t *testing.T) {
	const keys, rounds = 1000, 50
	r, p := proxied(t, options{events: "$e", limit: "-1", config: []string{"maxmemory-policy allkeys-lru"}})
	fill := func() (want []string) {
		pipe := r.Pipeline()
		for i := range keys {
			key := fmt.Sprintf("k%d", i)
			pipe.Set(ctx, key, "x", 0)
			want = append(want, "0\nset\n"+key)
		}
		_, err := pipe.Exec(ctx)
		must(t, err)
		return want
	}
	want := fill()
	r.arrives(want)
	p.Cut()
	r.do("CONFIG", "SET", "maxmemory", r.usedMemory()+1<<20)
	for range rounds {
		want = append(want, fill()...)
	}
	if n, err := strconv.Atoi(r.info("buffer_bytes")); err != nil || n < 2<<20 {
		t.Fatalf("buffer_bytes %d: too few to tell (%v)", n, err)
	}
	if n := r.DBSize(ctx).Val(); n != keys {
		t.Errorf("%d of %d keys are left", n, keys)
	}
	must(t, p.Mend())
	r.arrives(want)
	r.balanced(0, 0)
}

func TestAScriptThatMakesAMillionEvents(t *testing.T) {
	r := start(t, options{events: "$", silent: true, config: []string{"key_evt_amqp.delivery_mode 1"}})
	// The queue keeps the newest: what came before them was confirmed as well.
	const kept, first, n = 5000, 1000, 1000000
	must(t, broker.Bind(r.name, "amq.direct", r.name, map[string]any{"x-max-length": int32(kept)}))
	key := strings.Repeat("k", 40) // a million are more than buffer_limit holds
	script := func(n int) {
		r.do("EVAL", fmt.Sprintf("for i = 1, %d do redis.call('SET', KEYS[1], i) end", n), "1", key)
	}
	confirmed := func(want int) {
		deadline := time.Now().Add(3 * patience)
		for r.number("events_confirmed") < want {
			if time.Now().After(deadline) {
				t.Fatalf("%s of %d events are confirmed", r.info("events_confirmed"), want)
			}
			time.Sleep(20 * time.Millisecond)
		}
		r.balanced(0, 0)
	}
	script(first)
	confirmed(first)
	before := r.usedMemory()
	begun := time.Now()
	script(n)
	ran := time.Since(begun)
	confirmed(first + n)
	took := time.Since(begun) - ran
	if got := r.info("events_captured") + " " + r.info("events_published"); got != fmt.Sprint(first+n, first+n) {
		t.Errorf("captured and published are %s, want each %d", got, first+n)
	}
	eventually(t, func() error {
		if after := r.usedMemory(); after > before+4<<20 {
			return fmt.Errorf("%d bytes before the script, %d after its events were delivered", before, after)
		}
		return nil
	})
	r.queue = broker.Consume(r.name)
	must(t, r.queue.Wait(kept, patience))
	for i, m := range r.queue.Messages() {
		_, number, _ := strings.Cut(m.MessageId, "-")
		if want := strconv.Itoa(first + n - kept + 1 + i); number != want || string(m.Body) != "0\nset\n"+key {
			t.Fatalf("got event %s, want %s: %.80q", number, want, m.Body)
		}
	}
	t.Logf("the script took %v, delivery %v; %s events went through the list", ran, took, r.info("events_stored"))
}

func TestManyDatabases(t *testing.T) {
	const databases = 5000
	r, p := proxied(t, options{events: "$", config: []string{fmt.Sprintf("databases %d", databases)}})
	var want []string
	conn := r.Conn()
	defer conn.Close()
	for i, cut := range []bool{false, true} {
		if cut {
			p.Cut()
		}
		pipe := conn.Pipeline()
		for db := range databases {
			pipe.Select(ctx, db)
			pipe.Set(ctx, "k", i, 0)
			want = append(want, strconv.Itoa(db)+"\nset\nk")
		}
		_, err := pipe.Exec(ctx)
		must(t, err)
	}
	must(t, conn.Select(ctx, 0).Err())
	must(t, p.Mend())
	r.arrives(want)
	r.balanced(0, 0)
}

// bareReport is the crash report of a server without the module.
func bareReport(t *testing.T, how string) string {
	t.Helper()
	r := start(t, options{noLoad: true, silent: true})
	r.crashed = true
	_ = r.Do(ctx, "DEBUG", how).Err()
	eventually(t, func() error {
		if r.Alive() == nil {
			return fmt.Errorf("the server is alive")
		}
		return nil
	})
	return r.Log()
}

// The crash report ends with a test of all memory, which is the default.
func TestCrashReportIsComplete(t *testing.T) {
	for _, how := range []string{"SEGFAULT", "PANIC", "ASSERT"} {
		t.Run(how, func(t *testing.T) {
			random := seeded(t)
			r := start(t, options{events: "$"})
			r.crashed = true
			if got := r.do("CONFIG", "GET", "crash-memcheck-enabled"); fmt.Sprint(got) != "[crash-memcheck-enabled yes]" {
				t.Fatalf("got %v", got)
			}
			under(t, r, random, steady("a", "b"), func() {
				r.more(500)
				r.until("state", is("connected"))
				_ = r.Do(ctx, "DEBUG", how).Err()
				eventually(t, func() error {
					if r.Alive() == nil {
						return fmt.Errorf("the server is alive")
					}
					return nil
				})
			})
			log := r.Log()
			at := 0
			wants := []string{
				" BUG REPORT START", "MODULES INFO OUTPUT", "key_evt_amqp_state:connected", "key_evt_amqp_events_captured:",
				"FAST MEMORY TEST", "Fast memory test PASSED", " BUG REPORT END", "-server --check-system",
			}
			if how == "ASSERT" && !strings.Contains(bareReport(t, how), "FAST MEMORY TEST") {
				// Valkey's ends with the stack traces.
				wants = slices.Concat(wants[:1], wants[len(wants)-2:])
			}
			for _, want := range wants {
				i := strings.Index(log[at:], want)
				if i < 0 {
					t.Fatalf("the crash report has no %q behind what comes before", want)
				}
				at += i
			}
			if n := strings.Count(log, " BUG REPORT START"); n != 1 {
				t.Errorf("%d reports", n)
			}
		})
	}
}
