// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn is the network connection that the library is given. Two things that
// come by the million pass it by: messages are written here, between the
// library's own frames, and what the broker says of them is taken out of what is
// read (inbound). The library sees neither.
//
// conn also cures three faults of the library's v1.16.0: a write that blocks
// keeps the library from closing the connection when reads time out; while it
// blocks the library stops renewing the read deadline, so that a live connection
// under a memory alarm is torn down; and silence right after the handshake is
// never noticed, for no deadline is armed yet. So conn keeps its own read
// deadline and closes the socket itself when a read fails. The library's would
// not do anyhow: it hears nothing while confirms come.
//
// One goroutine reads, the library's. Two write: the publisher's, and the
// library's, which sends heartbeats and closes.
type conn struct {
	net.Conn
	socket net.Conn // below TLS, or the same

	// The reader's.
	buf  []byte // read, and not understood yet
	in   *inbound
	fail error // no more is read

	inbox   *inbox
	heard   atomic.Bool   // something was read
	failed  chan struct{} // closed when a read has failed; failure tells why
	failure error
	once    sync.Once
	silence atomic.Int64 // nanoseconds without a byte until the connection is dead; 0: no limit
	closing atomic.Bool  // a final deadline was set: reads don't extend it
	gather  atomic.Int64 // nanoseconds that a read lets bytes come together first; 0: none

	writing sync.Mutex // held from the first frame of a message to its last
	partial []byte     // of the library's, a frame that is not whole yet
	opened  bool       // the library has said which protocol it speaks
}

// readBuffer is what a read takes at the most, unless a frame is larger.
const readBuffer = 32 << 10

// newConn makes a conn for at most window messages in flight. The library's
// bytes go over stream; socket is below it, or the same.
func newConn(stream, socket net.Conn, window int, s *published) *conn {
	return &conn{
		Conn: stream, socket: socket, in: newInbound(window, s), inbox: newInbox(window),
		buf: make([]byte, 0, readBuffer), failed: make(chan struct{}),
	}
}

// listen arms the read deadline: one and a half heartbeats.
func (c *conn) listen(heartbeat time.Duration) {
	c.silence.Store(int64(heartbeat + heartbeat/2))
}

// Read returns what the library is to see.
func (c *conn) Read(b []byte) (n int, err error) {
	defer func() {
		// A panic would end the process, which is somebody's database server.
		if v := recover(); v != nil {
			err = fmt.Errorf("internal error: %v", v)
			c.end(err)
		}
	}()
	for len(c.in.pass) == 0 {
		if c.fail != nil {
			return 0, c.fail
		}
		c.fill()
	}
	n = copy(b, c.in.pass)
	c.in.pass = c.in.pass[:copy(c.in.pass, c.in.pass[n:])]
	return n, nil
}

// fill reads once, and hands over what the broker said.
func (c *conn) fill() {
	if len(c.buf) == cap(c.buf) {
		// One frame fills it. cut has seen that it is not too large.
		c.buf = append(make([]byte, 0, c.in.frameMax), c.buf...)
	}
	n, broken := c.receive(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	used, err := c.in.feed(c.buf)
	c.buf = c.buf[:copy(c.buf, c.buf[used:])]
	if full := c.inbox.put(&c.in.replies); err == nil {
		err = full
	}
	if c.in.ends != nil && c.inbox.ended() == nil {
		c.inbox.end(c.in.ends)
		// The library answers a close. The broker may read no more.
		_ = c.Conn.SetWriteDeadline(time.Now().Add(closeTimeout))
	}
	switch {
	case err != nil:
		c.end(err)
	case broken != nil:
		c.end(networkError(broken))
	}
}

// end closes the connection for a reason, which the publisher hears of behind
// all that was said before.
func (c *conn) end(err error) {
	c.fail = err
	c.inbox.end(err)
	c.Close()
}

// receive reads from the network.
func (c *conn) receive(b []byte) (int, error) {
	silence := time.Duration(0)
	if !c.closing.Load() {
		silence = time.Duration(c.silence.Load())
	}
	if silence > 0 {
		_ = c.Conn.SetReadDeadline(time.Now().Add(silence))
	}
	if d := c.gather.Load(); d > 0 {
		// Under load: confirms come one by one, each read of one would
		// cost a wake-up.
		time.Sleep(time.Duration(d))
	}
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(true)
	}
	if err != nil {
		if silence > 0 && !c.closing.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("the broker has said nothing for %v", silence)
		}
		err = plain(err)
		c.once.Do(func() { c.failure = err; close(c.failed) })
	}
	return n, err
}

// Write takes the library's frames, and sends each only once it is whole.
func (c *conn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.partial = append(c.partial, b...)
	whole, err := c.asked()
	if err == nil && whole > 0 {
		_, err = c.Conn.Write(c.partial[:whole])
		c.partial = c.partial[:copy(c.partial, c.partial[whole:])]
	}
	if err != nil {
		return 0, plain(err)
	}
	return len(b), nil
}

// protocolHeader is what the library sends before any frame.
const protocolHeader = "AMQP\x00\x00\x09\x01"

// asked notes what the library asks for by the whole frames in partial, and
// returns how many bytes they have.
func (c *conn) asked() (whole int, err error) {
	if !c.opened {
		if len(c.partial) < len(protocolHeader) {
			return 0, nil
		}
		c.opened, whole = true, len(protocolHeader)
	}
	for {
		f, n, err := cut(c.partial[whole:], frameMaxSize)
		if n == 0 || err != nil {
			return whole, err
		}
		whole += n
		if p := (fields{rest: f.payload}); f.kind == frameMethod {
			c.in.expected.ask(f.channel, p.long())
		}
	}
}

// Close closes the socket. AMQP has its own goodbye; TLS's may wait five
// seconds for a peer that reads no more.
//
// In TLS 1.3 a broker that refuses our certificate says so after the handshake:
// the library's first write may fail before its reader has seen why. So the
// reader gets a moment to see it.
func (c *conn) Close() error {
	if c.Conn != c.socket && !c.heard.Load() {
		_ = c.socket.SetReadDeadline(time.Now().Add(verdictTimeout))
		select {
		case <-c.failed:
		case <-time.After(2 * verdictTimeout): // nobody reads
		}
	}
	return c.socket.Close()
}

// verdictTimeout is for bytes that are here already.
const verdictTimeout = 100 * time.Millisecond

// refusal is why the peer ended the connection before it said anything; nil: it
// did not, or did.
func (c *conn) refusal() error {
	select {
	case <-c.failed:
	default:
		return nil
	}
	var network net.Error
	switch {
	case c.heard.Load(), errors.Is(c.failure, net.ErrClosed), errors.As(c.failure, &network) && network.Timeout():
		return nil
	case errors.Is(c.failure, io.EOF):
		return errWithoutAWord
	}
	return c.failure
}

// SetReadDeadline is the library's wish after each frame; ours is kept instead.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetDeadline is used by the library to clear the handshake's deadline, and to
// bound a close.
func (c *conn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		return c.Conn.SetWriteDeadline(t)
	}
	c.closing.Store(true)
	return c.Conn.SetDeadline(t)
}
