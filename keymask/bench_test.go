// SPDX-License-Identifier: BSD-3-Clause

package keymask_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/keymask"
)

// many makes n masks of a format.
func many(n int, format string) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// BenchmarkMatch reports the time to match one key, by kind of mask and length
// of key, for C as the server runs it and for the reference. None of the keys
// match except where the name says so, so every mask is tried to its end.
func BenchmarkMatch(b *testing.B) {
	kinds := []struct {
		name  string
		masks []string
	}{
		{"all (matches)", []string{""}},
		{"prefix", []string{"^user:"}},
		{"suffix", []string{":name$"}},
		{"whole key", []string{"^user:1:name$"}},
		{"both ends", []string{"^session:.*:name$"}},
		{"literal", []string{"name"}},
		{"any byte inside", []string{"n.me"}},
		{"star, other prefix", []string{"^user:.*name"}},
		{"star, same prefix", []string{"^session:.*name"}},
		{"star, anywhere", []string{"use*r:.*name"}},
		{"hostile", []string{"a*a*a*a*b$"}},
		{"hostile, anchored", []string{"^a*s*e*b"}},
		{"longer than a word", []string{strings.Repeat("se*ss.*n", 12)}},
		{"100 prefixes", many(100, "^user:%d:")},
		{"100 suffixes", many(100, ":user%d$")},
		{"100 both ends", many(100, "^user%d:.*:name$")},
		{"100 literals", many(100, "user%d")},
		{"100 stars, other prefixes", many(100, "^user%d:.*name")},
		{"100 stars, same prefix", many(100, "^session:.*name%d")},
		{"100 stars, anywhere", many(100, "user%d.*name")},
	}
	c := startDriver(b, "-O2")
	for _, kind := range kinds {
		set := compile(b, parse(b, kind.masks...)...)
		for _, n := range []int{8, 32, 256, 20480} {
			key := []byte(strings.Repeat("session:0123456789:abcdef", 1+n/25)[:n])
			if strings.HasPrefix(kind.name, "hostile") {
				key = []byte(strings.Repeat("a", n))
			}
			report := func(b *testing.B) {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(kind.masks)), "ns/mask")
			}
			b.Run(fmt.Sprintf("C/%s/%d", kind.name, n), func(b *testing.B) {
				c.match(b, set.Program(), [][]byte{key}, b.N)
				report(b)
			})
			b.Run(fmt.Sprintf("Go/%s/%d", kind.name, n), func(b *testing.B) {
				for range b.N {
					set.Match(key)
				}
				report(b)
			})
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	masks := parse(b, many(100, "^user%d:.*name")...)
	for b.Loop() {
		if _, err := keymask.Compile(masks...); err != nil {
			b.Fatal(err)
		}
	}
}
