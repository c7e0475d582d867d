// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"maps"
)

// agreement is what the nodes of a cluster agree on: for each setting that a
// command has changed, anywhere in the cluster, the value that the last such
// command gave it. Every node keeps all of it, and two nodes that meet end up
// with the same, whatever each has missed: of two values the one with the
// later stamp stays.
type agreement struct {
	self    string // this node's id
	entries map[string]entry
	clock   uint64 // the latest stamp seen

	// The messages that show it, made when asked for; nil: to be made anew.
	full, brief []byte
}

type entry struct {
	value string
	stamp stamp
}

// stamp orders commands: by time, in microseconds, and never before a command
// that its node knew of; by node where two are the same.
type stamp struct {
	time uint64
	node string // 40 bytes
}

func (a stamp) after(b stamp) bool {
	return a.time > b.time || a.time == b.time && a.node > b.node
}

const nodeIDSize = 40

// connectionEntry is the one entry that is not a setting: whether a connection is
// wanted.
const (
	connectionEntry = "link"
	connected       = "connect"
	disconnected    = "disconnect"
)

func newAgreement(self string) *agreement {
	return &agreement{self: self, entries: map[string]entry{}}
}

// horizon is how far ahead of this node's clock a stamp may be, in microseconds.
// One further ahead is nobody's command, or was given where the clock is wrong:
// taken, it would keep every later command out.
const horizon = 24 * 60 * 60 * 1000000

// beyond reports whether a stamp is further ahead than any may be.
func beyond(s stamp, now uint64) bool { return s.time > now && s.time-now > horizon }

// record takes the values that a command on this node gave. now is in
// microseconds.
func (a *agreement) record(values map[string]string, now uint64) {
	a.heal(now)
	a.clock = max(now, a.clock+1)
	for name, value := range values {
		a.entries[name] = entry{value, stamp{a.clock, a.self}}
	}
	a.changed()
}

// heal takes back stamps that this node gave, or took, while its clock was far
// ahead of what it is now: no other node takes them, and no later command would
// be later. When they were given nobody can tell, so every other stamp is later.
func (a *agreement) heal(now uint64) {
	if !beyond(stamp{time: a.clock}, now) {
		return
	}
	a.clock = 0
	for name, e := range a.entries {
		if beyond(e.stamp, now) {
			e.stamp.time = 1
			a.entries[name] = e
		}
		a.clock = max(a.clock, e.stamp.time)
	}
	a.changed()
}

// news is what another node has that is later than what we have.
func (a *agreement) news(other map[string]entry) map[string]entry {
	news := map[string]entry{}
	for name, e := range other {
		if ours, ok := a.entries[name]; !ok || e.stamp.after(ours.stamp) {
			news[name] = e
		}
	}
	return news
}

// merge takes in what another node has.
func (a *agreement) merge(other map[string]entry) {
	for name, e := range a.news(other) {
		a.entries[name] = e
		a.clock = max(a.clock, e.stamp.time)
		a.changed()
	}
}

func (a *agreement) changed() { a.full, a.brief = nil, nil }

// messages makes the two that show what the node knows.
func (a *agreement) messages() {
	if a.full == nil {
		encoded := a.encode()
		a.full, a.brief = seal(busSettings, encoded), seal(busSummary, digest(encoded))
	}
}

// settings is the message with everything, summary the one with its digest. They
// are not to be written to.
func (a *agreement) settings() []byte { a.messages(); return a.full }
func (a *agreement) summary() []byte  { a.messages(); return a.brief }

// isSummary reports whether a node that shows this digest knows what we know.
func (a *agreement) isSummary(digest []byte) bool {
	return bytes.Equal(digest, a.summary()[busHeader:])
}

// isAll reports whether entries are what we know, all of it and nothing else.
func (a *agreement) isAll(entries map[string]entry) bool { return maps.Equal(entries, a.entries) }
