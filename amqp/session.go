// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"errors"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/amqp/internal/fault"
)

// batch bounds how many messages are gathered into one write.
const batch = 128

// confirmTimeout is the shortest time without any confirm, while some are due,
// after which a session is given up.
const confirmTimeout = 30 * time.Second

// maxRejections bounds how often in a row a session is told that a message is
// rejected, or that no queue takes it. A new one may fare better: an old channel
// may keep to a limit that the queue has no more.
const maxRejections = 3

// session is one connection's life, on the publisher's goroutine.
type session struct {
	p    *Publisher
	conn connection
	host Host
	cfg  *Config // that the connection was made by

	blocked    bool
	alarm      error // why
	rejections int   // in a row
	pace       pace
	timer      *time.Timer
	heard      time.Time // last answer, or when nothing was in flight
}

var errSilent = errors.New("the broker has confirmed nothing for too long")

// serve publishes until the session ends; nil: it was ended on purpose.
func (s *session) serve() error {
	p, f := s.p, &s.p.flight
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
		mayRead := enabled && !s.blocked && f.bad == nil
		sent, dry := 0, false
		if mayRead {
			var err error
			if sent, dry, err = s.send(cfg); err != nil {
				return err
			}
			s.pace.sent += sent
		}
		n, err := s.collect()
		if err != nil {
			return err
		}
		p.show()
		switch {
		case s.blocked:
			p.answer(s.alarm)
		case dry && f.empty():
			p.answer(nil) // there is nothing that the broker could take
		}
		if why := f.trouble(); why != nil {
			if done, err := s.wait(why); done {
				return err
			}
			continue
		}
		if sent > 0 || n > 0 {
			continue
		}
		linger := time.Duration(0)
		if mayRead {
			linger = s.pace.count(time.Now(), f.limit())
		}
		s.conn.gather(linger)
		if linger > 0 {
			// Messages and answers come together for a while.
			err = s.rest(&waits{quiet: true}, time.Now().Add(linger))
		} else {
			err = s.idle(mayRead && f.room())
		}
		if err != nil {
			return err
		}
	}
}

// drained reports whether Disconnect need not wait any longer.
func (s *session) drained() bool {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	f := &s.p.flight
	return f.empty() || f.bad != nil || s.blocked || !time.Now().Before(s.p.closeBy)
}

// send sends a batch, in one write if it is small. dry: the source has no more.
func (s *session) send(cfg *Config) (n int, dry bool, err error) {
	f := &s.p.flight
	if !f.room() {
		return 0, false, nil
	}
	var m Message
	for n < batch && f.room() {
		if !s.p.next(&m) {
			dry = true
			break
		}
		n++
		if f.empty() {
			s.heard = time.Now()
		}
		if !f.add(&m) {
			continue
		}
		if err := s.conn.publish(cfg, &m); err != nil {
			return n, dry, s.conn.awaitEnd(err)
		}
	}
	if n > 0 {
		if err := s.conn.flush(); err != nil {
			return n, dry, s.conn.awaitEnd(err)
		}
		fault.Point("published")
	}
	return n, dry, nil
}

// collect takes in all that the broker has said, and settles what it can.
func (s *session) collect() (n int, err error) {
	said := s.conn.take()
	if n, err = s.take(said); err != nil {
		return n, err
	}
	if said.alarm != nil {
		s.block(said.alarm)
		n++
	}
	return n + s.settle(), s.conn.ended()
}

// take tells flight, and the callers of Connect, what became of messages.
func (s *session) take(said *replies) (n int, err error) {
	p, f := s.p, &s.p.flight
	for tag := f.answered; tag < said.answered; tag++ {
		fault.Point("confirm-read")
	}
	good, confirmed := f.bad == nil, p.counters.Confirmed
	n, err = f.take(said)
	if n > 0 {
		s.heard = time.Now()
	}
	switch {
	case good && f.bad != nil:
		p.answer(f.bad)
	case f.bad == nil && p.counters.Confirmed > confirmed:
		s.rejections = 0
		p.delay = minDelay
		p.answer(nil)
	}
	return n, err
}

// settle tells the source what is done with.
func (s *session) settle() int {
	n, drops := s.p.flight.settle()
	for _, d := range drops {
		s.p.obs.Dropped(&d.m, d.why)
	}
	if n > 0 {
		s.p.src.Settle(n)
		fault.Point("settle-reported")
	}
	return n
}

// wait goes back to the first message that was not delivered: after a while it
// is sent alone. The connection stays, unless it was told no too often, or
// somebody asks for another. done: the session is to end.
func (s *session) wait(why error) (done bool, err error) {
	p := s.p
	if s.rejections++; s.rejections >= maxRejections {
		return true, why
	}
	p.rewind()
	p.enter(Change{State: Backoff, Host: s.host.Name, Port: s.host.Port, Err: why})
	p.show()
	if p.isWaitedFor() {
		return true, nil
	}
	timer := time.NewTimer(p.nextDelay())
	defer timer.Stop()
	for w := (waits{changed: p.kick, stop: p.stop, timer: timer.C}); s.conn.wait(&w) == brokerSpoke; {
		if s.conn.ended() != nil {
			return true, s.conn.awaitEnd(why)
		}
	}
	if p.isWaitedFor() {
		return true, nil
	}
	s.heard = time.Now()
	p.enter(Change{State: Connected, Host: s.host.Name, Port: s.host.Port, Resumed: true})
	return false, nil
}

// idle waits until something happens. more: the source may be waited for.
func (s *session) idle(more bool) error {
	var w waits
	if more {
		if !s.p.src.Sleep() {
			return nil
		}
		w.wake = s.p.src.Wake()
	}
	return s.rest(&w, s.deadline())
}

// rest waits until something happens, or it is due; zero: never.
func (s *session) rest(w *waits, due time.Time) error {
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

// overdue reports whether confirms are due for too long.
func (s *session) overdue() bool {
	return !s.p.flight.empty() && !s.blocked && !time.Now().Before(s.silentAt())
}

// deadline is when idle must end; zero: never.
func (s *session) deadline() time.Time {
	if !s.p.isEnabled() {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		return s.p.closeBy
	}
	if s.p.flight.empty() || s.blocked {
		return time.Time{}
	}
	return s.silentAt()
}

// silentAt is sooner when somebody waits in Connect, for an answer or another
// session.
func (s *session) silentAt() time.Time {
	at := s.heard.Add(max(confirmTimeout, 2*s.conn.heartbeat()))
	if asked := s.p.waitedForSince(); !asked.IsZero() {
		if asked.Before(s.heard) {
			asked = s.heard
		}
		if sooner := asked.Add(s.cfg.ConnectTimeout); sooner.Before(at) {
			at = sooner
		}
	}
	return at
}

func (s *session) block(a *alarm) {
	s.blocked = a.on
	s.heard = time.Now()
	c := Change{State: Connected, Host: s.host.Name, Port: s.host.Port}
	if a.on {
		c.State, c.Err = Blocked, errors.New(a.reason)
		s.alarm = errors.New("the broker blocks publishing: " + a.reason)
	}
	s.p.enter(c)
}

// end closes the connection and takes in what the broker still said: that many
// fewer duplicates. err is why the session ended.
func (s *session) end(err error) {
	bounded(maxHang, s.conn.close)
	_, _ = s.take(s.conn.take())
	s.settle()
	s.p.flight.lost(tooLarge(err))
	if tooLarge(err) {
		s.p.delay = minDelay
	}
	s.p.rewind()
}

// unwanted reports whether the session was to end: its failure is not news.
func (s *session) unwanted() bool {
	return s.p.stopped() || !s.p.isEnabled() || !s.cfg.sameConnection(s.p.config())
}
