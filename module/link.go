package main

import (
	"fmt"
	"net"
	"runtime"
	"strconv"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/c"
)

// link tells Redis what the publisher reports: to the main thread whether
// events are to be stored, to INFO the figures, to the log the changes. Called
// on the publisher's goroutine.
type link struct {
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
func (l *link) StateChanged(change amqp.Change) {
	switch change.State {
	case amqp.Idle, amqp.Connected:
		c.Away(false)
	case amqp.Disabled, amqp.Blocked, amqp.Backoff:
		c.Away(true)
	case amqp.Connecting:
		// As it was: the first connection of all is waited for in
		// memory, a lost one was stored already.
	}
	c.InfoLink(states[change.State], change.Host, change.Port)
	if change.Err != nil {
		c.InfoError(change.Err.Error())
	}
	l.log(change)
}

// log writes one line for each change, not for each attempt: a failure that
// repeats itself before anything was delivered says nothing new.
func (l *link) log(change amqp.Change) {
	where := net.JoinHostPort(change.Host, strconv.Itoa(change.Port))
	switch change.State {
	case amqp.Connected:
		switch {
		case l.blocked:
			c.Log("notice", where+" takes messages again")
		case !change.Resumed && (len(l.troubles) == 0 || l.connected != where):
			// A broker may let us in each time and then take nothing.
			l.connected = where
			c.Log("notice", "connected to "+where)
		}
	case amqp.Disabled:
		c.Log("notice", "disconnected, until connect")
	case amqp.Blocked:
		c.Log("warning", fmt.Sprintf("%s blocks publishing: %v", where, change.Err))
	case amqp.Backoff:
		if len(l.troubles) == 0 {
			l.connected = ""
		}
		// Two may take turns: a broker that is starting resets one attempt
		// and closes the next.
		if trouble := change.Err.Error(); !l.troubles[trouble] && len(l.troubles) < maxTroubles {
			if l.troubles == nil {
				l.troubles = map[string]bool{}
			}
			l.troubles[trouble] = true
			c.Log("warning", "not delivering, retrying: "+trouble)
		}
	}
	l.blocked = change.State == amqp.Blocked
}

// Counted implements [amqp.Observer].
func (l *link) Counted(n amqp.Counters) {
	if n.Confirmed > l.confirmed {
		l.confirmed = n.Confirmed
		if len(l.troubles) > 0 {
			clear(l.troubles)
			c.Log("notice", "delivering again")
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
func (l *link) Dropped(m *amqp.Message, reason error) {
	c.Log("warning", fmt.Sprintf("event %s (%s, %d bytes) dropped: %v", m.ID, m.Type, len(m.Body), reason))
}
