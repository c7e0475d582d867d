package fallback

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// encode writes a record as c/hook.c does.
func encode(origin, seq uint64, ms int64, db, event, key string) []byte {
	b := make([]byte, HeaderSize)
	b[0], b[1], b[2] = magic, version, byte(len(db))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(event)))
	binary.LittleEndian.PutUint64(b[8:], origin)
	binary.LittleEndian.PutUint64(b[16:], seq)
	binary.LittleEndian.PutUint64(b[24:], uint64(ms))
	return append(b, db+"\n"+event+"\n"+key...)
}

func TestDecodeReadsWhatWasWritten(t *testing.T) {
	for _, key := range []string{"", "k", "a\x00b", "line\nbreak", "\n"} {
		r, err := Decode(encode(0xabc, 42, 1700000000123, "15", "set", key))
		if err != nil {
			t.Fatalf("key %q: %v", key, err)
		}
		if string(r.DB) != "15" || string(r.Event) != "set" || string(r.Key) != key || r.TimeMillis != 1700000000123 {
			t.Errorf("key %q: got %+v", key, r)
		}
		if got, want := string(r.AppendID(nil)), "0000000000000abc-42"; got != want {
			t.Errorf("id: got %q, want %q", got, want)
		}
	}
}

func TestIDFitsItsSize(t *testing.T) {
	r := Record{Origin: 1<<64 - 1, Seq: 1<<64 - 1}
	if n := len(r.AppendID(nil)); n != IDSize {
		t.Errorf("the longest id has %d bytes, IDSize says %d", n, IDSize)
	}
}

func FuzzDecode(f *testing.F) {
	whole := encode(1, 2, 3, "0", "expired", "key")
	for i := range whole {
		f.Add(whole[:i])
	}
	f.Add(whole)
	huge := bytes.Clone(whole)
	binary.LittleEndian.PutUint32(huge[4:], 1<<32-1)
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again := encode(r.Origin, r.Seq, r.TimeMillis, string(r.DB), string(r.Event), string(r.Key))
		if b[3] == 0 && !bytes.Equal(again, b) {
			t.Errorf("decoded %q, which encodes as %q", b, again)
		}
	})
}
