// SPDX-License-Identifier: BSD-3-Clause

package c

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Most bytes of a text on its way out of the module. The server cuts a line of
// its log at 1024, its own part included; INFO has room for 255.
const (
	maxLogLine = 900
	maxInfo    = 255
	maxReply   = 1024
)

// oneLine makes a text that somebody else may have written (a broker, a node, a
// file, a client) fit to be shown: one line of at most limit bytes, valid UTF-8,
// nothing in it that a terminal obeys or a reader can't see. Runs of blanks and
// line ends become one blank; what can't be printed is spelled out as \x1b or
// \u202e, what is not UTF-8 byte by byte.
func oneLine(text string, limit int) string {
	const more = "…"
	var b strings.Builder
	blank := false
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		piece := text[i : i+size]
		i += size
		if r != utf8.RuneError && unicode.IsSpace(r) || r == 0 {
			blank = b.Len() > 0
			continue
		}
		switch {
		case r == utf8.RuneError && size == 1:
			piece = `\x` + strconv.FormatUint(0x100|uint64(piece[0]), 16)[1:]
		case !unicode.IsPrint(r):
			piece = strings.Trim(strconv.QuoteRuneToASCII(r), "'")
		}
		if blank {
			piece = " " + piece
			blank = false
		}
		if b.Len()+len(piece) > limit-len(more) && b.Len()+len(piece)+len(text)-i > limit {
			return b.String() + more
		}
		b.WriteString(piece)
	}
	return b.String()
}
