// SPDX-License-Identifier: BSD-3-Clause

// oracle_test.go holds two other readings of the grammar, to hold ours against.

package keymask_test

import (
	"regexp"
	"strings"
)

// rules is the grammar of doc.go written down as directly as possible: Pike's
// matchhere, on the mask's own text, with a table of what is known so that it
// ends. It shares no code with the package.
func rules(mask, key []byte) bool {
	type place struct{ mask, key int }
	known := map[place]bool{}
	var here func(i, j int) bool
	here = func(i, j int) (ok bool) {
		if seen, is := known[place{i, j}]; is {
			return seen
		}
		defer func() { known[place{i, j}] = ok }()

		if i == len(mask) {
			return true
		}
		matches := j < len(key) && (mask[i] == '.' || mask[i] == key[j])
		if i+1 < len(mask) && mask[i+1] == '*' {
			return here(i+2, j) || matches && here(i, j+1)
		}
		if mask[i] == '$' && i+1 == len(mask) {
			return j == len(key)
		}
		return matches && here(i+1, j+1)
	}
	if len(mask) > 0 && mask[0] == '^' {
		return here(1, 0)
	}
	for j := 0; j <= len(key); j++ {
		if here(0, j) {
			return true
		}
	}
	return false
}

// asRegexp translates a mask. Each byte stands as the rune of its value, on
// both sides, because regexp works on runes.
func asRegexp(mask []byte) *regexp.Regexp {
	var out strings.Builder
	out.WriteString("(?s)")
	rest := mask
	if len(rest) > 0 && rest[0] == '^' {
		out.WriteString(`\A`)
		rest = rest[1:]
	}
	for len(rest) > 0 {
		starred := len(rest) > 1 && rest[1] == '*'
		switch {
		case !starred && string(rest) == "$":
			out.WriteString(`\z`)
		case rest[0] == '.':
			out.WriteString(".")
		default:
			out.WriteString(regexp.QuoteMeta(string(rune(rest[0]))))
		}
		rest = rest[1:]
		if starred {
			out.WriteString("*")
			rest = rest[1:]
		}
	}
	return regexp.MustCompile(out.String())
}

// asRunes is the key for asRegexp.
func asRunes(key []byte) string {
	runes := make([]rune, len(key))
	for i, b := range key {
		runes[i] = rune(b)
	}
	return string(runes)
}
