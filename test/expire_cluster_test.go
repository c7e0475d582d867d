// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// expireCluster: no node of it expires anything by itself.
func expireCluster(c *cluster) {
	c.t.Helper()
	for _, n := range c.Nodes {
		must(c.t, n.Do(ctx, "DEBUG", "SET-ACTIVE-EXPIRE", "0").Err())
	}
}

func (c *cluster) nothingWatched() {
	c.t.Helper()
	eventually(c.t, func() error {
		if n := c.sum("expire_watched"); n != 0 {
			return fmt.Errorf("%d are watched", n)
		}
		return nil
	})
}

// expiredOnce checks that each of these keys has expired, once.
func (c *cluster) expiredOnce(keys []string) {
	c.t.Helper()
	must(c.t, c.queue.Wait(len(keys), patience))
	c.settled()
	want := map[string]bool{}
	for _, key := range keys {
		want["0\nexpired\n"+key] = true
	}
	for _, m := range c.queue.Messages() {
		if !want[string(m.Body)] {
			c.t.Errorf("%q came, or came twice", m.Body)
		}
		delete(want, string(m.Body))
	}
	for body := range want {
		c.t.Errorf("%q did not come", body)
	}
}

// TestAtomicMigrationOverADeadline: in a slot that arrives nothing is touched, for
// a PERSIST may be on its way; what is due meanwhile goes once the slot is here.
func TestAtomicMigrationOverADeadline(t *testing.T) {
	j, _ := startMigrations(t, "x", 1, "key_evt_amqp.expire_on_time yes", "enable-debug-command yes")
	a, b := j.c.Nodes[0], j.c.Nodes[1]
	expireCluster(j.c)
	const n = 300
	var due []string
	text := tag(t, a, 0, 3000)
	at := in(5 * time.Second)
	key := func(kind string, i int) string { return fmt.Sprintf("{%s}%s%d", text, kind, i) }
	for i := range n {
		due = append(due, key("due", i))
		must(t, a.Do(ctx, "SET", key("due", i), "v", "PXAT", at).Err())
		must(t, a.Do(ctx, "SET", key("kept", i), "v", "PXAT", at+1000).Err())
	}
	j.slow(a, 15000)
	slot := slotOf(t, a, due[0])
	j.begin(a, b, slot, slot)
	persisted := 0
	for i := range n { // the source answers, the destination hears of it later
		for _, node := range []any{0, 1} {
			if got, err := j.c.Nodes[node.(int)].Do(ctx, "PERSIST", key("kept", i)).Int(); err == nil {
				persisted += got
				break
			}
		}
	}
	j.over()
	if persisted != n {
		t.Errorf("%d of %d were persisted", persisted, n)
	}
	j.c.expiredOnce(due)
	for i := range n {
		if ttl, err := b.Do(ctx, "PTTL", key("kept", i)).Int(); err != nil || ttl != -1 {
			t.Fatalf("%s: PTTL %d, %v", key("kept", i), ttl, err)
		}
	}
	j.c.nothingWatched()
}

// TestReshardedOverADeadline: keys go one by one, by MIGRATE, while they are due.
func TestReshardedOverADeadline(t *testing.T) {
	c, _ := startMasters(t, 2, "x", "key_evt_amqp.expire_on_time yes", "enable-debug-command yes", "cluster-require-full-coverage no")
	expireCluster(c)
	var keys []string
	from := in(3 * time.Second)
	for i := range 2000 {
		keys = append(keys, fmt.Sprint("k", i))
		must(t, c.Do(ctx, "SET", keys[i], strings.Repeat("v", 10), "PXAT", from+int64(3*i)).Err())
	}
	c.reshard(c.Nodes[0], c.Nodes[1], 1000)
	c.expiredOnce(keys)
	c.nothingWatched()
}
