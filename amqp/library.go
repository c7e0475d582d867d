package amqp

import (
	"errors"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

// library is a link over amqp091-go.
type library struct {
	raw  *conn
	conn *lib.Connection
	ch   *lib.Channel

	returns    chan lib.Return
	blocked    chan lib.Blocking
	connClosed chan *lib.Error
	chClosed   chan *lib.Error

	// sent are the messages in flight, by tag modulo its size.
	sent []*lib.DeferredConfirmation
	tag  uint64 // of the last message sent

	in, out news // out was handed over, in comes next
	err     error
}

// openLibrary does AMQP's handshakes.
func openLibrary(raw *conn, cfg *Config, password string) (link, error) {
	sasl := []lib.Authentication{&lib.PlainAuth{Username: cfg.Username, Password: password}}
	if cfg.External {
		sasl = []lib.Authentication{&lib.ExternalAuth{}}
	}
	l := &library{raw: raw}
	var err error
	l.conn, err = lib.Open(newAcks(raw), lib.Config{
		SASL:      sasl,
		Vhost:     cfg.Vhost,
		Heartbeat: cfg.Heartbeat,
		Locale:    "en_US",
		Properties: lib.Table{
			"connection_name": cfg.ConnectionName,
			"product":         appID,
		},
	})
	if errors.Is(err, lib.ErrCredentials) {
		return nil, credentialsRefused(cfg)
	}
	if err != nil {
		return nil, reason(err)
	}
	raw.listen(l.heartbeat())
	if l.ch, err = l.conn.Channel(); err != nil {
		return nil, reason(err)
	}
	if cfg.Exchange != "" {
		if err = l.checkExchange(cfg.Exchange); err != nil {
			return nil, err
		}
	}
	window := cfg.window()
	l.sent = make([]*lib.DeferredConfirmation, window)
	l.returns = l.ch.NotifyReturn(make(chan lib.Return, window))
	l.blocked = l.conn.NotifyBlocked(make(chan lib.Blocking, 16))
	l.connClosed = l.conn.NotifyClose(make(chan *lib.Error, 1))
	l.chClosed = l.ch.NotifyClose(make(chan *lib.Error, 1))
	if err := l.ch.Confirm(false); err != nil {
		return nil, reason(err)
	}
	return l, nil
}

// checkExchange finds out that an exchange is missing before anything is sent.
// A user without the right to look may still have the one to publish.
func (l *library) checkExchange(name string) error {
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

func (l *library) publish(cfg *Config, m *Message) error {
	l.raw.cork()
	confirm, err := l.ch.PublishWithDeferredConfirm(cfg.Exchange, m.RoutingKey, cfg.Mandatory, false, lib.Publishing{
		MessageId:    m.ID,
		Timestamp:    m.Time,
		Type:         m.Type,
		AppId:        appID,
		ContentType:  m.contentType(),
		DeliveryMode: cfg.DeliveryMode,
		Headers:      lib.Table(m.Headers),
		Body:         m.Body,
	})
	if err != nil {
		return err
	}
	l.tag++
	l.sent[l.tag%uint64(len(l.sent))] = confirm
	return nil
}

func (l *library) flush() error { return l.raw.uncork() }

func (l *library) hear() *news {
	l.drain()
	l.in, l.out = l.out, l.in
	l.in.forget()
	l.in.answered = l.out.answered
	return &l.out
}

// drain takes in what is here. Returns last: those of the messages that were
// answered are here by then.
func (l *library) drain() {
	l.takeAnswers()
	for {
		select {
		case r, ok := <-l.returns:
			if !ok {
				return
			}
			l.returned(r)
			continue
		case b, ok := <-l.blocked:
			if !ok {
				return
			}
			l.block(b)
			continue
		default:
		}
		return
	}
}

// oldest is the first message without an answer; nil: there is none.
func (l *library) oldest() *lib.DeferredConfirmation {
	if l.in.answered == l.tag {
		return nil
	}
	return l.sent[(l.in.answered+1)%uint64(len(l.sent))]
}

// takeAnswers takes in the answers of the oldest messages. Each is asked for its
// own: the library's notifications take a timer for each message, and its word
// there on one that was rejected before an earlier one was confirmed is wrong
// once a confirm of many passes over it.
func (l *library) takeAnswers() {
	for m := l.oldest(); m != nil; m = l.oldest() {
		select {
		case <-m.Done():
		default:
			return
		}
		if !m.Acked() {
			if l.ch.IsClosed() {
				// The library rejects what got no answer when it ends.
				_ = l.lost(nil)
				return
			}
			l.in.rejected = append(l.in.rejected, l.in.answered+1)
		}
		l.in.answered++
	}
}

func (l *library) returned(r lib.Return) {
	l.in.returns = append(l.in.returns, bounce{id: r.MessageId, text: r.ReplyText, exchange: r.Exchange, routingKey: r.RoutingKey})
}

func (l *library) block(b lib.Blocking) {
	l.in.alarm = &alarm{on: b.Active, reason: b.Reason}
}

func (l *library) wait(w *waits) event {
	var answered <-chan struct{}
	returns := l.returns
	if w.quiet {
		returns = nil
	} else if m := l.oldest(); m != nil {
		answered = m.Done()
	}
	select {
	case <-answered:
		l.takeAnswers()
	case r, ok := <-returns:
		if ok {
			l.returned(r)
			break
		}
		_ = l.lost(nil)
	case b, ok := <-l.blocked:
		if ok {
			l.block(b)
			break
		}
		_ = l.lost(nil)
	case e := <-l.connClosed:
		l.closed(e)
	case e := <-l.chClosed:
		l.closed(e)
	case <-w.wake:
		return woken
	case <-w.kick:
		return kicked
	case <-w.stop:
		return stopped
	case <-w.timer:
		return timeUp
	}
	return heard
}

// closed remembers the reason of a close that was heard of.
func (l *library) closed(e *lib.Error) {
	switch {
	case l.err != nil:
	case e == nil:
		_ = l.lost(nil)
	default:
		l.err = &closedError{code: e.Code, text: e.Reason, byBroker: e.Server}
	}
}

func (l *library) ended() error { return l.err }

func (l *library) lost(err error) error {
	for _, closed := range []chan *lib.Error{l.chClosed, l.connClosed} {
		if l.err != nil {
			break
		}
		select {
		case e, ok := <-closed:
			if ok && e != nil {
				l.closed(e)
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	if l.err == nil {
		if l.err = err; err == nil {
			l.err = errors.New("connection lost")
		}
	}
	return l.err
}

func (l *library) heartbeat() time.Duration { return l.conn.Config.Heartbeat }

func (l *library) gather(d time.Duration) { l.raw.gather.Store(int64(d)) }

func (l *library) hurry(t time.Time) { _ = l.raw.SetWriteDeadline(t) }

func (l *library) close() {
	_ = l.conn.CloseDeadline(time.Now().Add(closeTimeout))
	l.raw.Close()
	// What the broker still said is that many fewer duplicates.
	for m := l.oldest(); m != nil; m = l.oldest() {
		select {
		case <-m.Done():
		case <-time.After(20 * time.Millisecond):
			return
		}
		l.takeAnswers()
		if m == l.oldest() {
			return
		}
	}
}
