package main

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/c"
)

// cluster spreads what commands change over the nodes. A command is broadcast
// at once; and every second each node shows two others a digest of what it
// knows, so that one that was away, or missed a message, catches up. CONFIG SET
// is not spread, as Redis's own is not.
type cluster struct {
	*agreement
	ignored uint64
}

// summaries is how many nodes are shown the digest every second.
const summaries = 2

// spread is called after a command has taken effect; names are the settings
// that it changed.
func (m *module) spread(names []string, link string) {
	if m.cluster == nil {
		return
	}
	values := map[string]string{}
	for _, name := range names {
		values[name] = m.current.value(name)
	}
	if link != "" {
		values[linkEntry] = link
	}
	m.cluster.record(values, uint64(time.Now().UnixMicro()))
	c.BusSend("", m.cluster.settings())
	m.cluster.inform()
}

func (n *cluster) inform() { c.InfoBus(n.clock, n.ignored) }

// BusTick implements [c.Module].
func (m *module) BusTick() {
	if m.cluster == nil {
		return
	}
	nodes := c.BusNodes()
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	summary, left := m.cluster.summary(), summaries
	for _, node := range nodes {
		if node == m.cluster.self || !c.BusSend(node, summary) {
			continue
		}
		if left--; left == 0 {
			return
		}
	}
}

// BusReceive implements [c.Module].
func (m *module) BusReceive(sender string, message []byte) {
	if m.cluster == nil {
		return
	}
	defer m.cluster.inform()
	kind, payload, err := unseal(message)
	if err != nil {
		m.cluster.ignored++
		return
	}
	known := payload // the digest of what the sender knows
	switch kind {
	case busSettings:
		entries, err := decodeEntries(payload)
		if err != nil {
			m.cluster.ignored++
			return
		}
		m.adopt(m.cluster.merge(entries))
		known = digest(payload)
	case busSummary:
	default:
		m.cluster.ignored++
		return
	}
	if !bytes.Equal(known, digest(m.cluster.encode())) {
		c.BusSend(sender, m.cluster.settings())
	}
}

// adopt puts into effect what commands on other nodes changed.
func (m *module) adopt(news map[string]string) {
	s, changed := m.current.clone(), false
	for _, name := range slices.Sorted(maps.Keys(news)) {
		row := lookup(name)
		if row == nil {
			continue // the link, or a setting of a newer version
		}
		if err := s.set(row, news[name]); err != nil {
			m.log.warning(aboutNodes, "a setting from another node can't be used here: "+err.Error())
			continue
		}
		changed = true
	}
	if changed {
		if err := m.change(s); err != nil {
			m.log.warning(aboutNodes, "settings from another node can't be used here: "+err.Error())
		}
	}
	switch news[linkEntry] {
	case connected:
		m.Connect(nil)
	case disconnected:
		m.publisher.Disconnect(disconnectTimeout, func() {})
	}
}

// value is a setting's value as a user would type it.
func (s *settings) value(name string) string {
	if find(name).kind == c.Text {
		return s.texts[name]
	}
	return strconv.FormatInt(s.numbers[name], 10)
}
