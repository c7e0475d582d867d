// SPDX-License-Identifier: BSD-3-Clause

// simplify.go turns a mask into an equal one that is easier to run, and takes
// off its fixed ends.

package keymask

import "slices"

// simplify returns a shape that matches the same keys. Stars that change
// nothing are gone, so that what is left of them does need an automaton:
//
//   - x*x* is x*, and a .* swallows the stars beside it;
//   - neither ^.* at the start nor .*$ at the end is an anchor;
//   - a star at an end without an anchor may as well match nothing;
//   - any bytes, as in "...", are as good at the start as elsewhere.
func simplify(s shape) shape {
	var items []item
	for _, it := range s.items {
		if it.star {
			top := func() item { return items[len(items)-1] }
			if len(items) > 0 && top().star && (top().any || top() == it) {
				continue
			}
			for it.any && len(items) > 0 && top().star {
				items = items[:len(items)-1]
			}
		}
		items = append(items, it)
	}
	anyStar := item{any: true, star: true}
	if len(items) > 0 && items[0] == anyStar {
		s.atStart = false
	}
	for !s.atStart && len(items) > 0 && items[0].star {
		items = items[1:]
	}
	if len(items) > 0 && items[len(items)-1] == anyStar {
		s.atEnd = false
	}
	for !s.atEnd && len(items) > 0 && items[len(items)-1].star {
		items = items[:len(items)-1]
	}
	if len(items) == 0 && !(s.atStart && s.atEnd) {
		return shape{} // every key
	}
	s.items = items
	if !s.atEnd && !slices.ContainsFunc(items, func(it item) bool { return it != item{any: true} }) {
		s.atStart = true
	}
	return s
}

// ends returns the items that every matching key must begin and end with, and
// those between. Items that are fixed at both ends of the key are all in head.
// If s has no anchor at an end, nothing is fixed there.
func (s shape) ends() (head, middle, tail []item) {
	from, to := 0, len(s.items)
	for s.atStart && from < to && !s.items[from].star {
		from++
	}
	for s.atEnd && to > from && !s.items[to-1].star {
		to--
	}
	return s.items[:from], s.items[from:to], s.items[to:]
}

// isLiteral reports whether s is a string to be found anywhere in the key.
func (s shape) isLiteral() bool {
	return !s.atStart && !s.atEnd && len(s.items) > 0 &&
		!slices.ContainsFunc(s.items, func(it item) bool { return it.any || it.star })
}

// hasStar reports whether s can match keys of any length by its items alone.
func (s shape) hasStar() bool {
	return slices.ContainsFunc(s.items, func(it item) bool { return it.star })
}

// minLen is the length of the shortest key that matches.
func (s shape) minLen() int {
	n := 0
	for _, it := range s.items {
		if !it.star {
			n++
		}
	}
	return n
}

// identity is the same for shapes that are the same.
func (s shape) identity() string {
	flag := func(on bool, value byte) byte {
		if on {
			return value
		}
		return 0
	}
	id := []byte{flag(s.atStart, 1) | flag(s.atEnd, 2)}
	for _, it := range s.items {
		id = append(id, flag(it.any, 1)|flag(it.star, 2), it.b)
	}
	return string(id)
}
