// SPDX-License-Identifier: BSD-3-Clause

// match.go is the reference matcher: the plainest one that is linear. The
// server runs c/match.c instead; the two are held against each other by tests.

package keymask

// Match reports whether the mask matches key.
func (m Mask) Match(key []byte) bool {
	ok, _ := m.simulate(key)
	return ok
}

// Match reports whether any mask of the set matches key.
func (s *Set) Match(key []byte) bool {
	for _, m := range s.masks {
		if m.Match(key) {
			return true
		}
	}
	return false
}

// simulate runs all possible matches side by side. Being in state i means that
// some way of matching has dealt with the items before i. It also returns the
// number of states it looked at, never more than (len(key)+1) times the number
// of states, so that the time bound can be tested without a clock.
func (s shape) simulate(key []byte) (ok bool, steps int) {
	final := len(s.items)
	in := make([]bool, final+1)
	next := make([]bool, final+1)

	in[0] = true
	for at := 0; ; at++ {
		// A starred item may match nothing, so its state is the next one too.
		// Going from the left, one pass sees them all.
		for i, it := range s.items {
			if in[i] && it.star {
				in[i+1] = true
			}
		}
		steps += final + 1
		if in[final] && (!s.atEnd || at == len(key)) {
			return true, steps
		}
		if at == len(key) {
			return false, steps
		}
		clear(next)
		for i, it := range s.items {
			if !in[i] || !it.matches(key[at]) {
				continue
			}
			if it.star {
				next[i] = true
			} else {
				next[i+1] = true
			}
		}
		if !s.atStart {
			next[0] = true // a match may begin at any byte
		}
		in, next = next, in
	}
}
