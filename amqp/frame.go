// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"encoding/binary"
	"fmt"
)

// AMQP 0-9-1's frames and fields, as far as a publisher meets them. Nothing here
// does I/O.
//
//	frame:  type octet, channel short, size long, payload, end octet
//	method: class short, method short, arguments
//	header: class short, weight short, body size long long, flags short, properties

const (
	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
	frameEnd       = 0xCE

	frameOverhead = 8 // what surrounds a payload
	frameMinSize  = 4096
	frameMaxSize  = 128 << 10 // as RabbitMQ proposes; bounds our buffers
)

// Methods: the class's number above the method's.
const (
	connectionStart     = 10<<16 | 10
	connectionStartOK   = 10<<16 | 11
	connectionTune      = 10<<16 | 30
	connectionTuneOK    = 10<<16 | 31
	connectionOpen      = 10<<16 | 40
	connectionOpenOK    = 10<<16 | 41
	connectionClose     = 10<<16 | 50
	connectionCloseOK   = 10<<16 | 51
	connectionBlocked   = 10<<16 | 60
	connectionUnblocked = 10<<16 | 61
	channelOpen         = 20<<16 | 10
	channelOpenOK       = 20<<16 | 11
	channelClose        = 20<<16 | 40
	channelCloseOK      = 20<<16 | 41
	exchangeDeclare     = 40<<16 | 10
	exchangeDeclareOK   = 40<<16 | 11
	basicPublish        = 60<<16 | 40
	basicReturn         = 60<<16 | 50
	basicAck            = 60<<16 | 80
	basicNack           = 60<<16 | 120
	confirmSelect       = 85<<16 | 10
	confirmSelectOK     = 85<<16 | 11
)

const classBasic = 60

// Flags of basic's properties, in the order in which they are sent.
const (
	hasContentType     = 1 << 15
	hasContentEncoding = 1 << 14
	hasHeaders         = 1 << 13
	hasDeliveryMode    = 1 << 12
	hasPriority        = 1 << 11
	hasCorrelationID   = 1 << 10
	hasReplyTo         = 1 << 9
	hasExpiration      = 1 << 8
	hasMessageID       = 1 << 7
	hasTimestamp       = 1 << 6
	hasType            = 1 << 5
	hasAppID           = 1 << 3
	moreFlags          = 1 << 0
)

// protocolError is what the broker did that AMQP, or the state of the session,
// does not allow. The session is over.
type protocolError string

func (e protocolError) Error() string { return string(e) }

func violation(format string, args ...any) error {
	return protocolError("the broker sent " + fmt.Sprintf(format, args...))
}

// frame is one frame; payload points into the buffer that it was cut from.
type frame struct {
	kind    byte
	channel uint16
	payload []byte
}

// cut takes the first frame of b, of at most limit bytes. n is how many bytes it
// has, 0 if it is not all there yet.
func cut(b []byte, limit int) (f frame, n int, err error) {
	if len(b) > 0 && b[0] != frameMethod && b[0] != frameHeader && b[0] != frameBody && b[0] != frameHeartbeat {
		return f, 0, protocolError("the peer does not speak AMQP 0-9-1")
	}
	if len(b) < 7 {
		return f, 0, nil
	}
	size := binary.BigEndian.Uint32(b[3:])
	if uint64(size)+frameOverhead > uint64(limit) {
		return f, 0, violation("a frame of %d bytes, %d were agreed", uint64(size)+frameOverhead, limit)
	}
	n = int(size) + frameOverhead
	if len(b) < n {
		return f, 0, nil
	}
	if b[n-1] != frameEnd {
		return f, 0, violation("a frame without an end")
	}
	return frame{kind: b[0], channel: binary.BigEndian.Uint16(b[1:]), payload: b[7 : n-1]}, n, nil
}

// fields reads a payload in place. What is not there reads as zero, and bad
// says so.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.rest, f.bad = nil, true
		return nil
	}
	taken := f.rest[:n:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) octet() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) short() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) long() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) longlong() uint64 {
	if b := f.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (f *fields) shortstr() []byte { return f.take(int(f.octet())) }

// longstr also passes over a table, whose size is written alike.
func (f *fields) longstr() []byte {
	n := f.long()
	if uint64(n) > uint64(len(f.rest)) {
		f.rest, f.bad = nil, true
		return nil
	}
	return f.take(int(n))
}

// openFrame begins a frame at the end of b, closeFrame ends the one that began
// at start.
func openFrame(b []byte, kind byte, channel uint16) []byte {
	return append(b, kind, byte(channel>>8), byte(channel), 0, 0, 0, 0)
}

func closeFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start+3:], uint32(len(b)-start-7))
	return append(b, frameEnd)
}

// openMethod begins a method's frame.
func openMethod(b []byte, channel uint16, method uint32) []byte {
	return binary.BigEndian.AppendUint32(openFrame(b, frameMethod, channel), method)
}

func appendFrame(b []byte, kind byte, channel uint16, payload []byte) []byte {
	start := len(b)
	return closeFrame(append(openFrame(b, kind, channel), payload...), start)
}

// appendShortstr: s has at most 255 bytes, the caller has made sure.
func appendShortstr(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

func appendLongstr(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
