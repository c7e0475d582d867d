// SPDX-License-Identifier: BSD-3-Clause

// compile.go makes, of a set of masks, the table that c/match.c runs. The
// layout is described in c/match.h, and nowhere else.

package keymask

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// MaxTotal is the length of the longest set, in bytes of all its masks. A
// program takes up to 64 bytes for each of them, and usually far less.
const MaxTotal = 1 << 20

const (
	programMagic = "KEAMSK01"
	headerBytes  = 64
	gateBytes    = 64
	blockWords   = 1024      // KEA_BLOCK_WORDS
	spanMax      = 1<<63 - 1 // KEA_GATE_SPAN_MAX: any length
)

// enum kea_gate_kind.
const (
	gateAccept = iota
	gateFixed
	gateScan
	gatePlain
	gateStar
	gateKinds
)

// scanMax is how many literals are searched for one by one. memmem finds one
// string faster, in a long key much faster; an automaton looks for many at
// once.
const scanMax = 2

// Set is a compiled set of masks. It never changes and may be shared.
type Set struct {
	masks   []Mask
	program []byte
}

// Compile makes a set of masks. No masks match no key. Masks longer than
// [MaxTotal] together give [ErrTooLong].
func Compile(masks ...Mask) (*Set, error) {
	total := 0
	for _, m := range masks {
		total += len(m.text)
	}
	if total > MaxTotal {
		return nil, fmt.Errorf("key masks of %d bytes together: %w, the limit is %d", total, ErrTooLong, MaxTotal)
	}
	s := &Set{masks: slices.Clone(masks)}
	s.program = assemble(gatesOf(s.masks))
	return s, nil
}

// Program returns the table for kea_match() in c/match.c: flat, free of
// pointers, to be copied to an address divisible by 8. It belongs to the set
// and must not be written to. It is the same for the same masks in the same
// order.
func (s *Set) Program() []byte { return s.program }

// gate is a struct kea_gate, with what it points to.
type gate struct {
	probe
	min, span uint64
	kind      uint16
	payload   []byte
}

// probe is what a gate asks of the first and last eight bytes of a key, and
// how many bytes that answers for.
type probe struct {
	head, headMask, tail, tailMask uint64
	skipHead, skipTail             uint16
}

// group is what masks must have in common to share an automaton: the gate to
// pass, and whether it has stars, for one without them is faster.
type group struct {
	probe
	kind uint16
}

// member is a mask of a group: its part that the gate does not answer for.
type member struct {
	shape
	minLen int // of the whole mask
}

func gatesOf(masks []Mask) []gate {
	var gates [gateKinds][]gate // cheap ones run first
	var order []group           // the order of masks, to be the same each time
	members := map[group][]member{}
	join := func(in group, ms ...member) {
		if members[in] == nil {
			order = append(order, in)
		}
		members[in] = append(members[in], ms...)
	}

	seen := map[string]bool{}
	for _, m := range masks {
		s := simplify(m.shape)
		id := s.identity()
		if seen[id] {
			continue
		}
		seen[id] = true

		if g, ok := fixedGate(s); ok {
			gates[g.kind] = append(gates[g.kind], g)
			continue
		}
		in, rest := strip(s)
		join(in, member{rest, s.minLen()})
	}
	for _, in := range order { // what join adds to order need not be looked at
		if in.kind == gateScan && len(members[in]) > scanMax {
			join(group{in.probe, gatePlain}, members[in]...)
			members[in] = nil
		}
	}
	for _, in := range order {
		for ms := members[in]; len(ms) > 0; {
			g, n := sharedGate(in, ms)
			gates[in.kind] = append(gates[in.kind], g)
			ms = ms[n:]
		}
	}
	return slices.Concat(gates[:]...)
}

// fixedGate returns the gate of a simplified shape that needs no automaton:
// fixed ends with nothing or anything between.
func fixedGate(s shape) (g gate, ok bool) {
	head, middle, tail := s.ends()
	g = gate{probe: probeOf(head, tail), min: uint64(len(head) + len(tail)), span: spanMax}
	switch {
	case len(middle) == 1 && middle[0] == item{any: true, star: true}:
		// Simplifying has left this only between two ends.
	case len(middle) > 0:
		return gate{}, false
	case s.atStart && s.atEnd:
		g.span = 0
	}
	if len(head) > 8 || len(tail) > 8 {
		g.kind, g.payload = gateFixed, fixedPayload(head, tail)
		g.skipHead, g.skipTail = 0, 0
	}
	return g, true
}

// strip takes off s what a gate answers for. The rest is to be matched with
// what is between the skipped bytes, and may turn out simpler than s: with
// ^user:.*name, the literal "name" is left.
func strip(s shape) (in group, rest shape) {
	head, _, tail := s.ends()
	in.probe = probeOf(head, tail)
	s.items = s.items[in.skipHead : len(s.items)-int(in.skipTail)]
	rest = simplify(s)
	switch {
	case rest.hasStar():
		in.kind = gateStar
	case rest.isLiteral():
		in.kind = gateScan
	default:
		in.kind = gatePlain
	}
	return in, rest
}

// probeOf returns what a gate asks of keys with these ends.
func probeOf(head, tail []item) probe {
	head, tail = head[:min(len(head), 8)], tail[max(0, len(tail)-8):]
	p := probe{skipHead: uint16(len(head)), skipTail: uint16(len(tail))}
	p.head, p.headMask = word(head)
	p.tail, p.tailMask = word(tail)
	if n := len(tail); n > 0 {
		p.tail <<= 8 * (8 - n)
		p.tailMask <<= 8 * (8 - n)
	}
	return p
}

// word packs up to eight items that match one byte each, the first lowest.
func word(items []item) (bits, mask uint64) {
	for i, it := range items {
		if !it.any {
			bits |= uint64(it.b) << (8 * i)
			mask |= 0xff << (8 * i)
		}
	}
	return bits, mask
}

func scanPayload(s shape) []byte {
	out := u64(nil, uint64(len(s.items)))
	for _, it := range s.items {
		out = append(out, it.b)
	}
	return pad(out)
}

func fixedPayload(head, tail []item) []byte {
	out := u64(nil, uint64(len(head)), uint64(len(tail)))
	for _, items := range [][]item{head, tail} {
		if len(items) <= 8 {
			continue
		}
		for at := 0; at < len(items); at += 8 {
			from := min(at, len(items)-8)
			bits, mask := word(items[from : from+8])
			out = u64(out, bits, mask)
		}
	}
	return out
}

// sharedGate makes a gate for as many of ms, one at least, as can share it,
// and returns how many they are.
func sharedGate(in group, ms []member) (g gate, n int) {
	g = gate{probe: in.probe, span: spanMax, kind: in.kind, min: uint64(ms[0].minLen)}
	if in.kind == gateScan {
		g.payload = scanPayload(ms[0].shape)
		return g, 1
	}
	var shapes []shape
	states := 0
	for _, m := range ms {
		states += len(m.items) + 1
		if states > 64*blockWords {
			break
		}
		shapes = append(shapes, m.shape)
		g.min = min(g.min, uint64(m.minLen))
	}
	g.payload = blockPayload(shapes)
	return g, len(shapes)
}

// assemble puts the program together: header, gates, payloads.
func assemble(gates []gate) []byte {
	at := headerBytes + gateBytes*len(gates)
	size := at
	for _, g := range gates {
		size += len(g.payload)
	}
	out := make([]byte, 0, size)
	out = append(out, programMagic...)
	out = u64(out, uint64(size), uint64(len(gates)), 0, 0, 0, 0, 0)
	for _, g := range gates {
		kind := uint64(g.kind) | uint64(g.skipHead)<<16 | uint64(g.skipTail)<<32
		out = u64(out, g.head, g.headMask, g.tail, g.tailMask, g.min, g.span, kind, uint64(at))
		at += len(g.payload)
	}
	for _, g := range gates {
		out = append(out, g.payload...)
	}
	return out
}

func u64(out []byte, words ...uint64) []byte {
	for _, w := range words {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return out
}

func pad(out []byte) []byte {
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	return out
}
