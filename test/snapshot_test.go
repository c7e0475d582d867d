// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var forFolds = []string{"key_evt_amqp.dataset_events yes", "key_evt_amqp.format json"}

// Each key once, between the changes, then the end, whose key is the id.
func TestSnapshot(t *testing.T) {
	r := start(t, options{events: "$"})
	conn := r.Conn()
	defer conn.Close()
	must(t, conn.Select(ctx, 7).Err())
	must(t, conn.Set(ctx, "seven\n\x00", "v", 0).Err())
	must(t, conn.Select(ctx, 0).Err())
	r.do("SADD", "set", "v")
	r.do("SET", "gone", "v", "PX", 1)
	r.do("DEBUG", "SLEEP", "0.01")
	r.do("SET", "s", "v")
	id, ok := r.do("key_evt_amqp.snapshot").(string)
	if !ok || len(id) != 16 || r.info("snapshot_id") != id {
		t.Fatalf("the command answers %v, INFO has %q", id, r.info("snapshot_id"))
	}
	r.until("snapshot_state", is("none"))
	r.do("SET", "after", "v")
	must(t, r.queue.Wait(8, patience))
	var got []string
	for _, m := range r.queue.Messages() {
		got = append(got, string(m.Body))
	}
	slices.Sort(got[3:5])
	want := []string{"7\nset\nseven\n\x00", "0\nset\ngone", "0\nset\ns", "0\nsnapshot\ns", "0\nsnapshot\nset",
		"7\nsnapshot\nseven\n\x00", "0\nsnapshot_end\n" + id, "0\nset\nafter"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if n := r.number("snapshot_keys"); n != 3 {
		t.Errorf("snapshot_keys is %d", n)
	}
	r.balanced(0, 0)
}

func TestSnapshotOfGivenMasks(t *testing.T) {
	r := start(t, options{events: "x", masks: "^a"})
	r.do("MSET", "a1", "v", "a2", "v", "b1", "v", "c", "v")
	var want []string
	for _, test := range []struct {
		masks []any
		want  []string
	}{
		{nil, []string{"a1", "a2"}},
		{[]any{"^b", "^c$"}, []string{"b1", "c"}},
		{[]any{"ALL"}, []string{"a1", "a2", "b1", "c"}},
		{[]any{"nothing"}, nil},
	} {
		from := len(want)
		id := r.do(append([]any{"key_evt_amqp.snapshot"}, test.masks...)...).(string)
		for _, key := range test.want {
			want = append(want, "0\nsnapshot\n"+key)
		}
		want = append(want, "0\nsnapshot_end\n"+id)
		must(t, r.queue.Wait(len(want), patience))
		var got []string
		for _, m := range r.queue.Messages()[from:] {
			got = append(got, string(m.Body))
		}
		slices.Sort(got)
		if !slices.Equal(got, want[from:]) {
			t.Errorf("%v: got %q, want %q", test.masks, got, want[from:])
		}
		r.until("snapshot_state", is("none"))
	}
	r.do("key_evt_amqp.snapshot_cancel") // there is none: fine
	r.fails("wrong number", "key_evt_amqp.snapshot_cancel", "x")
	r.fails("key_mask", "key_evt_amqp.snapshot", strings.Repeat("x", 70000))
	r.do("key_evt_amqp.keymask_clean")
	r.fails("key_mask: there are none", "key_evt_amqp.snapshot")
	r.balanced(0, 0)
}

// The broker is away: it goes on up to about buffer_limit and waits; one at a time;
// cancelled, it sends no end.
func TestSnapshotIsHeldBackAndCancelled(t *testing.T) {
	r, p := proxied(t, options{events: "x", config: []string{"key_evt_amqp.buffer_limit 65536"}})
	r.sets("k", 20000)
	p.Cut()
	first := r.do("key_evt_amqp.snapshot").(string)
	r.until("snapshot_state", is("waiting"))
	r.fails("a snapshot is under way", "key_evt_amqp.snapshot")
	sent := r.number("snapshot_keys")
	if sent == 0 || sent > 5000 {
		t.Errorf("%d keys are sent with a buffer_limit of 65536 bytes", sent)
	}
	r.do("key_evt_amqp.snapshot_cancel")
	if got := r.info("snapshot_state"); got != "none" {
		t.Errorf("cancelled, its state is %s", got)
	}
	second := r.do("key_evt_amqp.snapshot").(string)
	r.until("snapshot_state", is("waiting"))
	must(t, p.Mend())
	r.until("snapshot_state", is("none"))
	r.balanced(0, 0)
	must(t, r.queue.Wait(r.number("events_captured"), patience))
	ends, keys := 0, 0
	for _, m := range r.queue.Messages() {
		switch body := string(m.Body); {
		case body == "0\nsnapshot_end\n"+second:
			ends++
		case strings.HasPrefix(body, "0\nsnapshot\nk"):
			keys++
		default:
			t.Fatalf("got %q (the one cancelled is %s)", body, first)
		}
	}
	if ends != 1 || keys < sent+20000 {
		t.Errorf("%d ends, %d keys", ends, keys)
	}
}

// randomWriter does what clients do, at random.
type randomWriter struct {
	*rand.Rand
	r *rig
	// sparing spares database 0 of FLUSH and SWAPDB, which would take the
	// fallback list, and waits while that is long.
	sparing bool
}

func (w randomWriter) key() string { return "k" + strconv.Itoa(w.IntN(300)) }

func (w randomWriter) commands() [][]any {
	a, b := w.key(), w.key()
	switch w.IntN(34) {
	case 0:
		return [][]any{{"SET", a, w.Int64()}}
	case 1:
		return [][]any{{"SET", a, "v", "PX", 1 + w.IntN(200)}}
	case 2:
		return [][]any{{"DEL", a}, {"UNLINK", b}}
	case 3:
		return [][]any{{"RENAME", a, b}}
	case 4:
		return [][]any{{"COPY", a, b, "REPLACE"}}
	case 5:
		return [][]any{{"DEL", "set" + a}, {"SADD", "set" + a, 1, 2, 3, 4, w.IntN(100)}}
	case 6:
		return [][]any{{"SPOP", "set" + a, 1 + w.IntN(6)}}
	case 7:
		return [][]any{{"RPUSH", "list" + a, 1, 2, w.IntN(100)}}
	case 8:
		return [][]any{{"LPOP", "list" + a, 1 + w.IntN(4)}}
	case 9:
		return [][]any{{"HSET", "hash" + a, "f", w.IntN(100), strconv.Itoa(w.IntN(5)), 1}}
	case 10:
		return [][]any{{"HDEL", "hash" + a, "f", strconv.Itoa(w.IntN(5))}}
	case 11:
		return [][]any{{"ZADD", "zset" + a, w.IntN(100), w.IntN(5)}}
	case 12:
		return [][]any{{"ZPOPMIN", "zset" + a, 1 + w.IntN(3)}}
	case 13:
		return [][]any{{"XADD", "stream" + a, "*", "f", w.IntN(100)}}
	case 14:
		return [][]any{{"LMOVE", "list" + a, "list" + b, "LEFT", "RIGHT"}}
	case 15:
		return [][]any{{"SMOVE", "set" + a, "set" + b, 1}}
	case 16:
		return [][]any{{"SINTERSTORE", "set" + a, "set" + b, "set" + w.key()}}
	case 17:
		return [][]any{{"MOVE", a, 1 + w.IntN(3)}}
	case 18:
		return [][]any{{"COPY", a, b, "DB", 1 + w.IntN(3)}}
	case 19:
		return [][]any{{"PEXPIRE", a, 1 + w.IntN(100)}, {"PERSIST", b}}
	case 20:
		return [][]any{{"GETDEL", a}}
	case 21:
		return [][]any{{"APPEND", a, "x"}, {"INCR", "n" + b}}
	case 22:
		return [][]any{{"RENAME", "list" + a, "list" + b}, {"RENAMENX", "set" + a, "set" + b}}
	case 23:
		return [][]any{{"EVAL", "for i = 1, 20 do redis.call('SET', KEYS[1] .. i, i) end redis.call('DEL', KEYS[1] .. 3) redis.call('RENAME', KEYS[1] .. 4, KEYS[2])", 2, a, b}}
	case 24:
		return [][]any{{"MULTI"}, {"SET", a, 1}, {"RENAME", a, b}, {"HSET", "hash" + a, "x", 1}, {"DEL", "hash" + b}, {"EXEC"}}
	case 25:
		if w.IntN(20) == 0 {
			from := 0
			if w.sparing {
				from = 1
			}
			return [][]any{{"SWAPDB", from + w.IntN(4-from), from + w.IntN(4-from)}}
		}
	case 26:
		if w.IntN(40) == 0 {
			return [][]any{{"SELECT", 1 + w.IntN(3)}, {"FLUSHDB"}, {"SELECT", 0}}
		}
	case 27:
		if !w.sparing && w.IntN(400) == 0 {
			return [][]any{{"FLUSHALL", "ASYNC"}}
		}
	case 28:
		return [][]any{{"LTRIM", "list" + a, 1, 0}, {"ZREMRANGEBYRANK", "zset" + a, 0, -1}}
	case 29:
		return [][]any{{"SET", a, "v", "PXAT", 1}, {"GETEX", b, "PX", 1}}
	case 30:
		return [][]any{{"SORT", "list" + a, "STORE", "list" + b}}
	case 31:
		return [][]any{{"SELECT", 1 + w.IntN(3)}, {"SET", a, 1}, {"RPUSH", "list" + b, 1}, {"DEL", b}, {"SELECT", 0}}
	case 32:
		return [][]any{{"XADD", "stream" + a, "MAXLEN", 2, "*", "f", 1}, {"DEL", "stream" + b}}
	}
	return [][]any{{"GET", a}}
}

// write works until it is told to stop. Commands that the server refuses (a wrong
// type, no such key) are part of it.
func (w randomWriter) write(stop context.Context) error {
	for stop.Err() == nil {
		if w.sparing {
			info, err := w.r.ModuleInfo()
			if err != nil {
				return err
			}
			if n, _ := strconv.Atoi(info["fallback_length"]); n > 500 {
				continue
			}
		}
		_, err := w.r.Pipelined(ctx, func(p redis.Pipeliner) error {
			for range 20 {
				for _, command := range w.commands() {
					p.Do(ctx, command...)
				}
			}
			return nil
		})
		var refused redis.Error
		if err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}

// writing starts writers; the function returned ends them and waits until nothing
// that they wrote is yet to expire.
func (r *rig) writing(seed uint64, sparing bool) (end func()) {
	stop, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range uint64(2) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := (randomWriter{rand.New(rand.NewPCG(seed, i)), r, sparing}).write(stop); err != nil {
				r.t.Error(err)
			}
		}()
	}
	return func() {
		r.t.Helper()
		cancel()
		wg.Wait()
		eventually(r.t, func() error { // KEYS touches what is due
			for db := range 4 {
				if _, err := r.Pipelined(ctx, func(p redis.Pipeliner) error {
					p.Do(ctx, "SELECT", db)
					p.Keys(ctx, "*")
					p.Do(ctx, "SELECT", 0)
					return nil
				}); err != nil {
					return err
				}
			}
			info, err := r.Info(ctx, "keyspace").Result()
			if err == nil && strings.Contains(strings.ReplaceAll(info, "expires=0", ""), "expires=") {
				err = errors.New(info)
			}
			return err
		})
	}
}

// A consumer that folds a snapshot and all later events has what the server has:
// with writes of all kinds meanwhile, the broker away for a part, and redeliveries.
func TestFoldOfASnapshotIsTheDataset(t *testing.T) {
	for _, test := range []struct {
		name   string
		config []string
		cut    bool
	}{
		{"", nil, false},
		{"the broker away for a part", []string{"key_evt_amqp.buffer_limit 65536"}, true},
		{"the broker away for a part, with outbox", []string{"key_evt_amqp.outbox yes", "key_evt_amqp.buffer_limit 65536"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r, p := proxied(t, options{events: "A", config: append(test.config, forFolds...)})
			r.sets("old", 30000)
			end := r.writing(seed, test.cut)
			id := r.do("key_evt_amqp.snapshot").(string)
			if test.cut {
				for range 3 {
					sent := r.number("snapshot_keys")
					p.Cut()
					r.until("state", is("backoff"))
					must(t, p.Mend())
					r.until("snapshot_keys", func(v string) bool { n, _ := strconv.Atoi(v); return n > sent || r.info("snapshot_state") == "none" })
				}
			}
			r.until("snapshot_state", is("none"))
			end()
			r.drained()
			f, err := folded(r.queue.Messages())
			must(t, err)
			if !slices.Equal(f.ended, []string{id}) {
				t.Errorf("ended %v, want %s", f.ended, id)
			}
			must(t, f.equals(r))
			gapless(t, r.queue.Messages())
		})
	}
}

// drained waits until all that was captured has come.
func (r *rig) drained() {
	r.t.Helper()
	eventually(r.t, func() error {
		want := r.number("events_captured") - r.number("events_dropped")
		if got := len(r.queue.Messages()); got != want || r.info("events_buffered") != "0" {
			return fmt.Errorf("%d of %d have come", got, want)
		}
		return nil
	})
}

// A failover in the middle: no end of that snapshot, and the new master makes one.
func TestFailoverEndsASnapshot(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "A", config: append([]string{"key_evt_amqp.buffer_limit 65536"}, forFolds...)})
	master.sets("k", 20000)
	eventually(t, func() error { return sameOffset(master, replica) })
	id := master.do("key_evt_amqp.snapshot").(string)
	master.until("snapshot_state", is("waiting"))
	replica.fails("replica", "key_evt_amqp.snapshot")
	replica.do("REPLICAOF", "NO", "ONE")
	master.do("REPLICAOF", "127.0.0.1", strconv.Itoa(replica.Port))
	if got := master.info("snapshot_state"); got != "none" {
		t.Errorf("demoted, its state is %s", got)
	}
	if !strings.Contains(master.Log(), "snapshot "+id+" ends without snapshot_end") {
		t.Error("the log does not say so")
	}
	must(t, mend())
	second := replica.do("key_evt_amqp.snapshot").(string)
	replica.until("snapshot_state", is("none"))
	replica.do("SET", "last", "v")
	eventually(t, func() error {
		f, err := folded(master.queue.Messages())
		if err != nil {
			return err
		}
		if !slices.Equal(f.ended, []string{second}) {
			return fmt.Errorf("ended %v, want %s", f.ended, second)
		}
		return f.equals(replica)
	})
}

// Each master of a cluster makes its own, with an end of its own.
func TestSnapshotOnEveryMaster(t *testing.T) {
	c, _ := startCluster(t)
	c.write(300)
	c.settled()
	before := len(c.queue.Messages())
	var id string
	for _, n := range c.Nodes { // a replica refuses
		if got, err := n.Do(ctx, "key_evt_amqp.snapshot", "^k").Text(); err == nil {
			id = got
			break
		}
	}
	must(t, c.queue.Wait(before+303, patience))
	ends, keys := map[string]bool{}, map[string]bool{}
	for _, m := range c.queue.Messages()[before:] {
		origin, _, _ := strings.Cut(m.MessageId, "-")
		if string(m.Body) == "0\nsnapshot_end\n"+id {
			ends[origin] = true
		} else if !ends[origin] {
			keys[string(m.Body)] = true
		}
	}
	if len(ends) != 3 || len(keys) != 300 {
		t.Errorf("%d ends, %d keys before them", len(ends), len(keys))
	}
	for _, n := range c.Nodes {
		info, err := n.ModuleInfo()
		must(t, err)
		if info["snapshot_state"] != "none" {
			t.Errorf("a snapshot is %s", info["snapshot_state"])
		}
		if err := n.Do(ctx, "key_evt_amqp.snapshot_cancel").Err(); err != nil {
			t.Error(err)
		}
	}
}

// A million keys, under load: by -long only.
func TestSnapshotOfAMillionKeys(t *testing.T) {
	if !*long {
		t.Skip("takes minutes: -long")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r, _ := proxied(t, options{events: "A", config: forFolds})
	r.do("EVAL", "for i = 1, 1000000 do redis.call('SET', 'old' .. i, i) end", "0")
	end := r.writing(seed, false)
	from := time.Now()
	r.do("key_evt_amqp.snapshot")
	r.until("snapshot_state", is("none"))
	t.Logf("%d keys in %v", r.number("snapshot_keys"), time.Since(from))
	end()
	r.drained()
	f, err := folded(r.queue.Messages())
	must(t, err)
	must(t, f.equals(r))
}
