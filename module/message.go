package main

import (
	"bytes"
	"strings"
	"time"
	"unsafe"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

// maxRoutingKey is AMQP's limit for a routing key, in bytes.
const maxRoutingKey = 255

// layout is how events become messages. It is made from the settings and not
// changed afterwards, so the publisher may use it while the next is made.
type layout struct {
	views    []view
	template string // routing key of viewPlain
	fixed    bool   // the template has no placeholders
	format   format
}

// view is one way to show an event.
type view int

const (
	viewPlain    view = iota // body <db>\n<event>\n<key>
	viewKeyspace             // as on Redis's channel __keyspace@<db>__:<key>
	viewKeyevent             // as on Redis's channel __keyevent@<db>__:<event>
)

func newLayout(e events, template string, f format) *layout {
	l := &layout{template: template, fixed: !strings.Contains(template, "{"), format: f}
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
	switch l.format {
	case formatPlain:
	case formatJSON:
		jsonMessage(m, r)
	case formatCloudEvents:
		cloudEvent(m, r)
	}
}

// route sets the routing key and, for plain, the body that goes with the view:
// the other formats say all there is to say in any view.
func (l *layout) route(m *amqp.Message, v view, r *fallback.Record) {
	switch v {
	case viewKeyspace:
		m.Body = r.Event
		setRoutingKey(m, channelKey("__keyspace@", r.DB, r.Key))
	case viewKeyevent:
		m.Body = r.Key
		setRoutingKey(m, channelKey("__keyevent@", r.DB, r.Event))
	default:
		if l.fixed {
			m.RoutingKey = l.template
			return
		}
		setRoutingKey(m, expand(l.template, r))
	}
}

// borrow views bytes as a string without copying: valid as long as they are.
func borrow(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}

// expand replaces {db}, {event} and {key}; anything else stays as it is.
func expand(template string, r *fallback.Record) []byte {
	var out []byte
	for len(template) > 0 {
		open := strings.IndexByte(template, '{')
		if open < 0 {
			return append(out, template...)
		}
		out = append(out, template[:open]...)
		template = template[open:]
		switch {
		case strings.HasPrefix(template, "{db}"):
			out, template = append(out, r.DB...), template[len("{db}"):]
		case strings.HasPrefix(template, "{event}"):
			out, template = append(out, r.Event...), template[len("{event}"):]
		case strings.HasPrefix(template, "{key}"):
			out, template = append(out, r.Key...), template[len("{key}"):]
		default:
			out, template = append(out, '{'), template[1:]
		}
	}
	return out
}

// setRoutingKey cuts what AMQP does not allow, and says so in a header.
func setRoutingKey(m *amqp.Message, key []byte) {
	if len(key) > maxRoutingKey {
		key = key[:maxRoutingKey]
		m.Headers = map[string]any{"routing_key_cut": true}
	}
	m.RoutingKey = string(key)
}

// channelKey is the name of one of Redis's notification channels.
func channelKey(prefix string, db []byte, name []byte) []byte {
	return bytes.Join([][]byte{[]byte(prefix), db, []byte("__:"), name}, nil)
}
