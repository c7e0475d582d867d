// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// script is a broker that has said all it will, whatever it hears; what it
// hears is kept.
type script struct {
	io.Reader
	mu    sync.Mutex
	heard bytes.Buffer
}

func (s *script) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := len(b)
	for len(b) > 0 { // a socket may take its time
		n := min(len(b), 5000)
		s.heard.Write(b[:n])
		b = b[n:]
		time.Sleep(time.Microsecond)
	}
	return whole, nil
}
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// The library's frames come between messages, never within one, however large
// they are and however the library cuts its own.
func TestTheLibrarysFramesComeBetweenMessages(t *testing.T) {
	s := &script{Reader: bytes.NewReader(nil)}
	c := &amqpConnection{channel: 1}
	c.conn = newConn(s, s, 100, &c.sent)
	c.opened = true
	r := rand.New(rand.NewPCG(3, 3))
	var library sync.WaitGroup
	done := make(chan struct{})
	library.Add(1)
	go func() {
		defer library.Done()
		beat, close := appendFrame(nil, frameHeartbeat, 0, nil), methodFrame(1, channelCloseOK)
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			for _, b := range [][]byte{beat, close} {
				cut := i % len(b)
				for _, piece := range [][]byte{b[:cut], b[cut:]} {
					if _, err := c.Write(piece); err != nil {
						t.Error(err)
					}
				}
			}
			time.Sleep(time.Microsecond)
		}
	}()
	cfg := &Config{Exchange: "amq.direct"}
	const messages = 200
	for range messages {
		if err := c.publish(cfg, &Message{ID: "id", Body: make([]byte, r.IntN(3)*r.IntN(300_000))}); err != nil {
			t.Fatal(err)
		}
		if r.IntN(3) == 0 {
			if err := c.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	close(done)
	library.Wait()
	stream := s.heard.Bytes()
	whole, beats := 0, 0
	var body uint64 // still to come of the message that has begun
	header := false
	for len(stream) > 0 {
		f, n, err := cut(stream, frameMaxSize)
		if err != nil || n == 0 {
			t.Fatalf("after %d messages: %v, %.40q", whole, err, stream)
		}
		stream = stream[n:]
		p := fields{rest: f.payload}
		inside := header || body > 0
		switch {
		case f.kind == frameMethod && p.long() == basicPublish && !inside:
			header = true
		case f.kind == frameHeader && header:
			p.long()
			body, header = p.longlong(), false
			if body == 0 {
				whole++
			}
		case f.kind == frameBody && body > 0:
			if body -= uint64(len(f.payload)); body == 0 {
				whole++
			}
		case !inside:
			beats++
		default:
			t.Fatalf("a frame of type %d within message %d", f.kind, whole+1)
		}
	}
	if whole != messages || beats == 0 {
		t.Errorf("%d messages are whole, %d frames of the library's", whole, beats)
	}
}

// Whatever the pieces in which it comes: the library sees the frames that are
// its own, and after them the end.
func TestTheLibraryReadsWhatIsLeft(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		var stream []byte
		for tag := range uint64(1 + r.IntN(100)) {
			stream = confirmFrame(stream, tag+1, r.IntN(2) == 0, false)
			if r.IntN(10) == 0 {
				stream = returnFrames(stream, "id", make([]byte, r.IntN(9000)), 4096)
			}
		}
		want := closeMethod(nil, 1, 404, "NOT_FOUND")
		stream = append(stream, want...)
		ours, theirs := net.Pipe()
		go func() {
			for len(stream) > 0 {
				n := min(len(stream), 1+r.IntN(5000))
				_, _ = theirs.Write(stream[:n])
				stream = stream[n:]
			}
			theirs.Close()
		}()
		in := confirming(128, 100)
		c := newConn(ours, ours, 128, in.sent)
		c.in = in
		got, err := io.ReadAll(c)
		var closed *closedError
		if !errors.As(err, &closed) || !bytes.Equal(got, want) {
			t.Fatalf("seed %d: the library sees %q, %v", seed, got, err)
		}
		if !errors.As(c.inbox.ended(), &closed) || closed.code != 404 {
			t.Fatalf("seed %d: ended by %v", seed, c.inbox.ended())
		}
	}
}
