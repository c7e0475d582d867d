// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	wire "encoding/binary"
	"math/rand/v2"
	"time"
)

// Hostile is how a script does harm; what is nil it does as a broker would.
type Hostile struct {
	Name string
	// Greet takes the place of all that follows the protocol's header.
	Greet func(*Peer)
	// Tune are the arguments of the tune method.
	Tune string
	// Publish answers a message, the tag-th of the connection.
	Publish func(p *Peer, tag uint64)
	// Endless: it goes on until the other side has had enough.
	Endless bool
}

// Methods of a channel in confirm mode.
var (
	BasicReturn  = method{60, 50}
	BasicDeliver = method{60, 60}
	BasicAck     = method{60, 80}
	BasicNack    = method{60, 120}
)

// Write sends bytes as they are.
func (p *Peer) Write(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.conn.Write(b)
	return err
}

// Frame is a frame as it goes over the wire.
func Frame(kind byte, channel uint16, payload string) []byte {
	b := wire.BigEndian.AppendUint16([]byte{kind}, channel)
	b = wire.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), 0xce)
}

func long(n uint64) string { return string(wire.BigEndian.AppendUint64(nil, n)) }

// Returned sends the begin of a message that comes back: its body is to come.
func (p *Peer) Returned(id string, size uint64) error {
	if err := p.Send(1, BasicReturn, "\x01\x38"+ShortText("NO_ROUTE")+ShortText("amq.direct")+ShortText("key")); err != nil {
		return err
	}
	return p.Write(Frame(2, 1, "\x00\x3c\x00\x00"+long(size)+"\x00\x80"+ShortText(id)))
}

// until repeats something as long as the connection takes it, for some seconds
// at the most: then it ends it.
func (p *Peer) until(f func(n int) error) {
	begun := time.Now()
	for n := 0; time.Since(begun) < 3*time.Second; n++ {
		if f(n) != nil {
			break
		}
	}
	p.conn.Close()
}

// Hostiles are brokers that do harm, each in its way.
func Hostiles() []Hostile {
	once := func(b func(tag uint64) []byte) func(*Peer, uint64) {
		return func(p *Peer, tag uint64) { _ = p.Write(b(tag)) }
	}
	methodFrame := func(channel uint16, m method, args string) []byte {
		head := wire.BigEndian.AppendUint16(wire.BigEndian.AppendUint16(nil, m.class), m.number)
		return Frame(1, channel, string(head)+args)
	}
	table := ""
	for range 8000 {
		table += ShortText("k") + "V"
	}
	return []Hostile{
		{Name: "no limit for frames, and a body of 2^62 bytes", Tune: "\x00\x00\x00\x00\x00\x00\x00\x00", Publish: func(p *Peer, _ uint64) {
			_ = p.Returned("id", 1<<62)
			_ = p.Write(Frame(3, 1, "x"))
		}},
		{Name: "an ack of all that may ever come", Publish: once(func(uint64) []byte { return methodFrame(1, BasicAck, long(1<<64-1)+"\x01") })},
		{Name: "a nack of all that may ever come", Publish: once(func(uint64) []byte { return methodFrame(1, BasicNack, long(1<<63)+"\x01") })},
		{Name: "an ack of message 0", Publish: once(func(uint64) []byte { return methodFrame(1, BasicAck, long(0)+"\x01") })},
		{Name: "acks of what is to come", Endless: true, Publish: func(p *Peer, tag uint64) {
			p.until(func(n int) error { return p.Send(1, BasicAck, long(tag+1+uint64(n))+"\x00") })
		}},
		{Name: "a returned body without end", Endless: true, Publish: func(p *Peer, _ uint64) {
			_ = p.Returned("id", 1<<40)
			body := Frame(3, 1, string(make([]byte, 120_000)))
			p.until(func(int) error { return p.Write(body) })
		}},
		{Name: "returns of what was not sent", Endless: true, Publish: func(p *Peer, _ uint64) {
			p.until(func(int) error { return p.Returned("nobody's", 0) })
		}},
		{Name: "alarms without end", Endless: true, Publish: func(p *Peer, _ uint64) {
			reason := ShortText(string(make([]byte, 255)))
			p.until(func(int) error {
				_ = p.Send(0, ConnectionBlocked, reason)
				return p.Send(0, ConnectionUnblocked, "")
			})
		}},
		{Name: "heartbeats without end, before it speaks", Endless: true, Greet: func(p *Peer) {
			p.until(func(int) error { return p.Write(Frame(8, 0, "")) })
		}},
		{Name: "a start of tables in tables", Greet: func(p *Peer) {
			nested := table
			for range 40 {
				nested = ShortText("t") + "F" + longText(nested)
			}
			_ = p.Send(0, method{10, 10}, "\x00\x09"+longText(nested+table)+longText("PLAIN")+longText("en_US"))
		}},
		{Name: "a frame of 4 GB", Greet: func(p *Peer) { _ = p.Write([]byte("\x01\x00\x00\xff\xff\xff\xff")); p.conn.Close() }},
		{Name: "frames of 1 byte", Tune: "\x00\x01\x00\x00\x00\x01\x00\x00"},
		{Name: "a heartbeat on a channel", Publish: once(func(uint64) []byte { return Frame(8, 1, "") })},
		{Name: "a message to consume", Publish: once(func(uint64) []byte {
			return append(methodFrame(1, BasicDeliver, ShortText("c")+long(1)+"\x00"+ShortText("")+ShortText("k")), Frame(2, 1, "\x00\x3c\x00\x00"+long(1<<62)+"\x00\x00")...)
		})},
		{Name: "answers that nobody asked for", Publish: once(func(uint64) []byte { return methodFrame(1, method{85, 11}, "") })},
		{Name: "a close that ends too soon", Publish: once(func(uint64) []byte { return methodFrame(0, ConnectionClose, "\x01") })},
		{Name: "noise", Publish: func(p *Peer, tag uint64) {
			r := rand.New(rand.NewPCG(tag, 1))
			p.until(func(int) error {
				b := make([]byte, r.IntN(40))
				for i := range b {
					b[i] = byte(r.Uint32())
				}
				return p.Write(Frame(byte(1+r.IntN(4)), uint16(r.IntN(3)), string(b)))
			})
		}},
	}
}
