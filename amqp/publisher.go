// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/amqp/internal/fault"
)

// stopTimeout is what Stop leaves the session to end by itself.
const stopTimeout = 500 * time.Millisecond

// Publisher sends what a [Source] holds. Start and Stop are called once each;
// everything else may be called from any goroutine, at any time between.
type Publisher struct {
	src Source
	obs Observer

	stop chan struct{}
	done chan struct{}
	kick chan struct{} // capacity 1: something below mu has changed

	mu         sync.Mutex
	cfg        *Config
	enabled    bool
	asked      bool // Connect was called: connect without a message
	waiters    []func(error)
	askedAt    time.Time // when the first of them came
	closers    []func()  // waiting for Disconnect to be done
	closeBy    time.Time // Disconnect's bound
	cancelDial context.CancelFunc
	live       *session // the one that is served

	// The goroutine's own.
	now      Change
	counters Counters
	shown    Counters
	flight   flight
	head     Message // taken from the source before there was a session
	hasHead  bool
	wanted   bool // a connection is wanted, and stays so
	delay    time.Duration

	dial func(context.Context, *Config, Host) (connection, error)
}

// New makes a publisher; nothing happens before Start.
func New(src Source, obs Observer, cfg Config) *Publisher {
	p := &Publisher{
		src: src, obs: obs, cfg: &cfg, enabled: true, delay: minDelay,
		stop: make(chan struct{}), done: make(chan struct{}), kick: make(chan struct{}, 1),
		now: Change{State: -1}, dial: dial,
	}
	p.flight.count = &p.counters
	return p
}

// Start begins publishing in the background.
func (p *Publisher) Start() { go p.run() }

// Stop ends the goroutine and its connection, within three seconds whatever the
// broker, or a goroutine of the library's, does. The source has been rewound when it returns.
func (p *Publisher) Stop() {
	close(p.stop)
	p.change(func() { p.hurryLocked(time.Now().Add(stopTimeout)) })
	<-p.done
}

// hurryLocked bounds a write that may be under way, and blocked: a broker under
// an alarm reads nothing.
func (p *Publisher) hurryLocked(t time.Time) {
	if p.live != nil {
		p.live.conn.hurry(t)
	}
}

// change alters what mu guards, ends a dial that is under way, and tells run.
func (p *Publisher) change(f func()) {
	p.mu.Lock()
	f()
	if p.cancelDial != nil {
		p.cancelDial()
	}
	p.mu.Unlock()
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// Configure hands over new settings. A live connection is renewed if it was
// made by other ones. Does not block.
func (p *Publisher) Configure(cfg Config) {
	p.change(func() {
		p.cfg = &cfg
		if p.live != nil && !p.live.cfg.sameConnection(&cfg) {
			p.hurryLocked(time.Now().Add(closeTimeout))
		}
	})
}

// Connect connects now, whether or not there is something to send, and ends a
// Disconnect and a back-off. done is called once: with nil when the broker has
// confirmed a message, or there is none to send, else with the first reason why
// not; the publisher goes on trying. Does not block.
func (p *Publisher) Connect(done func(error)) {
	p.change(func() {
		if !p.enabled {
			p.hurryLocked(time.Time{})
		}
		p.enabled, p.asked = true, true
		if len(p.waiters) == 0 {
			p.askedAt = time.Now()
		}
		p.waiters = append(p.waiters, done)
	})
}

// Disconnect waits at most timeout for what is in flight, closes, and stays
// closed until Connect. done is called once, when closed. Does not block.
func (p *Publisher) Disconnect(timeout time.Duration, done func()) {
	p.change(func() {
		p.enabled, p.asked = false, false
		p.closeBy = time.Now().Add(timeout)
		p.hurryLocked(p.closeBy)
		p.closers = append(p.closers, done)
	})
}

func (p *Publisher) config() *Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg
}

func (p *Publisher) isEnabled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.enabled
}

func (p *Publisher) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// answer wakes all callers of Connect.
func (p *Publisher) answer(err error) {
	p.mu.Lock()
	waiters := p.waiters
	p.waiters = nil
	p.mu.Unlock()
	for _, done := range waiters {
		done(err)
	}
}

// isWaitedFor reports whether somebody waits in Connect.
func (p *Publisher) isWaitedFor() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiters) > 0
}

// waitedForSince is when the first caller waiting in Connect came; zero: nobody waits.
func (p *Publisher) waitedForSince() (t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiters) > 0 {
		t = p.askedAt
	}
	return t
}

// closed wakes all callers of Disconnect.
func (p *Publisher) closed() {
	p.mu.Lock()
	closers := p.closers
	p.closers = nil
	p.mu.Unlock()
	for _, done := range closers {
		done()
	}
}

func (p *Publisher) enter(c Change) {
	if c.State == p.now.State && c.Host == p.now.Host && c.Port == p.now.Port &&
		fmt.Sprint(c.Err) == fmt.Sprint(p.now.Err) {
		return
	}
	p.now = c
	p.obs.StateChanged(c)
}

func (p *Publisher) show() {
	if p.counters != p.shown {
		p.shown = p.counters
		p.obs.Counted(p.counters)
	}
}

// rewind forgets all that was taken from the source.
func (p *Publisher) rewind() {
	p.hasHead = false
	p.flight.rewind()
	p.src.Rewind()
	fault.Point("rewound")
}

// run restarts what panics: an unrecovered panic would end the process, which
// is somebody's database server.
func (p *Publisher) run() {
	defer close(p.done)
	for !p.stopped() {
		if err := p.guarded(); err != nil {
			p.rewind()
			p.backoff(Change{State: Backoff, Err: err})
		}
	}
	p.rewind()
	p.show()
	p.answer(ErrStopped)
	p.closed()
}

func (p *Publisher) guarded() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("internal error: %v\n%s", v, debug.Stack())
		}
	}()
	for !p.stopped() {
		p.round()
	}
	return nil
}

// round waits until a connection is wanted, makes one, and serves it until it
// ends.
func (p *Publisher) round() {
	p.mu.Lock()
	enabled, asked := p.enabled, p.asked
	p.mu.Unlock()
	if !enabled {
		if p.hasHead {
			p.rewind()
		}
		p.wanted = false
		p.enter(Change{State: Disabled})
		if p.isEnabled() {
			return // asked for since: the callers wait for that
		}
		p.answer(ErrStopped)
		p.closed()
		p.rest(nil, nil)
		return
	}
	p.closed()
	if !p.wanted && !asked && !p.peek() {
		p.enter(Change{State: Idle})
		if p.src.Sleep() {
			p.rest(p.src.Wake(), nil)
		}
		return
	}
	p.wanted = true
	s, err := p.connect()
	if s == nil {
		if err != nil {
			p.rewind()
			p.backoff(Change{State: Backoff, Host: p.now.Host, Port: p.now.Port, Err: err})
		}
		return // else the settings changed meanwhile: again, at once
	}
	p.counters.Connects++
	p.enter(Change{State: Connected, Host: s.host.Name, Port: s.host.Port})
	p.flight.begin(s.cfg.window())
	p.setLive(s)
	fault.Point("connected")
	err = s.serve()
	p.setLive(nil)
	s.end(err)
	p.show()
	if err == nil || s.unwanted() {
		return // renewed, disabled or stopped
	}
	p.answer(err)
	p.backoff(Change{State: Backoff, Host: s.host.Name, Port: s.host.Port, Err: err})
}

func (p *Publisher) setLive(s *session) {
	p.mu.Lock()
	p.live = s
	p.mu.Unlock()
}

// peek takes a message before there is a session.
func (p *Publisher) peek() bool {
	if !p.hasHead {
		p.hasHead = p.src.Next(&p.head)
	}
	return p.hasHead
}

// next is the source's Next, the message that was peeked first.
func (p *Publisher) next(m *Message) bool {
	if p.hasHead {
		*m, p.hasHead = p.head, false
		return true
	}
	if !p.src.Next(m) {
		return false
	}
	fault.Point("taken")
	return true
}

// rest waits for a wake-up, a change, a timer or the end.
func (p *Publisher) rest(wake <-chan struct{}, timer <-chan time.Time) {
	select {
	case <-wake:
	case <-timer:
	case <-p.kick:
	case <-p.stop:
	}
}
