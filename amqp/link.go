package amqp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// link is one session's connection and channel, in confirm mode, as the
// publisher sees it: messages go in one by one, what the broker says comes out
// in bulk. Its methods are called by the publisher's goroutine, hurry by
// anyone.
//
// There are two: library, over amqp091-go, and wire, over a codec of our own.
type link interface {
	// publish takes a message, and keeps nothing of it. Messages are
	// numbered from 1. It is written by the next flush at the latest.
	publish(cfg *Config, m *Message) error
	flush() error
	// hear returns what the broker has said since it was last called, before
	// and after close. Valid until it is called again.
	hear() *news
	// wait waits until there is something to hear, the link has ended, or
	// one of w is ready.
	wait(w *waits) event
	// ended is why the link is of no more use; nil: it still is.
	ended() error
	// lost is the same once it must have ended, for instance because
	// publish or flush failed with err: the broker's own word if there is
	// one. It takes a moment for that to come in.
	lost(err error) error
	// gather makes reads let bytes come together for so long first; 0: not.
	gather(d time.Duration)
	// heartbeat is what was agreed; 0: none.
	heartbeat() time.Duration
	// hurry bounds all writing, also one that is under way; the zero time:
	// no more.
	hurry(t time.Time)
	// close ends the link within moments, politely if that is possible.
	close()
}

// news is what the broker has said.
type news struct {
	answered uint64   // messages up to this one are confirmed,
	rejected []uint64 // but these, which were rejected (nack); in ascending order
	// returns are messages that no queue took. Each is here before it is
	// answered.
	returns []bounce
	alarm   *alarm // the last one; nil: nothing new
}

// bounce is a message that came back.
type bounce struct{ id, text, exchange, routingKey string }

// alarm says whether the broker wants us to pause, and why.
type alarm struct {
	on     bool
	reason string
}

// add appends what came later.
func (n *news) add(later *news) {
	n.answered = later.answered
	n.rejected = append(n.rejected, later.rejected...)
	n.returns = append(n.returns, later.returns...)
	if later.alarm != nil {
		n.alarm = later.alarm
	}
}

// nothingSince tells whether there is no more than that messages up to one
// that is known are answered.
func (n *news) nothingSince(answered uint64) bool {
	return n.answered == answered && len(n.returns) == 0 && n.alarm == nil
}

// forget empties it, but for the messages answered so far.
func (n *news) forget() {
	clear(n.returns)
	n.rejected, n.returns, n.alarm = n.rejected[:0], n.returns[:0], nil
}

// waits is what the publisher waits for beside the broker.
type waits struct {
	wake, kick, stop <-chan struct{}
	timer            <-chan time.Time
	quiet            bool // what there is to hear may wait, but for the end
}

// event is what ended a wait.
type event int

const (
	heard event = iota // there is something to hear, or the link has ended
	woken
	kicked
	stopped
	timeUp
)

// Reply codes of a close that mean something to us.
const (
	replyAccessRefused      = 403
	replyPreconditionFailed = 406
	replyFrameError         = 501
	replySyntaxError        = 502
)

// closedError is a close by the broker or the network.
type closedError struct {
	code     int // AMQP's reply code
	text     string
	byBroker bool // the broker said so
}

func (e *closedError) Error() string {
	return fmt.Sprintf("connection lost: %s", strings.TrimSpace(e.text))
}

// tooLarge tells whether the broker closed for a message that it can't take
// whatever we do, rather than for an exchange or a right that may come.
func tooLarge(err error) bool {
	var e *closedError
	if !errors.As(err, &e) {
		return false
	}
	switch e.code {
	case replyPreconditionFailed, replyFrameError, replySyntaxError:
		return e.byBroker
	}
	return false
}

// closeTimeout bounds the goodbyes.
const closeTimeout = 200 * time.Millisecond

// networkError makes an error of the network one of the link.
func networkError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return &closedError{code: replyFrameError, text: "the broker closed the connection without a word"}
	}
	return &closedError{code: replyFrameError, text: err.Error()}
}
