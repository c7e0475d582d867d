// SPDX-License-Identifier: BSD-3-Clause

package keymask_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/keymask"
)

// cases is the grammar by example. Tests of the C matcher run it too.
var cases = []struct {
	name    string
	mask    string
	matches []string
	not     []string
}{
	{"empty mask", "", []string{"", "a", "\x00"}, nil},
	{"only a start anchor", "^", []string{"", "a"}, nil},
	{"only an end anchor", "$", []string{"", "a"}, nil},
	{"both anchors, nothing between", "^$", []string{""}, []string{"a", "\n", "\x00", "^$"}},
	{"literal anywhere", "ab", []string{"ab", "xab", "abx", "aab", "xabx"}, []string{"", "a", "b", "ba", "axb"}},
	{"literal longer than a word", "0123456789", []string{"0123456789", "x0123456789y"}, []string{"012345678", "0123456780", "123456789"}},
	{"literal that overlaps itself", "aab", []string{"aaab", "aabaab"}, []string{"aba", "aaa", "abab"}},
	{"literal at the start", "^ab", []string{"ab", "abx"}, []string{"", "a", "xab", "aab"}},
	{"prefix of eight bytes", "^12345678", []string{"12345678", "123456789"}, []string{"1234567", "12345679", "x12345678"}},
	{"prefix of nine bytes", "^123456789", []string{"123456789", "123456789x"}, []string{"12345678", "12345678x", "x23456789"}},
	{"prefix of seventeen bytes", "^0123456789abcdefg", []string{"0123456789abcdefg", "0123456789abcdefgh"}, []string{"0123456789abcdef", "0123456789abcdefx", "0123456x89abcdefg"}},
	{"prefix that ends in NUL", "^a\x00", []string{"a\x00", "a\x00b"}, []string{"a", "ab", ""}},
	{"literal at the end", "ab$", []string{"ab", "xab", "abab"}, []string{"", "b", "abx", "aab "}},
	{"suffix of nine bytes", "123456789$", []string{"123456789", "x123456789"}, []string{"23456789", "x23456789", "123456789x", "123x56789"}},
	{"suffix that begins with NUL", "\x00a$", []string{"\x00a", "x\x00a"}, []string{"a", "ba", ""}},
	{"the whole key", "^ab$", []string{"ab"}, []string{"", "a", "abx", "xab", "abab"}},
	{"the whole key, nine bytes", "^123456789$", []string{"123456789"}, []string{"12345678", "1234567890", "023456789", "123456780"}},
	{"any byte", "a.c", []string{"abc", "a\x00c", "a\nc", "xa\xffc", "a.c"}, []string{"ac", "abbc", ""}},
	{"any byte in a prefix", "^a.c.......k", []string{"abcdefghijk", "a\x00c.......kx"}, []string{"abcdefghij", "abcdefghijx", "abxdefghijk"}},
	{"any byte in a suffix", "a........j$", []string{"abcdefghij", "xa........j"}, []string{"bcdefghij", "abcdefghijk"}},
	{"some byte", ".", []string{"a", "\x00", "abc"}, []string{""}},
	{"some bytes", "...", []string{"abc", "abcd"}, []string{"", "ab"}},
	{"just some bytes", "^...$", []string{"abc"}, []string{"", "ab", "abcd"}},
	{"starred byte", "^ab*c", []string{"ac", "abc", "abbbbc", "acx"}, []string{"ab", "bc", "adc", ""}},
	{"starred byte at the end", "^ab*$", []string{"a", "ab", "abbb"}, []string{"", "b", "aba"}},
	{"starred byte alone", "a*", []string{"", "b", "aaa"}, nil},
	{"starred byte, then the end", "a*$", []string{"", "b", "aaa"}, nil},
	{"only one byte, repeated", "^a*$", []string{"", "a", "aaaa"}, []string{"b", "aab", "aabaa"}},
	{"any bytes between", "^a.*z$", []string{"az", "abz", "azz", "a\x00\nz"}, []string{"a", "z", "", "zaz ", "az "}},
	{"long ends, any bytes between", "^123456789.*abcdefghi$", []string{"123456789abcdefghi", "123456789xabcdefghi"}, []string{"12345678abcdefghi", "123456789bcdefghi", "123456789abcdefgh"}},
	{"ends must not overlap", "^aba.*aba$", []string{"abaaba", "aba aba"}, []string{"aba", "ababa"}},
	{"any bytes between, anywhere", "a.*b.*c", []string{"abc", "xaxbxcx", "acabc"}, []string{"acb", "cba", ""}},
	{"any bytes at the start", "^.*ab", []string{"ab", "xab"}, []string{"", "a"}},
	{"any bytes at the end", "ab.*$", []string{"ab", "abx"}, []string{"", "b"}},
	{"all bytes", "^.*$", []string{"", "a", "\n"}, nil},
	{"stars in a row", "^a*b*c*d$", []string{"d", "ad", "bd", "cd", "aabbccd", "acd"}, []string{"", "bad", "cbd", "ab"}},
	{"star after a starred prefix", "^xa*a*a*y", []string{"xy", "xaay"}, []string{"xby", "axy"}},
	{
		"stars in a row that fill whole words of state",
		"^" + strings.Repeat("a*b*", 40) + strings.Repeat("c*d*", 80) + "e$",
		[]string{"e", "ae", "be", "ade", "abcde", "de"},
		[]string{"", "ca e", "cae", "ea", "a"},
	},
	{"literal star", "*", []string{"*", "a*b"}, []string{"", "a"}},
	{"literal star at the start", "^*", []string{"*", "*a"}, []string{"", "a*"}},
	{"literal star, whole key", "^*$", []string{"*"}, []string{"", "**", "a"}},
	{"starred star", "^**$", []string{"", "*", "***"}, []string{"a", "*a"}},
	{"starred star, then a star", "^***$", []string{"*", "**", "****"}, []string{"", "a", "*a"}},
	{"star after a starred byte", "^a**$", []string{"*", "aa*"}, []string{"", "a", "a**", "aa"}},
	{"caret after the first byte", "a^", []string{"a^", "xa^x"}, []string{"a", "^a", ""}},
	{"caret at the start", "^^", []string{"^", "^a"}, []string{"", "a^"}},
	{"starred caret", "^^*$", []string{"", "^", "^^"}, []string{"a", "^a"}},
	{"dollar inside", "a$b", []string{"a$b", "xa$bx"}, []string{"ab", "a", "$"}},
	{"dollar at the end", "$$", []string{"$", "a$"}, []string{"", "$a"}},
	{"starred dollar", "^a$*$", []string{"a", "a$", "a$$"}, []string{"", "$", "a$b"}},
	{"starred dollar at the end", "^a$*b", []string{"ab", "a$b", "a$$b"}, []string{"a", "a$"}},
	{"dollar before a caret", "$^", []string{"$^"}, []string{"", "^$"}},
	{"the word ALL, parsed", "ALL", []string{"ALL", "xALLx"}, []string{"", "all", "AL"}},
	{"newline and NUL", "^\n\x00.\xff$", []string{"\n\x00a\xff", "\n\x00\n\xff"}, []string{"\n\x00\xff", "\n"}},
	{"no class, no group, no escape", `[a-z](b|c)\.`, []string{`[a-z](b|c)\x`}, []string{"a", "ab."}},
}

func parse(tb testing.TB, texts ...string) []keymask.Mask {
	tb.Helper()
	var masks []keymask.Mask
	for _, text := range texts {
		m, err := keymask.Parse([]byte(text))
		if err != nil {
			tb.Fatalf("Parse(%q): %v", text, err)
		}
		masks = append(masks, m)
	}
	return masks
}

func compile(tb testing.TB, masks ...keymask.Mask) *keymask.Set {
	tb.Helper()
	set, err := keymask.Compile(masks...)
	if err != nil {
		tb.Fatalf("Compile(%q): %v", masks, err)
	}
	return set
}

func TestMasksMatchAsTheGrammarSays(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := parse(t, c.mask)[0]
			check := func(key string, want bool) {
				if got := m.Match([]byte(key)); got != want {
					t.Errorf("mask %q, key %q: Match = %v, want %v", c.mask, key, got, want)
				}
				if got := rules([]byte(c.mask), []byte(key)); got != want {
					t.Errorf("mask %q, key %q: the rules say %v, want %v", c.mask, key, got, want)
				}
			}
			for _, key := range c.matches {
				check(key, true)
			}
			for _, key := range c.not {
				check(key, false)
			}
			if got := m.String(); got != c.mask {
				t.Errorf("Parse(%q).String() = %q", c.mask, got)
			}
		})
	}
}

func TestSetMatchesWhenAnyMaskDoes(t *testing.T) {
	set := compile(t, parse(t, "^user:", "session", ":tmp$")...)
	for key, want := range map[string]bool{
		"user:1": true, "a session": true, "x:tmp": true,
		"xuser:1": false, "x:tmp:": false, "": false,
	} {
		if got := set.Match([]byte(key)); got != want {
			t.Errorf("Match(%q) = %v, want %v", key, got, want)
		}
	}
	if compile(t).Match(nil) {
		t.Error("a set without masks matches the empty key")
	}
}

func TestParseListKnowsAll(t *testing.T) {
	long := bytes.Repeat([]byte("a"), keymask.MaxLen+1)
	for _, c := range []struct {
		name  string
		texts []string
		all   bool
		masks []string
	}{
		{"no texts", nil, false, nil},
		{"two masks", []string{"^a", ""}, false, []string{"^a", ""}},
		{"the same mask twice", []string{"a", "a"}, false, []string{"a", "a"}},
		{"ALL alone", []string{"ALL"}, true, []string{"ALL"}},
		{"ALL among others", []string{"^a", "ALL", "b"}, true, []string{"ALL"}},
		{"ALL voids even a mask that is too long", []string{string(long), "ALL"}, true, []string{"ALL"}},
		{"not the word", []string{"all", "ALL ", "^ALL"}, false, []string{"all", "ALL ", "^ALL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var texts [][]byte
			for _, text := range c.texts {
				texts = append(texts, []byte(text))
			}
			masks, all, err := keymask.ParseList(texts)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range masks {
				got = append(got, m.String())
			}
			if all != c.all || strings.Join(got, ",") != strings.Join(c.masks, ",") || len(got) != len(c.masks) {
				t.Errorf("ParseList(%q) = %q, %v; want %q, %v", c.texts, got, all, c.masks, c.all)
			}
			if all && !compile(t, masks...).Match([]byte("any key")) {
				t.Error("the masks of ALL do not match every key")
			}
		})
	}
}

func TestLimitsAreNamed(t *testing.T) {
	long := bytes.Repeat([]byte("a"), keymask.MaxLen+1)
	if _, err := keymask.Parse(long); !errors.Is(err, keymask.ErrTooLong) || !strings.Contains(err.Error(), "65535") {
		t.Errorf("Parse of %d bytes: error %v", len(long), err)
	}
	if _, _, err := keymask.ParseList([][]byte{[]byte("a"), long}); !errors.Is(err, keymask.ErrTooLong) || !strings.Contains(err.Error(), "mask 2 of 2") {
		t.Errorf("ParseList: error %v", err)
	}
	m, err := keymask.Parse(long[1:])
	if err != nil {
		t.Fatal(err)
	}
	var many []keymask.Mask
	for range keymask.MaxTotal/keymask.MaxLen + 1 {
		many = append(many, m)
	}
	if _, err := keymask.Compile(many...); !errors.Is(err, keymask.ErrTooLong) || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("Compile of %d long masks: error %v", len(many), err)
	}
	if _, err := keymask.Compile(many[1:]...); err != nil {
		t.Errorf("Compile of %d long masks: %v", len(many)-1, err)
	}
}

func TestParseKeepsNoReferenceToItsText(t *testing.T) {
	text := []byte("^ab")
	m, err := keymask.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	copy(text, "xyz")
	if m.String() != "^ab" || !m.Match([]byte("abc")) {
		t.Errorf("after its text was overwritten: %q, Match(%q) = %v", m, "abc", m.Match([]byte("abc")))
	}
}
