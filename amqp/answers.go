package amqp

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// answers makes news of what the broker sends: the reading half of the codec of
// our own. It does no I/O, and what it keeps is bounded by the window.
type answers struct {
	channel uint16
	most    int            // bytes of a frame
	sent    *atomic.Uint64 // tag of the last message sent

	news news
	ends error // why the channel or the connection is at its end
	bye  bool  // the broker closes the connection and wants an answer
	done bool  // our own close was answered

	// Confirms may come in any order. All up to news.answered are in; marks
	// remembers, by tag modulo its size, the early ones above, of which there
	// are so many.
	marks []mark
	early int

	// A return is three kinds of frame, one after the other.
	bounced bounce
	stage   stage
	body    uint64 // bytes of its body still to come
}

type mark byte

const (
	due mark = iota
	accepted
	refused
)

type stage byte

const (
	noReturn stage = iota
	returnHeader
	returnBody
)

// newAnswers makes answers for at most window messages in flight.
func newAnswers(channel uint16, most, window int, sent *atomic.Uint64) *answers {
	size := 1
	for size < window {
		size *= 2
	}
	return &answers{channel: channel, most: most, sent: sent, marks: make([]mark, size)}
}

// feed takes in the whole frames of b, and returns how many bytes they have.
// After an error the connection is of no more use.
func (a *answers) feed(b []byte) (used int, err error) {
	for !a.done {
		f, n, err := cut(b[used:], a.most)
		if n == 0 || err != nil {
			return used, err
		}
		used += n
		if err := a.frame(f); err != nil {
			return used, err
		}
	}
	return used, nil
}

func (a *answers) frame(f frame) error {
	p := fields{rest: f.payload}
	switch {
	case f.kind == frameHeartbeat:
		return nil
	case f.channel == 0 && f.kind == frameMethod:
		return a.aboutConnection(&p)
	case f.channel != a.channel:
	case a.ends != nil:
		return nil // it is closed, whatever else comes
	case f.kind == frameMethod && a.stage == noReturn:
		return a.aboutChannel(&p)
	case f.kind == frameHeader && a.stage == returnHeader:
		return a.returnHeader(&p)
	case f.kind == frameBody && a.stage == returnBody:
		if uint64(len(f.payload)) > a.body {
			return errors.New("the broker returned more of a message than there is")
		}
		a.body -= uint64(len(f.payload))
		return a.returned()
	}
	return fmt.Errorf("the broker sent a frame of type %d on channel %d, which was not due", f.kind, f.channel)
}

var errReturns = errors.New("the broker returned more messages than were sent")

var errMalformed = errors.New("the broker sent a method that ends too soon")

func (a *answers) aboutConnection(p *fields) error {
	switch method := p.long(); method {
	case connectionClose:
		err := readClose(p)
		if a.ends == nil {
			a.ends = err
		}
		a.bye = true
	case connectionCloseOK:
		a.done = true
	case connectionBlocked:
		a.news.alarm = &alarm{on: true, reason: string(p.shortstr())}
	case connectionUnblocked:
		a.news.alarm = &alarm{}
	default:
		return unexpected(method)
	}
	if p.bad {
		return errMalformed
	}
	return nil
}

func (a *answers) aboutChannel(p *fields) error {
	method := p.long()
	switch method {
	case basicAck, basicNack:
		tag, bits := p.longlong(), p.octet()
		if p.bad {
			return errMalformed
		}
		return a.confirm(tag, bits&1 != 0, method == basicNack)
	case basicReturn:
		p.short() // the reply's code
		a.bounced = bounce{text: string(p.shortstr()), exchange: string(p.shortstr()), routingKey: string(p.shortstr())}
		a.stage = returnHeader
		if len(a.news.returns) >= len(a.marks) {
			return errReturns
		}
	case channelClose:
		a.ends = readClose(p)
	default:
		return unexpected(method)
	}
	if p.bad {
		return errMalformed
	}
	return nil
}

func unexpected(method uint32) error {
	return fmt.Errorf("the broker sent method %d.%d, which was not due", method>>16, method&0xFFFF)
}

// readClose reads the arguments of a close, the connection's or the channel's.
func readClose(p *fields) error {
	return &closedError{code: int(p.short()), text: string(p.shortstr()), byBroker: true}
}

// returnHeader finds the message's id among the properties.
func (a *answers) returnHeader(p *fields) error {
	p.short() // class
	p.short() // weight
	a.body = p.longlong()
	flags := p.short()
	if flags&moreFlags != 0 {
		return errors.New("the broker returned a message with properties that are unknown")
	}
	for _, flag := range []uint16{hasContentType, hasContentEncoding, hasHeaders, hasDeliveryMode, hasPriority,
		hasCorrelationID, hasReplyTo, hasExpiration, hasMessageID} {
		if flags&flag == 0 {
			continue
		}
		switch flag {
		case hasHeaders:
			p.longstr()
		case hasDeliveryMode, hasPriority:
			p.octet()
		case hasMessageID:
			a.bounced.id = string(p.shortstr())
		default:
			p.shortstr()
		}
	}
	if p.bad {
		return errMalformed
	}
	a.stage = returnBody
	return a.returned()
}

// returned ends a return once its body has passed.
func (a *answers) returned() error {
	if a.body > 0 {
		return nil
	}
	a.stage = noReturn
	a.news.returns = append(a.news.returns, a.bounced)
	return nil
}

// confirm takes in one ack or nack. What was answered keeps its answer: a later
// confirm of many passes over it.
func (a *answers) confirm(tag uint64, multiple, nack bool) error {
	n := &a.news
	if sent := a.sent.Load(); tag == 0 || tag > sent {
		return fmt.Errorf("a confirm came for message %d, %d were sent", tag, sent)
	}
	if tag <= n.answered {
		return nil
	}
	if tag-n.answered > uint64(len(a.marks)) {
		return fmt.Errorf("a confirm came for message %d, after %d", tag, n.answered)
	}
	first := tag
	if multiple {
		first = n.answered + 1
	}
	if a.early == 0 && first == n.answered+1 {
		if nack {
			for t := first; t <= tag; t++ {
				n.rejected = append(n.rejected, t)
			}
		}
		n.answered = tag
		return nil
	}
	outcome := accepted
	if nack {
		outcome = refused
	}
	last := uint64(len(a.marks) - 1)
	for t := first; t <= tag; t++ {
		if m := &a.marks[t&last]; *m == due {
			*m = outcome
			a.early++
		}
	}
	for a.early > 0 {
		m := &a.marks[(n.answered+1)&last]
		if *m == due {
			break
		}
		n.answered++
		if *m == refused {
			n.rejected = append(n.rejected, n.answered)
		}
		*m = due
		a.early--
	}
	return nil
}
