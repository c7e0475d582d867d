// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/c"
)

// cluster spreads what commands change over the nodes. A command is broadcast
// at once; and every second each node shows two others a digest of what it
// knows, so that one that was away, or missed a message, catches up. CONFIG SET
// is not spread, as Redis's own is not.
//
// Whoever can write to the bus can send any of this: see docs/security.md. So
// only what commands can change is taken, nothing that could not be undone by a
// later command, and a second's messages cost the server a bounded time.
type cluster struct {
	*agreement
	ignored uint64

	answered map[string]bool // nodes that were sent everything since the last tick
	spent    time.Duration   // on settings of others since then
	told     map[string]bool // what was refused, as logged
	silent   map[string]int  // by node: messages sent to it since one came from it
}

const (
	// summaries is how many nodes are shown the digest every second.
	summaries = 2
	// busBudget is how long a second's messages may keep the main thread
	// busy with settings. What is left is learned by the next digests.
	busBudget = 100 * time.Millisecond
	// silence is how many messages a node is sent before its own silence is
	// reported. A node with the module sends as many as it gets, to others
	// chosen at random: that one of them never is chosen in so long is a
	// matter of e^-30.
	silence = 30
)

func newCluster(self string) *cluster {
	return &cluster{agreement: newAgreement(self), answered: map[string]bool{}, told: map[string]bool{}, silent: map[string]int{}}
}

func nowMicros() uint64 { return uint64(time.Now().UnixMicro()) }

// spread is called after a command has taken effect; names are the settings
// that it changed.
func (m *module) spread(names []string, connection string) {
	if m.cluster == nil {
		return
	}
	values := map[string]string{}
	for _, name := range names {
		values[name] = m.current.value(name)
	}
	if connection != "" {
		values[connectionEntry] = connection
	}
	m.cluster.record(values, nowMicros())
	c.BusSend("", m.cluster.settings())
	m.cluster.inform()
}

func (n *cluster) inform() { c.InfoBus(n.clock, n.ignored) }

// BusTick implements [c.Module].
func (m *module) BusTick() {
	n := m.cluster
	if n == nil {
		return
	}
	clear(n.answered)
	n.spent = 0
	n.heal(nowMicros())
	nodes := c.BusNodes()
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	left := summaries
	for _, node := range nodes {
		if node == n.self || !c.BusSend(node, n.summary()) {
			continue
		}
		m.unanswered(node)
		if left--; left == 0 {
			return
		}
	}
}

// unanswered notes that a node was sent a message, and says once, until it is
// heard of, that it sends none.
func (m *module) unanswered(node string) {
	n := m.cluster
	if len(n.silent) > 2000 { // nodes come and go; a cluster has a thousand
		clear(n.silent)
	}
	n.silent[node]++
	if n.silent[node] == silence {
		m.log.warning(aboutNodes, fmt.Sprintf("node %s sends no messages of this module: every node of a cluster needs it, replicas, too. Is it loaded there?", node))
	}
}

// BusReceive implements [c.Module].
func (m *module) BusReceive(sender string, message []byte) {
	n := m.cluster
	if n == nil {
		return
	}
	defer n.inform()
	kind, payload, err := unseal(message)
	if err != nil {
		n.ignored++
		return
	}
	delete(n.silent, sender)
	agree := false
	switch kind {
	case busSummary:
		agree = n.isSummary(payload)
	case busSettings:
		if n.spent >= busBudget {
			n.ignored++
			return
		}
		start := time.Now()
		entries, err := decodeEntries(payload)
		if err != nil {
			n.ignored++
			return
		}
		m.adopt(sender, entries)
		agree = n.isAll(entries)
		n.spent += time.Since(start)
	case busSnapshot, busSnapshotCancel:
		if n.spent >= busBudget {
			n.ignored++
			return
		}
		start := time.Now()
		if kind == busSnapshotCancel {
			c.SnapshotCancel()
		} else if m.joinSnapshot(sender, payload) != nil {
			n.ignored++
		}
		n.spent += time.Since(start)
		return
	default:
		n.ignored++
		return
	}
	// At most one full answer a node and second: answers are large, and
	// summaries are small.
	if !agree && !n.answered[sender] {
		n.answered[sender] = true
		c.BusSend(sender, n.settings())
	}
}

// adopt puts into effect what commands on other nodes changed. What it refuses
// it takes out of entries: that is neither kept nor sent on.
func (m *module) adopt(sender string, entries map[string]entry) {
	n, now := m.cluster, nowMicros()
	refused := map[string]string{} // why, by the kind of reason
	refuse := func(name, kind, why string) {
		delete(entries, name)
		refused[kind] = why
	}
	n.heal(now)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		switch stamp := entries[name].stamp; {
		case name != connectionEntry && !spreads(name):
			refuse(name, "name", fmt.Sprintf("%q is not a setting that commands change", name))
		case beyond(stamp, now):
			refuse(name, "stamp", name+" is of more than a day ahead: that node's clock is wrong, or this one's")
		case !isNodeID(stamp.node):
			refuse(name, "node", name+" bears a node's id that is none")
		}
	}

	news := n.news(entries)
	s, changed := m.current.clone(), false
	for _, name := range slices.Sorted(maps.Keys(news)) {
		value := news[name].value
		var err error
		switch {
		case name != connectionEntry:
			err = s.set(lookup(name), value)
			changed = changed || err == nil
		case value != connected && value != disconnected:
			err = fmt.Errorf("link: it is neither %s nor %s", connected, disconnected)
		}
		if err != nil {
			delete(news, name)
			refuse(name, "value", err.Error())
		}
	}
	if changed {
		if err := m.change(s); err != nil {
			news = nil
			refuse(connectionEntry, "settings", err.Error())
		}
	}
	n.merge(news)
	switch news[connectionEntry].value {
	case connected:
		m.Connect(nil)
	case disconnected:
		m.publisher.Disconnect(disconnectTimeout, func() {})
	}

	if len(refused) > 0 {
		n.ignored++
	}
	for kind, why := range refused {
		// Once: it comes again with every message of that node.
		if !n.told[kind] {
			n.told[kind] = true
			m.log.warning(aboutNodes, fmt.Sprintf("settings from node %s are not taken: %s", sender, why))
		}
	}
}

// spreads reports whether a setting is one that commands change, on all nodes.
func spreads(name string) bool {
	for _, row := range table[firstOfCommands : maskPosition+1] {
		if row.name == name {
			return true
		}
	}
	return false
}

func isNodeID(text string) bool {
	return len(text) == nodeIDSize && strings.Trim(text, "0123456789abcdef") == ""
}

// value is a setting's value as a user would type it.
func (s *settings) value(name string) string {
	if find(name).kind == c.Text {
		return s.texts[name]
	}
	return strconv.FormatInt(s.numbers[name], 10)
}
