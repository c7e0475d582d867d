// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/crc64"
	"maps"
	"slices"
)

// How an agreement travels over the cluster bus, where a message may be
// anybody's.
//
//	0   4  magic
//	4   1  version of this format
//	5   1  kind
//	6   4  CRC-32C of the kind and what follows, big-endian
//	10     kind summary: the digest, 8 bytes
//	       kind settings: entries sorted by name, each: name and value, each
//	       behind its length as a uvarint; stamp's time, 8 bytes; its node
//	       kind snapshot: the id, masks in redis.conf's quoting
//	       kind snapshot cancel: nothing
const (
	busMagic    = "KeAb"
	busVersion  = 1
	busHeader   = 10
	busSummary  = 1
	busSettings = 2

	busSnapshot       = 3
	busSnapshotCancel = 4
)

// What a message may have at the most. Nothing that the commands can set comes
// near, and what is larger is not even looked at.
const (
	maxMessage = 6 << 20 // a full list of masks, quoted, and the rest
	maxEntries = 64      // ten settings and the connection today
	maxName    = 64
)

var (
	errForeign = errors.New("not a message of this module and version")
	crc32c     = crc32.MakeTable(crc32.Castagnoli)
	crc64ecma  = crc64.MakeTable(crc64.ECMA)
)

func seal(kind byte, payload []byte) []byte {
	m := append([]byte(busMagic), busVersion, kind, 0, 0, 0, 0)
	m = append(m, payload...)
	binary.BigEndian.PutUint32(m[6:], busChecksum(m))
	return m
}

func busChecksum(m []byte) uint32 {
	return crc32.Update(crc32.Checksum(m[5:6], crc32c), crc32c, m[busHeader:])
}

// unseal returns a message's kind and payload.
func unseal(m []byte) (kind byte, payload []byte, err error) {
	if len(m) < busHeader || len(m) > maxMessage || string(m[:4]) != busMagic || m[4] != busVersion ||
		binary.BigEndian.Uint32(m[6:]) != busChecksum(m) {
		return 0, nil, errForeign
	}
	return m[5], m[busHeader:], nil
}

func (a *agreement) encode() []byte {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(a.entries)) {
		e := a.entries[name]
		b = appendText(appendText(b, name), e.value)
		b = binary.BigEndian.AppendUint64(b, e.stamp.time)
		b = append(b, e.stamp.node...)
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func decodeEntries(b []byte) (map[string]entry, error) {
	entries := map[string]entry{}
	for len(b) > 0 {
		var name, value string
		var ok bool
		if name, b, ok = cutText(b); !ok || len(name) > maxName || len(entries) == maxEntries {
			return nil, errForeign
		}
		if value, b, ok = cutText(b); !ok || len(b) < 8+nodeIDSize {
			return nil, errForeign
		}
		entries[name] = entry{value, stamp{binary.BigEndian.Uint64(b), string(b[8 : 8+nodeIDSize])}}
		b = b[8+nodeIDSize:]
	}
	return entries, nil
}

func cutText(b []byte) (text string, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", nil, false
	}
	return string(b[used : used+int(n)]), b[used+int(n):], true
}

// digest is the same on nodes that agree, and almost surely on no others.
func digest(encoded []byte) []byte {
	return binary.BigEndian.AppendUint64(nil, crc64.Checksum(encoded, crc64ecma))
}
