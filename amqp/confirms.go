// SPDX-License-Identifier: BSD-3-Clause

package amqp

// confirms puts confirms and rejections into the order of the messages: they may
// come in any. Messages up to replies.answered have their answer; early
// remembers, by tag modulo its size, the answers above, of which there are so
// many.
type confirms struct {
	early []outcome
	count int
}

// outcome is what became of a message.
type outcome byte

const (
	unknown outcome = iota
	confirmed
	nacked
)

// newConfirms makes confirms for at most window messages in flight.
func newConfirms(window int) confirms {
	size := 1
	for size < window {
		size *= 2
	}
	return confirms{early: make([]outcome, size)}
}

// take takes in one ack or nack, for a tag or for all up to it, of messages up
// to sent. What was answered keeps its answer: a later confirm of many passes
// over it.
func (c *confirms) take(r *replies, sent, tag uint64, multiple, nack bool) error {
	if tag == 0 || tag > sent {
		return violation("a confirm for message %d, %d were sent", tag, sent)
	}
	if tag <= r.answered {
		return nil
	}
	if tag-r.answered > uint64(len(c.early)) {
		return violation("a confirm for message %d, after %d", tag, r.answered)
	}
	first := tag
	if multiple {
		first = r.answered + 1
	}
	if c.count == 0 && first == r.answered+1 {
		if nack {
			for t := first; t <= tag; t++ {
				r.nacked = append(r.nacked, t)
			}
		}
		r.answered = tag
		return nil
	}
	is := confirmed
	if nack {
		is = nacked
	}
	last := uint64(len(c.early) - 1)
	for t := first; t <= tag; t++ {
		if o := &c.early[t&last]; *o == unknown {
			*o = is
			c.count++
		}
	}
	for c.count > 0 {
		o := &c.early[(r.answered+1)&last]
		if *o == unknown {
			break
		}
		r.answered++
		if *o == nacked {
			r.nacked = append(r.nacked, r.answered)
		}
		*o = unknown
		c.count--
	}
	return nil
}
