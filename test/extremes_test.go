// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strings"
	"testing"
)

func TestAScriptThatMakesManyEventsInOneTurn(t *testing.T) {
	r, p := proxied(t, options{events: "$"})
	p.Cut()
	const n = 200000
	r.do("EVAL", fmt.Sprintf("for i = 0, %d do redis.call('SET', 'k' .. i, 'v') end", n-1), "0")
	r.until("fallback_length", is(fmt.Sprint(n)))
	must(t, p.Mend())
	r.arrives(setBodies("k", n))
	r.balanced(0, 0)
}

func TestABusyScriptNeitherLosesNorStalls(t *testing.T) {
	r := start(t, options{events: "$", config: []string{"busy-reply-threshold 50"}})
	r.do("SET", "before", "v")
	r.arrives([]string{"0\nset\nbefore"})
	done := make(chan error, 1)
	go func() {
		done <- r.Do(ctx, "EVAL", "for i = 1, 2000 do redis.call('SET', 'k' .. i, 'v') end "+
			"local t = redis.call('TIME') repeat local u = redis.call('TIME') until u[1] - t[1] >= 2", "0").Err()
	}()
	eventually(t, func() error {
		if err := r.Ping(ctx).Err(); err == nil || !strings.Contains(err.Error(), "BUSY") {
			return fmt.Errorf("not busy: %v", err)
		}
		return nil
	})
	if err := <-done; err != nil && !strings.Contains(err.Error(), "nil") {
		t.Fatal(err)
	}
	must(t, r.queue.Wait(2001, patience))
	r.balanced(0, 0)
}

func TestTheListIsEvicted(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{"maxmemory-policy allkeys-random"}})
	p.Cut()
	r.sets("k", 1000)
	r.until("fallback_length", is("1000"))
	r.do("CONFIG", "SET", "maxmemory", "1")
	_ = r.Do(ctx, "SET", "one", "more").Err() // refused, once everything is evicted
	r.until("events_dropped", is("1000"))
	r.do("CONFIG", "SET", "maxmemory", "0")
	r.do("SET", "after", "v")
	must(t, p.Mend())
	r.arrives([]string{"0\nset\nafter"})
	r.balanced(0, 1000)
}

func TestBackgroundSavesUnderLoad(t *testing.T) {
	r := start(t, options{events: "$", config: []string{"appendonly yes"}})
	for i := range 5 {
		r.sets(fmt.Sprintf("k%d-", i), 2000)
		r.do("BGSAVE", "SCHEDULE")
		r.do("BGREWRITEAOF")
		eventually(t, func() error {
			info, err := r.Info(ctx, "persistence").Result()
			if err != nil || !strings.Contains(info, "rdb_bgsave_in_progress:0") || !strings.Contains(info, "aof_rewrite_in_progress:0") ||
				!strings.Contains(info, "aof_rewrite_scheduled:0") {
				return fmt.Errorf("a child is at work, error %v", err)
			}
			return nil
		})
	}
	r.do("DEBUG", "RELOAD")
	var want []string
	for i := range 5 {
		want = append(want, setBodies(fmt.Sprintf("k%d-", i), 2000)...)
	}
	r.arrives(want)
	r.balanced(0, 0)
}
