// SPDX-License-Identifier: BSD-3-Clause

package amqp

import "fmt"

// incoming is a message that comes back, in three kinds of frame, one after the
// other: a method that says why, a header with its properties, its body. The
// body is not kept.
type incoming struct {
	stage stage
	body  uint64 // bytes of it still to come
	got   returned
}

type stage byte

const (
	noReturn stage = iota
	returnHeader
	returnBody
)

// expected reports whether a header or a body is due.
func (i *incoming) expected() bool { return i.stage != noReturn }

// begin takes in the method.
func (i *incoming) begin(p *fields) {
	p.short() // the reply's code
	text, exchange, key := p.shortstr(), p.shortstr(), p.shortstr()
	i.got = returned{why: clip(fmt.Sprintf("%s: exchange %q, routing key %q", text, exchange, key))}
	i.stage = returnHeader
}

// header finds the message's id among the properties. No message with a body
// larger than largest was sent.
func (i *incoming) header(p *fields, largest uint64) error {
	if i.stage != returnHeader {
		return violation("a second header for one message")
	}
	p.short() // class
	p.short() // weight
	i.body = p.longlong()
	flags := p.short()
	if i.body > largest {
		return violation("a message back whose body has %d bytes, the largest sent has %d", i.body, largest)
	}
	if flags&moreFlags != 0 {
		return violation("a message back with properties that are unknown")
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
			i.got.id = string(p.shortstr())
		default:
			p.shortstr()
		}
	}
	if p.bad {
		return errMalformed
	}
	i.stage = returnBody
	return nil
}

// content takes in a frame of the body.
func (i *incoming) content(b []byte) error {
	switch {
	case i.stage != returnBody:
		return violation("a body without a header")
	case len(b) == 0:
		return violation("an empty piece of a body")
	case uint64(len(b)) > i.body:
		return violation("more of a message back than there is")
	}
	i.body -= uint64(len(b))
	return nil
}

// take returns the message once all of it has come.
func (i *incoming) take() (r returned, whole bool) {
	if i.stage != returnBody || i.body > 0 {
		return r, false
	}
	i.stage = noReturn
	return i.got, true
}
