// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/key-evt-amqp/key_evt_amqp/c"
)

// A snapshot is made in C (c/snapshot.c), by each master of a cluster its own: the
// order to begin, or to cancel, is broadcast once. A node that it does not reach
// sends no snapshot_end.

// Snapshot implements [c.Module].
func (m *module) Snapshot(masks []string) (id string, err error) {
	id = fmt.Sprintf("%0*x", c.SnapshotIDSize, rand.Uint64())
	if err := m.beginSnapshot(id, masks); err != nil {
		return "", err
	}
	if m.cluster != nil {
		c.BusSend("", seal(busSnapshot, append([]byte(id), joinQuoted(masks)...)))
	}
	return id, nil
}

// beginSnapshot: no masks are the configured ones.
func (m *module) beginSnapshot(id string, masks []string) error {
	s := m.current
	if len(masks) > 0 {
		s = s.clone()
		if err := s.setMasks(masks); err != nil {
			return err
		}
	}
	program, count, err := s.compiled()
	if err != nil {
		return err
	}
	if count == 0 {
		return errors.New("key_mask: there are none, so there is nothing to send; give masks to the command")
	}
	return c.SnapshotBegin(id, program)
}

// cancelSnapshot: also where none is under way, as on a cluster's node that has
// ended its own.
func (m *module) cancelSnapshot() {
	c.SnapshotCancel()
	if m.cluster != nil {
		c.BusSend("", seal(busSnapshotCancel, nil))
	}
}

// joinSnapshot does what another node was told to.
func (m *module) joinSnapshot(sender string, payload []byte) error {
	if len(payload) < c.SnapshotIDSize {
		return errForeign
	}
	id := string(payload[:c.SnapshotIDSize])
	if strings.Trim(id, "0123456789abcdef") != "" {
		return errForeign
	}
	masks, err := splitQuoted(string(payload[c.SnapshotIDSize:]), maxMasks)
	if err != nil {
		return errForeign
	}
	// A replica has nothing to do with it.
	if err := m.beginSnapshot(id, masks); err != nil && c.ActiveMaster() {
		m.log.warning(aboutNodes, fmt.Sprintf("the snapshot %s from node %s is not made here: %s", id, sender, err))
	}
	return nil
}
