package fallback

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// A record is one event, in memory and as an element of the fallback list: a
// header of [HeaderSize] bytes, little-endian, then the message's body
// "<db>\n<event>\n<key>". c/queue.h declares the same layout.
//
//	0   1  magic, 0xea
//	1   1  version, 1
//	2   1  length of <db>
//	3   1  zero
//	4   4  length of <event>
//	8   8  origin: names the load of the module that captured the event
//	16  8  seq: counts from 1 within the origin
//	24  8  time of the capture, Unix milliseconds
const (
	HeaderSize = 32
	magic      = 0xea
	version    = 1
)

// Record is a decoded record. Its slices point into what was decoded.
type Record struct {
	Origin, Seq uint64
	TimeMillis  int64
	Body        []byte // <db>\n<event>\n<key>
	DB, Event   []byte // parts of Body
	Key         []byte
}

// ErrNoRecord is returned by [Decode] for bytes that are no sound record:
// elements of the list may have been written by anybody.
var ErrNoRecord = errors.New("fallback: no event record")

// Decode reads a record without copying.
func Decode(b []byte) (r Record, err error) {
	if len(b) < HeaderSize || b[0] != magic || b[1] != version {
		return r, ErrNoRecord
	}
	body := b[HeaderSize:]
	db, event := uint64(b[2]), uint64(binary.LittleEndian.Uint32(b[4:]))
	key := db + 1 + event + 1
	if db == 0 || key > uint64(len(body)) || body[db] != '\n' || body[key-1] != '\n' {
		return r, ErrNoRecord
	}
	return Record{
		Origin:     binary.LittleEndian.Uint64(b[8:]),
		Seq:        binary.LittleEndian.Uint64(b[16:]),
		TimeMillis: int64(binary.LittleEndian.Uint64(b[24:])),
		Body:       body,
		DB:         body[:db],
		Event:      body[db+1 : key-1],
		Key:        body[key:],
	}, nil
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
