// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
)

func node(i int) string { return fmt.Sprintf("%040d", i) }

func TestTheLastCommandWinsEverywhere(t *testing.T) {
	a, b := newAgreement(node(1)), newAgreement(node(2))
	a.record(map[string]string{"port": "1", "heartbeat": "7"}, 100)
	b.record(map[string]string{"port": "2"}, 101)
	a.merge(b.entries)
	b.merge(a.entries)
	if !bytes.Equal(a.encode(), b.encode()) || a.entries["port"].value != "2" || b.entries["heartbeat"].value != "7" {
		t.Errorf("got %v and %v", a.entries, b.entries)
	}
	// A clock that is behind makes no command older than one it follows.
	a.record(map[string]string{"port": "3"}, 50)
	b.merge(a.entries)
	if got := b.entries["port"].value; got != "3" {
		t.Errorf("after a command on a node whose clock is behind: got %s, want 3", got)
	}
}

// A clock that was years ahead, and is right again: what was stamped meanwhile is
// earlier than every command since, here and elsewhere.
func TestAWrongClockPinsNothing(t *testing.T) {
	const now, wrong = uint64(1_700_000_000_000_000), uint64(4_000_000_000_000_000)
	a, b := newAgreement(node(1)), newAgreement(node(2))
	a.record(map[string]string{"port": "1", "username": "u"}, wrong)
	a.record(map[string]string{"port": "2"}, wrong+1)
	b.record(map[string]string{"port": "3"}, now-5)
	for name, e := range a.entries {
		if !beyond(e.stamp, now) {
			t.Errorf("%s: another node would take a stamp of %d at %d", name, e.stamp.time, now)
		}
	}
	a.heal(now)
	a.merge(b.entries)
	b.merge(a.entries)
	for _, n := range []*agreement{a, b} {
		if n.entries["port"].value != "3" || n.entries["username"].value != "u" || n.clock > now {
			t.Errorf("got %v at %d", n.entries, n.clock)
		}
	}
	a.record(map[string]string{"port": "4"}, now)
	if e := a.entries["port"]; e.value != "4" || e.stamp.time != now {
		t.Errorf("a command after it: got %v", e)
	}
	// And when the next thing that happens is a command.
	c := newAgreement(node(3))
	c.record(map[string]string{"port": "1"}, wrong)
	c.record(map[string]string{"port": "5"}, now)
	if e := c.entries["port"]; e.value != "5" || e.stamp.time != now {
		t.Errorf("a command right after the clock was put right: got %v", e)
	}
}

func TestTheHorizonIsADay(t *testing.T) {
	for _, test := range []struct {
		time uint64
		want bool
	}{{0, false}, {1000, false}, {1000 + horizon, false}, {1001 + horizon, true}, {1 << 63, true}, {1<<64 - 1, true}} {
		if got := beyond(stamp{time: test.time}, 1000); got != test.want {
			t.Errorf("a stamp of %d at 1000: got %v", test.time, got)
		}
	}
}

// The messages are made once, and anew after each change.
func TestMessagesAreThoseOfTheEntries(t *testing.T) {
	a := newAgreement(node(1))
	current := func() {
		t.Helper()
		if !bytes.Equal(a.settings(), seal(busSettings, a.encode())) || !bytes.Equal(a.summary(), seal(busSummary, digest(a.encode()))) {
			t.Errorf("the messages are not those of %v", a.entries)
		}
	}
	current()
	a.record(map[string]string{"port": "1"}, 1<<60)
	current()
	a.merge(map[string]entry{"port": {"2", stamp{1<<60 + 1, node(2)}}})
	current()
	a.heal(5)
	current()
	if n := testing.AllocsPerRun(10, func() { a.settings(); a.isSummary(nil) }); n > 0 {
		t.Errorf("asking again allocates %v times", n)
	}
}

// Nodes that tell each other what they know, in any order and with losses,
// agree once each has heard of each other.
func TestNodesAgree(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		nodes := make([]*agreement, 5)
		for i := range nodes {
			nodes[i] = newAgreement(node(i))
		}
		for range 60 {
			if r.IntN(3) == 0 {
				nodes[r.IntN(5)].record(map[string]string{fmt.Sprint("s", r.IntN(4)): fmt.Sprint(r.IntN(1000))}, r.Uint64N(50))
			} else {
				entries, err := decodeEntries(nodes[r.IntN(5)].encode())
				if err != nil {
					t.Fatal(err)
				}
				nodes[r.IntN(5)].merge(entries)
			}
		}
		for range 2 {
			for i := range nodes {
				nodes[(i+1)%5].merge(maps.Clone(nodes[i].entries))
			}
		}
		for i := range nodes {
			if !bytes.Equal(nodes[i].encode(), nodes[0].encode()) {
				t.Fatalf("seed %d: node %d has %v, node 0 %v", seed, i, nodes[i].entries, nodes[0].entries)
			}
		}
	}
}

func TestEveryDamageToAMessageIsNoticed(t *testing.T) {
	a := newAgreement(node(1))
	a.record(map[string]string{"key_mask": "^a\x00\xff", connectionEntry: connected}, 7)
	whole := a.settings()
	kind, payload, err := unseal(whole)
	if err != nil || kind != busSettings {
		t.Fatalf("got kind %d, error %v", kind, err)
	}
	if entries, err := decodeEntries(payload); err != nil || !maps.Equal(entries, a.entries) {
		t.Fatalf("got %v, error %v; want %v", entries, err, a.entries)
	}
	for i := range whole {
		if _, _, err := unseal(whole[:i]); err == nil {
			t.Errorf("cut at %d: taken for whole", i)
		}
		for bit := range 8 {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 1 << bit
			if _, _, err := unseal(damaged); err == nil {
				t.Errorf("bit %d of byte %d flipped: taken for whole", bit, i)
			}
		}
	}
}

func FuzzDecodeEntries(f *testing.F) {
	a := newAgreement(node(1))
	a.record(map[string]string{"a": "", "b": strings.Repeat("x", 300)}, 7)
	f.Add(a.encode())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := decodeEntries(b)
		if err != nil {
			return
		}
		again, err := decodeEntries((&agreement{entries: entries}).encode())
		if err != nil || !maps.Equal(again, entries) {
			t.Errorf("%q: decoded %v, again %v, error %v", b, entries, again, err)
		}
	})
}
