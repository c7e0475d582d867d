// SPDX-License-Identifier: BSD-3-Clause

// automaton.go makes the table of an automaton, a struct kea_block.

package keymask

// bits is a vector of states.
type bits []uint64

func (b bits) set(i int) { b[i/64] |= 1 << (i % 64) }

// blockPayload makes a struct kea_block.
func blockPayload(shapes []shape) []byte {
	states := 0
	for _, s := range shapes {
		states += len(s.items) + 1
	}
	words := (states + 63) / 64
	classOf, classes := classesOf(shapes)
	vectors := make([]bits, 5+classes)
	for i := range vectors {
		vectors[i] = make(bits, words)
	}
	start, again, now, end, star := vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]
	row := vectors[5:]

	at := 0
	for _, s := range shapes {
		open := true // the state is in the closure of the first one
		for i, it := range s.items {
			if open {
				start.set(at + i)
				if !s.atStart {
					again.set(at + i)
				}
			}
			open = open && it.star
			if it.star {
				star.set(at + i)
			}
			if !it.any {
				row[classOf[it.b]].set(at + i)
				continue
			}
			for _, r := range row {
				r.set(at + i)
			}
		}
		final := at + len(s.items)
		if open {
			start.set(final)
			if !s.atStart {
				again.set(final)
			}
		}
		if s.atEnd {
			end.set(final)
		} else {
			now.set(final)
		}
		at = final + 1
	}

	out := u64(make([]byte, 0, 16+256+8*words*len(vectors)), uint64(words), uint64(classes))
	out = append(out, classOf[:]...)
	for _, v := range vectors {
		out = u64(out, v...)
	}
	return out
}

// classesOf gives each byte that occurs in shapes a class of its own, and one
// more to all bytes that do not.
func classesOf(shapes []shape) (classOf [256]byte, classes int) {
	var occurs [256]bool
	for _, s := range shapes {
		for _, it := range s.items {
			if !it.any {
				occurs[it.b] = true
			}
		}
	}
	others := false
	for _, o := range occurs {
		others = others || !o
	}
	if others {
		classes = 1 // class 0, which no byte of a mask has
	}
	for b, o := range occurs {
		if o {
			classOf[b] = byte(classes)
			classes++
		}
	}
	return classOf, classes
}
