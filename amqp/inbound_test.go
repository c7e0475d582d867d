// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// confirming makes an inbound of a session that has sent n messages with bodies
// of at most 10,000 bytes, on channel 1.
func confirming(window int, n uint64) *inbound {
	p := &published{}
	p.tag.Store(n)
	p.largest.Store(10_000)
	in := newInbound(window, p)
	in.expected.answer.Store(0)
	in.confirming = 1
	return in
}

func equal(a, b *replies) bool {
	return a.answered == b.answered && slices.Equal(a.nacked, b.nacked) && slices.Equal(a.returned, b.returned) &&
		reflect.DeepEqual(a.alarm, b.alarm)
}

// Whatever the order of the confirms: what is answered is the longest prefix of
// messages that have an answer, each the first one it got.
func TestConfirmsInAnyOrder(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		window := 1 + r.IntN(40)
		in := confirming(window, 0)
		sent := &in.sent.tag
		var all replies
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
			if _, err := in.feed(confirmFrame(nil, tag, multiple, nack)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			all.add(&in.replies)
			in.replies.forget()
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
		if !slices.Equal(all.nacked, rejected) {
			t.Fatalf("seed %d: got rejected %v, want %v", seed, all.nacked, rejected)
		}
	}
}

// senseless are answers that no broker may give after ten messages.
var senseless = map[string][]byte{
	"a confirm of what was not sent":       confirmFrame(nil, 11, false, false),
	"a confirm of many, not sent":          confirmFrame(nil, 1<<64-1, true, false),
	"a rejection of many, not sent":        confirmFrame(nil, 1<<63, true, true),
	"a confirm of message 0":               confirmFrame(nil, 0, true, false),
	"a frame larger than agreed":           {1, 0, 1, 0, 2, 0, 0},
	"a frame of a type that is unknown":    {4, 0, 1, 0, 0, 0, 0, frameEnd},
	"HTTP":                                 []byte("HTTP/1.1 400 Bad Request\r\n"),
	"a frame without an end":               {8, 0, 0, 0, 0, 0, 0, 0},
	"a heartbeat on a channel":             appendFrame(nil, frameHeartbeat, 1, nil),
	"a heartbeat with a payload":           appendFrame(nil, frameHeartbeat, 0, []byte("x")),
	"another channel":                      appendFrame(nil, frameMethod, 2, []byte{0, 60, 0, 80}),
	"a method that ends too soon":          appendFrame(nil, frameMethod, 1, []byte{0, 60, 0, 80, 1}),
	"a method without a number":            appendFrame(nil, frameMethod, 1, []byte{0, 60}),
	"a message to consume":                 appendFrame(nil, frameMethod, 1, []byte{0, 60, 0, 60}),
	"flow":                                 methodFrame(1, 20<<16|20, 1),
	"an answer to no question":             methodFrame(1, confirmSelectOK),
	"the begin of a handshake":             startFrame(nil, "PLAIN"),
	"a challenge":                          methodFrame(0, 10<<16|20, 0, 0, 0, 0),
	"a second tune":                        tuneFrame(0, 0, 0),
	"the answer to a close":                methodFrame(0, connectionCloseOK),
	"a close that ends too soon":           methodFrame(0, connectionClose, 1, 64, 9, 'x'),
	"a channel's close that ends too soon": methodFrame(1, channelClose, 1),
	"an alarm without a reason":            methodFrame(0, connectionBlocked, 200, 'x'),
	"a body that was not announced":        appendFrame(nil, frameBody, 1, []byte("x")),
	"a header that was not announced":      appendFrame(nil, frameHeader, 1, make([]byte, 20)),
	"content on channel 0":                 appendFrame(nil, frameBody, 0, []byte("x")),
	"a method within a return":             confirmFrame(returnHeaderFrames(nil, "id", 1), 1, false, false),
	"a second header":                      appendFrame(returnHeaderFrames(nil, "id", 1), frameHeader, 1, make([]byte, 20)),
	"a returned body longer than it is":    appendFrame(returnHeaderFrames(nil, "id", 3), frameBody, 1, make([]byte, 4)),
	"a returned body of 2^62 bytes":        returnHeaderFrames(nil, "id", 1<<62),
	"a returned body in pieces of nothing": appendFrame(returnHeaderFrames(nil, "id", 3), frameBody, 1, nil),
	"a message returned again and again":   bytes.Repeat(returnFrames(nil, "id", nil, 4096), 17),
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	for name, b := range senseless {
		in := confirming(16, 10)
		if _, err := in.feed(b); err == nil {
			t.Errorf("%s: no error", name)
		} else if len(in.pass) > 0 {
			t.Errorf("%s: the library sees %q", name, in.pass)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// What the library sees of an answer is what we would have written, whatever
// else is in it; and it sees an answer once, when it has asked.
func TestTheLibrarySeesOnlyWhatIsDue(t *testing.T) {
	deep := map[string]any{}
	for i := range 5000 {
		deep[strings.Repeat("x", 1+i%200)] = []any{[]any{nil, nil}, "text"}
	}
	for _, c := range []struct {
		name        string
		asked       uint32
		channel     uint16
		sends, sees []byte
	}{
		{"start", 0, 0, startFrame(deep, "AMQPLAIN PLAIN GSSAPI EXTERNAL PLAIN"), startFrame(nil, "PLAIN EXTERNAL")},
		{"tune without a limit", connectionStartOK, 0, tuneFrame(7, 0, 60), tuneFrame(7, frameMaxSize, 60)},
		{"tune with a large limit", connectionStartOK, 0, tuneFrame(0, 1<<32-1, 0), tuneFrame(0, frameMaxSize, 0)},
		{"tune with small frames", connectionStartOK, 0, tuneFrame(1, 8192, 1), tuneFrame(1, 8192, 1)},
		{"open", connectionOpen, 0, methodFrame(0, connectionOpenOK, 3, 'a', 'b', 'c'), methodFrame(0, connectionOpenOK, 0)},
		{"channel", channelOpen, 1, methodFrame(1, channelOpenOK, 0, 0, 0, 1, 'x'), methodFrame(1, channelOpenOK, 0, 0, 0, 0)},
		{"exchange", exchangeDeclare, 1, methodFrame(1, exchangeDeclareOK), methodFrame(1, exchangeDeclareOK)},
		{"no exchange", exchangeDeclare, 1, closeMethod(nil, 1, 404, "NOT_FOUND"), closeMethod(nil, 1, 404, "NOT_FOUND")},
		{"confirms", confirmSelect, 1, methodFrame(1, confirmSelectOK, 9), methodFrame(1, confirmSelectOK)},
	} {
		in := newInbound(16, &published{})
		if c.asked > 0 {
			in.expected.answer.Store(0)
			if _, err := in.feed(c.sends); err == nil {
				t.Errorf("%s: taken before it was asked for", c.name)
			}
			in.expected.ask(c.channel, c.asked)
		}
		if _, err := in.feed(c.sends); err != nil || !bytes.Equal(in.pass, c.sees) {
			t.Errorf("%s: the library sees %.100q, want %.100q, %v", c.name, in.pass, c.sees, err)
		}
		if _, err := in.feed(c.sends); err == nil {
			t.Errorf("%s: taken twice", c.name)
		}
	}
	in := newInbound(16, &published{})
	in.expected.ask(0, connectionStartOK)
	if _, err := in.feed(tuneFrame(0, 7, 0)); err == nil {
		t.Error("frames of 7 bytes are accepted")
	}
}

// After a close nothing counts except what ends the rest.
func TestNothingCountsAfterAClose(t *testing.T) {
	for name, b := range map[string][]byte{
		"the channel's":    closeMethod(confirmFrame(nil, 3, true, false), 1, 404, "NOT_FOUND"),
		"the connection's": closeMethod(confirmFrame(nil, 3, true, false), 0, 320, "CONNECTION_FORCED"),
	} {
		in := confirming(16, 10)
		b = confirmFrame(b, 9, true, false)
		b = returnFrames(b, "id", []byte("body"), 4096)
		if _, err := in.feed(b); err != nil || in.ends == nil || in.replies.answered != 3 || len(in.replies.returned) > 0 {
			t.Errorf("%s: got %+v, ended by %v, error %v", name, in.replies, in.ends, err)
		}
	}
}

// FuzzInbound feeds bytes at once and in pieces: both must come to the same,
// nothing that comes may do harm, and the library sees whole frames only.
func FuzzInbound(f *testing.F) {
	f.Add(confirmFrame(confirmFrame(nil, 5, false, true), 9, true, false), 3, true)
	f.Add(returnFrames(nil, "id", make([]byte, 5000), 4096), 100, false)
	f.Add(closeMethod(nil, 0, 320, "CONNECTION_FORCED"), 1, true)
	f.Add(blockedFrame("low on memory"), 4, false)
	f.Add(appendFrame(nil, frameHeartbeat, 0, nil), 2, true)
	for _, b := range senseless {
		f.Add(b, 5, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, piece int, whole bool) {
		const window, frameMax = 100, 8192
		if whole { // a frame with a right size and end, to get behind those checks
			b = appendFrame(appendFrame(nil, frameMethod, uint16(piece)&1, b[:len(b)/2]), frameMethod, 1, b[len(b)/2:])
		}
		once, twice := confirming(window, window), confirming(window, window)
		once.frameMax, twice.frameMax = frameMax, frameMax
		used, err := once.feed(b)
		if used > len(b) {
			t.Fatalf("used %d of %d bytes", used, len(b))
		}
		var all, other replies
		all.add(&once.replies)
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
			other.add(&twice.replies)
			twice.replies.forget()
			if len(rest) > frameMax {
				t.Fatalf("%d bytes are kept", len(rest))
			}
		}
		tooMany := len(other.returned) > len(once.confirms.early) // the inbox counts them
		if (err == nil) != (err2 == nil) && !tooMany {
			t.Fatalf("at once %v, in pieces %v", err, err2)
		}
		if err == nil && !equal(&all, &other) {
			t.Fatalf("at once %+v, in pieces %+v", all, other)
		}
		if all.answered > window || !slices.IsSorted(all.nacked) || len(all.nacked) > int(all.answered) {
			t.Fatalf("%+v of %d", all, window)
		}
		for pass := once.pass; len(pass) > 0; {
			f, n, err := cut(pass, frameMaxSize)
			if err != nil || n == 0 || f.kind != frameMethod {
				t.Fatalf("the library sees %q", pass)
			}
			if m := binary.BigEndian.Uint32(f.payload); m != connectionClose && m != channelClose {
				t.Fatalf("the library sees method %d.%d", m>>16, m&0xFFFF)
			}
			pass = pass[n:]
		}
	})
}

func BenchmarkConfirms(b *testing.B) {
	for _, kind := range []struct {
		name     string
		multiple bool
	}{{"each message's", false}, {"of 100 messages", true}} {
		b.Run(kind.name, func(b *testing.B) {
			in := confirming(2048, 1<<60)
			frame := confirmFrame(nil, 1, kind.multiple, false)
			step := uint64(1)
			if kind.multiple {
				step = 100
			}
			b.ReportAllocs()
			for b.Loop() {
				binary.BigEndian.PutUint64(frame[11:], in.replies.answered+step)
				if _, err := in.feed(frame); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
