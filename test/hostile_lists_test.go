// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

const listKey = "key_evt_amqp.fallback"

// A client that may write anywhere may do anything to the list. What it removes
// is counted, what it adds is not an event and holds nothing up; the log stays short.
func TestHostileEditsOfTheListUnderLoad(t *testing.T) {
	random := seeded(t)
	r, p := proxied(t, options{events: "$", config: []string{"appendonly yes"}})
	junk := func() []any {
		elements := make([]any, 1+random.IntN(300))
		for i := range elements {
			elements[i] = fmt.Sprintf("\xea\x01%d", i)
		}
		return elements
	}
	edit := func() {
		switch random.IntN(8) {
		case 0, 1:
			r.Do(ctx, append([]any{"RPUSH", listKey}, junk()...)...)
		case 2:
			r.Do(ctx, append([]any{"LPUSH", listKey}, junk()...)...)
		case 3:
			r.Do(ctx, "LTRIM", listKey, random.IntN(50), -1-random.IntN(50))
		case 4:
			r.Do(ctx, "LPOP", listKey, 1+random.IntN(50))
		case 5:
			r.Do(ctx, "DEL", listKey)
		case 6:
			r.Do(ctx, "SET", listKey, "x")
		default:
			r.Do(ctx, "LSET", listKey, random.IntN(20), "x")
		}
	}
	loads := steady("a", "b", "c")
	under(t, r, random, loads, func() {
		for range 10 {
			p.Cut()
			for range 40 {
				edit()
			}
			r.more(100)
			must(t, p.Mend())
			for range 40 {
				edit()
			}
			r.more(100)
		}
	})
	if r.do("TYPE", listKey) == "string" {
		r.do("DEL", listKey)
	}
	eventually(t, func() error {
		info, err := r.ModuleInfo()
		must(t, err)
		for _, field := range []string{"events_buffered", "fallback_length", "inflight", "buffer_bytes"} {
			if info[field] != "0" {
				return fmt.Errorf("%s is %s", field, info[field])
			}
		}
		captured, _ := strconv.Atoi(info["events_captured"])
		dropped, _ := strconv.Atoi(info["events_dropped"])
		if came := len(r.queue.Messages()); captured-came > dropped {
			return fmt.Errorf("%d captured, %d came, %d counted as dropped", captured, came, dropped)
		}
		return nil
	})
	if n := strings.Count(r.Log(), "\n"); n > 400 {
		t.Errorf("the log has %d lines", n)
	}
	for _, line := range []string{"events dropped", "a value of another type"} {
		if n := strings.Count(r.Log(), line); n > 60 {
			t.Errorf("the log has %d lines of %q", n, line)
		}
	}
	t.Logf("%s captured, %d came, %s dropped", r.info("events_captured"), len(r.queue.Messages()), r.info("events_dropped"))
}

// What is no event is removed from between events that are in flight, and so holds up
// nothing behind it, however late the broker confirms.
func TestJunkBetweenEventsHoldsNothingUp(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{"key_evt_amqp.outbox yes", "appendonly yes"}})
	// A new session sends one message alone, until that is confirmed.
	r.do("SET", "first", "v")
	r.until("events_confirmed", is("1"))
	p.Hold(servers.ToClient)
	want := []string{"0\nset\nfirst"}
	dropped := 0
	for i := range 5 {
		key := "k" + strconv.Itoa(i)
		r.do("SET", key, "v")
		want = append(want, "0\nset\n"+key)
		r.until("events_published", is(strconv.Itoa(i+2)))
		junk := []any{"RPUSH", listKey}
		for n := range 150 {
			junk = append(junk, "junk"+strconv.Itoa(n%7))
		}
		r.do(junk...)
		dropped += 150
	}
	r.until("events_dropped", is(strconv.Itoa(dropped)))
	r.until("fallback_length", is("5"))
	held := fmt.Sprint(r.do("LRANGE", listKey, "0", "-1"))
	r.do("DEBUG", "LOADAOF")
	if loaded := fmt.Sprint(r.do("LRANGE", listKey, "0", "-1")); loaded != held {
		t.Errorf("the append-only file has %q, the list was %q", loaded, held)
	}
	p.Release()
	r.arrives(want)
	r.until("fallback_length", is("0"))
	r.until("events_dropped", is(strconv.Itoa(dropped)))
}

// The replication stream and the AOF show how much a turn has dropped.
func TestASmallerLimitIsKeptInSlices(t *testing.T) {
	const events, slice = 40000, 4096
	r, p := proxied(t, options{events: "$", config: []string{"appendonly yes", "appendfsync no", "auto-aof-rewrite-percentage 0"}})
	p.Cut()
	r.sets("k", events)
	r.until("fallback_length", is(strconv.Itoa(events)))
	r.do("key_evt_amqp.fallback_storage_size_set", "1")
	r.until("fallback_length", is("1"))
	r.until("events_dropped", is(strconv.Itoa(events-1)))
	r.do("CONFIG", "SET", "appendfsync", "always")
	r.do("SET", "k"+strconv.Itoa(events), "v")
	pops := 0
	must(t, filepath.WalkDir(r.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.Contains(path, ".aof") || strings.HasSuffix(path, ".manifest") {
			return err
		}
		bytes, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`LPOP\r\n\$\d+\r\n`+regexp.QuoteMeta(listKey)+`\r\n\$\d+\r\n(\d+)\r\n`).FindAllSubmatch(bytes, -1) {
			n, _ := strconv.Atoi(string(m[1]))
			pops += n
			if n > slice+1 {
				t.Errorf("a turn has dropped %d elements", n)
			}
		}
		return err
	}))
	if pops < events-1 {
		t.Errorf("the AOF has %d pops, want %d", pops, events-1)
	}
	must(t, p.Mend())
	r.arrives([]string{"0\nset\nk" + strconv.Itoa(events)})
}

// In a cluster any key of that form is a list: however many a client makes, the
// log says it so often a minute, and the events go on.
func TestClusterListsThatClientsMake(t *testing.T) {
	c, _ := startCluster(t)
	c.write(50)
	id := strings.Repeat("0123456789", 4)
	for i := range 2000 {
		must(t, c.Do(ctx, "RPUSH", fmt.Sprintf("%s.%s{%d}", listKey, id, i), "junk").Err())
	}
	c.write(50)
	eventually(t, func() error {
		if n := c.sum("events_dropped"); n < 2000 {
			return fmt.Errorf("%d dropped", n)
		}
		return nil
	})
	c.complete(nil)
	for i, n := range c.Nodes {
		if lines := strings.Count(n.Log(), "the fallback list"); lines > 60 {
			t.Errorf("the log of node %d has %d lines about lists", i, lines)
		}
	}
}
