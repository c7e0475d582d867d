// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

// connection is one session's connection and channel, in confirm mode, as the
// publisher sees it: messages go in one by one, what the broker says comes out
// in bulk. Its methods are called by the publisher's goroutine, hurry by anyone.
type connection interface {
	// publish takes a message, and keeps nothing of it. Messages are
	// numbered from 1. It is written by the next flush at the latest.
	publish(cfg *Config, m *Message) error
	flush() error
	// take returns what the broker has said since it was last called, before
	// and after close. Valid until it is called again.
	take() *replies
	// wait waits until the broker has said something, the connection has
	// ended, or one of w is ready.
	wait(w *waits) reason
	// ended is why the connection is of no more use; nil: it still is.
	ended() error
	// awaitEnd is the same once it must have ended, because publish or flush
	// failed with err: the broker's own word if there is one. It waits a
	// moment for that to come in.
	awaitEnd(err error) error
	// gather makes reads let bytes come together for so long first; 0: not.
	gather(d time.Duration)
	// heartbeat is what was agreed; 0: none.
	heartbeat() time.Duration
	// hurry bounds all writing, also one that is under way; the zero time:
	// no more.
	hurry(t time.Time)
	// close ends the connection within moments, politely if that is possible.
	close()
}

// waits is what the publisher waits for beside the broker.
type waits struct {
	wake, changed, stop <-chan struct{}
	timer               <-chan time.Time
	quiet               bool // what the broker says may wait, except for the end
}

// reason is what ended a wait.
type reason int

const (
	brokerSpoke reason = iota // or the connection has ended
	sourceWoke
	configChanged
	stopping
	timeUp
)

// amqpConnection is the connection: amqp091-go speaks AMQP, except what
// conn sends and takes out beside it.
type amqpConnection struct {
	*conn
	lib     *lib.Connection
	channel uint16

	out  []byte // frames, whole ones, to be written
	tag  uint64 // of the last message in out
	sent published
}

// dial makes a connection to one host, within the connect timeout. ctx ends it
// early.
func dial(ctx context.Context, cfg *Config, host Host) (_ connection, err error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	if len(cfg.Vhost) > 255 || len(cfg.Exchange) > 255 {
		return nil, errors.New("the vhost's or the exchange's name has more than the 255 bytes that AMQP allows")
	}
	password := ""
	if cfg.Password != nil && !cfg.External {
		if password, err = cfg.Password(); err != nil {
			return nil, err
		}
	}
	var config *tls.Config
	if cfg.TLS != nil {
		if config, err = cfg.TLS(); err != nil {
			return nil, err
		}
	}
	address := net.JoinHostPort(host.Name, strconv.Itoa(host.Port))
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	// Whatever hangs from here on, closing the socket ends it.
	guard := context.AfterFunc(ctx, func() { tcp.Close() })
	defer func() {
		guard()
		if err != nil {
			tcp.Close()
			if cause := ctx.Err(); errors.Is(cause, context.DeadlineExceeded) {
				err = fmt.Errorf("no answer from %s within %v", address, cfg.ConnectTimeout)
			}
			err = clipped(err)
		}
	}()
	stream := net.Conn(tcp)
	if config != nil {
		if config.ServerName == "" {
			config.ServerName = host.Name
		}
		secure := tls.Client(tcp, config)
		if err = secure.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS with %s: %w", address, err)
		}
		stream = secure
	}
	c := &amqpConnection{}
	c.conn = newConn(stream, tcp, cfg.window(), &c.sent)
	if err = c.open(cfg, password); err != nil {
		c.conn.Close()
		var broken protocolError
		if errors.As(c.inbox.ended(), &broken) {
			err = broken // the library calls it wrong credentials, or the like
		} else if refusal := c.refusal(); refusal != nil {
			err = plain(refusal)
		}
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return c, nil
}

// open does AMQP's handshakes.
func (c *amqpConnection) open(cfg *Config, password string) (err error) {
	sasl := []lib.Authentication{&lib.PlainAuth{Username: cfg.Username, Password: password}}
	if cfg.External {
		sasl = []lib.Authentication{&lib.ExternalAuth{}}
	}
	c.lib, err = lib.Open(c.conn, lib.Config{
		SASL:      sasl,
		Vhost:     cfg.Vhost,
		Heartbeat: cfg.Heartbeat,
		FrameSize: frameMaxSize,
		Locale:    "en_US",
		Properties: lib.Table{
			"connection_name": cfg.ConnectionName,
			"product":         cfg.AppID,
		},
	})
	if errors.Is(err, lib.ErrCredentials) {
		return credentialsRefused(cfg)
	}
	if err != nil {
		return readable(err)
	}
	c.listen(c.heartbeat())
	ch, err := c.lib.Channel()
	if err != nil {
		return readable(err)
	}
	if cfg.Exchange != "" {
		if ch, err = c.checkExchange(ch, cfg.Exchange); err != nil {
			return err
		}
	}
	if err := ch.Confirm(false); err != nil {
		return readable(err)
	}
	c.channel = c.in.confirming
	return nil
}

// checkExchange finds out that an exchange is missing before anything is sent.
// A user without the right to look may still have the one to publish.
func (c *amqpConnection) checkExchange(ch *lib.Channel, name string) (*lib.Channel, error) {
	err := ch.ExchangeDeclarePassive(name, lib.ExchangeDirect, true, false, false, false, nil)
	var answer *lib.Error
	if err != nil && errors.As(err, &answer) && answer.Code == lib.AccessRefused {
		ch, err = c.lib.Channel()
	}
	return ch, readable(err)
}

// writeLimit bounds what is gathered before it is written.
const writeLimit = 64 << 10

func (c *amqpConnection) publish(cfg *Config, m *Message) (err error) {
	if c.out, err = appendPublish(c.out, c.channel, c.in.frameMax, cfg, m); err != nil {
		return err
	}
	c.tag++
	if n := uint64(len(m.Body)); n > c.sent.largest.Load() {
		c.sent.largest.Store(n)
	}
	held := false
	for body := m.Body; len(body) > 0; {
		c.out, body = appendBody(c.out, c.channel, c.in.frameMax, body)
		if len(c.out) < writeLimit {
			continue
		}
		if !held {
			// No frame of the library's may come within a message.
			c.writing.Lock()
			defer c.writing.Unlock()
			held = true
		}
		if err = c.writeLocked(); err != nil {
			return err
		}
	}
	if held {
		return c.writeLocked()
	}
	return nil
}

func (c *amqpConnection) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.writeLocked()
}

func (c *amqpConnection) writeLocked() error {
	c.sent.tag.Store(c.tag) // first: the confirm may be here before Write returns
	_, err := c.Conn.Write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > 4*writeLimit {
		c.out = nil
	}
	return plain(err)
}

func (c *amqpConnection) take() *replies { return c.inbox.take() }

func (c *amqpConnection) wait(w *waits) reason {
	fresh := c.inbox.fresh
	if w.quiet {
		fresh = nil
	}
	select {
	case <-fresh:
	case <-c.inbox.over:
	case <-w.wake:
		return sourceWoke
	case <-w.changed:
		return configChanged
	case <-w.stop:
		return stopping
	case <-w.timer:
		return timeUp
	}
	return brokerSpoke
}

func (c *amqpConnection) ended() error { return c.inbox.ended() }

func (c *amqpConnection) awaitEnd(err error) error {
	select {
	case <-c.inbox.over:
		return c.ended()
	case <-time.After(verdictTimeout):
	}
	return networkError(err)
}

func (c *amqpConnection) heartbeat() time.Duration { return c.lib.Config.Heartbeat }

func (c *amqpConnection) gather(d time.Duration) { c.conn.gather.Store(int64(d)) }

func (c *amqpConnection) hurry(t time.Time) { _ = c.conn.SetWriteDeadline(t) }

// closeTimeout bounds the goodbyes.
const closeTimeout = 200 * time.Millisecond

func (c *amqpConnection) close() {
	// Whatever hangs, closing the socket ends it.
	defer time.AfterFunc(2*closeTimeout, func() { c.socket.Close() }).Stop()
	c.gather(0)
	c.hurry(time.Now().Add(closeTimeout))
	// Confirms that come before the answer are that many fewer duplicates.
	_ = c.lib.CloseDeadline(time.Now().Add(closeTimeout))
	c.conn.Close()
}
