// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"crypto/tls"
	"slices"
	"time"
)

// Message is one message to send. Everything in it is borrowed from the
// [Source]: valid until the message is settled, or the source rewound.
type Message struct {
	ID          string // message_id, unique; returns are recognised by it
	Time        time.Time
	Type        string
	RoutingKey  string // at most 255 bytes
	ContentType string // empty: text/plain
	Headers     map[string]any
	Body        []byte
	// Refused is why there is no such message: it is dropped in its turn, and
	// never sent. Nil: it is whole.
	Refused error
}

// contentType is the message's, or the default.
func (m *Message) contentType() string {
	if m.ContentType == "" {
		return "text/plain"
	}
	return m.ContentType
}

// Source is the queue that the publisher reads. Its methods are called by the
// publisher's goroutine only; the channel may be signalled from anywhere.
type Source interface {
	// Next fills in the next message; false: there is none at the moment.
	Next(m *Message) bool
	// Settle says that the n oldest messages handed out and not settled are
	// done with.
	Settle(n int)
	// Rewind goes back to the oldest message that is not settled: Next begins
	// again with it once the source has taken note.
	Rewind()
	// Sleep announces that the publisher is about to wait. False: there is
	// something new, it must not.
	Sleep() bool
	// Wake is signalled when there may be something new after Sleep.
	Wake() <-chan struct{}
}

// State is what the publisher believes about the connection: for INFO and logs, never
// to decide whether a message is safe.
type State int

const (
	Idle       State = iota // nothing to deliver yet, no connection
	Disabled                // closed by Disconnect
	Connecting              // dialing, or handshakes under way
	Connected
	Blocked // the broker asked to stop: a memory or disk alarm
	Backoff // waiting to try again
)

func (s State) String() string {
	return [...]string{"idle", "disabled", "connecting", "connected", "blocked", "backoff"}[s]
}

// Change is what an [Observer] hears.
type Change struct {
	State State
	Host  string // in use, or tried last
	Port  int
	Err   error // why, if there is a reason
	// Resumed: connected again after a back-off during which the connection
	// stayed, for the broker did not take what was sent.
	Resumed bool
}

// Counters are absolute and never go backwards, except for Inflight.
type Counters struct {
	Connects, ConnectFailures              uint64
	Published, Confirmed, Returned, Nacked uint64 // messages, repetitions included
	Dropped                                uint64 // passed over: the broker can't take them
	Inflight                               uint64 // sent and not yet confirmed
}

// Observer hears of changes, on the publisher's goroutine; it must not block.
type Observer interface {
	StateChanged(Change)
	// Counted is called when counters changed, at most once a round.
	Counted(Counters)
	// Dropped is called for a message that was passed over.
	Dropped(m *Message, reason error)
}

// TLSFunc returns the configuration for one connection. Without a ServerName
// the host's name is the one to check.
type TLSFunc func() (*tls.Config, error)

// Host is one broker.
type Host struct {
	Name string
	Port int
}

// Config is how to connect and to publish. It is not changed after it was
// handed over.
type Config struct {
	Hosts    []Host // in order of preference, at least one
	Username string
	Password func() (string, error) // asked at each connection; nil: empty
	// External: SASL EXTERNAL, the TLS certificate is the credential.
	External          bool
	Vhost             string
	Heartbeat         time.Duration // whole seconds; 0: the broker's
	TLS               TLSFunc       // asked at each connection; nil: plain TCP
	ConnectTimeout    time.Duration // for TCP, TLS and AMQP handshakes together, each host
	ReconnectDelayMax time.Duration // delays grow from 100 ms up to this
	ConnectionName    string        // as RabbitMQ's management shows it
	AppID             string        // the product's name, and the app_id of all messages

	Exchange     string // empty: the broker's default exchange
	DeliveryMode uint8  // 1 transient, 2 persistent
	Mandatory    bool   // a message that no queue takes counts as undelivered
	MaxInflight  int    // messages sent and not yet confirmed
	// Identity changes whenever something behind Password or TLS does, which
	// can't be compared. It may hold secrets.
	Identity string
}

// sameConnection reports whether a live connection made by c serves d as well.
func (c *Config) sameConnection(d *Config) bool {
	if c == d {
		return true
	}
	return slices.Equal(c.Hosts, d.Hosts) && c.Username == d.Username && c.External == d.External &&
		c.Vhost == d.Vhost && c.Heartbeat == d.Heartbeat && c.Exchange == d.Exchange &&
		c.ConnectionName == d.ConnectionName && c.AppID == d.AppID && c.MaxInflight == d.MaxInflight && c.Identity == d.Identity
}

// maxWindow bounds what is kept for messages in flight. A larger window was
// never faster, it only adds latency.
const maxWindow = 5000

func (c *Config) window() int { return min(max(c.MaxInflight, 1), maxWindow) }
