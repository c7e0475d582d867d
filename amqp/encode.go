// SPDX-License-Identifier: BSD-3-Clause

package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// A message is encoded straight into the buffer that is written: nothing is
// allocated for it. The library would write the same bytes, which
// encode_test.go checks.

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
func appendPublish(b []byte, channel uint16, frameMax int, cfg *Config, m *Message) ([]byte, error) {
	contentType := m.contentType()
	if max(len(cfg.Exchange), len(cfg.AppID), len(m.RoutingKey), len(contentType), len(m.ID), len(m.Type)) > 255 {
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
	flags := uint16(hasContentType)
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
	if cfg.AppID != "" {
		flags |= hasAppID
		b = appendShortstr(b, cfg.AppID)
	}
	be.PutUint16(b[at-2:], flags)
	b = closeFrame(b, start)
	if n := len(b) - start; n > frameMax {
		return b[:before], fmt.Errorf("its headers need %d bytes, a frame has %d", n, frameMax)
	}
	return b, nil
}

// appendBody writes the first frame of a message's body, and returns the rest
// of the body.
func appendBody(b []byte, channel uint16, frameMax int, body []byte) (written, rest []byte) {
	n := min(len(body), frameMax-frameOverhead)
	return appendFrame(b, frameBody, channel, body[:n]), body[n:]
}
