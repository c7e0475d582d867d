package fallback

import (
	"encoding/binary"
	"testing"
)

// record is one as the main thread writes it.
func record(body string, db, event int) []byte {
	b := make([]byte, HeaderSize, HeaderSize+len(body))
	b[0], b[1], b[2] = magic, version, byte(db)
	binary.LittleEndian.PutUint32(b[4:], uint32(event))
	binary.LittleEndian.PutUint64(b[8:], 0x0123456789abcdef)
	binary.LittleEndian.PutUint64(b[16:], 1234567)
	return append(b, body...)
}

// BenchmarkDecode is what an event costs before it is a message: decoded, and
// its id written.
func BenchmarkDecode(b *testing.B) {
	bytes := record("0\nset\nkey:000000012345", 1, 3)
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
