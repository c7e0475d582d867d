// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A flight against a plain reference: whatever the broker answers, what is
// settled is what was confirmed or dropped, in order and once, and what was not
// delivered comes again before anything behind it.
func TestFlightSettlesInOrderWhatWasTaken(t *testing.T) { rapid.Check(t, flightProperty) }

func FuzzFlight(f *testing.F) { f.Fuzz(rapid.MakeFuzz(flightProperty)) }

func flightProperty(t *rapid.T) {
	var count Counters
	f := &flight{count: &count}
	window := rapid.IntRange(1, 9).Draw(t, "window")
	const tooLong, big = 13, 17 // every so many-th message has too long a key, is too large
	settled, next := 0, 1       // message numbers
	drops := map[int]bool{}
	outcome := map[int]string{} // of the message's last sending: "", "ok", "no"
	var sent []int              // of this session, by tag
	in := confirming(window, 0)
	begin := func() {
		f.begin(window)
		in = confirming(window, 0)
		sent, next = nil, settled+1
		outcome = map[int]string{}
	}
	number := func(id string) (n int) {
		if _, err := fmt.Sscanf(id, "id-%d", &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	fill := func() {
		for f.room() {
			m := Message{ID: fmt.Sprint("id-", next)}
			if next%tooLong == 0 {
				m.RoutingKey = strings.Repeat("r", 256)
			}
			if f.add(&m) {
				sent = append(sent, next)
				in.sent.tag.Add(1)
			} else if next%tooLong != 0 && next%big != 0 {
				t.Fatalf("message %d is not sent", next)
			}
			next++
		}
		if int(f.end-f.first) > f.limit() {
			t.Fatalf("%d in flight, %d allowed", f.end-f.first, f.limit())
		}
	}
	collect := func() {
		if _, err := f.take(&in.replies); err != nil {
			t.Fatal(err)
		}
		in.replies.forget()
		n, dropped := f.settle()
		for _, d := range dropped {
			if k := number(d.m.ID); drops[k] || k%tooLong != 0 && k%big != 0 {
				t.Fatalf("message %d is dropped", k)
			} else {
				drops[k] = true
			}
		}
		for range n {
			settled++
			if outcome[settled] != "ok" && !drops[settled] {
				t.Fatalf("message %d is settled, its outcome is %q", settled, outcome[settled])
			}
		}
	}
	begin()
	t.Repeat(map[string]func(*rapid.T){
		"": func(*rapid.T) {
			due := 0
			if f.end != f.first {
				due = len(sent) - int(f.answered)
			}
			if int(count.Inflight) != due {
				t.Fatalf("%d count as in flight, %d are due", count.Inflight, due)
			}
		},
		"send": func(*rapid.T) { fill() },
		"answer": func(t *rapid.T) {
			if len(sent) == int(in.replies.answered) {
				t.Skip("nothing is due")
			}
			tag := rapid.IntRange(int(in.replies.answered)+1, len(sent)).Draw(t, "tag")
			multiple := rapid.Bool().Draw(t, "multiple")
			kind := rapid.SampledFrom([]string{"ok", "ok", "ok", "nack", "return"}).Draw(t, "kind")
			first := tag
			if multiple {
				first = int(in.replies.answered) + 1
			}
			var b []byte
			for i := 1; i <= tag; i++ {
				if sent[i-1]%big == 0 {
					t.Skip("the broker has closed at one that is too large")
				}
			}
			for i := first; i <= tag; i++ {
				k := sent[i-1]
				if outcome[k] != "" {
					continue
				}
				outcome[k] = "ok"
				if kind != "ok" {
					outcome[k] = "no"
				}
				if kind == "return" {
					b = returnFrames(b, fmt.Sprint("id-", k), nil, 4096)
				}
			}
			if _, err := in.feed(confirmFrame(b, uint64(tag), multiple, kind == "nack")); err != nil {
				t.Fatal(err)
			}
			collect()
		},
		"trouble": func(t *rapid.T) {
			if f.trouble() == nil {
				t.Skip("none")
			}
			f.rewind()
			next = settled + 1
			outcome = map[int]string{}
			fill()
			if f.end != 1 {
				t.Fatalf("%d are sent after trouble", f.end)
			}
		},
		"lost": func(t *rapid.T) {
			collect()
			large := false
			for _, k := range sent[min(int(f.answered), len(sent)):] {
				large = large || k%big == 0
			}
			f.lost(large)
			begin()
		},
	})
	// At last the broker takes all that it can: nothing is stuck.
	goal := settled + 40
	for range 400 {
		if settled >= goal {
			break
		}
		collect()
		if f.trouble() != nil {
			f.lost(false)
			begin()
		}
		fill()
		large := false
		for tag := int(in.replies.answered) + 1; tag <= len(sent) && !large; tag++ {
			if large = sent[tag-1]%big == 0; !large {
				if outcome[sent[tag-1]] == "" {
					outcome[sent[tag-1]] = "ok"
				}
				if _, err := in.feed(confirmFrame(nil, uint64(tag), false, false)); err != nil {
					t.Fatal(err)
				}
			}
		}
		collect()
		if large {
			f.lost(true)
			begin()
		}
	}
	if settled < goal {
		t.Fatalf("%d are settled, want %d", settled, goal)
	}
}

func TestFlight(t *testing.T) {
	start := func() (*flight, *Counters) {
		n := &Counters{}
		f := &flight{count: n}
		f.begin(4)
		return f, n
	}
	add := func(f *flight, ids ...string) {
		for _, id := range ids {
			f.add(&Message{ID: id})
		}
	}
	t.Run("one goes alone until it is confirmed", func(t *testing.T) {
		f, _ := start()
		add(f, "a")
		if f.room() {
			t.Error("there is room for a second")
		}
		if _, err := f.take(&replies{answered: 1}); err != nil || f.limit() != 4 {
			t.Errorf("the window is %d, %v", f.limit(), err)
		}
	})
	t.Run("three in flight, the second rejected", func(t *testing.T) {
		f, n := start()
		f.alone = false
		add(f, "a", "b", "c")
		if _, err := f.take(&replies{answered: 2, nacked: []uint64{2}}); err != nil {
			t.Fatal(err)
		}
		if k, _ := f.settle(); k != 1 || f.trouble() != nil || f.room() {
			t.Errorf("%d settled, trouble %v", k, f.trouble())
		}
		if _, err := f.take(&replies{answered: 3}); err != nil {
			t.Fatal(err)
		}
		if k, _ := f.settle(); k != 0 || f.trouble() != errNacked || n.Nacked != 1 || n.Confirmed != 2 {
			t.Errorf("%d settled, trouble %v, %+v", k, f.trouble(), n)
		}
		if f.rewind(); f.limit() != 1 {
			t.Error("after trouble more than one goes")
		}
	})
	t.Run("what is not in flight can't come back", func(t *testing.T) {
		f, _ := start()
		f.alone = false
		add(f, "a", "b")
		for _, ids := range [][]string{{"c"}, {"a", "a"}} {
			f, _ := start()
			f.alone = false
			add(f, "a", "b")
			said := &replies{}
			for _, id := range ids {
				said.returned = append(said.returned, returned{id, "why"})
			}
			if _, err := f.take(said); err == nil {
				t.Errorf("%v came back", ids)
			}
		}
		if _, err := f.take(&replies{answered: 3}); err == nil {
			t.Error("a third is confirmed")
		}
	})
	t.Run("too large a message is found", func(t *testing.T) {
		f, n := start()
		f.alone = false
		add(f, "a", "b")
		f.lost(true)
		f.begin(4)
		add(f, "a")
		if f.room() {
			t.Fatal("a suspect is not alone")
		}
		if _, err := f.take(&replies{answered: 1}); err != nil {
			t.Fatal(err)
		}
		f.settle()
		add(f, "b") // closes the channel
		f.lost(true)
		f.begin(4)
		if f.add(&Message{ID: "b"}) {
			t.Error("it is sent again")
		}
		if k, drops := f.settle(); k != 1 || len(drops) != 1 || n.Dropped != 1 {
			t.Errorf("%d settled, %d dropped", k, len(drops))
		}
	})
}
