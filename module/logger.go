// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/c"
)

// logger writes to the server's log what others can bring about as often as they
// like: a broker that comes and goes, a node that sends nonsense. Each kind of
// line has a limit a minute; the first line after the minute says how many were
// left out. The text becomes one clean line on its way ([c.Log]).
//
// Not to be shared between threads: the publisher's goroutine and the main
// thread have one each, so neither waits for the other.
type logger struct {
	write func(level, text string)
	now   func() time.Time
	kinds map[kind]*quota
}

// kind is what a line is about.
type kind string

const (
	aboutConnection kind = "connection" // made, ended, delivering again
	aboutTrouble    kind = "trouble"    // why nothing is delivered
	aboutAlarm      kind = "alarm"      // the broker blocks publishing, and no longer
	aboutDrops      kind = "drops"
	aboutNodes      kind = "nodes" // what other nodes' settings do here
	aboutTLS        kind = "tls"
)

// linesPerMinute is the limit of each kind.
const linesPerMinute = 20

// quota is what a kind has used of its minute.
type quota struct {
	since   time.Time
	written int
	leftOut int
}

func newLogger() *logger {
	return &logger{write: c.Log, now: time.Now, kinds: map[kind]*quota{}}
}

// line writes a line, or leaves it out.
func (l *logger) line(about kind, level, text string) {
	q, now := l.kinds[about], l.now()
	if q == nil {
		q = &quota{since: now}
		l.kinds[about] = q
	}
	// A clock that was put back begins a new minute, too.
	if passed := now.Sub(q.since); passed >= time.Minute || passed < 0 {
		q.since, q.written = now, 0
	}
	if q.written >= linesPerMinute {
		q.leftOut++
		return
	}
	q.written++
	if q.leftOut > 0 {
		// In front: a long text is cut at its end.
		text = fmt.Sprintf("(%d lines about this left out) %s", q.leftOut, text)
		q.leftOut = 0
	}
	l.write(level, text)
}

func (l *logger) notice(about kind, text string)  { l.line(about, "notice", text) }
func (l *logger) warning(about kind, text string) { l.line(about, "warning", text) }
