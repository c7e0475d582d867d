// SPDX-License-Identifier: BSD-3-Clause

package fallback

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"testing"
)

// encode writes a record of version 1.
func encode(origin, seq uint64, ms int64, db, event, key string) []byte {
	r := Record{Origin: origin, Seq: seq, TimeMillis: ms, DB: []byte(db), Event: []byte(event), Key: []byte(key)}
	return r.Encode()
}

func TestDecodeReadsWhatWasWritten(t *testing.T) {
	for _, key := range []string{"", "k", "a\x00b", "line\nbreak", "\n"} {
		r, err := Decode(encode(0xabc, 42, 1700000000123, "15", "set", key))
		if err != nil {
			t.Fatalf("key %q: %v", key, err)
		}
		if string(r.DB) != "15" || string(r.Event) != "set" || string(r.Key) != key || r.TimeMillis != 1700000000123 {
			t.Errorf("key %q: got %+v", key, r)
		}
		if got, want := string(r.AppendID(nil)), "0000000000000abc-42"; got != want {
			t.Errorf("id: got %q, want %q", got, want)
		}
	}
}

func TestIDFitsItsSize(t *testing.T) {
	r := Record{Origin: 1<<64 - 1, Seq: 1<<64 - 1}
	if n := len(r.AppendID(nil)); n != IDSize {
		t.Errorf("the longest id has %d bytes, IDSize says %d", n, IDSize)
	}
}

// rich is an event with all that one can carry.
func rich() *Record {
	hash := AppendElement(AppendElement(nil, "field"), "value")
	return &Record{
		Origin: 1, Seq: 2, TimeMillis: 3, DB: []byte("0"), Event: []byte("expired"), Key: []byte("key"),
		Now: Content{Type: Hash, Bytes: hash}, Old: Content{Type: String, LeftOut: true, Size: 70000}, DueMillis: 1767323045006,
	}
}

func TestDecodeReadsSections(t *testing.T) {
	stream := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 1767323045006), 7)
	stream = AppendElement(AppendElement(stream, "name"), "")
	zset := append(binary.LittleEndian.AppendUint64(nil, math.Float64bits(-1.5)), AppendElement(nil, "m")...)
	contents := []Content{
		{},
		{Type: String, Bytes: []byte{}},
		{Type: String, Bytes: []byte("a\x00\n\xff")},
		{Type: String, LeftOut: true, Size: 1 << 40},
		{Type: List, Bytes: []byte{}},
		{Type: Set, Bytes: AppendElement(nil, "")},
		{Type: Hash, LeftOut: true},
		{Type: SortedSet, Bytes: zset},
		{Type: Stream, Bytes: stream},
		{Type: Stream, Bytes: []byte{}},
		{Type: Module, LeftOut: true},
	}
	for _, now := range contents {
		for _, old := range contents {
			for _, due := range []int64{0, -1, 1767323045006} {
				want := rich()
				want.Now, want.Old, want.DueMillis = now, old, due
				got, err := Decode(want.Encode())
				if err != nil {
					t.Fatalf("%+v: %v", want, err)
				}
				if want.Body = got.Body; string(want.Body) != "0\nexpired\nkey" || !reflect.DeepEqual(&got, want) {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
		}
	}
	if ms, seq, rest := EntryID(stream); ms != 1767323045006 || seq != 7 || len(rest) != 12 {
		t.Errorf("the stream's entry is %d-%d with %d bytes", ms, seq, len(rest))
	}
	if score, member, rest := Scored(zset); score != -1.5 || string(member) != "m" || len(rest) != 0 {
		t.Errorf("the member is %q, %v, and %d bytes remain", member, score, len(rest))
	}
}

// A later version may have more to say; what we know of it must arrive.
func TestSectionsOfLaterVersionsAreSkipped(t *testing.T) {
	b := appendSection(rich().Encode(), 200, []byte("what"))
	r, err := Decode(b)
	if err != nil || r.DueMillis != 1767323045006 || r.Old.Size != 70000 {
		t.Errorf("got %+v, error %v", r, err)
	}
	for kind := range byte(sectionDue + 1) {
		if _, err := Decode(appendSection(rich().Encode(), kind, nil)); err == nil {
			t.Errorf("a second section of kind %d is taken", kind)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, whole := range [][]byte{encode(1, 2, 3, "0", "expired", "key"), rich().Encode()} {
		for i := range whole {
			f.Add(whole[:i])
		}
		f.Add(whole)
		huge := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(huge[4:], 1<<32-1)
		f.Add(huge)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(r.Encode())
		if err != nil || !reflect.DeepEqual(again.Now, r.Now) || !reflect.DeepEqual(again.Old, r.Old) ||
			again.DueMillis != r.DueMillis || !bytes.Equal(again.Body, r.Body) {
			t.Errorf("decoded %q as %+v, which encodes to %+v, error %v", b, r, again, err)
		}
		if plain := b[1] == 1; plain && b[3] == 0 && !bytes.Equal(r.Encode(), b) {
			t.Errorf("decoded %q, which encodes as %q", b, r.Encode())
		}
		walk(&r.Now)
		walk(&r.Old)
	})
}

// walk reads a value to its end: the methods trust what Decode let through.
func walk(c *Content) {
	b := c.Bytes
	if c.LeftOut {
		return
	}
	switch c.Type {
	case List, Set, Hash:
	case SortedSet:
		for len(b) > 0 {
			_, _, b = Scored(b)
		}
	case Stream:
		if len(b) > 0 {
			_, _, b = EntryID(b)
		}
	default:
		return
	}
	for len(b) > 0 {
		_, b = Element(b)
	}
}
