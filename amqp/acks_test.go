package amqp

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// pieces hands out a stream in pieces of random sizes, then an error, which
// comes with the last piece or after it.
type pieces struct {
	net.Conn
	r    *rand.Rand
	rest []byte
	most int
	end  error
}

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b, p.rest[:min(len(p.rest), 1+p.r.IntN(p.most))])
	p.rest = p.rest[n:]
	if len(p.rest) == 0 && (n == 0 || p.r.IntN(2) == 0) {
		return n, p.end
	}
	return n, nil
}

// readAll reads with buffers of random sizes; no read may return nothing.
func readAll(t *testing.T, c net.Conn, r *rand.Rand) (all []byte, err error) {
	t.Helper()
	for {
		b := make([]byte, 1+r.IntN(5000))
		n, err := c.Read(b)
		all = append(all, b[:n]...)
		if err != nil {
			return all, err
		}
		if n == 0 {
			t.Fatal("a read returned nothing")
		}
	}
}

// others are the frames of b that are no confirms.
func others(t *testing.T, b []byte) (out []byte) {
	t.Helper()
	for len(b) > 0 {
		f, n, err := cut(b, frameMost)
		if err != nil || n == 0 {
			t.Fatalf("no frame: %x, %v", b, err)
		}
		p := fields{rest: f.payload}
		if f.kind != frameMethod || p.long() != basicAck {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

// heardOf is what a publisher hears of a stream.
func heardOf(t *testing.T, b []byte, window int) *news {
	t.Helper()
	var sent atomic.Uint64
	sent.Store(uint64(window))
	a := newAnswers(1, frameMost, window, &sent)
	if n, err := a.feed(b); err != nil || n != len(b) {
		t.Fatalf("of %d bytes %d make sense: %v", len(b), n, err)
	}
	return &a.news
}

// Whatever the broker says, in whatever pieces: with fewer confirms it says the
// same, and all else is what it was.
func TestFewerConfirmsSayTheSame(t *testing.T) {
	const window = 200
	fewer := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 7))
		var stream []byte
		tag := uint64(0)
		for range 1 + r.IntN(60) {
			switch r.IntN(12) {
			case 0:
				stream = appendFrame(stream, frameHeartbeat, 0, nil)
			case 1:
				// A message whose text is a confirm, alone in its frame or not.
				body := confirmFrame(nil, 1+r.Uint64N(window), true, false)
				stream = appendReturn(stream, "id", append(make([]byte, r.IntN(3)*r.IntN(100)), body...), frameLeast)
			case 2:
				// Early, late, of many, or a rejection.
				stream = confirmFrame(stream, 1+r.Uint64N(window), r.IntN(2) == 0, r.IntN(2) == 0)
			default:
				tag = min(tag+1+r.Uint64N(3)*r.Uint64N(3), window)
				stream = confirmFrame(stream, tag, r.IntN(4) > 0, false)
			}
		}
		end := errors.New("the end")
		got, err := readAll(t, newAcks(&pieces{r: r, rest: stream, most: 1 + r.IntN(3*readBuffer), end: end}), r)
		if err != end {
			t.Fatalf("seed %d: got error %v", seed, err)
		}
		if !bytes.Equal(others(t, got), others(t, stream)) {
			t.Fatalf("seed %d: other frames than confirms have changed", seed)
		}
		if want, has := heardOf(t, stream, window), heardOf(t, got, window); !equal(has, want) {
			t.Fatalf("seed %d: heard %+v, want %+v", seed, has, want)
		}
		if len(got) < len(stream) {
			fewer++
		}
	}
	if fewer < 1000 {
		t.Errorf("only %d streams became shorter", fewer)
	}
}

func TestWhichConfirmsBecomeOne(t *testing.T) {
	many := func(b []byte, tag uint64) []byte { return confirmFrame(b, tag, true, false) }
	one := func(b []byte, tag uint64) []byte { return confirmFrame(b, tag, false, false) }
	nack := func(b []byte, tag uint64) []byte { return confirmFrame(b, tag, true, true) }
	beat := appendFrame(nil, frameHeartbeat, 0, nil)
	elsewhere := many(nil, 9)
	elsewhere[2]++
	for _, c := range []struct {
		name     string
		in, want []byte
	}{
		{"of many", many(many(many(nil, 7), 8), 12), many(nil, 12)},
		{"of one, next to those of many", one(one(many(nil, 7), 8), 9), many(nil, 9)},
		{"of one, before many", many(one(nil, 3), 7), many(nil, 7)},
		{"of one, with a gap", one(many(nil, 7), 9), nil},
		{"of one alone", one(one(nil, 1), 2), nil},
		{"going back", many(many(nil, 7), 6), nil},
		{"of all", many(many(nil, 0), 7), nil},
		{"past a rejection", many(nack(many(nil, 7), 8), 9), nil},
		{"past another frame", many(append(many(nil, 7), beat...), 8), nil},
		{"of another channel", append(many(nil, 7), elsewhere...), nil},
		{"what is no AMQP", []byte("HTTP/1.1 400 Bad Request\r\n"), nil},
		{"too little", []byte("AMQ"), nil},
		{"a confirm cut off", many(nil, 7)[:ackFrame-1], nil},
	} {
		if c.want == nil {
			c.want = bytes.Clone(c.in)
		}
		got, err := io.ReadAll(newAcks(readerConn{Reader: bytes.NewReader(c.in)}))
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: got %x, %v, want %x", c.name, got, err, c.want)
		}
	}
}

// readerConn is a connection that only reads.
type readerConn struct {
	net.Conn
	io.Reader
}

func (c readerConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }
