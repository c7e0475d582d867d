// SPDX-License-Identifier: BSD-3-Clause

package fallback

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// A spool file, little-endian; c/spool.h declares the same. Records of both
// versions may be in it.
//
//	16         spoolMark
//	each event its length (4), its check sum (8), its record
//	the end    spoolEnd (4), the number of events (8)
const (
	spoolMark = "key_evt_amqp 1\n\n"
	spoolHead = 4 + 8
	spoolEnd  = math.MaxUint32 // in the place of a length
)

// SpoolDamage is the error for bytes that are not a whole spool file. The events
// before the damage are sound, and the module takes them in, too.
type SpoolDamage struct {
	Offset int64  // where what is wrong begins
	Events uint64 // how many are before it
	Why    string
}

func (d *SpoolDamage) Error() string {
	if d.Offset == 0 {
		return d.Why
	}
	return fmt.Sprintf("at byte %d: %s", d.Offset, d.Why)
}

// SpoolReader reads the events of a spool file, one after another. It holds one
// event at a time, and takes memory for it only as its bytes come: a length in a
// damaged file costs nothing.
type SpoolReader struct {
	in     *bufio.Reader
	record bytes.Buffer
	offset int64 // of what comes next
	events uint64
	err    error
}

// NewSpoolReader returns a reader of the spool file that in is at the start of.
func NewSpoolReader(in io.Reader) *SpoolReader {
	return &SpoolReader{in: bufio.NewReaderSize(in, 1<<16)}
}

// Events is how many events Next has returned.
func (s *SpoolReader) Events() uint64 { return s.events }

// Next returns the next event; its slices are valid until Next is called again.
// Behind the last event of a whole file the error is io.EOF. A file that is cut
// short, changed or something else is a [*SpoolDamage], and any other error is
// that of the reader below. An error is final.
func (s *SpoolReader) Next() (Record, error) {
	if s.err == nil && s.offset == 0 {
		s.err = s.readMark()
	}
	if s.err != nil {
		return Record{}, s.err
	}
	r, err := s.readEvent()
	if err != nil {
		s.err = err
		return Record{}, err
	}
	s.events++
	s.offset += spoolHead + int64(s.record.Len())
	return r, nil
}

func (s *SpoolReader) damage(format string, args ...any) error {
	return &SpoolDamage{s.offset, s.events, fmt.Sprintf(format, args...)}
}

// isEnd reports whether an error of io.ReadFull or io.CopyN is the file's end.
func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

func (s *SpoolReader) readMark() error {
	var mark [len(spoolMark)]byte
	n, err := io.ReadFull(s.in, mark[:])
	switch {
	case err != nil && !isEnd(err):
		return err
	case n == 0:
		return s.damage("the file is empty")
	case string(mark[:n]) == spoolMark[:n] && n < len(mark):
		return s.damage("cut short in its first %d bytes", len(mark))
	case string(mark[:n]) == spoolMark:
		s.offset = int64(n)
		return nil
	}
	const product = len("key_evt_amqp ")
	if n == len(mark) && string(mark[:product]) == spoolMark[:product] {
		return s.damage("not a spool file of version 1: it begins with %q", mark[:n])
	}
	return s.damage("not a spool file: it begins with %q", mark[:n])
}

// readEvent reads an event, or the end.
func (s *SpoolReader) readEvent() (Record, error) {
	var head [spoolHead]byte
	n, err := io.ReadFull(s.in, head[:])
	if err != nil {
		switch {
		case !isEnd(err):
			return Record{}, err
		case n == 0:
			return Record{}, s.damage("cut short: the mark of its end is missing")
		}
		return Record{}, s.damage("cut short behind event %d", s.events)
	}
	size := binary.LittleEndian.Uint32(head[:])
	sum := binary.LittleEndian.Uint64(head[4:])
	if size == spoolEnd {
		return Record{}, s.readEnd(sum)
	}
	if err := s.readRecord(size); err != nil {
		return Record{}, err
	}
	check := fnv.New64a()
	check.Write(s.record.Bytes())
	if got := check.Sum64(); got != sum {
		return Record{}, s.damage("event %d has the check sum %016x, and should have %016x", s.events+1, got, sum)
	}
	r, err := Decode(s.record.Bytes())
	if err != nil {
		return r, s.damage("event %d is not a sound record, though its check sum is right", s.events+1)
	}
	return r, nil
}

func (s *SpoolReader) readRecord(size uint32) error {
	s.record.Reset()
	// A look before memory is taken: a file may have holes.
	first, err := s.in.Peek(1)
	if err == nil && first[0] != magic {
		return s.damage("event %d does not begin as a record does", s.events+1)
	}
	var n int64
	if err == nil {
		n, err = io.CopyN(&s.record, s.in, int64(size))
	}
	if isEnd(err) {
		return s.damage("cut short: of the %d bytes of event %d there are %d", size, s.events+1, n)
	}
	return err
}

// readEnd makes sure of the count, and that nothing follows.
func (s *SpoolReader) readEnd(count uint64) error {
	if count != s.events {
		return s.damage("%d events were written, and %d are there", count, s.events)
	}
	_, err := s.in.ReadByte()
	if err == nil {
		s.offset += spoolHead
		return s.damage("something follows behind the mark of its end")
	}
	return err
}
