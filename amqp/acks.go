package amqp

import (
	"encoding/binary"
	"net"
)

// acks makes fewer of the broker's confirms, between the network and the
// library: where one read brings "up to 7", "up to 8" and "up to 9", the library
// sees "up to 9" only. For each of them it would walk through all messages in
// flight.
//
// Everything else passes as it came, and in order. Nothing waits but the begin
// of a frame of which too little is here to tell what it is, and a confirm
// without its end: the library could do nothing with either. Only one goroutine
// may read.
type acks struct {
	net.Conn
	buf  []byte // read, and not handed over
	pass int    // so many of its first bytes may be handed over
	rest int64  // bytes to come of a frame that passes as it is
	err  error  // handed over after the bytes
}

// ackFrame is the size of a confirm's frame: the method's number, the tag, a
// bit.
const ackFrame = frameOverhead + 4 + 8 + 1

func newAcks(c net.Conn) *acks {
	return &acks{Conn: c, buf: make([]byte, 0, readBuffer)}
}

// Read implements [net.Conn].
func (a *acks) Read(b []byte) (int, error) {
	for a.pass == 0 && a.err == nil {
		var n int
		n, a.err = a.Conn.Read(a.buf[len(a.buf):cap(a.buf)])
		a.buf = a.buf[:len(a.buf)+n]
		a.merge()
		if a.err != nil {
			a.pass = len(a.buf)
		}
	}
	if a.pass == 0 {
		return 0, a.err
	}
	n := copy(b, a.buf[:a.pass])
	a.pass -= n
	a.buf = a.buf[:copy(a.buf, a.buf[n:])]
	return n, nil
}

// merge goes through what was read, makes one of confirms that follow one
// another, and sets what may pass.
func (a *acks) merge() {
	in, out := 0, 0
	last := -1 // where the confirm begins that passes last; -1: it is none
	for in < len(a.buf) {
		n, whole := a.next(a.buf[in:])
		if n == 0 {
			break
		}
		f := a.buf[in : in+n]
		switch {
		case !whole || f[0] != frameMethod || binary.BigEndian.Uint32(f[7:]) != basicAck:
			last = -1
		case last >= 0 && joined(a.buf[last:], f):
			out = last
		default:
			last = out
		}
		in += n
		out += copy(a.buf[out:], f)
	}
	a.pass = out
	a.buf = a.buf[:out+copy(a.buf[out:], a.buf[in:])]
}

// next tells what b begins with: a whole frame of a confirm's size, or n bytes
// of another one; 0: what it is can't be told yet.
func (a *acks) next(b []byte) (n int, whole bool) {
	if a.rest == 0 {
		if len(b) < 7 {
			return 0, false
		}
		a.rest = int64(binary.BigEndian.Uint32(b[3:])) + frameOverhead
		if a.rest == ackFrame {
			a.rest = 0
			if len(b) < ackFrame {
				return 0, false
			}
			return ackFrame, true
		}
	}
	n = int(min(a.rest, int64(len(b))))
	a.rest -= int64(n)
	return n, false
}

// joined makes next, a confirm, say what the one before it says too, if one can:
// either next is for all messages up to its own, or it is for the one after
// those that the other is for.
func joined(before, next []byte) bool {
	const channel, tag, bits, multiple = 1, 11, 19, 1
	first, last := binary.BigEndian.Uint64(before[tag:]), binary.BigEndian.Uint64(next[tag:])
	if before[channel] != next[channel] || before[channel+1] != next[channel+1] || first == 0 || last <= first {
		return false
	}
	if next[bits]&multiple == 0 {
		if before[bits]&multiple == 0 || last != first+1 {
			return false
		}
		next[bits] |= multiple
	}
	return true
}
