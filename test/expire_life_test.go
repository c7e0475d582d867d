// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ttls sets n keys that are due at a time (Unix time in ms).
func (r *rig) ttls(prefix string, n int, at int64) {
	r.t.Helper()
	r.do("EVAL", "for i=0,tonumber(ARGV[2])-1 do redis.call('SET',ARGV[1]..i,'v','PXAT',ARGV[3]) end", 0, prefix, n, at)
}

func in(d time.Duration) int64 { return time.Now().Add(d).UnixMilli() }

// expired checks that these keys have expired in database 0, in any order, and
// nothing else.
func (r *rig) expired(prefixes map[string]int) {
	r.t.Helper()
	want := map[string]bool{}
	for prefix, n := range prefixes {
		for i := range n {
			want["0\nexpired\n"+prefix+strconv.Itoa(i)] = true
		}
	}
	if err := r.queue.Wait(len(want), patience); err != nil {
		info, _ := r.ModuleInfo()
		r.t.Fatalf("%v; INFO: %v", err, info)
	}
	for _, m := range r.queue.Messages() {
		if !want[string(m.Body)] {
			r.t.Errorf("%q came, or came twice", m.Body)
		}
		delete(want, string(m.Body))
	}
}

// TestDueInAPause: nothing expires in it, and all that was due right after.
func TestDueInAPause(t *testing.T) {
	r := onTime(t, options{})
	at := in(3 * time.Second)
	r.ttls("k", 500, at)
	r.until("expire_watched", is("500")) // on 7.0 it is learned when turns end
	r.do("CLIENT", "PAUSE", "100000", "WRITE")
	r.passed(at + 100)
	if got := r.info("expire_watched") + " " + r.info("events_captured"); got != "500 0" {
		t.Errorf("watched and captured are %s in the pause", got)
	}
	r.do("CLIENT", "UNPAUSE")
	r.expired(map[string]int{"k": 500})
	r.until("expire_watched", is("0"))
	r.balanced(0, 0)
}

// TestDueWhileAScriptRuns: time stands still for it, and keys go when it ends.
func TestDueWhileAScriptRuns(t *testing.T) {
	r := onTime(t, options{})
	at := in(200 * time.Millisecond)
	r.ttls("k", 100, at)
	got := r.do("EVAL", `local t repeat t=redis.call('TIME') until t[1]*1000+t[2]/1000>tonumber(ARGV[1])
		return redis.call('EXISTS','k0')`, 0, at+50)
	if got != int64(1) {
		t.Errorf("EXISTS in the script: %v", got)
	}
	r.expired(map[string]int{"k": 100})
	r.balanced(0, 0)
}

// TestDatabasesFlushedAndSwapped: what is known follows.
func TestDatabasesFlushedAndSwapped(t *testing.T) {
	r := onTime(t, options{})
	conn := r.Conn()
	defer conn.Close()
	r.ttls("gone", 1000, in(time.Hour))
	r.do("FLUSHALL")
	r.until("expire_watched", is("0"))
	r.ttls("gone", 1000, in(time.Hour))
	must(t, conn.Do(ctx, "SELECT", 1).Err())
	must(t, conn.Do(ctx, "SET", "one", "v", "PXAT", in(2*time.Second)).Err())
	r.do("FLUSHDB", "ASYNC")
	r.until("expire_watched", is("1"))
	r.do("SET", "zero", "v", "PXAT", in(2100*time.Millisecond))
	r.do("SWAPDB", "0", "1")
	r.do("SWAPDB", "1", "9")
	r.arrives([]string{"0\nexpired\none", "9\nexpired\nzero"})
	r.until("expire_watched", is("0"))
	r.balanced(0, 0)
}

// TestWatchedAfterARestart: deadlines are found in what was loaded.
func TestWatchedAfterARestart(t *testing.T) {
	for name, config := range map[string][]string{"RDB": {"save 3600 1"}, "AOF": {"appendonly yes", "aof-use-rdb-preamble no"}} {
		t.Run(name, func(t *testing.T) {
			r := onTime(t, options{config: config})
			after := in(time.Second)
			r.ttls("down", 100, after)
			r.ttls("up", 20000, after+8000)
			r.ttls("later", 100, in(time.Hour))
			r.Terminate()
			eventually(t, func() error {
				if now := time.Now().UnixMilli(); now <= after {
					return fmt.Errorf("it is %d", now)
				}
				return nil
			})
			must(t, r.Start())
			_ = r.Do(ctx, "DEBUG", "SET-ACTIVE-EXPIRE", "0").Err()
			want := map[string]int{"up": 20000}
			if name == "AOF" { // an RDB file's that are over are not loaded at all
				want["down"] = 100
			}
			r.expired(want)
			r.until("expire_watched", is("100"))
			r.balanced(0, 0)
		})
	}
}

// TestExpiryComesAndGoesWithSettings: masks, classes, and the setting itself
// change at run time; what there is, is found by a scan.
func TestExpiryComesAndGoesWithSettings(t *testing.T) {
	r := onTime(t, options{masks: "^none$"})
	at := in(4 * time.Second)
	r.ttls("a:", 3000, at)
	r.ttls("b:", 3000, at)
	r.ttls("c:", 3000, in(time.Hour))
	r.until("expire_watched", is("0"))
	r.do("key_evt_amqp.keymask_set", "^a:", "^c:")
	r.until("expire_watched", is("6000"))
	for _, off := range [][]any{{"events", "$"}, {"expire_on_time", "no"}} {
		r.do("CONFIG", "SET", fmt.Sprint("key_evt_amqp.", off[0]), off[1])
		r.until("expire_watched", is("0"))
		r.until("expire_watch_bytes", func(s string) bool { n, _ := strconv.Atoi(s); return n < 1<<16 })
		r.do("CONFIG", "SET", "key_evt_amqp.events", "x", "key_evt_amqp.expire_on_time", "yes")
		r.until("expire_watched", is("6000"))
	}
	r.do("key_evt_amqp.keymask_clean")
	r.until("expire_watched", is("0"))
	r.do("key_evt_amqp.keymask_add", "^a:")
	r.until("expire_watched", is("3000"))
	r.expired(map[string]int{"a:": 3000})
	r.until("expire_watched", is("0"))
	if n := r.DBSize(ctx).Val(); n != 6000 {
		t.Errorf("%d keys are left; those that no mask matches are not touched", n)
	}
	r.balanced(0, 0)
}

// TestWatchLimit: what does not fit expires at the server's pace, is counted and
// logged once; and is found when there is room.
func TestWatchLimit(t *testing.T) {
	r := onTime(t, options{config: []string{"key_evt_amqp.expire_watch_limit 1048576"}})
	at := in(15 * time.Second)
	r.ttls("k", 40000, at)
	eventually(t, func() error { // 7.0's TTLs are looked at when the turn ends
		if got := r.number("expire_unwatched") + r.number("expire_watched"); got != 40000 {
			return fmt.Errorf("%d are watched or counted", got)
		}
		return nil
	})
	refused := r.number("expire_unwatched")
	if fit := r.number("expire_watched"); fit < 10000 || fit+refused != 40000 || r.number("expire_watch_bytes") > 1<<20 {
		t.Errorf("%d fit, %d did not, in %s bytes", fit, refused, r.info("expire_watch_bytes"))
	}
	if n := strings.Count(r.Log(), "expire_watch_limit is reached"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
	r.do("CONFIG", "SET", "key_evt_amqp.expire_watch_limit", 16<<20)
	r.until("expire_watched", is("40000"))
	r.do("CONFIG", "SET", "key_evt_amqp.expire_watch_limit", 2<<20)
	r.until("expire_watch_bytes", func(s string) bool { n, _ := strconv.Atoi(s); return n <= 2<<20 })
	r.do("CONFIG", "SET", "key_evt_amqp.expire_watch_limit", 1<<30)
	r.expired(map[string]int{"k": 40000})
	r.until("expire_watched", is("0"))
	r.balanced(0, 0)
}

// TestEvictedKeysAreForgotten.
func TestEvictedKeysAreForgotten(t *testing.T) {
	r := onTime(t, options{config: []string{"maxmemory-policy allkeys-random"}})
	r.ttls("k", 20000, in(time.Hour))
	r.do("CONFIG", "SET", "maxmemory", memory(t, r.Redis))
	for i := range 20000 {
		if err := r.Set(ctx, "filler"+strconv.Itoa(i), strings.Repeat("v", 500), time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		if n, watched := r.DBSize(ctx).Val(), r.number("expire_watched"); n != int64(watched) || n >= 40000 {
			return fmt.Errorf("%d keys, %d watched", n, watched)
		}
		return nil
	})
	r.do("FLUSHALL")
	r.balanced(0, 0)
}

// TestWatchedThroughUnloadAndLoad.
func TestWatchedThroughUnloadAndLoad(t *testing.T) {
	r := onTime(t, options{})
	at := in(2 * time.Second)
	r.ttls("k", 1000, at)
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	r.ttls("l", 1000, at+100)
	args := []any{"MODULE", "LOADEX", module(t), "CONFIG", "key_evt_amqp.expire_on_time", "yes", "ARGS"}
	for _, arg := range r.loadArgs(options{events: "x"})[1:] {
		args = append(args, arg)
	}
	r.do(args...)
	r.expired(map[string]int{"k": 1000, "l": 1000})
	r.until("expire_watched", is("0"))
	r.balanced(0, 0)
}

// TestPromotedWithDeadlines: a replica watches nothing, and touches nothing; once
// it is the master it finds what is due.
func TestPromotedWithDeadlines(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "x", config: []string{"key_evt_amqp.expire_on_time yes", "enable-debug-command yes"}})
	must(t, mend())
	for _, r := range []*rig{master, replica} {
		r.do("DEBUG", "SET-ACTIVE-EXPIRE", "0")
	}
	at := in(2 * time.Second)
	master.ttls("k", 1000, at)
	master.ttls("l", 1000, at+8000)
	if n := master.do("WAIT", 1, 60000); n != int64(1) {
		t.Fatalf("WAIT: %v", n)
	}
	if got := replica.info("expire_watched"); got != "0" {
		t.Errorf("the replica watches %s", got)
	}
	master.Kill() // before or after the first are due
	replica.passed(at)
	replica.do("REPLICAOF", "NO", "ONE")
	master.queue.Wait(2000, patience)
	master.expired(map[string]int{"k": 1000, "l": 1000})
	replica.until("expire_watched", is("0"))
	replica.balanced(0, 0)
}

// TestFailoverOverADeadline: what is due while neither may write is expired by the
// new master, once, and the old one forgets what it knew.
func TestFailoverOverADeadline(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "x", config: []string{"key_evt_amqp.expire_on_time yes", "enable-debug-command yes"}})
	must(t, mend())
	for _, r := range []*rig{master, replica} {
		r.do("DEBUG", "SET-ACTIVE-EXPIRE", "0")
	}
	at := in(time.Second)
	for i := range 40 { // 50 ms apart, before, in and after it
		master.ttls(fmt.Sprint("k", i, ":"), 25, at+int64(50*i))
	}
	eventually(t, func() error {
		if info := master.Info(ctx, "replication").Val(); !strings.Contains(info, "state=online") {
			return fmt.Errorf("no replica online: %s", info)
		}
		return nil
	})
	master.passed(at + 500)
	master.do("FAILOVER")
	isMaster(t, replica.Redis)
	want := map[string]int{}
	for i := range 40 {
		want[fmt.Sprint("k", i, ":")] = 25
	}
	master.expired(want)
	master.until("expire_watched", is("0"))
	replica.until("expire_watched", is("0"))
	sameDataset(t, replica, master)
}
