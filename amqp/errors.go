// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	lib "github.com/rabbitmq/amqp091-go"
)

// ErrStopped is given to whoever waits in Connect when the publisher is
// stopped, or Disconnect overtakes it.
var ErrStopped = errors.New("the connection was closed before it was made")

var errWithoutAWord = errors.New("the broker closed the connection without a word")

// Reply codes of a close that mean something to us.
const (
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

// tooLarge reports whether the broker closed for a message that it can't take
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

// networkError makes an error of the network one of the connection.
func networkError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return &closedError{code: replyFrameError, text: errWithoutAWord.Error()}
	}
	return &closedError{code: replyFrameError, text: err.Error()}
}

// credentialsRefused is for whoever we say we are.
func credentialsRefused(cfg *Config) error {
	if cfg.External {
		return errors.New("the broker refuses the certificate as the user's credential (ACCESS_REFUSED)")
	}
	return errors.New("the broker refuses the username or password (ACCESS_REFUSED)")
}

// readable makes the library's word readable, and never shows a password.
func readable(err error) error {
	var answer *lib.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		return errors.New(strings.TrimSpace(answer.Reason))
	}
	return plain(err)
}

// plain is a network error without the addresses: our port differs each time,
// and the log would take the same trouble for a new one.
func plain(err error) error {
	var network *net.OpError
	if errors.As(err, &network) && network.Source != nil {
		return network.Err
	}
	return err
}

// textMax bounds what comes from a broker, in bytes.
const textMax = 255

// clip cuts a text off at textMax.
func clip(s string) string {
	const more = "..."
	if len(s) <= textMax {
		return s
	}
	return strings.ToValidUTF8(s[:textMax-len(more)], "") + more
}

// clipped is err with a text of at most textMax bytes.
func clipped(err error) error {
	if err == nil || len(err.Error()) <= textMax {
		return err
	}
	return errors.New(clip(err.Error()))
}
