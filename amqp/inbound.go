// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"encoding/binary"
	"strings"
	"sync/atomic"
)

// inbound reads what the broker sends, before the library does. Confirms,
// returns, alarms and heartbeats it takes out. Of the rest it passes only what
// the library waits for and what ends a channel or the connection, each written
// anew in its plainest form: so nothing that a broker sends can make the library
// panic, wait for ever or keep memory. Everything else ends the session.
//
// It does no I/O, and what it keeps is bounded by the window and by the size of a
// frame. One goroutine feeds it.
type inbound struct {
	expected *expected
	sent     *published
	frameMax int // bytes of a frame, agreed

	pass    []byte // frames for the library
	replies replies
	ends    error // the broker closed the channel or the connection
	over    bool  // the connection: nothing that follows has a meaning

	confirming uint16 // the channel in confirm mode; 0: none yet
	confirms   confirms
	back       incoming
}

// published is what the broker can know of. The publisher's goroutine writes it.
type published struct {
	tag     atomic.Uint64 // of the last message sent
	largest atomic.Uint64 // bytes of the largest body sent
}

// expected is the answer that the library waits for: it has one question open
// at a time. The goroutines that write set it, the one that reads takes it.
type expected struct{ answer atomic.Uint64 } // the channel above the method's number; 0: none

// answers are the methods that may come after those that the library sends.
var answers = map[uint32]uint32{
	connectionStartOK: connectionTune,
	connectionOpen:    connectionOpenOK,
	connectionClose:   connectionCloseOK,
	channelOpen:       channelOpenOK,
	exchangeDeclare:   exchangeDeclareOK,
	confirmSelect:     confirmSelectOK,
}

// ask notes that the library sends a method.
func (e *expected) ask(channel uint16, method uint32) {
	if answer := answers[method]; answer != 0 {
		e.answer.Store(uint64(channel)<<32 | uint64(answer))
	}
}

// take reports whether the method is the answer, and that only once.
func (e *expected) take(channel uint16, method uint32) bool {
	want := uint64(channel)<<32 | uint64(method)
	return e.answer.CompareAndSwap(want, 0)
}

// giveUp reports whether an answer was due on the channel and no longer is.
func (e *expected) giveUp(channel uint16) bool {
	want := e.answer.Load()
	return want != 0 && uint16(want>>32) == channel && e.answer.CompareAndSwap(want, 0)
}

// newInbound makes an inbound for at most window messages in flight.
func newInbound(window int, s *published) *inbound {
	in := &inbound{expected: &expected{}, sent: s, frameMax: frameMaxSize, confirms: newConfirms(window)}
	in.expected.answer.Store(connectionStart)
	return in
}

// feed takes in the whole frames of b, and returns how many bytes they have.
// After an error the connection is of no more use.
func (in *inbound) feed(b []byte) (used int, err error) {
	for {
		f, n, err := cut(b[used:], in.frameMax)
		if n == 0 || err != nil {
			return used, err
		}
		used += n
		if err := in.frame(f); err != nil {
			return used, err
		}
	}
}

func (in *inbound) frame(f frame) error {
	p := fields{rest: f.payload}
	switch {
	case f.kind == frameHeartbeat && f.channel == 0 && len(f.payload) == 0:
		return nil
	case in.over:
		return nil
	case f.kind == frameMethod && f.channel == 0:
		return in.connectionMethod(&p)
	case in.ends != nil && f.channel == in.confirming:
		return nil // that channel is closed
	case f.kind == frameMethod && !in.back.expected():
		return in.channelMethod(f.channel, &p)
	case f.channel != in.confirming || f.channel == 0:
	case f.kind == frameHeader && in.back.expected():
		if err := in.back.header(&p, in.sent.largest.Load()); err != nil {
			return err
		}
		return in.returned()
	case f.kind == frameBody && in.back.expected():
		if err := in.back.content(f.payload); err != nil {
			return err
		}
		return in.returned()
	}
	return violation("a frame of type %d on channel %d, which was not due", f.kind, f.channel)
}

func notDue(channel uint16, method uint32) error {
	return violation("method %d.%d on channel %d, which was not due", method>>16, method&0xFFFF, channel)
}

var errMalformed = violation("a method that ends too soon")

// connectionMethod takes in a method of the connection itself.
func (in *inbound) connectionMethod(p *fields) error {
	switch method := p.long(); method {
	case connectionStart, connectionTune, connectionOpenOK, connectionCloseOK:
		if !in.expected.take(0, method) {
			return notDue(0, method)
		}
		return in.handshake(method, p)
	case connectionClose:
		err := in.passClose(0, method, p)
		if in.ends == nil {
			in.ends = err
		}
		in.over = true
	case connectionBlocked:
		in.replies.alarm = &alarm{on: true, reason: string(p.shortstr())}
	case connectionUnblocked:
		in.replies.alarm = &alarm{}
	default:
		return notDue(0, method)
	}
	if p.bad {
		return errMalformed
	}
	return nil
}

// handshake passes an answer that was due.
func (in *inbound) handshake(method uint32, p *fields) error {
	b, start := in.pass, len(in.pass)
	b = openMethod(b, 0, method)
	switch method {
	case connectionStart:
		p.short()   // version
		p.longstr() // the broker's properties: the library needs none
		offered := mechanisms(string(p.longstr()))
		b = append(b, 0, 9, 0, 0, 0, 0)
		b = appendLongstr(appendLongstr(b, offered), "en_US")
	case connectionTune:
		channels, size, heartbeat := p.short(), p.long(), p.short()
		if size == 0 || size > frameMaxSize {
			size = frameMaxSize
		}
		if size < frameMinSize {
			return violation("the wish for frames of %d bytes, AMQP asks for %d at the least", size, frameMinSize)
		}
		in.frameMax = int(size)
		b = binary.BigEndian.AppendUint16(b, channels)
		b = binary.BigEndian.AppendUint32(b, size)
		b = binary.BigEndian.AppendUint16(b, heartbeat)
	case connectionOpenOK:
		b = append(b, 0)
	}
	if p.bad {
		return errMalformed
	}
	in.pass = closeFrame(b, start)
	return nil
}

// mechanisms leaves those that the library knows.
func mechanisms(offered string) string {
	var known []string
	for name := range strings.FieldsSeq(offered) {
		if (name == "PLAIN" || name == "EXTERNAL") && len(known) < 2 {
			known = append(known, name)
		}
	}
	return strings.Join(known, " ")
}

// channelMethod takes in a method of a channel.
func (in *inbound) channelMethod(channel uint16, p *fields) error {
	method := p.long()
	switch method {
	case channelOpenOK, exchangeDeclareOK, confirmSelectOK:
		if !in.expected.take(channel, method) {
			return notDue(channel, method)
		}
		start := len(in.pass)
		b := openMethod(in.pass, channel, method)
		if method == channelOpenOK {
			b = append(b, 0, 0, 0, 0)
		}
		in.pass = closeFrame(b, start)
		if method == confirmSelectOK {
			in.confirming = channel
		}
		return nil
	case channelClose:
		if in.confirming != channel && !in.expected.giveUp(channel) {
			return notDue(channel, method)
		}
		err := in.passClose(channel, method, p)
		if in.confirming == channel {
			in.ends = err
		}
	case basicAck, basicNack, basicReturn:
		if channel != in.confirming {
			return notDue(channel, method)
		}
		if method == basicReturn {
			in.back.begin(p)
			break
		}
		tag, bits := p.longlong(), p.octet()
		if p.bad {
			return errMalformed
		}
		return in.confirms.take(&in.replies, in.sent.tag.Load(), tag, bits&1 != 0, method == basicNack)
	default:
		return notDue(channel, method)
	}
	if p.bad {
		return errMalformed
	}
	return nil
}

// passClose passes a close, and returns what the broker says by it.
func (in *inbound) passClose(channel uint16, method uint32, p *fields) error {
	e := &closedError{code: int(p.short()), text: string(p.shortstr()), byBroker: true}
	if p.bad {
		return e
	}
	start := len(in.pass)
	b := binary.BigEndian.AppendUint16(openMethod(in.pass, channel, method), uint16(e.code))
	in.pass = closeFrame(append(appendShortstr(b, e.text), 0, 0, 0, 0), start)
	return e
}

// returned hands over a message that came back whole.
func (in *inbound) returned() error {
	if r, whole := in.back.take(); whole {
		if len(in.replies.returned) >= len(in.confirms.early) {
			return violation("more messages back than were sent")
		}
		in.replies.returned = append(in.replies.returned, r)
	}
	return nil
}
