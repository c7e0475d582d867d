// SPDX-License-Identifier: BSD-3-Clause

package fallback

import "testing"

// BenchmarkDecode is what an event costs before it is a message: decoded, and
// its id written.
func BenchmarkDecode(b *testing.B) {
	bytes := encode(0x0123456789abcdef, 1234567, 0, "0", "set", "key:000000012345")
	var id [IDSize]byte
	b.ReportAllocs()
	for b.Loop() {
		r, err := Decode(bytes)
		if err != nil {
			b.Fatal(err)
		}
		r.AppendID(id[:0])
	}
}
