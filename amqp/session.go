package amqp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/amqp/internal/fault"
)

// batch is how many messages are gathered into one write at the most.
const batch = 128

// confirmTimeout is the least time without any confirm, while some are due,
// after which a session is given up.
const confirmTimeout = 30 * time.Second

// session is one connection's life, on the publisher's goroutine.
type session struct {
	p    *Publisher
	conn connection
	host Host
	cfg  *Config // that the connection was made by

	// flight is what was sent and not settled, oldest first. Confirms come in
	// order, so the first resolved of them have their answer.
	flight   []sent
	resolved int
	skips    int    // in flight, of those that are passed over
	tag      uint64 // of the last confirm
	returned map[string]string

	limit      int   // window now: 1 while a failure is being probed
	bad        error // why flight[badAt] could not be delivered
	badAt      int
	blocked    bool
	pace       pace
	timer      *time.Timer
	heard      time.Time // last confirm, or when flight was last empty
	alone      string    // id of the only message in flight, while sending one by one
	unresolved int       // at the end
}

type sent struct {
	id      string
	skipped *drop // not sent: it never can be
}

// drop is a message that is passed over, and why.
type drop struct {
	m   Message
	why error
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
		if enabled && !s.cfg.sameConnection(cfg) {
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
		s.conn.gather(linger)
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
	var m Message
	for n < batch && len(s.flight) < limit && s.p.next(&m) {
		n++
		if err := s.publish(cfg, &m); err != nil {
			return n, s.conn.awaitEnd(err)
		}
	}
	if n > 0 {
		if err := s.conn.flush(); err != nil {
			return n, s.conn.awaitEnd(err)
		}
		fault.Point("published")
	}
	return n, nil
}

func (s *session) publish(cfg *Config, m *Message) error {
	if len(s.flight) == 0 {
		s.heard = time.Now()
	}
	if why := s.impossible(m); why != nil {
		s.flight = append(s.flight, sent{id: m.ID, skipped: &drop{*m, why}})
		s.skips++
		return nil
	}
	s.flight = append(s.flight, sent{id: m.ID})
	s.alone = ""
	if s.p.oneByOne > 0 {
		s.alone = strings.Clone(m.ID)
	}
	s.p.counters.Published++
	s.p.counters.Inflight++
	return s.conn.publish(cfg, m)
}

// impossible tells why a message can't be sent whatever we do.
func (s *session) impossible(m *Message) error {
	if s.p.poison != "" && m.ID == s.p.poison {
		return errors.New("the broker does not take it, it is too large")
	}
	// The library closes the connection for these.
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

// collect takes in all that the broker has said.
func (s *session) collect() (n int, err error) {
	if n, err = s.take(s.conn.take()); err != nil {
		return n, err
	}
	return n + s.settle(), s.conn.ended()
}

// take takes in replies, the returns first: a message that no queue took is
// returned, and then acknowledged.
func (s *session) take(said *replies) (n int, err error) {
	for i := range said.returned {
		s.takeReturn(&said.returned[i])
	}
	rejected := said.nacked
	for s.tag < said.answered {
		s.tag++
		nack := len(rejected) > 0 && rejected[0] == s.tag
		if nack {
			rejected = rejected[1:]
		}
		if err := s.confirm(nack); err != nil {
			return n, err
		}
		n++
	}
	if n > 0 {
		s.heard = time.Now()
	}
	if said.alarm != nil {
		s.block(said.alarm)
		n++
	}
	return n, nil
}

// confirm takes in the answer to the next message.
func (s *session) confirm(nack bool) error {
	fault.Point("confirm-read")
	s.skip()
	if s.resolved == len(s.flight) {
		return errors.New("a confirm came for nothing in flight")
	}
	s.p.counters.Inflight--
	if s.p.oneByOne > 0 {
		s.p.oneByOne--
	}
	text, back := "", false
	if len(s.returned) > 0 {
		text, back = s.returned[s.flight[s.resolved].id]
	}
	switch {
	case nack:
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
			s.limit = s.cfg.window()
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
	for s.resolved < len(s.flight) && s.flight[s.resolved].skipped != nil {
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
	if s.skips > 0 {
		s.drop(s.flight[:n])
	}
	if n > 0 {
		s.p.src.Settle(n)
		fault.Point("settle-reported")
		s.flight = s.flight[n:]
		s.resolved -= n
		s.badAt -= n
	}
	return n
}

// drop counts what was passed over, once it is settled: before, it may be tried
// again.
func (s *session) drop(settled []sent) {
	for _, one := range settled {
		if one.skipped == nil {
			continue
		}
		s.skips--
		s.p.counters.Dropped++
		s.p.obs.Dropped(&one.skipped.m, one.skipped.why)
		if one.id == s.p.poison {
			s.p.poison = ""
		}
	}
}

func (s *session) takeReturn(r *returned) {
	if s.returned == nil {
		s.returned = map[string]string{}
	}
	s.returned[r.id] = r.why
}

// retreat goes back to the first message that was not delivered: wait, then
// send it alone. The connection stays. done: the session is to end.
func (s *session) retreat() (done bool, err error) {
	p := s.p
	why := s.bad
	p.rewind()
	s.flight, s.resolved, s.skips, s.bad, s.limit = nil, 0, 0, nil, 1
	clear(s.returned)
	p.enter(Change{State: Backoff, Host: s.host.Name, Port: s.host.Port, Err: why})
	p.show()
	timer := time.NewTimer(p.nextDelay())
	defer timer.Stop()
	for w := (waits{changed: p.kick, stop: p.stop, timer: timer.C}); s.conn.wait(&w) == brokerSpoke; {
		if s.conn.ended() != nil {
			return true, s.conn.awaitEnd(why)
		}
	}
	s.heard = time.Now()
	p.enter(Change{State: Connected, Host: s.host.Name, Port: s.host.Port, Resumed: true})
	return false, nil
}

// gather lets messages and answers come together for a while.
func (s *session) gather(linger time.Duration) error {
	return s.waitFor(&waits{quiet: true}, time.Now().Add(linger))
}

// wait waits until something happens. idle: the source may be waited for.
func (s *session) wait(idle bool) error {
	var w waits
	if idle {
		if !s.p.src.Sleep() {
			return nil
		}
		w.wake = s.p.src.Wake()
	}
	return s.waitFor(&w, s.deadline())
}

// waitFor waits until something happens, or it is due; zero: never.
func (s *session) waitFor(w *waits, due time.Time) error {
	w.changed, w.stop = s.p.kick, s.p.stop
	if !due.IsZero() {
		if s.timer == nil {
			s.timer = time.NewTimer(time.Until(due))
		} else {
			s.timer.Reset(time.Until(due))
		}
		defer s.timer.Stop()
		w.timer = s.timer.C
	}
	if s.conn.wait(w) == timeUp && s.p.isEnabled() && s.overdue() {
		return errSilent
	}
	return nil
}

// overdue tells whether confirms are due for too long.
func (s *session) overdue() bool {
	return len(s.flight) > 0 && !s.blocked && !time.Now().Before(s.silentAt())
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
	return s.heard.Add(max(confirmTimeout, 2*s.conn.heartbeat()))
}

func (s *session) block(a *alarm) {
	s.blocked = a.on
	s.heard = time.Now()
	c := Change{State: Connected, Host: s.host.Name, Port: s.host.Port}
	if a.on {
		c.State, c.Err = Blocked, errors.New(a.reason)
	}
	s.p.enter(c)
}

// lastAnswers takes in what the broker still said before the session ended:
// that many fewer duplicates.
func (s *session) lastAnswers() {
	said := s.conn.take()
	said.alarm = nil
	_, _ = s.take(said)
	s.settle()
	s.unresolved = len(s.flight)
}

// unwanted tells whether the session was to end: its failure is no news.
func (s *session) unwanted() bool {
	return s.p.stopped() || !s.p.isEnabled() || !s.cfg.sameConnection(s.p.config())
}
