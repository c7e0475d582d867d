// SPDX-License-Identifier: BSD-3-Clause

package amqp

import "encoding/binary"

// What a broker sends, for tests.

func methodFrame(channel uint16, method uint32, args ...byte) []byte {
	return closeFrame(append(openMethod(nil, channel, method), args...), 0)
}

// confirmFrame appends an ack or a nack.
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

// returnFrames appends a message that comes back.
func returnFrames(b []byte, id string, body []byte, frameMax int) []byte {
	b = returnHeaderFrames(b, id, uint64(len(body)))
	for len(body) > 0 {
		b, body = appendBody(b, 1, frameMax, body)
	}
	return b
}

// returnHeaderFrames appends one whose body is still to come.
func returnHeaderFrames(b []byte, id string, size uint64) []byte {
	start := len(b)
	b = append(openMethod(b, 1, basicReturn), 312>>8, 312&0xFF)
	b = appendShortstr(appendShortstr(appendShortstr(b, "NO_ROUTE"), "amq.direct"), "key")
	b = closeFrame(b, start)
	start = len(b)
	b = append(openFrame(b, frameHeader, 1), 0, classBasic, 0, 0)
	b = binary.BigEndian.AppendUint64(b, size)
	b = binary.BigEndian.AppendUint16(b, hasContentType|hasHeaders|hasDeliveryMode|hasMessageID|hasTimestamp)
	b, _ = appendTable(appendShortstr(b, "text/plain"), map[string]any{"h": true})
	b = appendShortstr(append(b, 2), id)
	return closeFrame(binary.BigEndian.AppendUint64(b, 1), start)
}

// closeMethod appends a close of the connection, or of a channel.
func closeMethod(b []byte, channel uint16, code uint16, text string) []byte {
	start := len(b)
	method := uint32(connectionClose)
	if channel > 0 {
		method = channelClose
	}
	b = binary.BigEndian.AppendUint16(openMethod(b, channel, method), code)
	return closeFrame(append(appendShortstr(b, text), 0, 0, 0, 0), start)
}

func startFrame(properties map[string]any, mechanisms string) []byte {
	b := append(openMethod(nil, 0, connectionStart), 0, 9)
	b, err := appendTable(b, properties)
	if err != nil {
		panic(err)
	}
	return closeFrame(appendLongstr(appendLongstr(b, mechanisms), "en_US"), 0)
}

func tuneFrame(channels uint16, frameMax uint32, heartbeat uint16) []byte {
	b := binary.BigEndian.AppendUint16(openMethod(nil, 0, connectionTune), channels)
	b = binary.BigEndian.AppendUint32(b, frameMax)
	return closeFrame(binary.BigEndian.AppendUint16(b, heartbeat), 0)
}

func blockedFrame(reason string) []byte {
	return closeFrame(appendShortstr(openMethod(nil, 0, connectionBlocked), reason), 0)
}
