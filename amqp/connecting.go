// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// minDelay is the first back-off; each failure doubles it.
const minDelay = 100 * time.Millisecond

// backoff waits, longer each time, unless something changes.
func (p *Publisher) backoff(c Change) {
	p.enter(c)
	p.show()
	timer := time.NewTimer(p.nextDelay())
	defer timer.Stop()
	p.rest(nil, timer.C)
}

// nextDelay draws from the upper half of the delay, so that many servers don't
// come back in step.
func (p *Publisher) nextDelay() time.Duration {
	d := p.delay
	p.delay = min(2*p.delay, max(p.config().ReconnectDelayMax, minDelay))
	return d/2 + rand.N(d/2+1)
}

// connect tries each host once. Without a session and without an error the
// settings have changed, or the publisher ends.
func (p *Publisher) connect() (*session, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.mu.Lock()
	cfg := p.cfg
	p.cancelDial = cancel
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.cancelDial = nil
		p.mu.Unlock()
	}()
	if p.stopped() {
		return nil, nil
	}
	var failures []error
	for _, host := range cfg.Hosts {
		p.enter(Change{State: Connecting, Host: host.Name, Port: host.Port})
		c, err := p.open(ctx, cfg, host)
		if err == nil {
			return &session{p: p, conn: c, host: host, cfg: cfg}, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		p.counters.ConnectFailures++
		failures = append(failures, err)
	}
	err := failures[0]
	if len(failures) > 1 {
		err = errors.Join(failures...)
	}
	p.answer(err)
	return nil, err
}

// maxHang bounds what is waited for beyond its own time-out: the library may
// hang, whatever should end it.
const maxHang = time.Second

// open dials. What hangs is left behind, and closed should it ever come.
func (p *Publisher) open(ctx context.Context, cfg *Config, host Host) (connection, error) {
	var c connection
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("internal error: %v", v)
			}
		}()
		c, err = p.dial(ctx, cfg, host)
	}()
	timer := time.NewTimer(cfg.ConnectTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return c, err
	case <-ctx.Done():
	case <-timer.C:
	}
	timer.Reset(maxHang)
	select {
	case <-done:
		return c, err
	case <-timer.C:
	}
	go func() {
		<-done
		if err == nil {
			c.close()
		}
	}()
	return nil, fmt.Errorf("no answer from %s within %v", host.Name, cfg.ConnectTimeout)
}

// bounded runs f, and waits no longer than d for it.
func bounded(d time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f()
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
}
