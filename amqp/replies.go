// SPDX-License-Identifier: BSD-3-Clause

package amqp

import "sync"

// replies is what the broker has said about messages. They are numbered from 1
// in each session.
type replies struct {
	answered uint64   // messages up to this one have their answer:
	nacked   []uint64 // these were rejected, in ascending order, the others confirmed
	// returned are messages that no queue took. Each is here before it is
	// answered.
	returned []returned
	alarm    *alarm // the last one; nil: nothing new
}

// returned is a message that came back.
type returned struct{ id, why string }

// alarm says whether the broker wants us to pause, and why.
type alarm struct {
	on     bool
	reason string
}

// add appends what came later.
func (r *replies) add(later *replies) {
	r.answered = later.answered
	r.nacked = append(r.nacked, later.nacked...)
	r.returned = append(r.returned, later.returned...)
	if later.alarm != nil {
		r.alarm = later.alarm
	}
}

// forget empties it, except for the number of the message answered last.
func (r *replies) forget() {
	clear(r.returned)
	r.nacked, r.returned, r.alarm = r.nacked[:0], r.returned[:0], nil
}

// inbox hands over what the broker said, in bulk, from the goroutine that reads
// to the publisher's. What is in it is bounded by the window.
type inbox struct {
	limit int           // messages that may come back before the publisher has looked
	fresh chan struct{} // capacity 1: something was put in
	over  chan struct{} // closed once err is set

	mu  sync.Mutex
	in  replies
	err error

	out replies // the publisher's
}

func newInbox(limit int) *inbox {
	return &inbox{limit: limit, fresh: make(chan struct{}, 1), over: make(chan struct{})}
}

// put takes what was read and empties it.
func (b *inbox) put(r *replies) error {
	b.mu.Lock()
	same := r.answered == b.in.answered && len(r.returned) == 0 && r.alarm == nil
	b.in.add(r)
	returned := len(b.in.returned)
	b.mu.Unlock()
	r.forget()
	if !same {
		select {
		case b.fresh <- struct{}{}:
		default:
		}
	}
	if returned > b.limit {
		return violation("more messages back than were sent")
	}
	return nil
}

// take returns what was put in since it was called last. Valid until the next
// call.
func (b *inbox) take() *replies {
	b.out.forget()
	b.mu.Lock()
	b.in, b.out = b.out, b.in
	b.in.answered = b.out.answered
	b.mu.Unlock()
	return &b.out
}

// end sets why the session is over, the first reason of all.
func (b *inbox) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
		close(b.over)
	}
}

// ended is why the session is over; nil: it is not.
func (b *inbox) ended() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
