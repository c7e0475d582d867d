// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// double is a connection without a network. What is nil does nothing.
type double struct {
	PublishFunc func(m *Message) error
	CloseFunc   func()

	inbox *inbox
	tag   uint64
}

var _ connection = (*double)(nil)

func newDouble() *double { return &double{inbox: newInbox(100)} }

func (d *double) publish(_ *Config, m *Message) error {
	d.tag++
	if d.PublishFunc != nil {
		return d.PublishFunc(m)
	}
	return nil
}
func (d *double) flush() error   { return nil }
func (d *double) take() *replies { return d.inbox.take() }
func (d *double) wait(w *waits) reason {
	return (&amqpConnection{conn: &conn{inbox: d.inbox}}).wait(w)
}
func (d *double) ended() error             { return d.inbox.ended() }
func (d *double) awaitEnd(err error) error { return err }
func (d *double) gather(time.Duration)     {}
func (d *double) heartbeat() time.Duration { return 0 }
func (d *double) hurry(time.Time)          {}
func (d *double) close() {
	if d.CloseFunc != nil {
		d.CloseFunc()
	}
}

// says hands over replies.
func (d *double) says(r replies) { _ = d.inbox.put(&r) }

// numbers is a source of messages 1 to made.
type numbers struct {
	mu                 sync.Mutex
	made, out, settled int
	wake               chan struct{}
}

func newNumbers(n int) *numbers { return &numbers{made: n, wake: make(chan struct{}, 1)} }

func (s *numbers) Next(m *Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == s.made {
		return false
	}
	s.out++
	*m = Message{ID: fmt.Sprint("id-", s.out)}
	return true
}
func (s *numbers) Settle(n int)          { s.mu.Lock(); s.settled += n; s.mu.Unlock() }
func (s *numbers) Rewind()               { s.mu.Lock(); s.out = s.settled; s.mu.Unlock() }
func (s *numbers) Sleep() bool           { s.mu.Lock(); defer s.mu.Unlock(); return s.out == s.made }
func (s *numbers) Wake() <-chan struct{} { return s.wake }
func (s *numbers) left() int             { s.mu.Lock(); defer s.mu.Unlock(); return s.made - s.settled }

// nobody observes nothing.
type nobody struct{}

func (nobody) StateChanged(Change)     {}
func (nobody) Counted(Counters)        {}
func (nobody) Dropped(*Message, error) {}

// publisher starts one whose n-th connection is made by dial.
func publisher(t *testing.T, src Source, dial func(n int) (connection, error)) *Publisher {
	t.Helper()
	p := New(src, nobody{}, Config{
		Hosts: []Host{{"broker", 1}}, ConnectTimeout: 200 * time.Millisecond, ReconnectDelayMax: 100 * time.Millisecond, MaxInflight: 10,
	})
	var n atomic.Int32
	p.dial = func(context.Context, *Config, Host) (connection, error) { return dial(int(n.Add(1))) }
	p.Start()
	t.Cleanup(sync.OnceFunc(p.Stop))
	return p
}

// in waits for something that must come soon.
func in[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("not within 10 s: ", what)
	}
	return v
}

func connecting(p *Publisher) <-chan error {
	answer := make(chan error, 1)
	p.Connect(func(err error) { answer <- err })
	return answer
}

// accepts answers each message at once.
func accepts(answer func(d *double, m *Message)) func(int) (connection, error) {
	return func(int) (connection, error) {
		d := newDouble()
		d.PublishFunc = func(m *Message) error { answer(d, m); return nil }
		return d, nil
	}
}

func takes(d *double, _ *Message)   { d.says(replies{answered: d.tag}) }
func rejects(d *double, _ *Message) { d.says(replies{answered: d.tag, nacked: []uint64{d.tag}}) }
func returns(d *double, m *Message) {
	d.says(replies{answered: d.tag, returned: []returned{{m.ID, "NO_ROUTE"}}})
}

func TestConnectAnswersOnlyWhenAMessageIsTaken(t *testing.T) {
	for _, c := range []struct {
		name     string
		messages int
		answer   func(d *double, m *Message)
		want     string
	}{
		{"there is none", 0, takes, ""},
		{"it is taken", 3, takes, ""},
		{"it is rejected", 3, rejects, "nack"},
		{"no queue takes it", 3, returns, "NO_ROUTE"},
		{"the broker blocks", 3, func(d *double, _ *Message) { d.says(replies{alarm: &alarm{true, "low on memory"}}) }, "low on memory"},
		{"the connection ends", 3, func(d *double, _ *Message) { d.inbox.end(errors.New("gone")) }, "gone"},
		{"an answer to nothing", 3, func(d *double, _ *Message) { d.says(replies{answered: d.tag + 1}) }, "nothing in flight"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := publisher(t, newNumbers(c.messages), accepts(c.answer))
			err := in(t, "an answer", connecting(p))
			if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	for name, said := range map[string]replies{"nothing": {}, "that it blocks": {alarm: &alarm{true, "low on memory"}}} {
		t.Run("a broker said before "+name, func(t *testing.T) {
			published := make(chan struct{}, 100)
			p := publisher(t, newNumbers(1), accepts(func(d *double, _ *Message) { d.says(said); published <- struct{}{} }))
			in(t, "a message", published)
			if err := in(t, "an answer", connecting(p)); err == nil {
				t.Error("answered OK")
			}
		})
	}
	t.Run("not before", func(t *testing.T) {
		var d *double
		published := make(chan struct{}, 10)
		p := publisher(t, newNumbers(1), func(int) (connection, error) {
			d = newDouble()
			d.PublishFunc = func(*Message) error { published <- struct{}{}; return nil }
			return d, nil
		})
		answer := connecting(p)
		in(t, "a message", published)
		select {
		case err := <-answer:
			t.Fatalf("answered %v before the message was", err)
		case <-time.After(50 * time.Millisecond):
		}
		d.says(replies{answered: 1})
		if err := in(t, "an answer", answer); err != nil {
			t.Error(err)
		}
	})
}

// An old channel may keep to what the broker has given up: after some
// rejections in a row, and at Connect, there is a new session.
func TestANewSessionAfterRejections(t *testing.T) {
	for name, no := range map[string]func(*double, *Message){"nack": rejects, "return": returns} {
		t.Run(name, func(t *testing.T) {
			src := newNumbers(20)
			told := 0
			publisher(t, src, func(n int) (connection, error) {
				d := newDouble()
				d.PublishFunc = func(m *Message) error {
					if n > 1 {
						takes(d, m)
					} else {
						told++
						no(d, m)
					}
					return nil
				}
				return d, nil
			})
			soon(t, "all taken by a second session", func() bool { return src.left() == 0 })
			if told != maxRejections {
				t.Errorf("told no %d times, want %d", told, maxRejections)
			}
		})
	}
	t.Run("connect", func(t *testing.T) {
		src := newNumbers(20)
		rejected := make(chan struct{}, 10)
		var told atomic.Int32
		p := publisher(t, src, func(n int) (connection, error) {
			d := newDouble()
			d.PublishFunc = func(m *Message) error {
				if n > 1 {
					takes(d, m)
				} else {
					told.Add(1)
					rejects(d, m)
					rejected <- struct{}{}
				}
				return nil
			}
			return d, nil
		})
		in(t, "a rejection", rejected)
		// Asked while the first answer is still on its way, that is the answer.
		soon(t, "taken by a new session", func() bool { return in(t, "an answer", connecting(p)) == nil })
		soon(t, "all", func() bool { return src.left() == 0 })
		if n := told.Load(); n >= maxRejections {
			t.Errorf("told no %d times before there was a new session", n)
		}
	})
}

func soon(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 10 s: ", what)
		}
	}
}

// What the library should end and does not is left behind.
func TestEndsAreBoundedWhateverHangs(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, dial := range map[string]func(int) (connection, error){
		"the dial":       func(int) (connection, error) { <-hang; return nil, errors.New("at last") },
		"the close":      func(int) (connection, error) { d := newDouble(); d.CloseFunc = func() { <-hang }; return d, nil },
		"the dial fails": func(int) (connection, error) { panic("in the library") },
		"the close fails": func(int) (connection, error) {
			d := newDouble()
			d.CloseFunc = func() { panic("in the library") }
			return d, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := newNumbers(5)
			dialed := make(chan struct{}, 100)
			p := publisher(t, src, func(n int) (connection, error) {
				select {
				case dialed <- struct{}{}:
				default:
				}
				return dial(n)
			})
			connecting(p)
			begun := time.Now()
			in(t, "a dial", dialed)
			closed := make(chan struct{})
			p.Disconnect(100*time.Millisecond, func() { close(closed) })
			in(t, "disconnected", closed)
			connecting(p)
			stopped := make(chan struct{})
			go func() { p.Stop(); close(stopped) }()
			in(t, "stopped", stopped)
			t.Logf("after %v", time.Since(begun))
			if src.out != 0 || src.left() != 5 {
				t.Errorf("%d out, %d left", src.out, src.left())
			}
			p.stop = make(chan struct{}) // the cleanup stops it again
		})
	}
}
