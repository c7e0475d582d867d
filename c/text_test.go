// SPDX-License-Identifier: BSD-3-Clause

package c

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestWhatOthersWroteBecomesOneCleanLine(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{"plain words, ünd Ümläüte", "plain words, ünd Ümläüte"},
		{"two\r\nlines", "two lines"},
		{"\n\n first\t \v\f last \n", "first last"},
		{"a\x00b", "a b"},
		{"\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
		{"bell\a del\x7f", `bell\a del\x7f`},
		{"c1 \u009b31m", `c1 \u009b31m`},
		{"nel\u0085ls\u2028ps\u2029nbsp\u00a0end", "nel ls ps nbsp end"},
		{"turned \u202e around", `turned \u202e around`},
		{"no\u200bwidth\ufeff", `no\u200bwidth\ufeff`},
		{"broken \xff\xc3", `broken \xff\xc3`},
		{"private \ue000", `private \ue000`},
		{"replaced \ufffd", "replaced \ufffd"},
	} {
		if got := oneLine(test.text, 200); got != test.want {
			t.Errorf("%q: got %q, want %q", test.text, got, test.want)
		}
	}
}

func TestALineIsCutBetweenCharacters(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 300), strings.Repeat("ü", 300), strings.Repeat("\x1b", 300),
		strings.Repeat("\xff", 300), strings.Repeat("a\n", 300)} {
		for limit := 20; limit < 40; limit++ {
			got := oneLine(text, limit)
			if len(got) > limit || len(got) < limit-8 || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
				t.Errorf("%.4q… at %d: got %q of %d bytes", text, limit, got, len(got))
			}
		}
	}
	if exact := strings.Repeat("x", 20); oneLine(exact, 20) != exact {
		t.Errorf("a text that fits was cut: %q", oneLine(exact, 20))
	}
}

func FuzzOneLine(f *testing.F) {
	f.Add("two\r\nlines \x1b[2J \xff \u202e", 30)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = 10 + limit&0xfff
		got := oneLine(text, limit)
		if len(got) > limit || !utf8.ValidString(got) {
			t.Errorf("%q at %d: got %q", text, limit, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q at %d: got %q, which has %q", text, limit, got, r)
			}
		}
	})
}
