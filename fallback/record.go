// SPDX-License-Identifier: BSD-3-Clause

package fallback

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// A record is one event, in memory and as an element of the fallback list: a
// header of [HeaderSize] bytes, little-endian, the message's body
// "<db>\n<event>\n<key>", and in version 2 sections. c/record.h declares the same
// layout, and says what the sections are.
//
//	0   1  magic, 0xea
//	1   1  version: 1, or 2 with sections
//	2   1  length of <db>
//	3   1  zero
//	4   4  length of <event>
//	8   8  origin: names the load of the module that captured the event
//	16  8  seq: counts from 1 within the origin
//	24  8  time of the capture, Unix milliseconds
//	32  8  version 2 only: length of the body
const (
	HeaderSize   = 32
	magic        = 0xea
	plain        = 1 // version without sections
	withSections = 2
	sectionHead  = 1 + 4 // kind, length
)

// The kinds of sections, in their order.
const (
	sectionType = 1 + iota
	sectionValue
	sectionValueSize
	sectionOldType
	sectionOld
	sectionOldSize
	sectionDue
)

// Record is a decoded record. Its slices point into what was decoded.
type Record struct {
	Origin, Seq uint64
	TimeMillis  int64
	Body        []byte // <db>\n<event>\n<key>
	DB, Event   []byte // parts of Body
	Key         []byte

	Now, Old  Content // what the key holds, and what it held
	DueMillis int64   // when the key was due, Unix milliseconds; 0: nothing is said
}

// ErrNoRecord is returned by [Decode] for bytes that are not a sound record:
// elements of the list may have been written by anybody.
var ErrNoRecord = errors.New("fallback: no event record")

// Decode reads a record without copying.
func Decode(b []byte) (r Record, err error) {
	if len(b) < HeaderSize || b[0] != magic {
		return r, ErrNoRecord
	}
	body, sections := b[HeaderSize:], []byte(nil)
	switch b[1] {
	case plain:
	case withSections:
		if len(body) < 8 {
			return r, ErrNoRecord
		}
		size := binary.LittleEndian.Uint64(body)
		body = body[8:]
		if size > uint64(len(body)) {
			return r, ErrNoRecord
		}
		body, sections = body[:size], body[size:]
	default:
		return r, ErrNoRecord
	}
	db, event := uint64(b[2]), uint64(binary.LittleEndian.Uint32(b[4:]))
	key := db + 1 + event + 1
	if db == 0 || key > uint64(len(body)) || body[db] != '\n' || body[key-1] != '\n' {
		return r, ErrNoRecord
	}
	r = Record{
		Origin:     binary.LittleEndian.Uint64(b[8:]),
		Seq:        binary.LittleEndian.Uint64(b[16:]),
		TimeMillis: int64(binary.LittleEndian.Uint64(b[24:])),
		Body:       body,
		DB:         body[:db],
		Event:      body[db+1 : key-1],
		Key:        body[key:],
	}
	if len(sections) > 0 && !r.decodeSections(sections) {
		return Record{}, ErrNoRecord
	}
	return r, nil
}

// decodeSections reads what is behind the body. Kinds that it does not know are
// of a later version, and skipped.
func (r *Record) decodeSections(b []byte) bool {
	for last := byte(0); len(b) > 0; {
		if len(b) < sectionHead || b[0] <= last {
			return false
		}
		last = b[0]
		size := binary.LittleEndian.Uint32(b[1:])
		b = b[sectionHead:]
		if uint64(size) > uint64(len(b)) {
			return false
		}
		if !r.decodeSection(last, b[:size:size]) {
			return false
		}
		b = b[size:]
	}
	return true
}

func (r *Record) decodeSection(kind byte, b []byte) bool {
	c := &r.Now
	if kind >= sectionOldType {
		c = &r.Old
	}
	switch kind {
	case sectionType, sectionOldType:
		if len(b) != 1 || b[0] == 0 || Type(b[0]) > Stream {
			return false
		}
		c.Type, c.LeftOut = Type(b[0]), true // until the value comes
	case sectionValue, sectionOld:
		if !sound(c.Type, b) {
			return false
		}
		c.Bytes, c.LeftOut = b, false
	case sectionValueSize, sectionOldSize:
		if len(b) != 8 || !c.LeftOut {
			return false
		}
		c.Size = binary.LittleEndian.Uint64(b)
	case sectionDue:
		if len(b) != 8 {
			return false
		}
		r.DueMillis = int64(binary.LittleEndian.Uint64(b))
		return r.DueMillis != 0
	}
	return true
}

// Encode returns the record as the main thread writes it (c/record.h), for tests:
// of Body only DB, Event and Key count.
func (r *Record) Encode() []byte {
	b := []byte{magic, plain, byte(len(r.DB)), 0}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Event)))
	b = binary.LittleEndian.AppendUint64(b, r.Origin)
	b = binary.LittleEndian.AppendUint64(b, r.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.TimeMillis))
	sections := r.Now.encode(nil, sectionType)
	sections = r.Old.encode(sections, sectionOldType)
	if r.DueMillis != 0 {
		sections = appendSection(sections, sectionDue, binary.LittleEndian.AppendUint64(nil, uint64(r.DueMillis)))
	}
	if sections != nil {
		b[1] = withSections
		b = binary.LittleEndian.AppendUint64(b, uint64(len(r.DB)+1+len(r.Event)+1+len(r.Key)))
	}
	b = append(append(b, r.DB...), '\n')
	b = append(append(b, r.Event...), '\n')
	return append(append(b, r.Key...), sections...)
}

func appendSection(b []byte, kind byte, bytes []byte) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, kind), uint32(len(bytes)))
	return append(b, bytes...)
}

// IDSize bounds the bytes that [Record.AppendID] appends.
const IDSize = 16 + 1 + 20

// AppendID appends the event's id as messages carry it: the origin as 16
// hexadecimal digits, a hyphen, seq in decimal. It is unique, and the same
// whenever and by whomever the event is sent.
func (r *Record) AppendID(b []byte) []byte {
	const hex = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, hex[r.Origin>>shift&15])
	}
	b = append(b, '-')
	return strconv.AppendUint(b, r.Seq, 10)
}
