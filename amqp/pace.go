// SPDX-License-Identifier: BSD-3-Clause

package amqp

import "time"

// pace decides when the publisher lingers: gathers what comes for a few
// milliseconds instead of waking for each message and each confirm. A wake-up
// costs more than a message does. Only under load: at low rates a message goes
// out at once.
type pace struct {
	since  time.Time // begin of the period that is being counted
	sent   int       // messages in it
	linger time.Duration
}

const (
	pacePeriod = 20 * time.Millisecond // the least time to tell a rate from
	paceBusy   = 500                   // messages a second from which on it lingers
	lingerMost = 4 * time.Millisecond
)

// count is called when the publisher is about to wait. It returns how long to
// linger before that: 0 when the rate is low. window bounds it, so that
// the broker does not run out of work meanwhile.
func (p *pace) count(now time.Time, window int) time.Duration {
	took := now.Sub(p.since)
	if took < pacePeriod {
		return p.linger
	}
	p.linger = 0
	if rate := float64(p.sent) / took.Seconds(); rate >= paceBusy {
		quarter := time.Duration(float64(window) / 4 / rate * float64(time.Second))
		p.linger = min(lingerMost, quarter)
	}
	p.since, p.sent = now, 0
	return p.linger
}
