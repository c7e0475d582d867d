// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"errors"
	"fmt"
	"strings"
)

// flight is what was taken from the source and is not settled yet, in order: a
// queue whose first messages have their outcome, whatever it is, and whose
// others are due. It does no I/O. It says how many messages may be sent, which
// are settled, and where to begin again after trouble.
//
// One message goes alone at the start of a session and after each trouble, until
// it is confirmed: what was sent behind one that comes back would overtake it.
// And when the broker closed for a message that is too large, all that were due
// go alone, until one of them is caught.
type flight struct {
	count *Counters

	window int
	alone  bool // nothing was confirmed yet, in this session or since trouble

	// A ring, by position modulo its size. Positions only grow: those from
	// first to end are in flight, those below due have their outcome.
	ring            []flying
	first, due, end uint64

	answered uint64 // messages of this session with an answer
	skipped  int    // in flight, of those that are not sent
	returned int    // in flight, of those that came back and have no answer yet

	bad   error  // why the message at badAt was not delivered; nil: all were
	badAt uint64 // position of the first such message

	suspects int    // messages still to be sent alone: one may be too large
	suspect  string // id of the one that is out alone
	culprit  string // id of the one that is too large
}

// flying is one message in flight. id is borrowed from the source.
type flying struct {
	id   string
	back string // why it came back; empty: it did not
	drop *drop  // it is not sent, for it never can be
}

// drop is a message that is not sent, and why.
type drop struct {
	m   Message
	why error
}

var errNacked = errors.New("the broker rejects messages (nack): a queue is full, or failing")

// begin starts a session with nothing in flight.
func (f *flight) begin(window int) {
	size := 1
	for size < window {
		size *= 2
	}
	if size != len(f.ring) {
		f.ring = make([]flying, size)
	}
	f.window, f.answered = window, 0
	f.rewind()
}

// rewind forgets what is in flight: the source begins again with the oldest of
// it.
func (f *flight) rewind() {
	clear(f.ring)
	f.first, f.due, f.end = 0, 0, 0
	f.skipped, f.returned, f.bad, f.suspect = 0, 0, nil, ""
	f.alone = true
	f.count.Inflight = 0
}

// at is the message at a position.
func (f *flight) at(position uint64) *flying {
	return &f.ring[position&uint64(len(f.ring)-1)]
}

// empty reports whether nothing is in flight.
func (f *flight) empty() bool { return f.first == f.end }

// limit is how many messages may be in flight now.
func (f *flight) limit() int {
	if f.alone || f.suspects > 0 {
		return 1
	}
	return f.window
}

// room reports whether one more may be sent.
func (f *flight) room() bool {
	return f.bad == nil && f.end-f.first < uint64(f.limit())
}

// add takes a message from the source into flight. send: it is to be sent.
// There must be room.
func (f *flight) add(m *Message) (send bool) {
	one := f.at(f.end)
	*one = flying{id: m.ID}
	f.end++
	f.suspect = ""
	if why := f.impossible(m); why != nil {
		one.drop = &drop{*m, why}
		f.skipped++
		return false
	}
	if f.suspects > 0 {
		f.suspect = strings.Clone(m.ID)
	}
	f.count.Published++
	f.count.Inflight++
	return true
}

// impossible is why a message can't be sent whatever we do.
func (f *flight) impossible(m *Message) error {
	if m.Refused != nil {
		return m.Refused
	}
	if f.culprit != "" && m.ID == f.culprit {
		return errors.New("the broker does not take it, it is too large")
	}
	// A broker would close the connection for these.
	if max(len(m.RoutingKey), len(m.ID), len(m.Type)) <= 255 {
		return nil
	}
	for name, text := range map[string]string{"routing key": m.RoutingKey, "message id": m.ID, "type": m.Type} {
		if len(text) > 255 {
			return fmt.Errorf("its %s has %d bytes, AMQP allows 255", name, len(text))
		}
	}
	return nil
}

// take takes in what the broker said, the returns first: a message that no queue
// took comes back, and then is acknowledged. n is how many have their answer.
func (f *flight) take(said *replies) (n int, err error) {
	for i := range said.returned {
		if err := f.comeBack(&said.returned[i]); err != nil {
			return 0, err
		}
	}
	if f.returned == 0 && len(said.nacked) == 0 && f.skipped == 0 && f.bad == nil {
		return f.confirmAll(said.answered)
	}
	nacks := said.nacked
	for f.answered < said.answered {
		nack := len(nacks) > 0 && nacks[0] == f.answered+1
		if nack {
			nacks = nacks[1:]
		}
		if err := f.answer(nack); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// comeBack marks a message that no queue took.
func (f *flight) comeBack(r *returned) error {
	for position := f.due; position != f.end; position++ {
		if one := f.at(position); one.id == r.id && one.back == "" && one.drop == nil {
			one.back = r.why
			f.returned++
			return nil
		}
	}
	return violation("back a message that is not in flight")
}

var errNothingDue = violation("a confirm for nothing in flight")

// confirmAll is for the usual case: all were taken.
func (f *flight) confirmAll(upTo uint64) (n int, err error) {
	n = int(upTo - f.answered)
	if uint64(n) > f.end-f.due {
		return 0, errNothingDue
	}
	if n > 0 {
		f.due += uint64(n)
		f.count.Confirmed += uint64(n)
		f.count.Inflight -= uint64(n)
		f.suspects = max(f.suspects-n, 0)
		f.answered, f.alone = upTo, false
	}
	return n, nil
}

// answer takes in the answer to the next message.
func (f *flight) answer(nack bool) error {
	f.skip()
	if f.due == f.end {
		return errNothingDue
	}
	one := f.at(f.due)
	f.count.Inflight--
	f.suspects = max(f.suspects-1, 0)
	if one.back != "" {
		f.returned--
	}
	switch {
	case nack:
		f.count.Nacked++
		f.fail(errNacked)
	case one.back != "":
		f.count.Returned++
		f.fail(errors.New(one.back))
	default:
		f.count.Confirmed++
		f.alone = f.alone && f.bad != nil
	}
	f.due++
	f.answered++
	return nil
}

func (f *flight) fail(why error) {
	if f.bad == nil {
		f.bad, f.badAt = why, f.due
	}
}

// skip passes over messages that were not sent.
func (f *flight) skip() {
	for f.skipped > 0 && f.due != f.end && f.at(f.due).drop != nil {
		f.due++
	}
}

// settle takes out of flight what is done with, up to a message that was not
// delivered: n messages, of which some were dropped.
func (f *flight) settle() (n int, drops []*drop) {
	f.skip()
	end := f.due
	if f.bad != nil {
		end = min(end, f.badAt)
	}
	n = int(end - f.first)
	for position := f.first; f.skipped > 0 && position != end; position++ {
		d := f.at(position).drop
		if d == nil {
			continue
		}
		f.skipped--
		f.count.Dropped++
		drops = append(drops, d)
		if d.m.ID == f.culprit {
			f.culprit = ""
		}
	}
	f.first = end
	return n, drops
}

// trouble is why a message was not delivered, once all in flight have their
// answer; nil: there is none, or some are due.
func (f *flight) trouble() error {
	if f.due == f.end {
		return f.bad
	}
	return nil
}

// lost ends a session. tooLarge: the broker closed it for a message that it
// can't take. First all that were due are suspects, then one that was out alone
// is the culprit.
func (f *flight) lost(tooLarge bool) {
	if tooLarge {
		due := int(f.end - f.due)
		if f.suspect != "" && due == 1 {
			f.culprit = f.suspect
		}
		f.suspects = max(due, 1)
	}
	f.rewind()
}
