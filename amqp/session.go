package amqp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

// batch is how many messages are gathered into one write at the most.
const batch = 128

// confirmTimeout is the least time without any confirm, while some are due,
// after which a session is given up.
const confirmTimeout = 30 * time.Second

// session is one connection's life, on the publisher's goroutine.
type session struct {
	p    *Publisher
	link *link

	// flight is what was sent and not settled, oldest first. Confirms come in
	// order, so the first resolved of them have their answer.
	flight   []sent
	resolved int
	tag      uint64 // of the last confirm
	returned map[string]string

	limit      int   // window now: 1 while a failure is being probed
	bad        error // why flight[badAt] could not be delivered
	badAt      int
	blocked    bool
	pace       pace
	heard      time.Time // last confirm, or when flight was last empty
	alone      string    // id of the only message in flight, while sending one by one
	unresolved int       // at the end
}

type sent struct {
	id      string
	skipped bool // not sent: it never can be
}

var errSilent = errors.New("the broker has confirmed nothing for too long")

// serve publishes until the session ends; nil: it was ended on purpose.
func (s *session) serve() error {
	p := s.p
	s.heard = time.Now()
	for {
		cfg := p.config()
		enabled := p.isEnabled()
		if p.stopped() || !enabled && s.drained() {
			return nil
		}
		if enabled && !s.link.cfg.sameLink(cfg) {
			return nil
		}
		if enabled {
			p.answer(nil)
		}
		mayRead := enabled && !s.blocked && s.bad == nil
		news := false
		if mayRead {
			n, err := s.send(cfg)
			if err != nil {
				return err
			}
			s.pace.sent += n
			news = n > 0
		}
		n, err := s.collect()
		if err != nil {
			return err
		}
		p.show()
		if s.bad != nil && s.resolved == len(s.flight) {
			if done, err := s.retreat(); done || err != nil {
				return err
			}
			continue
		}
		if news || n > 0 {
			continue
		}
		linger := time.Duration(0)
		if mayRead {
			linger = s.pace.count(time.Now(), s.limited())
		}
		s.link.raw.gather.Store(int64(linger))
		if linger > 0 {
			if err := s.gather(linger); err != nil {
				return err
			}
			continue
		}
		if err := s.wait(mayRead && len(s.flight) < s.limited()); err != nil {
			return err
		}
	}
}

// drained tells whether Disconnect need not wait any longer.
func (s *session) drained() bool {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return len(s.flight) == 0 || s.bad != nil || s.blocked || !time.Now().Before(s.p.closeBy)
}

// limited is the window now.
func (s *session) limited() int {
	if s.p.oneByOne > 0 {
		return 1
	}
	return s.limit
}

// send sends a batch, in one write if it is small.
func (s *session) send(cfg *Config) (n int, err error) {
	limit := s.limited()
	if len(s.flight) >= limit {
		return 0, nil
	}
	s.link.raw.cork()
	var m Message
	for n < batch && len(s.flight) < limit && s.p.next(&m) {
		n++
		if err := s.publish(cfg, &m); err != nil {
			_ = s.link.raw.uncork()
			return n, s.link.lost(err)
		}
	}
	if err := s.link.raw.uncork(); err != nil {
		return n, s.link.lost(err)
	}
	return n, nil
}

func (s *session) publish(cfg *Config, m *Message) error {
	if len(s.flight) == 0 {
		s.heard = time.Now()
	}
	if why := s.impossible(m); why != nil {
		s.p.obs.Dropped(m, why)
		s.p.counters.Dropped++
		s.p.poison = ""
		s.flight = append(s.flight, sent{id: m.ID, skipped: true})
		return nil
	}
	s.flight = append(s.flight, sent{id: m.ID})
	s.alone = ""
	if s.p.oneByOne > 0 {
		s.alone = strings.Clone(m.ID)
	}
	contentType := m.ContentType
	if contentType == "" {
		contentType = "text/plain"
	}
	s.p.counters.Published++
	s.p.counters.Inflight++
	_, err := s.link.ch.PublishWithDeferredConfirm(cfg.Exchange, m.RoutingKey, cfg.Mandatory, false, lib.Publishing{
		MessageId:    m.ID,
		Timestamp:    m.Time,
		Type:         m.Type,
		AppId:        "key_evt_amqp",
		ContentType:  contentType,
		DeliveryMode: cfg.DeliveryMode,
		Headers:      lib.Table(m.Headers),
		Body:         m.Body,
	})
	return err
}

// impossible tells why a message can't be sent whatever we do.
func (s *session) impossible(m *Message) error {
	if s.p.poison != "" && m.ID == s.p.poison {
		return errors.New("the broker does not take it, it is too large")
	}
	// The library closes the connection for these.
	for name, text := range map[string]string{"routing key": m.RoutingKey, "message id": m.ID, "type": m.Type} {
		if len(text) > 255 {
			return fmt.Errorf("its %s has %d bytes, AMQP allows 255", name, len(text))
		}
	}
	return nil
}

// collect takes in all confirms that are here.
func (s *session) collect() (n int, err error) {
	for {
		select {
		case c, ok := <-s.link.confirms:
			if !ok {
				return n, s.link.lost(nil)
			}
			if err := s.confirm(c); err != nil {
				return n, err
			}
			n++
			continue
		default:
		}
		break
	}
	return n + s.settle(), nil
}

// confirm takes in one confirm, the returns that came before it first: a
// message that no queue took is returned, and then acknowledged.
func (s *session) confirm(c lib.Confirmation) error {
	s.takeReturns()
	if s.tag++; c.DeliveryTag != s.tag {
		return fmt.Errorf("confirm %d came where %d was due", c.DeliveryTag, s.tag)
	}
	s.skip()
	if s.resolved == len(s.flight) {
		return errors.New("a confirm came for nothing in flight")
	}
	s.heard = time.Now()
	s.p.counters.Inflight--
	if s.p.oneByOne > 0 {
		s.p.oneByOne--
	}
	text, back := s.returned[s.flight[s.resolved].id]
	switch {
	case !c.Ack:
		s.p.counters.Nacked++
		s.fail(errors.New("the broker rejects messages (nack): a queue is full, or failing"))
	case back:
		delete(s.returned, s.flight[s.resolved].id)
		s.p.counters.Returned++
		s.fail(errors.New(text))
	default:
		s.p.counters.Confirmed++
		s.p.delay = minDelay
		if s.bad == nil {
			s.limit = s.link.cfg.window()
		}
	}
	s.resolved++
	return nil
}

func (s *session) fail(err error) {
	if s.bad == nil {
		s.bad, s.badAt = err, s.resolved
	}
}

// skip passes over messages that were not sent.
func (s *session) skip() {
	for s.resolved < len(s.flight) && s.flight[s.resolved].skipped {
		s.resolved++
	}
}

// settle settles what is resolved, up to a message that was not delivered.
func (s *session) settle() int {
	s.skip()
	n := s.resolved
	if s.bad != nil {
		n = min(n, s.badAt)
	}
	if n > 0 {
		s.p.src.Settle(n)
		s.flight = s.flight[n:]
		s.resolved -= n
		s.badAt -= n
	}
	return n
}

func (s *session) takeReturns() {
	for {
		select {
		case r, ok := <-s.link.returns:
			if !ok {
				return
			}
			s.takeReturn(r)
			continue
		default:
		}
		return
	}
}

func (s *session) takeReturn(r lib.Return) {
	if s.returned == nil {
		s.returned = map[string]string{}
	}
	s.returned[r.MessageId] = fmt.Sprintf("%s: exchange %q, routing key %q", r.ReplyText, r.Exchange, r.RoutingKey)
}

// retreat goes back to the first message that was not delivered: wait, then
// send it alone. The connection stays. done: the session is to end.
func (s *session) retreat() (done bool, err error) {
	p := s.p
	why := s.bad
	p.giveBack()
	s.flight, s.resolved, s.bad, s.limit = nil, 0, nil, 1
	clear(s.returned)
	p.enter(Change{State: Backoff, Host: s.link.host.Name, Port: s.link.host.Port, Err: why})
	p.show()
	timer := time.NewTimer(p.nextDelay())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.kick:
	case <-p.stop:
	case <-s.link.connClosed:
		return true, s.link.lost(why)
	case <-s.link.chClosed:
		return true, s.link.lost(why)
	}
	s.heard = time.Now()
	p.enter(Change{State: Connected, Host: s.link.host.Name, Port: s.link.host.Port, Resumed: true})
	return false, nil
}

// gather lets messages and confirms come together for a while.
func (s *session) gather(linger time.Duration) error {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-timer.C:
		if len(s.flight) > 0 && !time.Now().Before(s.silentAt()) {
			return errSilent
		}
	case b, ok := <-s.link.blocked:
		if ok {
			s.block(b)
		}
	case e := <-s.link.connClosed:
		return s.ended(e)
	case e := <-s.link.chClosed:
		return s.ended(e)
	case <-s.p.kick:
	case <-s.p.stop:
	}
	return nil
}

// wait waits until something happens. idle: the source may be waited for.
func (s *session) wait(idle bool) error {
	var wake <-chan struct{}
	if idle {
		if !s.p.src.Sleep() {
			return nil
		}
		wake = s.p.src.Wake()
	}
	var timer <-chan time.Time
	if due := s.deadline(); !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case c, ok := <-s.link.confirms:
		if !ok {
			return s.link.lost(nil)
		}
		return s.confirm(c)
	case r, ok := <-s.link.returns:
		if ok {
			s.takeReturn(r)
		}
	case b, ok := <-s.link.blocked:
		if ok {
			s.block(b)
		}
	case e := <-s.link.connClosed:
		return s.ended(e)
	case e := <-s.link.chClosed:
		return s.ended(e)
	case <-wake:
	case <-s.p.kick:
	case <-s.p.stop:
	case <-timer:
		if s.p.isEnabled() && !time.Now().Before(s.silentAt()) {
			return errSilent
		}
	}
	return nil
}

// deadline is when wait must end; zero: never.
func (s *session) deadline() time.Time {
	if !s.p.isEnabled() {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		return s.p.closeBy
	}
	if len(s.flight) == 0 || s.blocked {
		return time.Time{}
	}
	return s.silentAt()
}

func (s *session) silentAt() time.Time {
	return s.heard.Add(max(confirmTimeout, 2*s.link.conn.Config.Heartbeat))
}

func (s *session) block(b lib.Blocking) {
	s.blocked = b.Active
	s.heard = time.Now()
	c := Change{State: Connected, Host: s.link.host.Name, Port: s.link.host.Port}
	if b.Active {
		c.State, c.Err = Blocked, errors.New(b.Reason)
	}
	s.p.enter(c)
}

// ended is the reason of a close that was heard of.
func (s *session) ended(e *lib.Error) error {
	if e == nil {
		return s.link.lost(nil)
	}
	return &closedError{e}
}

// lastConfirms takes in what the broker still said before the session ended:
// that many fewer duplicates.
func (s *session) lastConfirms() {
	for {
		select {
		case c, ok := <-s.link.confirms:
			if ok && s.confirm(c) == nil {
				continue
			}
		case <-time.After(20 * time.Millisecond):
		}
		break
	}
	s.settle()
	s.unresolved = len(s.flight)
}
