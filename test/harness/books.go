package harness

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/harness/server"
)

// Event is what a message with format plain tells.
type Event struct {
	DB    int
	Event string
	Key   string
}

func (e Event) String() string { return fmt.Sprintf("%d %s %q", e.DB, e.Event, e.Key) }

// Events takes the events out of messages.
func Events(messages []Message) []Event {
	events := make([]Event, len(messages))
	for i, m := range messages {
		events[i] = Event{m.DB, m.Event, m.Key}
	}
	return events
}

// Books are the fields of INFO key_evt_amqp.
type Books struct {
	State, BrokerHost, LastError, FallbackKey                  string
	BrokerPort, Connects, ConnectFailures                      int64
	Captured, Filtered, Published, Confirmed, Returned, Nacked int64
	Stored, Dropped, Buffered                                  int64
	Inflight, BufferBytes, FallbackLength, OldestMs, Masks     int64
}

// Undelivered is what the module still has to send.
func (b Books) Undelivered() int64 { return b.Buffered + b.FallbackLength }

// ReadBooks reads them; a field that is missing is an error.
func ReadBooks(r *server.Redis) (Books, error) {
	fields, err := r.ModuleInfo()
	if err != nil {
		return Books{}, err
	}
	var b Books
	var problems []error
	text := func(name string) string {
		value, ok := fields[name]
		if !ok {
			problems = append(problems, fmt.Errorf("INFO lacks key_evt_amqp_%s", name))
		}
		return value
	}
	b.State, b.BrokerHost = text("state"), text("broker_host")
	b.LastError, b.FallbackKey = text("last_error"), text("fallback_key")
	for name, to := range map[string]*int64{
		"broker_port": &b.BrokerPort, "connects": &b.Connects, "connect_failures": &b.ConnectFailures,
		"events_captured": &b.Captured, "events_filtered": &b.Filtered,
		"events_published": &b.Published, "events_confirmed": &b.Confirmed,
		"events_returned": &b.Returned, "events_nacked": &b.Nacked,
		"events_stored": &b.Stored, "events_dropped": &b.Dropped, "events_buffered": &b.Buffered,
		"inflight": &b.Inflight, "buffer_bytes": &b.BufferBytes, "fallback_length": &b.FallbackLength,
		"oldest_event_ms": &b.OldestMs, "masks": &b.Masks,
	} {
		if value := text(name); value != "" {
			if *to, err = strconv.ParseInt(value, 10, 64); err != nil {
				problems = append(problems, fmt.Errorf("INFO key_evt_amqp_%s: %w", name, err))
			}
		}
	}
	return b, errors.Join(problems...)
}

// Books reads the module's counters.
func (r *Redis) Books() Books {
	r.t.Helper()
	b, err := ReadBooks(r.Redis)
	must(r.t, "INFO key_evt_amqp", err)
	return b
}

// WaitBooks waits until ok accepts the books, and returns them.
func (r *Redis) WaitBooks(timeout time.Duration, what string, ok func(Books) bool) Books {
	r.t.Helper()
	var b Books
	Eventually(r.t, timeout, func() (err error) {
		if b, err = ReadBooks(r.Redis); err == nil && !ok(b) {
			err = fmt.Errorf("books are %+v", b)
		}
		return err
	}, what)
	return b
}

// WaitSettled waits until nothing is undelivered.
func (r *Redis) WaitSettled(timeout time.Duration) Books {
	r.t.Helper()
	return r.WaitBooks(timeout, "nothing is undelivered", func(b Books) bool {
		return b.Undelivered() == 0 && b.Inflight == 0
	})
}

// Inherited is for Balance when events were undelivered before this load of the
// module: how many is not known.
const Inherited = -1

// Balance checks, when all has settled, that the events that came, each once
// and in order of their first arrival, are want; that the module has nothing
// left; and that what it captured it has confirmed or counts as dropped.
//
// inherited says how many events it found in the list when it was loaded; by
// default none, or Inherited when the server was started more than once.
func Balance(t testing.TB, r *Redis, c *Consumer, want []Event, inherited ...int64) {
	t.Helper()
	got := Events(waitFor(t, c, len(want)))
	if difference := firstDifference(got, want); difference != "" {
		t.Fatal(difference)
	}
	balanceBooks(t, r, inherited)
	if extra := c.Distinct()[len(got):]; len(extra) > 0 {
		t.Fatalf("%d more messages came, first %v", len(extra), Events(extra[:1]))
	}
}

// BalanceCount is Balance for events that are only counted.
func BalanceCount(t testing.TB, r *Redis, c *Consumer, want int, inherited ...int64) {
	t.Helper()
	waitFor(t, c, want)
	balanceBooks(t, r, inherited)
	if got := c.Count(); got != want {
		t.Fatalf("%d distinct messages came, want %d", got, want)
	}
}

// waitFor waits as long as messages keep coming, and 30 s more.
func waitFor(t testing.TB, c *Consumer, n int) []Message {
	t.Helper()
	for {
		before := c.Count()
		got, err := c.Consumer.WaitDistinct(n, 30*time.Second)
		if err == nil {
			return got
		}
		if len(got) == before {
			t.Errorf("%v", err)
			return got
		}
	}
}

func balanceBooks(t testing.TB, r *Redis, inherited []int64) {
	t.Helper()
	known := int64(0)
	if r.Starts() > 1 {
		known = Inherited
	}
	if len(inherited) > 0 {
		known = inherited[0]
	}
	b := r.WaitSettled(30 * time.Second)
	delivered := b.Confirmed + b.Dropped
	if known == Inherited {
		if delivered < b.Captured {
			t.Errorf("books: confirmed + dropped = %d, less than the %d captured: %+v", delivered, b.Captured, b)
		}
	} else if delivered != b.Captured+known {
		t.Errorf("books: confirmed + dropped = %d, captured + inherited = %d: %+v", delivered, b.Captured+known, b)
	}
}

// firstDifference tells where got leaves want, with what stands around it.
func firstDifference(got, want []Event) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	if i == len(got) && i == len(want) {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "events differ at %d (got %d, want %d):", i, len(got), len(want))
	for j := max(0, i-2); j < i+4 && j < max(len(got), len(want)); j++ {
		at := func(events []Event) string {
			if j < len(events) {
				return events[j].String()
			}
			return "nothing"
		}
		fmt.Fprintf(&b, "\n%8d  got %-40s want %s", j, at(got), at(want))
	}
	return b.String()
}
