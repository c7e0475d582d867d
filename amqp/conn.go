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

// conn is a link's network connection. It cures three faults of the library's
// v1.16.0: a write that blocks keeps the library from closing the connection
// when reads time out; while it blocks the library stops renewing the read
// deadline, so that a live connection under a memory alarm is torn down; and
// silence right after the handshake is never noticed, for no deadline is armed
// yet. So conn keeps its own read deadline and closes the socket itself when a
// read fails.
//
// It also gathers writes while it is corked: the library makes one for each
// message, wire has gathered them already.
type conn struct {
	net.Conn
	socket  net.Conn      // below TLS, or the same
	heard   atomic.Bool   // something was read
	failed  chan struct{} // closed when a read has failed; failure tells why
	failure error
	once    sync.Once
	silence atomic.Int64 // nanoseconds without a byte until the link is dead; 0: no limit
	closing atomic.Bool  // a final deadline was set: reads don't extend it
	gather  atomic.Int64 // nanoseconds that a read lets bytes come together first; 0: none

	mu     sync.Mutex // the library's heartbeats are written by a goroutine of its own
	corked bool
	buf    []byte
}

// listen arms the read deadline: one and a half heartbeats.
func (c *conn) listen(heartbeat time.Duration) {
	c.silence.Store(int64(heartbeat + heartbeat/2))
}

func newConn(wire, socket net.Conn) *conn {
	return &conn{Conn: wire, socket: socket, failed: make(chan struct{})}
}

// corkLimit bounds what is gathered before it is written.
const corkLimit = 64 << 10

func (c *conn) Read(b []byte) (int, error) {
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
		c.Close()
	}
	return n, err
}

// plain is a network error without the addresses: our port differs each time,
// and the log would take the same trouble for a new one.
func plain(err error) error {
	var network *net.OpError
	if errors.As(err, &network) && network.Source != nil {
		return network.Err
	}
	return err
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
		return errors.New("the broker closed the connection without a word")
	}
	return c.failure
}

func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		n, err := c.Conn.Write(b)
		return n, plain(err)
	}
	c.buf = append(c.buf, b...)
	if len(c.buf) >= corkLimit {
		if err := c.flushLocked(); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func (c *conn) flushLocked() error {
	if len(c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.buf)
	c.buf = c.buf[:0]
	if cap(c.buf) > 4*corkLimit {
		c.buf = nil
	}
	return plain(err)
}

func (c *conn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

func (c *conn) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flushLocked()
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
