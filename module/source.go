// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/c"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

// source is the queue as the publisher sees it: records that the main thread
// lends, read in place, each shown as one message for each view. Its methods
// belong to the publisher's goroutine; wait runs in one of its own.
type source struct {
	layout atomic.Pointer[layout] // set by the main thread
	used   *layout                // the one for the run in hand

	next unsafe.Pointer // length word of the record to show next
	left int            // records in the run from next on
	view int            // view of that record to show next

	// One entry for each message handed out and not settled, oldest at
	// first: the id's bytes, which the message refers to, and whether the
	// message is its event's last.
	ring  []handedOut
	first uint64
	count uint64

	wake   chan struct{}
	events *os.File
	done   sync.WaitGroup
}

type handedOut struct {
	id   [fallback.IDSize + 2]byte
	last bool
}

// newSource makes a source; fd is the descriptor by which the main thread
// wakes it, window the most events lent, wait must be started.
func newSource(fd int, l *layout) *source {
	s := &source{
		wake: make(chan struct{}, 1),
		ring: make([]handedOut, 256),
	}
	s.layout.Store(l)
	s.used = l
	s.events = os.NewFile(uintptr(fd), "eventfd")
	s.done.Add(1)
	go s.wait()
	return s
}

// wait turns the main thread's wake-ups into signals on the channel. The
// descriptor is non-blocking: Go's poller waits, no thread does.
func (s *source) wait() {
	defer s.done.Done()
	var counter [8]byte
	for {
		if _, err := s.events.Read(counter[:]); err != nil {
			return // closed
		}
		s.signal()
	}
}

func (s *source) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// close ends wait. The publisher must have stopped.
func (s *source) close() {
	s.events.Close()
	s.done.Wait()
}

// Next implements [amqp.Source].
func (s *source) Next(m *amqp.Message) bool {
	if s.left == 0 && !s.take() {
		return false
	}
	size := *(*uint64)(s.next)
	record := unsafe.Slice((*byte)(unsafe.Add(s.next, 8)), size)
	r, err := fallback.Decode(record)
	if err != nil {
		// C writes and checks records before it lends them.
		panic("a record that was lent is none")
	}
	views := s.used.views
	out := s.push()
	out.last = s.view == len(views)-1
	id := r.AppendID(out.id[:0])
	if len(views) > 1 {
		// Two messages of one event must not pass for duplicates.
		id = append(id, '-', "pke"[views[s.view]])
	}
	s.used.message(m, views[s.view], &r, borrow(id))
	s.view++
	if out.last {
		s.view = 0
		s.left--
		s.next = unsafe.Add(s.next, (8+size+7)&^7)
	}
	return true
}

func (s *source) take() bool {
	start, n, ok := c.Take()
	if !ok {
		return false
	}
	// Between events, so that no event is sent half by one layout and half by
	// another.
	s.used = s.layout.Load()
	s.next, s.left, s.view = start, n, 0
	return true
}

func (s *source) push() *handedOut {
	if s.count == uint64(len(s.ring)) {
		// Messages hold on to the old entries' ids, which stay valid.
		grown := make([]handedOut, 2*len(s.ring))
		for i := uint64(0); i < s.count; i++ {
			grown[i].last = s.ring[(s.first+i)%s.count].last
		}
		s.ring, s.first = grown, 0
	}
	out := &s.ring[(s.first+s.count)%uint64(len(s.ring))]
	s.count++
	return out
}

// Settle implements [amqp.Source].
func (s *source) Settle(n int) {
	events := 0
	for ; n > 0; n-- {
		if s.ring[s.first%uint64(len(s.ring))].last {
			events++
		}
		s.first++
		s.count--
	}
	if events > 0 {
		c.Settle(events)
	}
}

// Rewind implements [amqp.Source].
func (s *source) Rewind() {
	s.next, s.left, s.view = nil, 0, 0
	s.first, s.count = 0, 0
	// First, so that what comes back is not lent again at once: what cannot be
	// delivered now belongs in the list. The next state says otherwise if
	// there is a session.
	c.Away(true)
	c.Rewind()
}

// Sleep implements [amqp.Source].
func (s *source) Sleep() bool { return s.left == 0 && c.Sleep() }

// Wake implements [amqp.Source].
func (s *source) Wake() <-chan struct{} { return s.wake }
