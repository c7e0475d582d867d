// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quote returns text as it is, and all else in quotes, as redis-cli takes it:
// nobody's key can move the cursor of a terminal, or pass for two columns. Text
// has no space and nothing to be escaped.
func quote(b []byte) []byte {
	quoted := []byte{'"'}
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch at := strings.IndexRune("\"\\\n\r\t\a\b", r); {
		case r < utf8.RuneSelf && at >= 0:
			quoted = append(quoted, '\\', `"\nrtab`[at])
		case r != utf8.RuneError && unicode.IsPrint(r):
			quoted = append(quoted, rest[:n]...)
		default:
			for _, c := range rest[:n] {
				quoted = fmt.Appendf(quoted, `\x%02x`, c)
			}
		}
		rest = rest[n:]
	}
	if len(b) > 0 && len(quoted) == 1+len(b) && !strings.ContainsRune(string(b), ' ') {
		return b
	}
	return append(quoted, '"')
}
