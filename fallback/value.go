// SPDX-License-Identifier: BSD-3-Clause

package fallback

import (
	"encoding/binary"
	"math"
)

// Type is the type of a key, by the server's own numbers.
type Type uint8

// The types. None: the event says nothing of a value.
const (
	None Type = iota
	String
	List
	Hash
	Set
	SortedSet
	Module
	Stream
)

var typeNames = [...]string{"", "string", "list", "hash", "set", "zset", "module", "stream"}

// String is the type's name as Redis's command TYPE has it; module types are
// all called module.
func (t Type) String() string { return typeNames[t] }

// Content is what a key holds or held. c/record.h says what Bytes are for each
// type; [Decode] has checked them, so that the methods below need not.
type Content struct {
	Type    Type
	LeftOut bool   // there are no bytes: too large, or of a module's type
	Size    uint64 // bytes of what is left out; 0: not known
	Bytes   []byte
}

func (c *Content) encode(b []byte, kind byte) []byte {
	if c.Type == None {
		return b
	}
	b = appendSection(b, kind, []byte{byte(c.Type)})
	if !c.LeftOut {
		return appendSection(b, kind+1, c.Bytes)
	}
	if c.Size > 0 {
		b = appendSection(b, kind+2, binary.LittleEndian.AppendUint64(nil, c.Size))
	}
	return b
}

// Element cuts the first element off the bytes of a list, a set, or a hash
// (whose elements are fields and values, in pairs).
func Element(b []byte) (element, rest []byte) {
	n := 4 + binary.LittleEndian.Uint32(b)
	return b[4:n:n], b[n:]
}

// Scored cuts the first member and its score off the bytes of a sorted set.
func Scored(b []byte) (score float64, member, rest []byte) {
	score = math.Float64frombits(binary.LittleEndian.Uint64(b))
	member, rest = Element(b[8:])
	return score, member, rest
}

// EntryID cuts the id off the bytes of a stream's last entry; what remains are
// names and values, in pairs of elements. There is none when b is empty.
func EntryID(b []byte) (millis, seq uint64, rest []byte) {
	return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), b[16:]
}

// AppendElement appends an element as the main thread writes it, for tests.
func AppendElement(b []byte, element string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(element))), element...)
}

// sound reports whether the bytes are a value of that type.
func sound(t Type, b []byte) bool {
	switch t {
	case String:
		return true
	case List, Set:
		_, ok := elements(b, 0)
		return ok
	case Hash:
		n, ok := elements(b, 0)
		return ok && n%2 == 0
	case SortedSet:
		_, ok := elements(b, 8)
		return ok
	case Stream:
		if len(b) == 0 {
			return true
		}
		if len(b) < 16 {
			return false
		}
		n, ok := elements(b[16:], 0)
		return ok && n%2 == 0
	}
	return false
}

// elements counts the elements that b consists of, each behind fixed bytes and
// its length; not ok when they are not whole.
func elements(b []byte, fixed int) (n int, ok bool) {
	for ; len(b) > 0; n++ {
		if len(b) < fixed+4 {
			return 0, false
		}
		size := binary.LittleEndian.Uint32(b[fixed:])
		b = b[fixed+4:]
		if uint64(size) > uint64(len(b)) {
			return 0, false
		}
		b = b[size:]
	}
	return n, true
}
