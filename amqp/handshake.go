package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"
)

// handshake makes a fresh connection one with a channel in confirm mode. Who
// calls it bounds it in time, by closing the socket.
type handshake struct {
	raw      *conn
	cfg      *Config
	password string

	buf  []byte // read, not taken
	used int    // bytes of buf that the last frame had

	most      int
	heartbeat time.Duration
	channel   uint16
}

func (h *handshake) do() error {
	if len(h.cfg.Vhost) > 255 || len(h.cfg.Exchange) > 255 {
		return errors.New("the vhost's or the exchange's name has more than the 255 bytes that AMQP allows")
	}
	for _, step := range []func() error{h.start, h.tune, h.openVhost, h.openChannel, h.checkExchange, h.confirm} {
		if err := step(); err != nil {
			return err
		}
	}
	// The buffer goes to the reader, with what came early.
	h.buf = h.buf[:copy(h.buf, h.buf[h.used:])]
	return nil
}

func (h *handshake) write(b []byte) error {
	_, err := h.raw.Write(b)
	if err != nil {
		// There may be a reason to read: in TLS 1.3 a refused certificate.
		_ = h.raw.socket.SetReadDeadline(time.Now().Add(verdictTimeout))
		_, _ = h.raw.Read(make([]byte, 1))
	}
	return reason(err)
}

// frame reads one frame, which is valid until the next is read.
func (h *handshake) frame() (frame, error) {
	h.buf = h.buf[:copy(h.buf, h.buf[h.used:])]
	h.used = 0
	for {
		f, n, err := cut(h.buf, h.most)
		if n > 0 || err != nil {
			h.used = n
			return f, err
		}
		if len(h.buf) == cap(h.buf) {
			h.buf = append(make([]byte, 0, h.most), h.buf...)
		}
		n, err = h.raw.Read(h.buf[len(h.buf):cap(h.buf)])
		h.buf = h.buf[:len(h.buf)+n]
		if err != nil && n == 0 {
			return frame{}, err
		}
	}
}

// expect reads the broker's answer, which is to be the method wanted. A close
// is a *closedError.
func (h *handshake) expect(wanted uint32) (*fields, error) {
	for {
		f, err := h.frame()
		if err != nil {
			return nil, err
		}
		if f.kind == frameHeartbeat {
			continue
		}
		p := &fields{rest: f.payload}
		method := p.long()
		switch {
		case f.kind != frameMethod:
			return nil, fmt.Errorf("the broker sent a frame of type %d, which was not due", f.kind)
		case method == wanted:
			return p, nil
		case method == connectionBlocked, method == connectionUnblocked:
			// It says so again after the first message.
		case method == connectionClose, method == channelClose:
			answer := uint32(connectionCloseOK)
			if method == channelClose {
				answer = channelCloseOK
			}
			if err := h.write(closeFrame(openMethod(nil, f.channel, answer), 0)); err != nil {
				return nil, err
			}
			return nil, readClose(p)
		default:
			return nil, unexpected(method)
		}
	}
}

// start names us, and who we are.
func (h *handshake) start() error {
	if err := h.write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	p, err := h.expect(connectionStart)
	if err != nil {
		return said(err)
	}
	p.short()   // version
	p.longstr() // the broker's properties
	offered := strings.Fields(string(p.longstr()))
	if p.bad {
		return errMalformed
	}
	mechanism, response := "PLAIN", "\x00"+h.cfg.Username+"\x00"+h.password
	if h.cfg.External {
		mechanism, response = "EXTERNAL", ""
	}
	if !slices.Contains(offered, mechanism) {
		return fmt.Errorf("the broker offers %s to authenticate with, not %s", strings.Join(offered, ", "), mechanism)
	}
	b := openMethod(nil, 0, connectionStartOK)
	// A connection.close instead of silence tells a wrong password at once.
	capabilities := []string{"publisher_confirms", "basic.nack", "connection.blocked", "authentication_failure_close"}
	table := appendLongstr(append(appendShortstr(nil, "product"), 'S'), appID)
	table = appendLongstr(append(appendShortstr(table, "connection_name"), 'S'), h.cfg.ConnectionName)
	var able []byte
	for _, name := range capabilities {
		able = append(appendShortstr(able, name), 't', 1)
	}
	table = appendLongstr(append(appendShortstr(table, "capabilities"), 'F'), string(able))
	b = appendLongstr(b, string(table))
	b = appendShortstr(b, mechanism)
	b = appendLongstr(b, response)
	b = appendShortstr(b, "en_US")
	return h.write(closeFrame(b, 0))
}

// tune agrees on the size of frames and on heartbeats.
func (h *handshake) tune() error {
	p, err := h.expect(connectionTune)
	var closed *closedError
	switch {
	case errors.As(err, &closed) && closed.code == replyAccessRefused:
		return credentialsRefused(h.cfg)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		// As brokers do that don't know authentication_failure_close.
		return credentialsRefused(h.cfg)
	}
	if err != nil {
		return said(err)
	}
	channels, most, heartbeat := p.short(), p.long(), p.short()
	if p.bad {
		return errMalformed
	}
	if most != 0 {
		h.most = min(h.most, max(int(most), frameLeast))
	}
	ours := uint16(min(h.cfg.Heartbeat/time.Second, 65535))
	switch {
	case heartbeat == 0:
		heartbeat = ours
	case ours != 0:
		heartbeat = min(heartbeat, ours)
	}
	h.heartbeat = time.Duration(heartbeat) * time.Second
	b := openMethod(nil, 0, connectionTuneOK)
	b = binary.BigEndian.AppendUint16(b, channels)
	b = binary.BigEndian.AppendUint32(b, uint32(h.most))
	b = binary.BigEndian.AppendUint16(b, heartbeat)
	return h.write(closeFrame(b, 0))
}

// call sends a method and waits for its answer.
func (h *handshake) call(b []byte, answer uint32) error {
	if err := h.write(closeFrame(b, 0)); err != nil {
		return err
	}
	_, err := h.expect(answer)
	return err
}

func (h *handshake) openVhost() error {
	b := appendShortstr(openMethod(nil, 0, connectionOpen), h.cfg.Vhost)
	return said(h.call(append(b, 0, 0), connectionOpenOK))
}

func (h *handshake) openChannel() error {
	h.channel++
	return said(h.call(append(openMethod(nil, h.channel, channelOpen), 0), channelOpenOK))
}

// checkExchange finds out that an exchange is missing before anything is sent.
// A user without the right to look may still have the one to publish.
func (h *handshake) checkExchange() error {
	if h.cfg.Exchange == "" {
		return nil
	}
	b := append(openMethod(nil, h.channel, exchangeDeclare), 0, 0)
	b = appendShortstr(appendShortstr(b, h.cfg.Exchange), "direct")
	const passive = 1
	err := h.call(append(b, passive, 0, 0, 0, 0), exchangeDeclareOK)
	var closed *closedError
	if errors.As(err, &closed) && closed.code == replyAccessRefused {
		return h.openChannel()
	}
	return said(err)
}

func (h *handshake) confirm() error {
	return said(h.call(append(openMethod(nil, h.channel, confirmSelect), 0), confirmSelectOK))
}

// said makes the broker's or the network's word readable.
func said(err error) error {
	var closed *closedError
	var network *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &closed):
		return errors.New(strings.TrimSpace(closed.text))
	case errors.As(err, &network):
		return reason(err)
	case errors.Is(err, io.EOF):
		return errors.New("the broker closed the connection without a word")
	}
	return err
}

// appendClose writes connection.close.
func appendClose(b []byte, code uint16, text string) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint16(openMethod(b, 0, connectionClose), code)
	return closeFrame(append(appendShortstr(b, text), 0, 0, 0, 0), start)
}
