// SPDX-License-Identifier: BSD-3-Clause

package fallback

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// spoolFile writes a spool file.
func spoolFile(records ...[]byte) []byte {
	b := []byte(spoolMark)
	for _, r := range records {
		b = appendEvent(b, r)
	}
	return appendEnd(b, uint64(len(records)))
}

func appendEvent(b, record []byte) []byte {
	sum := fnv.New64a()
	sum.Write(record)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(record)))
	return append(binary.LittleEndian.AppendUint64(b, sum.Sum64()), record...)
}

func appendEnd(b []byte, count uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(b, spoolEnd), count)
}

// readSpool reads to the end.
func readSpool(in io.Reader) (events []Record, err error) {
	s := NewSpoolReader(in)
	for {
		r, err := s.Next()
		if err != nil {
			if _, again := s.Next(); again != err {
				return events, errors.New("the error is not final")
			}
			if s.Events() != uint64(len(events)) {
				return events, errors.New("Events is wrong")
			}
			return events, err
		}
		events = append(events, cloned(r))
	}
}

// cloned is a record that outlives its bytes.
func cloned(r Record) Record {
	key := len(r.DB) + 1 + len(r.Event) + 1
	r.Body = bytes.Clone(r.Body)
	r.DB, r.Event, r.Key = r.Body[:len(r.DB)], r.Body[len(r.DB)+1:key-1], r.Body[key:]
	r.Now.Bytes, r.Old.Bytes = bytes.Clone(r.Now.Bytes), bytes.Clone(r.Old.Bytes)
	return r
}

func TestSpoolIsReadAsItWasWritten(t *testing.T) {
	large := Record{Seq: 3, DB: []byte("0"), Event: []byte("set"), Key: bytes.Repeat([]byte("k"), 300000)}
	written := [][]byte{encode(1, 1, 1700000000123, "15", "set", "a\x00\n"), rich().Encode(), large.Encode(), encode(1, 4, 0, "0", "del", "")}
	for n := range len(written) + 1 {
		file := spoolFile(written[:n]...)
		for name, in := range map[string]io.Reader{
			"at once":       bytes.NewReader(file),
			"byte by byte":  iotest.OneByteReader(bytes.NewReader(file)),
			"end with data": iotest.DataErrReader(bytes.NewReader(file)),
		} {
			events, err := readSpool(in)
			if err != io.EOF || len(events) != n {
				t.Fatalf("%s: %d events, error %v, want %d and EOF", name, len(events), err, n)
			}
			for i, got := range events {
				if want, _ := Decode(written[i]); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: event %d is %+v, want %+v", name, i+1, got, want)
				}
			}
		}
	}
}

func TestSpoolDamageIsNamed(t *testing.T) {
	one, two := encode(1, 1, 0, "0", "set", "a"), rich().Encode()
	whole := spoolFile(one, two)
	second := len(spoolMark) + spoolHead + len(one)
	end := len(whole) - spoolHead
	changed := func(where int, with ...byte) []byte {
		b := bytes.Clone(whole)
		copy(b[where:], with)
		return b
	}
	alien := bytes.Clone(one)
	alien[1] = 9
	for _, test := range []struct {
		name   string
		file   []byte
		events uint64
		says   string
	}{
		{"empty", nil, 0, "the file is empty"},
		{"cut in its mark", whole[:7], 0, "cut short in its first 16 bytes"},
		{"an RDB", []byte("REDIS0011\xfa\x09redis-ver"), 0, `not a spool file: it begins with "REDIS0011\xfa\tredis"`},
		{"a short text", []byte("hello\n"), 0, `not a spool file: it begins with "hello\n"`},
		{"of a later version", changed(13, '2'), 0, `not a spool file of version 1: it begins with "key_evt_amqp 2\n\n"`},
		{"only its mark", whole[:16], 0, "at byte 16: cut short: the mark of its end is missing"},
		{"cut in a head", whole[:second+5], 1, "at byte 67: cut short behind event 1"},
		{"cut in an event", whole[:second+spoolHead+9], 1, "at byte 67: cut short: of the 114 bytes of event 2 there are 9"},
		{"cut behind a head", whole[:second+spoolHead], 1, "at byte 67: cut short: of the 114 bytes of event 2 there are 0"},
		{"a bit flipped in an event", changed(second+40, whole[second+40]^1), 1, "at byte 67: event 2 has the check sum "},
		{"another check sum", changed(second+4, 1, 2, 3, 4, 5, 6, 7, 8), 1, "and should have 0807060504030201"},
		{"a length beyond its end", changed(second, 254, 255, 255, 255), 1, "at byte 67: cut short: of the 4294967294 bytes of event 2 there are 126"},
		{"a hole", changed(second, make([]byte, 30)...), 1, "at byte 67: event 2 does not begin as a record does"},
		{"a record of a later version", spoolFile(one, alien), 1, "at byte 67: event 2 is not a sound record, though its check sum is right"},
		{"without its end", whole[:end], 2, "cut short: the mark of its end is missing"},
		{"cut in its end", whole[:end+3], 2, "cut short behind event 2"},
		{"with another count", changed(end+4, 7), 2, "7 events were written, and 2 are there"},
		{"with something behind its end", append(bytes.Clone(whole), 0), 2, "something follows behind the mark of its end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			events, err := readSpool(bytes.NewReader(test.file))
			var damage *SpoolDamage
			if !errors.As(err, &damage) {
				t.Fatalf("got the error %v, want damage", err)
			}
			if !strings.Contains(damage.Error(), test.says) {
				t.Errorf("it says %q, want %q", damage, test.says)
			}
			if damage.Events != test.events || uint64(len(events)) != test.events {
				t.Errorf("%d events are read, and it says %d, want %d", len(events), damage.Events, test.events)
			}
		})
	}
}

// A disk that fails is not a file that is damaged.
func TestSpoolReadErrorIsPassedOn(t *testing.T) {
	broken := errors.New("the disk is broken")
	whole := spoolFile(encode(1, 1, 0, "0", "set", "a"), rich().Encode())
	for n := range len(whole) + 1 {
		_, err := readSpool(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken)))
		if err != broken {
			t.Errorf("behind %d of %d bytes: %v, want %v", n, len(whole), err, broken)
		}
	}
}

// Memory is taken for bytes, not for lengths.
func TestSpoolLengthsTakeNoMemory(t *testing.T) {
	file := binary.LittleEndian.AppendUint32([]byte(spoolMark), spoolEnd-1)
	file = append(file, 1, 2, 3, 4, 5, 6, 7, 8, magic)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readSpool(bytes.NewReader(file))
	runtime.ReadMemStats(&after)
	if err == nil || err == io.EOF {
		t.Fatalf("got the error %v, want damage", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were taken for a file of %d", took, len(file))
	}
}
