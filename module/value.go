// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/c"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

// values are what the setting value takes.
var values = map[string]uint32{"none": 0, "new": c.NewValues, "old": c.OldValues, "both": c.NewValues | c.OldValues}

// hasOldValues: whether the server shows them; so it is, until it is asked.
var hasOldValues = true

func valueName(_ *settings, text string) error {
	which, ok := values[text]
	if !ok {
		return fmt.Errorf("%q is none of none, new, old, both", text)
	}
	if which&c.OldValues != 0 && !hasOldValues {
		return fmt.Errorf("%s needs to see what a key held that goes, which this server does not show to modules; Redis 7.2 and newer and Valkey do", text)
	}
	return nil
}

// agree reports a setting that does not go with another.
func (s *settings) agree() error {
	if s.texts["format"] == "payload" && values[s.texts["value"]] == 0 {
		return errors.New("format: payload sends values as messages, and value is none; set value to new, old or both in the same step")
	}
	return nil
}

// Most bytes of what comes from a key in headers, which share one frame of the
// connection (128 KiB, by default) with everything else that is said of a
// message: a value and an old value, or for payload a key.
const maxHeaderValue = 48 << 10

// appendMembers appends what an event says of values to a JSON object, each member
// behind a comma.
func appendMembers(b []byte, r *fallback.Record) []byte {
	b = appendContent(b, &r.Now, "type", "value")
	return appendContent(b, &r.Old, "old_type", "old")
}

// valuesRoom is what the members of values usually need.
func valuesRoom(r *fallback.Record) int { return 2*len(r.Now.Bytes) + 2*len(r.Old.Bytes) }

// tooMuchText reports whether a value's JSON text may be so large that it is not
// made; there may be two of them in a body. Each byte may become six.
func tooMuchText(v *fallback.Content) bool {
	return len(v.Bytes) > maxMade/16 && (v.Type != fallback.String || keySize(v.Bytes) > maxMade/3)
}

func appendContent(b []byte, v *fallback.Content, typeName, name string) []byte {
	if v.Type == fallback.None {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, typeName...)
	b = append(b, `":"`...)
	b = append(b, v.Type.String()...)
	b = append(b, `"`...)
	size := v.Size
	if !v.LeftOut && tooMuchText(v) {
		size = uint64(len(v.Bytes))
	} else if v.LeftOut && size == 0 {
		return b
	}
	if size > 0 {
		b = append(append(b, `,"`...), name...)
		b = append(b, `_size":`...)
		return strconv.AppendUint(b, size, 10)
	}
	b = append(append(b, `,"`...), name...)
	if v.Type == fallback.String && !utf8.Valid(v.Bytes) {
		b = append(b, `_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, v.Bytes)
		return append(b, '"')
	}
	b = append(b, `":`...)
	return appendValue(b, v)
}

// appendValue appends a value as JSON text.
func appendValue(b []byte, v *fallback.Content) []byte {
	rest := v.Bytes
	switch v.Type {
	case fallback.List, fallback.Set:
		return appendElements(b, rest)
	case fallback.Hash:
		return appendHash(b, rest)
	case fallback.SortedSet:
		return appendSortedSet(b, rest)
	case fallback.Stream:
		if len(rest) == 0 {
			return append(b, "null"...) // no entry
		}
		ms, seq, rest := fallback.EntryID(rest)
		b = append(b, `{"id":"`...)
		b = strconv.AppendUint(b, ms, 10)
		b = append(b, '-')
		b = strconv.AppendUint(b, seq, 10)
		b = append(b, `","fields":`...)
		return append(appendPairs(b, rest), '}')
	}
	return appendJSON(b, borrow(rest))
}

func appendElement(b, element []byte) []byte {
	if utf8.Valid(element) {
		return appendJSON(b, borrow(element))
	}
	b = append(b, `{"base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, element)
	return append(b, `"}`...)
}

func appendElements(b, rest []byte) []byte {
	b = append(b, '[')
	for first := true; len(rest) > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		var element []byte
		element, rest = fallback.Element(rest)
		b = appendElement(b, element)
	}
	return append(b, ']')
}

// appendPairs appends an array of arrays of two.
func appendPairs(b, rest []byte) []byte {
	b = append(b, '[')
	for first := true; len(rest) > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		var name, value []byte
		name, rest = fallback.Element(rest)
		value, rest = fallback.Element(rest)
		b = appendElement(append(b, '['), name)
		b = appendElement(append(b, ','), value)
		b = append(b, ']')
	}
	return append(b, ']')
}

// appendHash appends an object; pairs, where a field can't be a member's name.
func appendHash(b, rest []byte) []byte {
	for all := rest; len(all) > 0; {
		var field []byte
		field, all = fallback.Element(all)
		_, all = fallback.Element(all)
		if !utf8.Valid(field) {
			return appendPairs(b, rest)
		}
	}
	b = append(b, '{')
	for first := true; len(rest) > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		var field, value []byte
		field, rest = fallback.Element(rest)
		value, rest = fallback.Element(rest)
		b = appendJSON(b, borrow(field))
		b = appendElement(append(b, ':'), value)
	}
	return append(b, '}')
}

func appendSortedSet(b, rest []byte) []byte {
	b = append(b, '[')
	for first := true; len(rest) > 0; first = false {
		if !first {
			b = append(b, ',')
		}
		var score float64
		var member []byte
		score, member, rest = fallback.Scored(rest)
		b = append(b, '[')
		b = append(appendElement(b, member), ',')
		b = append(appendScore(b, score), ']')
	}
	return append(b, ']')
}

// appendScore: JSON has no infinity, so that is the text that Redis shows.
func appendScore(b []byte, score float64) []byte {
	switch {
	case math.IsInf(score, 1):
		return append(b, `"inf"`...)
	case math.IsInf(score, -1):
		return append(b, `"-inf"`...)
	case math.IsNaN(score):
		return append(b, `"nan"`...) // nothing that Redis has written
	}
	return strconv.AppendFloat(b, score, 'g', -1, 64)
}

// setHeader sets a header, the first of a message or a further one.
func setHeader(m *amqp.Message, name string, value any) {
	if m.Headers == nil {
		m.Headers = make(map[string]any, 6)
	}
	m.Headers[name] = value
}

// headerText is bytes as a header's value: text where it is, else bytes, which
// no client tries to decode.
func headerText(b []byte) any {
	if utf8.Valid(b) {
		return borrow(b)
	}
	return b
}

// valueHeaders says in headers what plain has no place for in its body.
func valueHeaders(m *amqp.Message, r *fallback.Record) {
	contentHeaders(m, &r.Now, "type", "value")
	contentHeaders(m, &r.Old, "old_type", "old")
}

func contentHeaders(m *amqp.Message, v *fallback.Content, typeName, name string) {
	if v.Type == fallback.None {
		return
	}
	setHeader(m, typeName, v.Type.String())
	if v.LeftOut {
		if v.Size > 0 {
			setHeader(m, name+"_size", int64(v.Size))
		}
		return
	}
	text := v.Bytes
	if v.Type != fallback.String && len(text) <= maxHeaderValue {
		text = appendValue(nil, v)
	}
	if len(text) > maxHeaderValue {
		setHeader(m, name+"_size", int64(len(text)))
		return
	}
	setHeader(m, name, headerText(text))
}

// payload makes the value the message: the new one, or else the old one.
func payload(m *amqp.Message, r *fallback.Record) {
	v := &r.Now
	if v.Type == fallback.None {
		v = &r.Old
	}
	m.Body, m.ContentType = nil, "application/octet-stream"
	db := any(borrow(r.DB))
	if n, err := strconv.ParseInt(borrow(r.DB), 10, 64); err == nil && isNumber(r.DB) {
		db = n
	}
	setHeader(m, "db", db)
	setHeader(m, "event", headerText(r.Event))
	if len(r.Key) > maxHeaderValue {
		setHeader(m, "key_size", int64(len(r.Key)))
	} else {
		setHeader(m, "key", headerText(r.Key))
	}
	if v.Type == fallback.None {
		return
	}
	setHeader(m, "type", v.Type.String())
	switch {
	case v.LeftOut:
		if v.Size > 0 {
			setHeader(m, "value_size", int64(v.Size))
		}
	case v.Type == fallback.String:
		m.Body = v.Bytes
	case tooMuchText(v):
		setHeader(m, "value_size", int64(len(v.Bytes)))
	default:
		m.ContentType = contentTypeJSON
		m.Body = appendValue(make([]byte, 0, 64+2*len(v.Bytes)), v)
	}
}
