package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

// link is one session's connection and channel.
type link struct {
	conn *lib.Connection
	ch   *lib.Channel
	raw  *conn
	host Host
	cfg  *Config

	confirms   chan lib.Confirmation
	returns    chan lib.Return
	blocked    chan lib.Blocking
	connClosed chan *lib.Error
	chClosed   chan *lib.Error
}

// dial makes a link to one host, within the connect timeout. stop ends it
// early.
func dial(ctx context.Context, cfg *Config, host Host) (l *link, err error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
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
		}
	}()
	wire := net.Conn(tcp)
	if config != nil {
		if config.ServerName == "" {
			config.ServerName = host.Name
		}
		secure := tls.Client(tcp, config)
		if err = secure.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS with %s: %w", address, err)
		}
		wire = secure
	}
	l = &link{raw: newConn(wire, tcp), host: host, cfg: cfg}
	if err = l.open(cfg, password); err != nil {
		l.raw.Close()
		if refusal := l.raw.refusal(); refusal != nil {
			err = reason(refusal)
		}
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return l, nil
}

// open does AMQP's handshakes.
func (l *link) open(cfg *Config, password string) (err error) {
	sasl := []lib.Authentication{&lib.PlainAuth{Username: cfg.Username, Password: password}}
	if cfg.External {
		sasl = []lib.Authentication{&lib.ExternalAuth{}}
	}
	l.conn, err = lib.Open(l.raw, lib.Config{
		SASL:      sasl,
		Vhost:     cfg.Vhost,
		Heartbeat: cfg.Heartbeat,
		Locale:    "en_US",
		Properties: lib.Table{
			"connection_name": cfg.ConnectionName,
			"product":         "key_evt_amqp",
		},
	})
	if cfg.External && errors.Is(err, lib.ErrCredentials) {
		return errors.New("the broker refuses the certificate as the user's credential (ACCESS_REFUSED)")
	}
	if err != nil {
		return reason(err)
	}
	if h := l.conn.Config.Heartbeat; h > 0 {
		l.raw.silence.Store(int64(h + h/2))
	}
	if l.ch, err = l.conn.Channel(); err != nil {
		return reason(err)
	}
	if cfg.Exchange != "" {
		if err = l.checkExchange(cfg.Exchange); err != nil {
			return err
		}
	}
	window := cfg.window()
	l.confirms = l.ch.NotifyPublish(make(chan lib.Confirmation, window))
	l.returns = l.ch.NotifyReturn(make(chan lib.Return, window))
	l.blocked = l.conn.NotifyBlocked(make(chan lib.Blocking, 16))
	l.connClosed = l.conn.NotifyClose(make(chan *lib.Error, 1))
	l.chClosed = l.ch.NotifyClose(make(chan *lib.Error, 1))
	return reason(l.ch.Confirm(false))
}

// checkExchange finds out that an exchange is missing before anything is sent.
// A user without the right to look may still have the one to publish.
func (l *link) checkExchange(name string) error {
	err := l.ch.ExchangeDeclarePassive(name, lib.ExchangeDirect, true, false, false, false, nil)
	var answer *lib.Error
	if err == nil || !errors.As(err, &answer) {
		return err
	}
	if answer.Code != lib.AccessRefused {
		return reason(err)
	}
	l.ch, err = l.conn.Channel()
	return reason(err)
}

// close ends the link at once, politely if that takes no time.
func (l *link) close() {
	_ = l.conn.CloseDeadline(time.Now().Add(200 * time.Millisecond))
	l.raw.Close()
}

// reason makes the broker's word readable, and never shows a password.
func reason(err error) error {
	var answer *lib.Error
	var network *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lib.ErrCredentials):
		return errors.New("the broker refuses the username or password (ACCESS_REFUSED)")
	case errors.As(err, &answer):
		return errors.New(strings.TrimSpace(answer.Reason))
	case errors.As(err, &network) && network.Source != nil:
		// Without our port: it differs each time, and the log would take
		// the same trouble for a new one.
		return network.Err
	}
	return err
}

// lost is the reason for a session's end, asked after the fact: the broker's
// own word if it gave one.
func (l *link) lost(fallback error) error {
	for _, closed := range []chan *lib.Error{l.chClosed, l.connClosed} {
		select {
		case e, ok := <-closed:
			if ok && e != nil {
				return &closedError{e}
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	if fallback == nil {
		return errors.New("connection lost")
	}
	return fallback
}

// closedError is a close by the broker or the network.
type closedError struct{ answer *lib.Error }

func (e *closedError) Error() string {
	return fmt.Sprintf("connection lost: %s", strings.TrimSpace(e.answer.Reason))
}

// tooLarge tells whether the broker closed for a message that it can't take
// whatever we do, rather than for an exchange or a right that may come.
func tooLarge(err error) bool {
	var e *closedError
	if !errors.As(err, &e) {
		return false
	}
	switch e.answer.Code {
	case lib.PreconditionFailed, lib.FrameError, lib.SyntaxError:
		return e.answer.Server
	}
	return false
}
