package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// AMQP 0-9-1's frames and fields, as far as a publisher meets them: what the
// codec of our own (wire) is made of. Nothing here does I/O.
//
//	frame:  type octet, channel short, size long, payload, end octet
//	method: class short, method short, arguments
//	header: class short, weight short, body size long long, flags short, properties

const (
	frameMethod    = 1
	frameHeader    = 2
	frameBody      = 3
	frameHeartbeat = 8
	frameEnd       = 0xCE

	frameOverhead = 8 // what surrounds a payload
	frameLeast    = 4096
	frameMost     = 128 << 10 // as RabbitMQ proposes; bounds our buffers
)

// Methods: the class's number above the method's.
const (
	connectionStart     = 10<<16 | 10
	connectionStartOK   = 10<<16 | 11
	connectionTune      = 10<<16 | 30
	connectionTuneOK    = 10<<16 | 31
	connectionOpen      = 10<<16 | 40
	connectionOpenOK    = 10<<16 | 41
	connectionClose     = 10<<16 | 50
	connectionCloseOK   = 10<<16 | 51
	connectionBlocked   = 10<<16 | 60
	connectionUnblocked = 10<<16 | 61
	channelOpen         = 20<<16 | 10
	channelOpenOK       = 20<<16 | 11
	channelClose        = 20<<16 | 40
	channelCloseOK      = 20<<16 | 41
	exchangeDeclare     = 40<<16 | 10
	exchangeDeclareOK   = 40<<16 | 11
	basicPublish        = 60<<16 | 40
	basicReturn         = 60<<16 | 50
	basicAck            = 60<<16 | 80
	basicNack           = 60<<16 | 120
	confirmSelect       = 85<<16 | 10
	confirmSelectOK     = 85<<16 | 11
)

const classBasic = 60

// Flags of basic's properties, in the order in which they are sent.
const (
	hasContentType     = 1 << 15
	hasContentEncoding = 1 << 14
	hasHeaders         = 1 << 13
	hasDeliveryMode    = 1 << 12
	hasPriority        = 1 << 11
	hasCorrelationID   = 1 << 10
	hasReplyTo         = 1 << 9
	hasExpiration      = 1 << 8
	hasMessageID       = 1 << 7
	hasTimestamp       = 1 << 6
	hasType            = 1 << 5
	hasAppID           = 1 << 3
	moreFlags          = 1 << 0
)

// frame is one frame; payload points into the buffer that it was cut from.
type frame struct {
	kind    byte
	channel uint16
	payload []byte
}

// cut takes the first frame of b, of at most most bytes. n is how many bytes it
// has, 0 if it is not all there yet.
func cut(b []byte, most int) (f frame, n int, err error) {
	if len(b) > 0 && b[0] != frameMethod && b[0] != frameHeader && b[0] != frameBody && b[0] != frameHeartbeat {
		return f, 0, errors.New("what answers does not speak AMQP 0-9-1")
	}
	if len(b) < 7 {
		return f, 0, nil
	}
	size := binary.BigEndian.Uint32(b[3:])
	if uint64(size)+frameOverhead > uint64(most) {
		return f, 0, fmt.Errorf("the broker sent a frame of %d bytes, %d were agreed", uint64(size)+frameOverhead, most)
	}
	n = int(size) + frameOverhead
	if len(b) < n {
		return f, 0, nil
	}
	if b[n-1] != frameEnd {
		return f, 0, errors.New("the broker sent a frame without an end")
	}
	return frame{kind: b[0], channel: binary.BigEndian.Uint16(b[1:]), payload: b[7 : n-1]}, n, nil
}

// fields reads a payload in place. What is not there reads as zero, and bad
// says so.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.rest, f.bad = nil, true
		return nil
	}
	taken := f.rest[:n:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) octet() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) short() uint16 {
	if b := f.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (f *fields) long() uint32 {
	if b := f.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f *fields) longlong() uint64 {
	if b := f.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (f *fields) shortstr() []byte { return f.take(int(f.octet())) }

// longstr also passes over a table, whose size is written alike.
func (f *fields) longstr() []byte {
	n := f.long()
	if uint64(n) > uint64(len(f.rest)) {
		f.rest, f.bad = nil, true
		return nil
	}
	return f.take(int(n))
}

// openFrame begins a frame at the end of b, closeFrame ends the one that began
// at start.
func openFrame(b []byte, kind byte, channel uint16) []byte {
	return append(b, kind, byte(channel>>8), byte(channel), 0, 0, 0, 0)
}

func closeFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start+3:], uint32(len(b)-start-7))
	return append(b, frameEnd)
}

// openMethod begins a method's frame.
func openMethod(b []byte, channel uint16, method uint32) []byte {
	return binary.BigEndian.AppendUint32(openFrame(b, frameMethod, channel), method)
}

func appendFrame(b []byte, kind byte, channel uint16, payload []byte) []byte {
	start := len(b)
	return closeFrame(append(openFrame(b, kind, channel), payload...), start)
}

// appendShortstr: s has at most 255 bytes, the caller has made sure.
func appendShortstr(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

func appendLongstr(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// appendTable writes a table: keys of at most 255 bytes, values as appendField
// takes them.
func appendTable(b []byte, table map[string]any) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	for key, value := range table {
		if len(key) > 255 {
			return b, fmt.Errorf("a header's name has %d bytes, AMQP allows 255", len(key))
		}
		var err error
		if b, err = appendField(appendShortstr(b, key), value); err != nil {
			return b, fmt.Errorf("header %q: %w", key, err)
		}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b, nil
}

// appendField writes a value with its type, in RabbitMQ's letters.
func appendField(b []byte, value any) ([]byte, error) {
	be := binary.BigEndian
	switch v := value.(type) {
	case nil:
		return append(b, 'V'), nil
	case bool:
		if v {
			return append(b, 't', 1), nil
		}
		return append(b, 't', 0), nil
	case int8:
		return append(b, 'b', byte(v)), nil
	case uint8:
		return append(b, 'B', v), nil
	case int16:
		return be.AppendUint16(append(b, 's'), uint16(v)), nil
	case uint16:
		return be.AppendUint16(append(b, 'u'), v), nil
	case int32:
		return be.AppendUint32(append(b, 'I'), uint32(v)), nil
	case uint32:
		return be.AppendUint32(append(b, 'i'), v), nil
	case int64:
		return be.AppendUint64(append(b, 'l'), uint64(v)), nil
	case float32:
		return be.AppendUint32(append(b, 'f'), math.Float32bits(v)), nil
	case float64:
		return be.AppendUint64(append(b, 'd'), math.Float64bits(v)), nil
	case string:
		return appendLongstr(append(b, 'S'), v), nil
	case []byte:
		return append(be.AppendUint32(append(b, 'x'), uint32(len(v))), v...), nil
	case time.Time:
		return be.AppendUint64(append(b, 'T'), uint64(v.Unix())), nil
	case []any:
		b = append(b, 'A', 0, 0, 0, 0)
		start := len(b)
		for _, one := range v {
			var err error
			if b, err = appendField(b, one); err != nil {
				return b, err
			}
		}
		be.PutUint32(b[start-4:], uint32(len(b)-start))
		return b, nil
	}
	return b, fmt.Errorf("AMQP has no type for %T", value)
}

// appendPublish writes basic.publish and the content's header. The body follows
// in frames of its own. On an error b comes back as it was.
func appendPublish(b []byte, channel uint16, most int, cfg *Config, m *Message) ([]byte, error) {
	contentType := m.contentType()
	if max(len(cfg.Exchange), len(m.RoutingKey), len(contentType), len(m.ID), len(m.Type)) > 255 {
		return b, errors.New("a property has more than the 255 bytes that AMQP allows")
	}
	be := binary.BigEndian
	before := len(b)
	b = openMethod(b, channel, basicPublish)
	b = append(b, 0, 0) // reserved
	b = appendShortstr(b, cfg.Exchange)
	b = appendShortstr(b, m.RoutingKey)
	bits := byte(0)
	if cfg.Mandatory {
		bits = 1
	}
	b = closeFrame(append(b, bits), before)

	start := len(b)
	b = openFrame(b, frameHeader, channel)
	b = append(b, 0, classBasic, 0, 0)
	b = be.AppendUint64(b, uint64(len(m.Body)))
	flags := uint16(hasContentType | hasAppID)
	b = append(b, 0, 0)
	at := len(b)
	b = appendShortstr(b, contentType)
	if len(m.Headers) > 0 {
		flags |= hasHeaders
		var err error
		if b, err = appendTable(b, m.Headers); err != nil {
			return b[:before], err
		}
	}
	if cfg.DeliveryMode > 0 {
		flags |= hasDeliveryMode
		b = append(b, cfg.DeliveryMode)
	}
	if m.ID != "" {
		flags |= hasMessageID
		b = appendShortstr(b, m.ID)
	}
	if !m.Time.IsZero() {
		flags |= hasTimestamp
		b = be.AppendUint64(b, uint64(m.Time.Unix()))
	}
	if m.Type != "" {
		flags |= hasType
		b = appendShortstr(b, m.Type)
	}
	b = appendShortstr(b, appID)
	be.PutUint16(b[at-2:], flags)
	b = closeFrame(b, start)
	if n := len(b) - start; n > most {
		return b[:before], fmt.Errorf("its headers need %d bytes, a frame has %d", n, most)
	}
	return b, nil
}
