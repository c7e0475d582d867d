// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// peeked is one line of fallback_peek.
type peeked struct {
	id, time   string
	db         int64
	event, key string
}

func (r *rig) peek(args ...any) (events []peeked) {
	r.t.Helper()
	for _, line := range r.do(append([]any{"key_evt_amqp.fallback_peek"}, args...)...).([]any) {
		f := line.([]any)
		if len(f) != 5 {
			r.t.Fatalf("a line of %d: %v", len(f), f)
		}
		events = append(events, peeked{f[0].(string), f[1].(string), f[2].(int64), f[3].(string), f[4].(string)})
	}
	return events
}

// What is in the list and what is in memory, in the order and with the ids with
// which it arrives later.
func TestPeekShowsWhatArrivesLater(t *testing.T) {
	for _, where := range []struct {
		name   string
		config []string
		limit  string
	}{
		{"in the list", nil, ""},
		{"in memory", nil, "-1"},
		{"in both", []string{"key_evt_amqp.outbox yes"}, ""},
	} {
		t.Run(where.name, func(t *testing.T) {
			before := time.Now().Add(-time.Second)
			r, p := proxied(t, options{events: "$", limit: where.limit, config: where.config})
			if got := r.peek(); got != nil {
				t.Errorf("got %v of nothing", got)
			}
			p.Cut()
			conn := r.Conn()
			defer conn.Close()
			must(t, conn.Select(ctx, 3).Err())
			must(t, conn.Set(ctx, "a\x00b\n", "v", 0).Err())
			must(t, conn.Select(ctx, 0).Err())
			r.sets("k", 2000)
			r.until("state", is("backoff"))
			got := r.peek(1000)
			for args, want := range map[string]int{"": 10, "1": 1, "1000": 1000} {
				if n := len(r.peek(anys(strings.Fields(args))...)); n != want {
					t.Errorf("fallback_peek %s lists %d", args, n)
				}
			}
			for _, wrong := range []any{"0", "-1", "1001", "x", "", "99999999999999999999"} {
				r.fails("n: not an integer from 1 to 1000", "key_evt_amqp.fallback_peek", wrong)
			}
			r.fails("wrong number", "key_evt_amqp.fallback_peek", "1", "2")
			must(t, p.Mend())
			r.arrives(append([]string{"3\nset\na\x00b\n"}, setBodies("k", 2000)...))
			for i, e := range got {
				m := r.queue.Messages()[i]
				at, err := time.Parse(time.RFC3339Nano, e.time)
				if e.id != m.MessageId || fmt.Sprintf("%d\n%s\n%s", e.db, e.event, e.key) != string(m.Body) ||
					err != nil || at.Before(before) || at.After(time.Now().Add(time.Second)) {
					t.Fatalf("line %d is %v, and what arrives is %q %q", i, e, m.MessageId, m.Body)
				}
			}
			r.balanced(0, 0)
		})
	}
}

// record is an element of the list: a header, the body, and sections if any.
func record(seq uint64, body string, sections []byte) string {
	db, rest, _ := strings.Cut(body, "\n")
	event, _, _ := strings.Cut(rest, "\n")
	version := byte(1)
	if sections != nil {
		version = 2
	}
	b := binary.LittleEndian.AppendUint32([]byte{0xea, version, byte(len(db)), 0}, uint32(len(event)))
	for _, n := range []uint64{0xabc, seq, 1767323045006} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	if sections != nil {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(body)))
	}
	return string(b) + body + string(sections)
}

// Elements of both versions of the record, with sections of a later version, and
// elements that are not events.
func TestPeekReadsElementsOfAnyVersion(t *testing.T) {
	r, p := proxied(t, options{events: "$"})
	p.Cut()
	r.do("SET", "k", "v")
	r.until("fallback_length", is("1"))
	section := func(kind byte, bytes string) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(bytes))), bytes...)
	}
	r.do("LPUSH", "key_evt_amqp.fallback", record(3, "15\nset\nstring", append(section(1, "\x01"), section(2, "value")...)),
		"no event", record(2, "0\nexpired\nlater", section(99, "unknown")), record(1, "7\nset\nplain", nil))
	r.do("RPUSH", "key_evt_amqp.fallback", "\xea\x02 neither")
	want := []peeked{
		{"0000000000000abc-1", "2026-01-02T03:04:05.006Z", 7, "set", "plain"},
		{"0000000000000abc-2", "2026-01-02T03:04:05.006Z", 0, "expired", "later"},
		{"0000000000000abc-3", "2026-01-02T03:04:05.006Z", 15, "set", "string"},
	}
	got := r.peek(1000)
	if len(got) != 4 || fmt.Sprint(got[:3]) != fmt.Sprint(want) || got[3].key != "k" {
		t.Errorf("got %v, want %v and the event of k", got, want)
	}
	r.do("DEL", "key_evt_amqp.fallback")
	if got := r.peek(); got != nil {
		t.Errorf("got %v when the list is gone", got)
	}
	r.until("events_dropped", func(v string) bool { n, _ := strconv.Atoi(v); return n > 0 })
	must(t, p.Mend())
	dropped := r.number("events_dropped") // what was there, as far as it was looked at
	r.balanced(dropped-1, dropped)
}

// Large events: reading ends, and what was read is whole.
func TestPeekIsBounded(t *testing.T) {
	r, p := proxied(t, options{events: "$"})
	p.Cut()
	for i := range 20 {
		r.do("SET", strconv.Itoa(i)+strings.Repeat("x", 1<<20), "v")
	}
	r.until("fallback_length", is("20"))
	got := r.peek(1000)
	if len(got) != 4 || len(got[3].key) != 1+1<<20 {
		t.Errorf("%d events", len(got))
	}
	must(t, p.Mend())
	must(t, r.queue.Wait(20, patience))
	r.balanced(0, 0)
}

// A replica shows what its copy of the list has, and promoted, the same.
func TestPeekOnAReplica(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$"})
	master.sets("k", 50)
	master.until("fallback_length", is("50"))
	eventually(t, func() error { return sameOffset(master, replica) })
	want := fmt.Sprint(master.peek(1000))
	if got := fmt.Sprint(replica.peek(1000)); got != want || len(master.peek(1000)) != 50 {
		t.Errorf("the replica lists %s, the master %s", got, want)
	}
	replica.do("REPLICAOF", "NO", "ONE")
	if got := fmt.Sprint(replica.peek(1000)); got != want {
		t.Errorf("promoted, it lists %s", got)
	}
	master.Kill()
	must(t, mend())
	must(t, master.queue.Wait(50, patience))
	replica.balanced(50, 0)
}
