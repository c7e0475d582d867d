// SPDX-License-Identifier: BSD-3-Clause

// parse.go reads a mask's text into the items to be matched in order.

package keymask

import (
	"errors"
	"fmt"
)

// MaxLen is the length of the longest mask, in bytes.
const MaxLen = 65535

// ErrTooLong is returned, wrapped with the figures, for a mask longer than
// [MaxLen], and by [Compile] for masks longer than [MaxTotal] together.
var ErrTooLong = errors.New("too long")

// all is the word that, as a whole mask, stands for every key.
const all = "ALL"

// Mask is one parsed mask. The zero Mask is the empty one: it matches every
// key. Masks are values and never change.
type Mask struct {
	text string
	shape
}

// shape is what a mask asks of a key: items, one after the other, from the
// key's start if atStart, up to its end if atEnd.
type shape struct {
	atStart, atEnd bool
	items          []item
}

// item is one byte to match, or a run of them.
type item struct {
	b    byte // the byte, unless any
	any  bool // any byte will do; b is then zero, so that items compare
	star bool // zero or more times, not once
}

func (it item) matches(b byte) bool { return it.any || it.b == b }

// Parse reads one mask and keeps no reference to text. Every text up to
// [MaxLen] bytes is a mask; a longer one gives [ErrTooLong]. The text ALL is
// the literal three letters here: the keyword belongs to [ParseList].
func Parse(text []byte) (Mask, error) {
	if len(text) > MaxLen {
		return Mask{}, fmt.Errorf("key mask of %d bytes: %w, the limit is %d", len(text), ErrTooLong, MaxLen)
	}
	m := Mask{text: string(text)}
	rest := m.text
	if rest != "" && rest[0] == '^' {
		m.atStart = true
		rest = rest[1:]
	}
	for i := 0; i < len(rest); i++ {
		it := item{b: rest[i]}
		if it.b == '.' {
			it = item{any: true}
		}
		switch {
		case i+1 < len(rest) && rest[i+1] == '*':
			it.star = true
			i++
		case it.b == '$' && i+1 == len(rest):
			m.atEnd = true
			continue
		}
		m.items = append(m.items, it)
	}
	return m, nil
}

// ParseList reads a list of masks. When one of them is exactly ALL, the others
// are void, well-formed or not: all is true, and masks holds a single mask
// whose text is ALL and that matches every key, so a caller may compile masks
// without looking at all. Without texts there are no masks, and nothing
// matches.
func ParseList(texts [][]byte) (masks []Mask, isAll bool, err error) {
	for _, text := range texts {
		if string(text) == all {
			return []Mask{{text: all}}, true, nil
		}
	}
	for i, text := range texts {
		m, err := Parse(text)
		if err != nil {
			return nil, false, fmt.Errorf("mask %d of %d: %w", i+1, len(texts), err)
		}
		masks = append(masks, m)
	}
	return masks, false, nil
}

// String returns the text that the mask was parsed from.
func (m Mask) String() string { return m.text }
