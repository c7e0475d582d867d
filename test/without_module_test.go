// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func linked(t *testing.T, replica *rig) {
	t.Helper()
	eventually(t, func() error {
		info, err := replica.Info(ctx, "replication").Result()
		if err != nil || !strings.Contains(info, "master_link_status:up") {
			return fmt.Errorf("%v %s", err, info)
		}
		return nil
	})
}

func logs(t *testing.T, r *rig, text string) {
	t.Helper()
	eventually(t, func() error {
		if !strings.Contains(r.Log(), text) {
			return fmt.Errorf("the log lacks %q", text)
		}
		return nil
	})
}

// A replica without the module has the dataset, the list included. It does not
// know the module's commands: with propagation-error-behavior panic the first
// one that comes ends it. The master says what replicas need.
func TestAReplicaWithoutTheModule(t *testing.T) {
	for _, test := range []struct {
		config []string
		ends   bool
	}{
		{nil, false},
		{[]string{"propagation-error-behavior panic"}, true},
	} {
		t.Run(strings.Join(test.config, ""), func(t *testing.T) {
			master, p := proxied(t, options{events: "$"})
			p.Cut()
			replica := start(t, options{noLoad: true, silent: true, config: slices.Concat(test.config,
				[]string{fmt.Sprintf("replicaof 127.0.0.1 %d", master.Port)})})
			replica.crashed = test.ends
			linked(t, replica)
			logs(t, master, "Each replica needs this module, too")
			master.sets("k", 100)
			master.until("fallback_length", is("100"))
			want := master.do("LRANGE", "key_evt_amqp.fallback", 0, -1)
			eventually(t, func() error {
				if got := replica.do("LRANGE", "key_evt_amqp.fallback", 0, -1); fmt.Sprint(got) != fmt.Sprint(want) {
					return fmt.Errorf("the replica's list differs")
				}
				return nil
			})
			master.do("key_evt_amqp.keymask_add", "^k")
			if test.ends {
				eventually(t, func() error {
					if replica.Alive() == nil {
						return fmt.Errorf("the replica is alive")
					}
					return nil
				})
				logs(t, replica, "key_evt_amqp.keymask_add")
				return
			}
			logs(t, replica, "key_evt_amqp.keymask_add")
			master.sets("l", 1)
			eventually(t, func() error { return replica.Get(ctx, "l0").Err() })
			if n := strings.Count(master.Log(), "Each replica needs this module, too"); n != 1 {
				t.Errorf("said %d times", n)
			}
			// Promoted, it has the events, and delivers them with the module.
			master.until("fallback_length", is("101"))
			eventually(t, func() error {
				if n := replica.LLen(ctx, "key_evt_amqp.fallback").Val(); n != 101 {
					return fmt.Errorf("the replica's list has %d events", n)
				}
				return nil
			})
			replica.do("REPLICAOF", "NO", "ONE")
			replica.name = master.name
			must(t, replica.load(options{events: "$"}))
			master.arrives(append(setBodies("k", 100), "0\nset\nl0"))
		})
	}
}

// In a cluster the bus shows which nodes have the module.
func TestAClusterNodeWithoutTheModuleIsNamed(t *testing.T) {
	c, _ := startMasters(t, 3, "$")
	bare := c.Nodes[2]
	id := bare.Do(ctx, "CLUSTER", "MYID").Val().(string)
	must(t, bare.Do(ctx, "MODULE", "UNLOAD", "key_evt_amqp").Err())
	for _, n := range c.Nodes[:2] {
		eventually(t, func() error {
			if log := n.Log(); !strings.Contains(log, "node "+id+" sends no messages of this module") {
				return fmt.Errorf("the log of %s does not name the node without the module", n.Addr())
			}
			return nil
		})
		for _, other := range c.Nodes[:2] {
			if named := other.Do(ctx, "CLUSTER", "MYID").Val().(string); strings.Contains(n.Log(), "node "+named+" sends no") {
				t.Errorf("node %s has the module", named)
			}
		}
	}
}
