// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

// format is the shape of a message's body and headers.
type format int

const (
	formatPlain       format = iota // text, as the view has it
	formatJSON                      // one JSON object
	formatCloudEvents               // CloudEvents 1.0, binary content mode of its AMQP binding
	formatPayload                   // the value is the message
)

var formats = map[string]format{"plain": formatPlain, "json": formatJSON, "cloudevents": formatCloudEvents, "payload": formatPayload}

func formatName(_ *settings, text string) error {
	if _, ok := formats[text]; !ok {
		return fmt.Errorf("%q is none of plain, json, cloudevents, payload", text)
	}
	return nil
}

const contentTypeJSON = "application/json"

// What CloudEvents wants said of every event.
const (
	eventType   = "io.github.key-evt-amqp." // and the event's name
	eventSource = "/redis/db/"              // and the database's number
)

// maxSubject bounds the key among the headers, which share one frame: one too
// long would make the broker close the connection. A longer key is in the data
// only.
const maxSubject = 1024

// maxMade bounds a body that is made, in bytes: a key that needs escapes may need
// six times its length. RabbitMQ 4's own limit is 16 MiB, unless it is raised.
const maxMade = 32 << 20

// errTooLarge is why an event has no body of a format that is made. It would be
// dropped by the broker's limit at the latest; here before memory is taken for it.
func errTooLarge(size int) error {
	return fmt.Errorf("its body may need %d bytes in this format, at most %d are made", size, maxMade)
}

// keySize is how many bytes appendEvent makes of a key.
func keySize(key []byte) int {
	if !utf8.Valid(key) {
		return base64.StdEncoding.EncodedLen(len(key))
	}
	n := len(key)
	for _, c := range key {
		switch {
		case c == '"', c == '\\', c == '\n', c == '\r', c == '\t':
			n++
		case c < ' ':
			n += len(`\u0000`) - 1
		}
	}
	return n
}

// bodyRoom is how many bytes a body needs at the most, without values; and its
// event is short.
func bodyRoom(r *fallback.Record) int { return 256 + 6*len(r.Event) + 6*len(r.DB) + keySize(r.Key) }

// canMake reports whether a format can make a body; if not, the message says why,
// and holds nothing.
func (f format) canMake(m *amqp.Message, r *fallback.Record) bool {
	if len(r.Event) > maxRoutingKey {
		m.Body = nil
		return false // the type says it: elements of the list may come from anybody
	}
	if size := bodyRoom(r); size > maxMade && f != formatPayload {
		m.Body, m.Refused = nil, errTooLarge(size)
		return false
	}
	return true
}

// jsonMessage makes a message's body one JSON object.
func jsonMessage(m *amqp.Message, r *fallback.Record) {
	m.ContentType = contentTypeJSON
	b := make([]byte, 0, bodyRoom(r)+valuesRoom(r))
	b = append(b, `{"id":`...)
	b = appendJSON(b, m.ID)
	b = append(b, `,"time":"`...)
	b = appendTime(b, m.Time)
	b = append(b, `",`...)
	m.Body = appendEvent(b, r)
}

// cloudEvent makes a message a CloudEvent: the attributes are headers, the body
// is the data.
func cloudEvent(m *amqp.Message, r *fallback.Record) {
	m.ContentType = contentTypeJSON
	m.Body = appendEvent(append(make([]byte, 0, bodyRoom(r)+valuesRoom(r)), '{'), r)
	if m.Headers == nil {
		m.Headers = make(map[string]any, 6)
	}
	m.Headers["cloudEvents_specversion"] = "1.0"
	m.Headers["cloudEvents_id"] = m.ID
	m.Headers["cloudEvents_type"] = string(appendAllowed([]byte(eventType), r.Event))
	m.Headers["cloudEvents_source"] = eventSource + url.PathEscape(string(r.DB))
	// Text, not AMQP's own type: that one counts whole seconds.
	m.Headers["cloudEvents_time"] = string(appendTime(nil, m.Time))
	if len(r.Key) == 0 || len(r.Key) > maxSubject {
		return
	}
	if subject := appendAllowed(make([]byte, 0, len(r.Key)), r.Key); len(subject) <= maxSubject {
		m.Headers["cloudEvents_subject"] = string(subject)
	}
}

// appendTime appends a time as RFC 3339 has it, with milliseconds, in UTC.
func appendTime(b []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
}

// appendEvent appends the members db, event, key, what is said of values, and
// closes the object.
func appendEvent(b []byte, r *fallback.Record) []byte {
	b = append(b, `"db":`...)
	if isNumber(r.DB) {
		b = append(b, r.DB...)
	} else {
		b = appendJSON(b, borrow(r.DB))
	}
	b = append(b, `,"event":`...)
	b = appendJSON(b, borrow(r.Event))
	if utf8.Valid(r.Key) {
		b = append(b, `,"key":`...)
		b = appendJSON(b, borrow(r.Key))
	} else {
		b = append(b, `,"key_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Key)
		b = append(b, '"')
	}
	if r.DueMillis != 0 {
		b = append(b, `,"due":"`...)
		b = appendTime(b, time.UnixMilli(r.DueMillis))
		b = append(b, '"')
	}
	return append(appendMembers(b, r), '}')
}

// isNumber reports whether a database's number is one as JSON writes it: elements
// of the list may come from anybody.
func isNumber(db []byte) bool {
	if len(db) == 0 || len(db) > 18 || db[0] == '0' && len(db) > 1 {
		return false
	}
	for _, c := range db {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789ABCDEF"

// appendJSON appends a JSON string. What is not UTF-8 becomes U+FFFD.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(b, s[from:i]...)
				b = append(b, "\uFFFD"...)
				from = i + 1
			}
			i += size
			continue
		}
		b = append(b, s[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(b, s[from:]...), '"')
}

// appendAllowed appends bytes as text that CloudEvents allows. What it does not
// allow (control characters, noncharacters, what is not UTF-8) and the percent
// sign are percent-encoded, so that decoding gives exactly the bytes.
func appendAllowed(b, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		bad := r == utf8.RuneError && size == 1
		if bad || r == '%' || !allowedInText(r) {
			for _, c := range text[:size] {
				b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
			}
		} else {
			b = append(b, text[:size]...)
		}
		text = text[size:]
	}
	return b
}

func allowedInText(r rune) bool {
	control := r < 0x20 || r >= 0x7f && r <= 0x9f
	noncharacter := r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef
	return !control && !noncharacter
}
