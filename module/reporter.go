// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"net"
	"runtime"
	"strconv"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/c"
)

// reporter passes on to Redis what the publisher reports: to the main thread
// whether events are to be stored, to INFO the figures, to the log the changes.
// Called on the publisher's goroutine.
type reporter struct {
	log       *logger
	troubles  map[string]bool // why nothing was delivered lately, as logged
	connected string          // where to, as logged since the first of them
	blocked   bool            // by an alarm
	confirmed uint64
}

// maxTroubles bounds the lines between two deliveries; last_error has the rest.
const maxTroubles = 20

// states are INFO's, by the publisher's.
var states = map[amqp.State]int{
	amqp.Disabled: c.Disabled, amqp.Idle: c.Idle, amqp.Connecting: c.Connecting,
	amqp.Connected: c.Connected, amqp.Blocked: c.Blocked, amqp.Backoff: c.Backoff,
}

// StateChanged implements [amqp.Observer].
func (r *reporter) StateChanged(change amqp.Change) {
	switch change.State {
	case amqp.Idle, amqp.Connected:
		c.Away(false)
	case amqp.Disabled, amqp.Blocked, amqp.Backoff:
		c.Away(true)
	case amqp.Connecting:
		// As it was: the first connection of all is waited for in
		// memory, a lost one was stored already.
	}
	c.InfoSession(states[change.State], change.Host, change.Port)
	if change.Err != nil {
		c.InfoError(change.Err.Error())
	}
	r.tell(change)
}

// tell logs one line for each change, not for each attempt: a failure that
// repeats itself before anything was delivered says nothing new.
func (r *reporter) tell(change amqp.Change) {
	where := net.JoinHostPort(change.Host, strconv.Itoa(change.Port))
	switch change.State {
	case amqp.Connected:
		switch {
		case r.blocked:
			r.log.notice(aboutAlarm, where+" takes messages again")
		case !change.Resumed && (len(r.troubles) == 0 || r.connected != where):
			// A broker may let us in each time and then take nothing.
			r.connected = where
			r.log.notice(aboutConnection, "connected to "+where)
		}
	case amqp.Disabled:
		r.log.notice(aboutConnection, "disconnected, until connect")
	case amqp.Blocked:
		r.log.warning(aboutAlarm, fmt.Sprintf("%s blocks publishing: %v", where, change.Err))
	case amqp.Backoff:
		if len(r.troubles) == 0 {
			r.connected = ""
		}
		// Two may take turns: a broker that is starting resets one attempt
		// and closes the next.
		if trouble := change.Err.Error(); !r.troubles[trouble] && len(r.troubles) < maxTroubles {
			if r.troubles == nil {
				r.troubles = map[string]bool{}
			}
			r.troubles[trouble] = true
			r.log.warning(aboutTrouble, "not delivering, retrying: "+trouble)
		}
	}
	r.blocked = change.State == amqp.Blocked
}

// Counted implements [amqp.Observer].
func (r *reporter) Counted(n amqp.Counters) {
	if n.Confirmed > r.confirmed {
		r.confirmed = n.Confirmed
		if len(r.troubles) > 0 {
			clear(r.troubles)
			r.log.notice(aboutConnection, "delivering again")
		}
	}
	c.InfoCounters(c.Counters{
		Connects: n.Connects, ConnectFailures: n.ConnectFailures,
		Published: n.Published, Confirmed: n.Confirmed,
		Returned: n.Returned, Nacked: n.Nacked,
		Dropped: n.Dropped, Inflight: n.Inflight,
		Goroutines: runtime.NumGoroutine(),
	})
}

// Dropped implements [amqp.Observer].
func (r *reporter) Dropped(m *amqp.Message, reason error) {
	r.log.warning(aboutDrops, fmt.Sprintf("event %s (%.100s, %d bytes) dropped: %v", m.ID, m.Type, len(m.Body), reason))
}
