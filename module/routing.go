// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"strings"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

// maxRoutingKey is AMQP's limit for a routing key, in bytes.
const maxRoutingKey = 255

// template is a routing key with placeholders, parsed once.
type template []part

// part is a text as it stands, or a placeholder.
type part struct {
	text   string
	append func(b []byte, r *fallback.Record) []byte // nil: the text
}

// placeholders are what a template may hold. What they append of a key is
// bounded, for a key may have 512 MiB, and AMQP takes 255 bytes.
var placeholders = map[string]func([]byte, *fallback.Record) []byte{
	"{db}":    func(b []byte, r *fallback.Record) []byte { return append(b, r.DB...) },
	"{event}": func(b []byte, r *fallback.Record) []byte { return append(b, r.Event...) },
	"{key}":   func(b []byte, r *fallback.Record) []byte { return append(b, head(r.Key)...) },
	"{words}": func(b []byte, r *fallback.Record) []byte {
		return append(b, bytes.ReplaceAll(head(r.Key), []byte(":"), []byte("."))...)
	},
	"{prefix}": func(b []byte, r *fallback.Record) []byte {
		prefix, _, _ := bytes.Cut(head(r.Key), []byte(":"))
		return append(b, prefix...)
	},
}

// head is as much of a key as a routing key can show, and a byte more, so that
// one that is cut is seen to be.
func head(key []byte) []byte { return key[:min(len(key), maxRoutingKey+1)] }

// parseTemplate finds the placeholders; anything else stays as it is.
func parseTemplate(text string) (t template) {
	literal := ""
	for len(text) > 0 {
		open := strings.IndexByte(text, '{')
		if open < 0 {
			open = len(text)
		}
		literal, text = literal+text[:open], text[open:]
		name := text[:strings.IndexByte(text, '}')+1]
		switch place := placeholders[name]; {
		case place != nil:
			t = append(t, part{text: literal}, part{append: place})
			literal, text = "", text[len(name):]
		case text != "":
			literal, text = literal+"{", text[1:]
		}
	}
	return append(t, part{text: literal})
}

// fixed reports whether the template is the same for all events.
func (t template) fixed() bool { return len(t) == 1 }

// expand fills in an event. It may return more than AMQP allows.
func (t template) expand(r *fallback.Record) []byte {
	var out []byte
	for _, p := range t {
		if len(out) > maxRoutingKey {
			break
		}
		if p.append != nil {
			out = p.append(out, r)
		} else {
			out = append(out, p.text...)
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
	return bytes.Join([][]byte{[]byte(prefix), db, []byte("__:"), head(name)}, nil)
}
