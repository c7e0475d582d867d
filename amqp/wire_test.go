package amqp

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// confirmFrame is an ack or a nack as the broker writes it.
func confirmFrame(b []byte, tag uint64, multiple, nack bool) []byte {
	start := len(b)
	method := uint32(basicAck)
	if nack {
		method = basicNack
	}
	b = binary.BigEndian.AppendUint64(openMethod(b, 1, method), tag)
	bits := byte(0)
	if multiple {
		bits = 1
	}
	return closeFrame(append(b, bits), start)
}

func appendReturn(b []byte, id string, body []byte, most int) []byte {
	start := len(b)
	b = append(openMethod(b, 1, basicReturn), 312>>8, 312&0xFF)
	b = appendShortstr(appendShortstr(appendShortstr(b, "NO_ROUTE"), "amq.direct"), "key")
	b = closeFrame(b, start)
	start = len(b)
	b = append(openFrame(b, frameHeader, 1), 0, classBasic, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(len(body)))
	b = binary.BigEndian.AppendUint16(b, hasContentType|hasHeaders|hasDeliveryMode|hasMessageID|hasTimestamp)
	b, _ = appendTable(appendShortstr(b, "text/plain"), map[string]any{"h": true})
	b = appendShortstr(append(b, 2), id)
	b = closeFrame(binary.BigEndian.AppendUint64(b, 1), start)
	for len(body) > 0 {
		n := min(len(body), most-frameOverhead)
		b = appendFrame(b, frameBody, 1, body[:n])
		body = body[n:]
	}
	return b
}

// withoutLast cuts off the last frame, whose payload has n bytes.
func withoutLast(b []byte, n int) []byte { return b[:len(b)-n-frameOverhead] }

// collected is all that came in, as the publisher would have heard it.
func collected(a *answers, all *news) {
	all.add(&a.news)
	a.news.forget()
}

func equal(a, b *news) bool {
	return a.answered == b.answered && slices.Equal(a.rejected, b.rejected) && slices.Equal(a.returns, b.returns) &&
		reflect.DeepEqual(a.alarm, b.alarm)
}

// Whatever the order of the confirms: what is answered is the longest prefix of
// messages that have an answer, each the first one it got.
func TestConfirmsInAnyOrder(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		window := 1 + r.IntN(40)
		var sent atomic.Uint64
		a := newAnswers(1, frameMost, window, &sent)
		var all news
		model := map[uint64]bool{} // whether it was rejected
		prefix := uint64(0)
		for range 300 {
			for sent.Load()-prefix < uint64(window) && r.IntN(3) > 0 {
				sent.Add(1)
			}
			if sent.Load() == prefix {
				continue
			}
			tag := prefix + 1 + r.Uint64N(sent.Load()-prefix)
			multiple, nack := r.IntN(3) == 0, r.IntN(4) == 0
			first := tag
			if multiple {
				first = prefix + 1
			}
			for i := first; i <= tag; i++ {
				if _, has := model[i]; !has {
					model[i] = nack
				}
			}
			for {
				if _, has := model[prefix+1]; !has {
					break
				}
				prefix++
			}
			if _, err := a.feed(confirmFrame(nil, tag, multiple, nack)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			collected(a, &all)
			if all.answered != prefix {
				t.Fatalf("seed %d: %d are answered, want %d", seed, all.answered, prefix)
			}
		}
		var rejected []uint64
		for tag := uint64(1); tag <= prefix; tag++ {
			if model[tag] {
				rejected = append(rejected, tag)
			}
		}
		if !slices.Equal(all.rejected, rejected) {
			t.Fatalf("seed %d: got rejected %v, want %v", seed, all.rejected, rejected)
		}
	}
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	for name, b := range map[string][]byte{
		"a confirm of what was not sent":     confirmFrame(nil, 11, false, false),
		"a confirm of many, not sent":        confirmFrame(nil, 1<<63, true, false),
		"a confirm of message 0":             confirmFrame(nil, 0, true, false),
		"a frame larger than agreed":         {1, 0, 1, 0, 2, 0, 0},
		"a frame of a type that is unknown":  {4, 0, 1, 0, 0, 0, 0, frameEnd},
		"HTTP":                               []byte("HTTP/1.1 400 Bad Request\r\n"),
		"a frame without an end":             {8, 0, 0, 0, 0, 0, 0, 0},
		"another channel":                    appendFrame(nil, frameMethod, 2, []byte{0, 60, 0, 80}),
		"a method that ends too soon":        appendFrame(nil, frameMethod, 1, []byte{0, 60, 0, 80, 1}),
		"a method that is unknown":           appendFrame(nil, frameMethod, 1, []byte{0, 60, 0, 60}),
		"a body that was not announced":      appendFrame(nil, frameBody, 1, []byte("x")),
		"a method within a return":           confirmFrame(withoutLast(appendReturn(nil, "id", []byte("x"), 4096), 1), 1, false, false),
		"a returned body longer than it is":  appendFrame(withoutLast(appendReturn(nil, "id", make([]byte, 5000), 4096), 5000-(4096-frameOverhead)), frameBody, 1, make([]byte, 4000)),
		"a message returned again and again": bytes.Repeat(appendReturn(nil, "id", nil, 4096), 17),
	} {
		var sent atomic.Uint64
		sent.Store(10)
		a := newAnswers(1, frameMost, 16, &sent)
		if _, err := a.feed(b); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// FuzzAnswers feeds bytes at once and in pieces: both must come to the same,
// and nothing that comes may do harm.
func FuzzAnswers(f *testing.F) {
	f.Add(confirmFrame(confirmFrame(nil, 5, false, true), 9, true, false), 3, true)
	f.Add(appendReturn(nil, "id", make([]byte, 5000), 4096), 100, false)
	f.Add(appendClose(nil, 320, "CONNECTION_FORCED"), 1, true)
	f.Add(closeFrame(appendShortstr(openMethod(nil, 0, connectionBlocked), "low on memory"), 0), 4, false)
	f.Add(appendFrame(nil, frameHeartbeat, 0, nil), 2, true)
	f.Fuzz(func(t *testing.T, b []byte, piece int, whole bool) {
		const window, most = 100, 8192
		if whole { // a frame with a right size and end, to get behind those checks
			b = appendFrame(appendFrame(nil, frameMethod, uint16(piece)&1, b[:len(b)/2]), frameMethod, 1, b[len(b)/2:])
		}
		var sent atomic.Uint64
		sent.Store(window)
		once, twice := newAnswers(1, most, window, &sent), newAnswers(1, most, window, &sent)
		used, err := once.feed(b)
		if used > len(b) {
			t.Fatalf("used %d of %d bytes", used, len(b))
		}
		var all, other news
		collected(once, &all)
		piece = 1 + (piece&0xFFFF)%4096
		var err2 error
		var rest []byte
		for left := b; len(left) > 0 && err2 == nil; {
			n := min(piece, len(left))
			rest = append(rest, left[:n]...)
			left = left[n:]
			var took int
			took, err2 = twice.feed(rest)
			rest = rest[took:]
			collected(twice, &other)
			if len(rest) > most {
				t.Fatalf("%d bytes are kept", len(rest))
			}
		}
		tooMany := len(other.returns) > len(once.marks) // counted by the hand-over
		if (err == nil) != (err2 == nil) && !tooMany {
			t.Fatalf("at once %v, in pieces %v", err, err2)
		}
		if err == nil && !equal(&all, &other) {
			t.Fatalf("at once %+v, in pieces %+v", all, other)
		}
		if all.answered > window || !slices.IsSorted(all.rejected) || len(all.rejected) > int(all.answered) {
			t.Fatalf("%+v of %d", all, window)
		}
	})
}

// script is a broker that has said all it will, whatever it hears.
type script struct {
	net.Conn
	bytes.Reader
}

func (s *script) Read(b []byte) (int, error)       { return s.Reader.Read(b) }
func (s *script) Write(b []byte) (int, error)      { return len(b), nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// hello is what a broker says until a link is open.
func hello() []byte {
	b := append(openMethod(nil, 0, connectionStart), 0, 9)
	b, _ = appendTable(b, map[string]any{"product": "RabbitMQ"})
	b = closeFrame(appendLongstr(appendLongstr(b, "PLAIN AMQPLAIN"), "en_US"), 0)
	start := len(b)
	b = append(openMethod(b, 0, connectionTune), 7, 255, 0, 2, 0, 0, 0, 0)
	b = closeFrame(b, start)
	for _, answer := range []uint32{connectionOpenOK, channelOpenOK, exchangeDeclareOK, confirmSelectOK} {
		start, channel := len(b), uint16(1)
		if answer == connectionOpenOK {
			channel = 0
		}
		b = closeFrame(append(openMethod(b, channel, answer), 0, 0, 0, 0), start)
	}
	return b
}

// FuzzLink is a whole link to a broker that says anything: it opens or fails,
// and ends, and never panics.
func FuzzLink(f *testing.F) {
	f.Add(hello(), []byte(nil))
	f.Add(hello(), confirmFrame(nil, 1, true, false))
	f.Add(hello()[:100], appendClose(nil, 403, "ACCESS_REFUSED"))
	f.Add([]byte("AMQP\x00\x00\x09\x01"), []byte(nil))
	f.Fuzz(func(t *testing.T, first, then []byte) {
		s := &script{Reader: *bytes.NewReader(append(bytes.Clone(first), then...))}
		raw := newConn(s, s)
		cfg := &Config{Username: "guest", Vhost: "/", Exchange: "amq.direct", MaxInflight: 10}
		l, err := openWire(raw, cfg, "guest")
		if err != nil {
			return
		}
		for range 10 {
			_ = l.publish(cfg, &Message{ID: "id", Body: []byte("body")})
		}
		_ = l.flush()
		if l.lost(io.EOF) == nil {
			t.Error("lost and no reason")
		}
		l.close()
		if n := l.hear(); n.answered > 10 {
			t.Errorf("%d are answered, 10 were sent", n.answered)
		}
	})
}

func TestHello(t *testing.T) {
	s := &script{Reader: *bytes.NewReader(hello())}
	l, err := openWire(newConn(s, s), &Config{Exchange: "amq.direct", Heartbeat: 7500 * time.Millisecond}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if got := l.heartbeat(); got != 7*time.Second {
		t.Errorf("heartbeat is %v", got)
	}
	if got := l.(*wire).most; got != 128<<10 {
		t.Errorf("frames have %d bytes", got)
	}
}

func BenchmarkEncode(b *testing.B) {
	cfg := &Config{Exchange: "amq.direct", DeliveryMode: 2, Mandatory: true}
	m := &Message{ID: "0123456789abcdef-1", Time: time.Now(), Type: "set", RoutingKey: "redis_keyspace_events", Body: []byte("0\nset\nkey:000000012345")}
	w := &wire{raw: newConn(&script{}, &script{}), channel: 1, most: frameMost}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.publish(cfg, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConfirms(b *testing.B) {
	for _, kind := range []struct {
		name     string
		multiple bool
	}{{"each message's", false}, {"of 100 messages", true}} {
		b.Run(kind.name, func(b *testing.B) {
			var sent atomic.Uint64
			sent.Store(1 << 60)
			a := newAnswers(1, frameMost, 2048, &sent)
			frame := confirmFrame(nil, 1, kind.multiple, false)
			step := uint64(1)
			if kind.multiple {
				step = 100
			}
			b.ReportAllocs()
			for b.Loop() {
				binary.BigEndian.PutUint64(frame[11:], a.news.answered+step)
				if _, err := a.feed(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
