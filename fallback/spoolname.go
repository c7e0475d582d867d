// SPDX-License-Identifier: BSD-3-Clause

package fallback

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

const (
	namePrefix  = "key_evt_amqp."
	nameMax     = 96 // KEA_SPOOL_NAME_MAX, with C's final zero
	ownerIDSize = 16
	hexDigits   = "0123456789abcdef"
)

// SpoolName is a spool file's name, taken apart: c/spooldir.h.
type SpoolName struct {
	ID     string // of its server; "" in names of the version before
	Number uint64 // files of a server are read in this order; without ID: its port
	Suffix string // "": a whole file; ".new": one being written; ".damaged" …: kept aside
}

// ParseSpoolName takes the last part of a path apart. It is not ok where a spool
// file cannot have that name.
func ParseSpoolName(name string) (n SpoolName, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok || len(name) >= nameMax {
		return SpoolName{}, false
	}
	id := rest[:len(rest)-len(strings.TrimLeft(rest, hexDigits))]
	if len(id) == ownerIDSize && strings.HasPrefix(rest[ownerIDSize:], ".") {
		n.ID, rest = id, rest[ownerIDSize+1:]
	}
	suffix := strings.TrimLeft(rest, hexDigits[:10])
	number, err := strconv.ParseUint(rest[:len(rest)-len(suffix)], 10, 64)
	n.Number = number
	n.Suffix, ok = strings.CutPrefix(suffix, ".spool")
	if err != nil || !ok {
		return SpoolName{}, false
	}
	return n, true
}

// Owner is what a server looked like at its last load: c/owner.h. "" is none,
// or not known.
type Owner struct {
	ConfigFile, Dataset, Node, UnixSocket, Port, TLSPort string
}

// OwnerName is the name of the file, beside the spool files, that says what the
// server with that id looked like.
func OwnerName(id string) string { return namePrefix + id + ".owner" }

// ErrNoOwner is returned by [ReadOwner] for what is not an owner file.
var ErrNoOwner = errors.New("fallback: not an owner file")

const (
	ownerFirstLine = "key_evt_amqp owner 1\n"
	ownerFactMax   = 511
	ownerFileMax   = 6*(ownerFactMax+1) + 256 - 1 // what C reads of one
)

// ReadOwner reads an owner file. Words that it does not know are of a later
// version, and skipped.
func ReadOwner(in io.Reader) (o Owner, err error) {
	b, err := io.ReadAll(io.LimitReader(in, ownerFileMax))
	if err != nil {
		return o, err
	}
	b, _, _ = bytes.Cut(b, []byte{0}) // C's end of a text
	text, ok := strings.CutPrefix(string(b), ownerFirstLine)
	if !ok {
		return o, ErrNoOwner
	}
	facts := map[string]*string{
		"config-file": &o.ConfigFile, "dataset": &o.Dataset, "node": &o.Node,
		"unixsocket": &o.UnixSocket, "port": &o.Port, "tls-port": &o.TLSPort,
	}
	for {
		line, rest, whole := strings.Cut(text, "\n")
		if !whole {
			return o, nil
		}
		word, fact, _ := strings.Cut(line, " ")
		if to := facts[word]; to != nil && len(line) > len(word) {
			*to = ownerFact(fact)
		}
		text = rest
	}
}

// ownerFact is the fact on one line, as C has it.
func ownerFact(text string) string {
	b := []byte(text[:min(len(text), ownerFactMax)])
	for i, c := range b {
		if c < ' ' || c == 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}
