// SPDX-License-Identifier: BSD-3-Clause

// agree_test.go holds four matchers against each other: the C one, run from
// compiled programs, the reference, the rules, and regexp.

package keymask_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/keymask"
)

// rulesMax bounds mask length times key length for the slow matchers.
const rulesMax = 1 << 14

// agree fails the test unless all matchers say the same of every key.
func agree(tb testing.TB, c *driver, texts, keys [][]byte) {
	tb.Helper()
	var masks []keymask.Mask
	total := 0
	for _, text := range texts {
		m, err := keymask.Parse(text)
		if err != nil {
			tb.Fatal(err)
		}
		masks = append(masks, m)
		total += len(text)
	}
	set := compile(tb, masks...)
	fromC, refusal := c.match(tb, set.Program(), keys, 1)
	if refusal != "" {
		tb.Fatalf("masks %q: C refuses the program: %s", texts, refusal)
	}
	for i, key := range keys {
		want := set.Match(key)
		if fromC[i] != want {
			tb.Errorf("masks %q, key %q: C says %v, Go says %v", texts, key, fromC[i], want)
		}
		if total*len(key) > rulesMax {
			continue
		}
		byRules, byRegexp := false, false
		for _, text := range texts {
			byRules = byRules || rules(text, key)
			byRegexp = byRegexp || asRegexp(text).MatchString(asRunes(key))
		}
		if byRules != want || byRegexp != want {
			tb.Errorf("masks %q, key %q: Go says %v, the rules say %v, regexp says %v", texts, key, want, byRules, byRegexp)
		}
	}
}

func byteSlices(texts ...string) [][]byte {
	var out [][]byte
	for _, text := range texts {
		out = append(out, []byte(text))
	}
	return out
}

func TestCAgreesWithGoOnTheTable(t *testing.T) {
	c := startDriver(t, sanitize()...)
	var all, keys [][]byte
	for _, row := range cases {
		own := append(byteSlices(row.matches...), byteSlices(row.not...)...)
		agree(t, c, byteSlices(row.mask), own)
		all, keys = append(all, []byte(row.mask)), append(keys, own...)
	}
	agree(t, c, nil, keys)
	agree(t, c, all, keys)
	for i := range all { // every pair of neighbours, so that masks share programs
		agree(t, c, all[i:min(i+2, len(all))], keys)
	}
}

// words returns all words over alphabet of up to n letters.
func words(alphabet string, n int) [][]byte {
	out := [][]byte{{}}
	for from := 0; n > 0; n-- {
		to := len(out)
		for _, w := range out[from:to] {
			for i := range len(alphabet) {
				out = append(out, append(bytes.Clone(w), alphabet[i]))
			}
		}
		from = to
	}
	return out
}

func TestCAgreesWithGoOnAllShortMasks(t *testing.T) {
	c := startDriver(t, sanitize()...)
	keys := words("ab*$^", 3)
	length := 4
	if testing.Short() {
		length = 3
	}
	for _, mask := range words("ab.*^$", length) {
		agree(t, c, [][]byte{mask}, keys)
	}
}

// randomMask makes masks with what our compiler tells apart: anchors, fixed
// ends of all lengths about a word, stars single and in a row.
func randomMask(r *rand.Rand) []byte {
	var out []byte
	if r.IntN(2) == 0 {
		out = append(out, '^')
	}
	n := r.IntN(12)
	if r.IntN(8) == 0 {
		n = r.IntN(300)
	}
	stars, letters := r.IntN(3), "aaabbc.\x00"[:1+r.IntN(8)]
	for range n {
		out = append(out, letters[r.IntN(len(letters))])
		if r.IntN(4) < stars {
			out = append(out, '*')
		}
	}
	if r.IntN(2) == 0 {
		out = append(out, '$')
	}
	return out
}

// likelyKey makes a key that mask matches, more often than not.
func likelyKey(r *rand.Rand, mask []byte) []byte {
	var out []byte
	mask = bytes.TrimSuffix(bytes.TrimPrefix(mask, []byte("^")), []byte("$"))
	for i := 0; i < len(mask); i++ {
		times := 1
		if i+1 < len(mask) && mask[i+1] == '*' {
			times = r.IntN(4)
		}
		for range times {
			b := mask[i]
			if b == '.' {
				b = "abc\x00"[r.IntN(4)]
			}
			out = append(out, b)
		}
		if i+1 < len(mask) && mask[i+1] == '*' {
			i++
		}
	}
	switch r.IntN(6) {
	case 0:
		out = append(out, 'a')
	case 1:
		out = append([]byte{'b'}, out...)
	case 2:
		out = out[:r.IntN(len(out)+1)]
	case 3:
		if len(out) > 0 {
			out[r.IntN(len(out))] = 'c'
		}
	}
	return out
}

func TestCAgreesWithGoOnRandomSets(t *testing.T) {
	c := startDriver(t, sanitize()...)
	r := rand.New(rand.NewPCG(1, 2))
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	for range rounds {
		var masks, keys [][]byte
		for range 1 + r.IntN(10) {
			masks = append(masks, randomMask(r))
		}
		for range 6 {
			keys = append(keys, likelyKey(r, masks[r.IntN(len(masks))]))
		}
		// One at a time first: a set hides what one mask gets wrong.
		agree(t, c, masks[:1], keys)
		agree(t, c, masks, keys)
	}
}

// The reference takes seconds on the longest masks; these answers are known.
func TestCAgreesWithGoOnTheLongestMasks(t *testing.T) {
	c := startDriver(t, sanitize()...)
	repeat := strings.Repeat
	const n = keymask.MaxLen
	for _, row := range []struct{ name, mask, match, not string }{
		{"literal", repeat("a", n), repeat("a", n), repeat("a", n-1)},
		{"any bytes", repeat(".", n), repeat("a", n), repeat("a", n-1)},
		{"prefix", "^" + repeat("a", n-1), repeat("a", n), repeat("a", n-3) + "ba"},
		{"suffix", repeat("a", n-1) + "$", repeat("a", n), "ab" + repeat("a", n-3)},
		{"whole key", "^" + repeat("a", n-2) + "$", repeat("a", n-2), repeat("a", n-1)},
		{"literal and any byte", repeat("ab", n/2) + ".", "ab" + repeat("ab", n/2) + "x", repeat("ab", n/2)},
		{"stars in a row", "^" + repeat("a*b*", (n-3)/4) + "c$", repeat("ab", (n-3)/4) + "c", repeat("ab", (n-3)/4+1) + "c"},
		{"stars apart", "^" + repeat("a*b", 20000) + "$", repeat("ab", 20000), repeat("ab", 20001)},
		{"any bytes and stars, all states busy", repeat("a*b.", 15000) + "$", repeat("aabb", 15000), repeat("aabb", 14999)},
	} {
		set := compile(t, parse(t, row.mask)...)
		got, refusal := c.match(t, set.Program(), byteSlices(row.match, row.not, ""), 1)
		if refusal != "" {
			t.Errorf("%s: C refuses the program: %s", row.name, refusal)
		} else if !got[0] || got[1] || got[2] {
			t.Errorf("%s: C matches %v, want [true false false]", row.name, got)
		}
	}
}

// The stand-alone C test is run here too, with the table as its cases.
func TestCTestPassesWithTheTable(t *testing.T) {
	var in bytes.Buffer
	asHex := func(b []byte) string {
		if len(b) == 0 {
			return "-"
		}
		return hex.EncodeToString(b)
	}
	for _, row := range cases {
		program := asHex(compile(t, parse(t, row.mask)...).Program())
		for _, key := range row.matches {
			fmt.Fprintln(&in, program, asHex([]byte(key)), 1)
		}
		for _, key := range row.not {
			fmt.Fprintln(&in, program, asHex([]byte(key)), 0)
		}
	}
	cmd := exec.Command(compileC(t, "match_test", sanitize()...), "-")
	cmd.Stdin = &in
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("match_test: %v\n%s", err, out)
	}
}

// split cuts one piece of fuzz input into a list, at sep, with at most n parts.
func split(input []byte, sep byte, n int) [][]byte {
	return bytes.SplitN(input, []byte{sep}, n)
}

func FuzzCAgreesWithGo(f *testing.F) {
	for _, row := range cases {
		f.Add([]byte(row.mask), []byte(strings.Join(append(row.matches, row.not...), "|")), byte('|'))
	}
	f.Add([]byte("^user:.*:name$|^user:.*:mail$|^user:.*x"), []byte("user:1:name|user:1:mail|user:|user:x"), byte('|'))
	f.Add([]byte("a|b|c|d|e|f|g.|h*i"), []byte("a|xb|xxg|xxgx|hhi"), byte('|'))
	f.Add([]byte(strings.Repeat("ab*", 70)+"|"+strings.Repeat("a.c", 30)), []byte(strings.Repeat("a", 70)), byte('|'))
	f.Add([]byte("a*a*a*a*b$"), bytes.Repeat([]byte("a"), 5000), byte('|'))
	c := startDriver(f, sanitize()...)
	f.Fuzz(func(t *testing.T, masks, keys []byte, sep byte) {
		if len(masks) > 2000 || len(keys) > 20000 {
			t.Skip("long for the slow matchers; the random tests cover it")
		}
		agree(t, c, split(masks, sep, 20), split(keys, sep, 20))
	})
}

// A program that kea_program_check accepts must be safe to run, whatever it
// says; the sanitizers are the judge.
func FuzzCCheckRefusesWhatIsNotSafe(f *testing.F) {
	for _, mask := range []string{"", "^a", "^123456789", "123456789$", "^123456789.*123456789$", "abc", "a.c", "a*b.*c$", strings.Repeat("ab.", 60), strings.Repeat("ab*", 60) + "c"} {
		for at := uint16(0); at < 192; at += 8 {
			for _, value := range []byte{0, 1, 9, 0xff} {
				f.Add([]byte(mask), append(binary.LittleEndian.AppendUint16(nil, at), value), []byte("123456789abcabcabc"))
			}
		}
	}
	c := startDriver(f, sanitize()...)
	f.Fuzz(func(t *testing.T, masks, patch, key []byte) {
		if len(masks) > 300 || len(key) > 300 {
			t.Skip("larger than needed")
		}
		var parsed []keymask.Mask
		for _, text := range split(masks, '|', 5) {
			m, err := keymask.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, m)
		}
		program := bytes.Clone(compile(t, parsed...).Program())
		for len(patch) >= 3 { // place, value
			at := int(binary.LittleEndian.Uint16(patch)) % (len(program) + 1)
			if at == len(program) { // a place past the end cuts
				program = program[:int(patch[2])*len(program)/255]
				if len(program) == 0 {
					break
				}
			} else {
				program[at] = patch[2]
			}
			patch = patch[3:]
		}
		c.match(t, program, [][]byte{key, nil, key[:len(key)/2]}, 1)
	})
}
