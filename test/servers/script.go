// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"bufio"
	wire "encoding/binary"
	"io"
	"net"
	"sync"
)

// Script is a broker of our own making: it lets anybody in as a broker does, takes
// and confirms every message, and says besides whatever a test wants it to.
type Script struct {
	Port int

	listener net.Listener
	act      func(*Peer)
	how      Hostile
	mu       sync.Mutex
	conns    map[net.Conn]bool
	work     Group
}

// Peer is one connection, its channel open and in confirm mode.
type Peer struct {
	conn net.Conn
	mu   sync.Mutex
	tag  uint64
	done chan struct{}
}

// NewScript starts a broker; act runs for each connection that has come so far
// as to publish.
func NewScript(act func(*Peer)) (*Script, error) { return newScript(act, Hostile{}) }

// NewHostile starts a broker that does harm.
func NewHostile(how Hostile) (*Script, error) { return newScript(func(*Peer) {}, how) }

func newScript(act func(*Peer), how Hostile) (*Script, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Script{Port: l.Addr().(*net.TCPAddr).Port, listener: l, act: act, how: how, conns: map[net.Conn]bool{}}
	s.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.work.Go(func() {
				defer c.Close()
				_ = s.serve(&Peer{conn: c, done: make(chan struct{})})
			})
		}
	})
	return s, nil
}

// Close ends it and all its connections.
func (s *Script) Close() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// Done is closed when the connection has ended.
func (p *Peer) Done() <-chan struct{} { return p.done }

// method identifies a method of AMQP by its class and number.
type method struct{ class, number uint16 }

// Methods that scripts send.
var (
	ConnectionClose     = method{10, 50}
	ConnectionBlocked   = method{10, 60}
	ConnectionUnblocked = method{10, 61}
	ChannelClose        = method{20, 40}
)

// answers are what a broker says to each request, with its arguments.
var answers = map[method]struct {
	method
	args string
}{
	{10, 40}: {method{10, 41}, "\x00"},             // open
	{10, 50}: {method{10, 51}, ""},                 // close
	{20, 10}: {method{20, 11}, "\x00\x00\x00\x00"}, // channel.open
	{20, 40}: {method{20, 41}, ""},                 // channel.close
	{40, 10}: {method{40, 11}, ""},                 // exchange.declare
	{85, 10}: {method{85, 11}, ""},                 // confirm.select
}

// Send sends a method; args are its arguments as they go over the wire.
func (p *Peer) Send(channel uint16, m method, args string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := []byte{1}
	b = wire.BigEndian.AppendUint16(b, channel)
	b = wire.BigEndian.AppendUint32(b, uint32(4+len(args)))
	b = wire.BigEndian.AppendUint16(b, m.class)
	b = wire.BigEndian.AppendUint16(b, m.number)
	b = append(append(b, args...), 0xce)
	_, err := p.conn.Write(b)
	return err
}

// ShortText is a text of at most 255 bytes among a method's arguments.
func ShortText(text string) string { return string([]byte{byte(len(text))}) + text }

func longText(text string) string {
	return string(wire.BigEndian.AppendUint32(nil, uint32(len(text)))) + text
}

func (s *Script) serve(p *Peer) error {
	defer close(p.done)
	in := bufio.NewReader(p.conn)
	if _, err := io.CopyN(io.Discard, in, 8); err != nil { // AMQP 0 0 9 1
		return err
	}
	if s.how.Greet != nil {
		go func() { // the other side's bytes are of no interest
			_, _ = io.Copy(io.Discard, in)
			p.conn.Close()
		}()
		s.how.Greet(p)
		return nil
	}
	capabilities := ShortText("capabilities") + "F" + longText(
		ShortText("publisher_confirms")+"t\x01"+ShortText("connection.blocked")+"t\x01")
	if err := p.Send(0, method{10, 10}, "\x00\x09"+longText(capabilities)+longText("PLAIN EXTERNAL")+longText("en_US")); err != nil {
		return err
	}
	for {
		var header [7]byte
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return err
		}
		channel, size := wire.BigEndian.Uint16(header[1:]), wire.BigEndian.Uint32(header[3:])
		frame := make([]byte, size+1)
		if _, err := io.ReadFull(in, frame); err != nil {
			return err
		}
		if header[0] != 1 {
			continue // a message's header or body, or a heartbeat
		}
		if err := s.hear(p, channel, method{wire.BigEndian.Uint16(frame), wire.BigEndian.Uint16(frame[2:])}); err != nil {
			return err
		}
	}
}

func (s *Script) hear(p *Peer, channel uint16, m method) error {
	switch m {
	case method{10, 11}: // start-ok: tune
		tune := s.how.Tune
		if tune == "" {
			tune = "\x07\xff\x00\x02\x00\x00\x00\x3c"
		}
		return p.Send(0, method{10, 30}, tune)
	case method{60, 40}: // basic.publish: ack
		p.tag++
		if s.how.Publish != nil {
			s.how.Publish(p, p.tag)
			return nil
		}
		return p.Send(channel, method{60, 80}, string(wire.BigEndian.AppendUint64(nil, p.tag))+"\x00")
	}
	answer, ok := answers[m]
	if !ok {
		return nil
	}
	if err := p.Send(channel, answer.method, answer.args); err != nil {
		return err
	}
	if m == (method{85, 10}) {
		s.work.Go(func() { s.act(p) })
	}
	return nil
}
