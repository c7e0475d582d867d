// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// capricious is a broker that does as it was told: each byte of moods is what it
// does at one message, or at one step of the handshake. Without moods left it is
// as it should be.
type capricious struct {
	net.Conn
	moods []byte
	tag   uint64
}

func (b *capricious) mood() byte {
	if len(b.moods) == 0 {
		return 0
	}
	m := b.moods[0]
	b.moods = b.moods[1:]
	return m
}

func (b *capricious) serve() {
	defer b.Close()
	var buf []byte
	read := make([]byte, 32<<10)
	if n, err := b.Read(read[:8]); err != nil || n != 8 {
		return
	}
	if !b.say(startFrame(nil, "PLAIN")) {
		return
	}
	for {
		n, err := b.Read(read)
		if err != nil {
			return
		}
		buf = append(buf, read[:n]...)
		for {
			f, n, err := cut(buf, frameMaxSize)
			if err != nil {
				return
			}
			if n == 0 {
				break
			}
			if f.kind == frameMethod && !b.hear(f) {
				return
			}
			buf = buf[n:]
		}
	}
}

// say sends a step of the handshake, or not quite.
func (b *capricious) say(frame []byte) bool {
	m := b.mood()
	switch m % 16 {
	case 9:
		frame = frame[:len(frame)/2]
	case 10:
		frame = append(frame, frame...)
	case 11:
		frame[int(m)%len(frame)] ^= 1 << (m >> 5)
	case 12:
		frame = blockedFrame("no")
	case 13:
		frame = closeMethod(nil, 0, uint16(m)<<1, "mood")
	case 14:
		frame = appendFrame(nil, frameHeartbeat, 0, nil)
	case 15:
		return false
	}
	_, err := b.Write(frame)
	return err == nil
}

func (b *capricious) hear(f frame) bool {
	switch method := binary.BigEndian.Uint32(f.payload); method {
	case connectionStartOK:
		return b.say(tuneFrame(0, 0, 0))
	case connectionOpen:
		return b.say(methodFrame(0, connectionOpenOK, 0))
	case connectionClose:
		return b.say(methodFrame(0, connectionCloseOK))
	case channelOpen:
		return b.say(methodFrame(f.channel, channelOpenOK, 0, 0, 0, 0))
	case exchangeDeclare:
		return b.say(methodFrame(f.channel, exchangeDeclareOK))
	case confirmSelect:
		return b.say(methodFrame(f.channel, confirmSelectOK))
	case basicPublish:
		return b.answer()
	}
	return true
}

// answer answers a message.
func (b *capricious) answer() bool {
	b.tag++
	m := b.mood()
	var out []byte
	switch arg := uint64(m >> 4); m % 16 {
	case 0, 1, 2, 3:
		out = confirmFrame(nil, b.tag, false, false)
	case 4:
		out = confirmFrame(nil, b.tag, true, false)
	case 5:
		out = confirmFrame(nil, b.tag, arg%2 == 0, true)
	case 6:
		out = confirmFrame(returnFrames(nil, "id-1", nil, 4096), b.tag, false, false)
	case 7:
		out = confirmFrame(nil, b.tag+arg, arg%2 == 0, arg%3 == 0)
	case 8:
		out = confirmFrame(nil, b.tag-min(arg, b.tag), true, false)
	case 9:
		out = returnHeaderFrames(nil, "id-2", arg<<40)
	case 10:
		out = append(blockedFrame("mood"), methodFrame(0, connectionUnblocked)...)
	case 11:
		out = closeMethod(nil, 1, 400+uint16(arg), "mood")
	case 12:
		out = closeMethod(nil, 0, 320+uint16(arg), "mood")
	case 13:
		rest := min(int(arg), len(b.moods))
		out = appendFrame(nil, byte(1+arg%4), uint16(arg%2), b.moods[:rest])
		b.moods = b.moods[rest:]
	case 14:
		rest := min(20, len(b.moods))
		out = append(out, b.moods[:rest]...)
		b.moods = b.moods[rest:]
	case 15:
		return false
	}
	_, err := b.Write(out)
	return err == nil
}

// FuzzSession is a publisher and a broker of many moods. Whatever it does,
// nothing panics, nothing that it did not confirm counts as settled by a broker
// that is one, and Stop is quick.
func FuzzSession(f *testing.F) {
	for step := range byte(16) {
		for _, at := range []int{0, 1, 2, 3, 4, 5, 6, 7, 12} {
			moods := make([]byte, at+1, at+12)
			moods[at] = step | 0x50
			f.Add(append(moods, "some more ..."...))
		}
	}
	f.Fuzz(func(t *testing.T, moods []byte) {
		src := newNumbers(30)
		p := publisher(t, src, func(n int) (connection, error) {
			ours, theirs := net.Pipe()
			broker := &capricious{Conn: theirs}
			if n == 1 {
				broker.moods = moods
			}
			go broker.serve()
			defer time.AfterFunc(200*time.Millisecond, func() { ours.Close() }).Stop()
			cfg := &Config{Exchange: "x", MaxInflight: 10, Vhost: "/"}
			c := &amqpConnection{}
			c.conn = newConn(ours, ours, cfg.window(), &c.sent)
			if err := c.open(cfg, "guest"); err != nil {
				c.conn.Close()
				return nil, err
			}
			return c, nil
		})
		// It may also say nothing, for as long as it likes: a new connection
		// finds one that is as it should be.
		for try := 0; src.left() > 0; try++ {
			if try > 100 {
				t.Fatalf("%d are left", src.left())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			soonOr(ctx, func() bool { return src.left() == 0 })
			cancel()
			if src.left() > 0 {
				connecting(p) // gives up what is silent
			}
		}
		begun := time.Now()
		p.Stop()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("Stop took %v", took)
		}
		p.stop = make(chan struct{}) // the cleanup stops it again
	})
}

func soonOr(ctx context.Context, cond func() bool) {
	for ctx.Err() == nil && !cond() {
		time.Sleep(time.Millisecond)
	}
}
