// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"time"
	"unsafe"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

// layout is how events become messages. It is made from the settings and not
// changed afterwards, so the publisher may use it while the next is made.
type layout struct {
	views    []view
	template template // routing key of viewPlain
	format   format
}

// view is one way to show an event.
type view int

const (
	viewPlain    view = iota // body <db>\n<event>\n<key>
	viewKeyspace             // as on Redis's channel __keyspace@<db>__:<key>
	viewKeyevent             // as on Redis's channel __keyevent@<db>__:<event>
)

func newLayout(e events, routingKey string, f format) *layout {
	l := &layout{template: parseTemplate(routingKey), format: f}
	if e.keyspace {
		l.views = append(l.views, viewKeyspace)
	}
	if e.keyevent {
		l.views = append(l.views, viewKeyevent)
	}
	if l.views == nil {
		l.views = []view{viewPlain}
	}
	return l
}

// message makes one message of an event. id must stay as it is as long as the
// message does; so must the record's memory, which the message points into.
func (l *layout) message(m *amqp.Message, v view, r *fallback.Record, id string) {
	*m = amqp.Message{
		ID:   id,
		Time: time.UnixMilli(r.TimeMillis),
		Type: borrow(r.Event),
		Body: r.Body,
	}
	l.route(m, v, r)
	if l.format != formatPlain && !l.format.canMake(m, r) {
		return
	}
	switch l.format {
	case formatPlain:
		valueHeaders(m, r)
		dueHeader(m, r)
	case formatJSON:
		jsonMessage(m, r)
	case formatCloudEvents:
		cloudEvent(m, r)
	case formatPayload:
		payload(m, r)
		dueHeader(m, r)
	}
}

// dueHeader says when the key of an expired event was due, where it is known.
func dueHeader(m *amqp.Message, r *fallback.Record) {
	if r.DueMillis != 0 {
		setHeader(m, "due", string(appendTime(nil, time.UnixMilli(r.DueMillis))))
	}
}

// route sets the routing key and, for plain, the body that goes with the view:
// the other formats say everything in any view.
func (l *layout) route(m *amqp.Message, v view, r *fallback.Record) {
	switch v {
	case viewKeyspace:
		m.Body = r.Event
		setRoutingKey(m, channelKey("__keyspace@", r.DB, r.Key))
	case viewKeyevent:
		m.Body = r.Key
		setRoutingKey(m, channelKey("__keyevent@", r.DB, r.Event))
	default:
		if l.template.fixed() {
			m.RoutingKey = l.template[0].text
			return
		}
		setRoutingKey(m, l.template.expand(r))
	}
}

// borrow views bytes as a string without copying: valid as long as they are.
func borrow(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}
