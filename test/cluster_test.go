// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// writers of cluster.writing, each with one write under way.
const writers = 4

// cluster is a Redis Cluster whose nodes all send to one queue.
type cluster struct {
	*servers.Cluster
	t     *testing.T
	queue *servers.Consumer
	name  string
	load  string // the line loadmodule

	mu      sync.Mutex
	written []string // keys whose SET was acknowledged
	next    atomic.Int64
	retried int // writes that may have been sent twice: a node went away under them
}

// startCluster starts three masters with a replica each. The module reaches
// the broker through a proxy.
func startCluster(t *testing.T, config ...string) (*cluster, *servers.Proxy) {
	t.Helper()
	return startNodes(t, servers.NewCluster, 3, "A", config)
}

// startMasters starts masters without replicas.
func startMasters(t *testing.T, masters int, events string, config ...string) (*cluster, *servers.Proxy) {
	t.Helper()
	return startNodes(t, servers.NewMasters, masters, events, config)
}

func startNodes(t *testing.T, start func(int, ...string) (*servers.Cluster, error), masters int, events string,
	config []string) (*cluster, *servers.Proxy) {
	t.Helper()
	proxy, err := servers.NewProxy(fmt.Sprintf("127.0.0.1:%d", broker.Port))
	must(t, err)
	t.Cleanup(proxy.Cut)
	c := &cluster{t: t, name: name(t)}
	must(t, broker.Bind(c.name, "amq.direct", c.name, nil))
	c.queue = broker.Consume(c.name)
	c.load = strings.Join([]string{"loadmodule", module(t), events, "127.0.0.1", strconv.Itoa(proxy.Port), "guest", "guest", "5",
		"amq.direct", c.name, "2", "10000000", "ALL"}, " ")
	c.Cluster, err = start(masters, append([]string{c.load, "key_evt_amqp.reconnect_delay_max 300"}, config...)...)
	t.Cleanup(func() {
		c.queue.Close()
		for i, n := range c.Nodes {
			if t.Failed() {
				t.Logf("node %d, %s:\n%s", i, n.Addr(), n.LogTail(40))
			}
			for _, bad := range []string{"BUG REPORT", "ASSERTION FAILED", "panic:", "crashed by signal", "are leaked", "internal error"} {
				if strings.Contains(n.Log(), bad) {
					t.Errorf("the log of node %d has %q", i, bad)
				}
			}
		}
		c.Close()
	})
	must(t, err)
	return c, proxy
}

// write makes n events, each of a key of its own, over all slots.
func (c *cluster) write(n int) {
	c.t.Helper()
	for range n {
		key := "k" + strconv.FormatInt(c.next.Add(1), 10)
		eventually(c.t, func() error { return c.Set(ctx, key, "v", 0).Err() })
		c.mu.Lock()
		c.written = append(c.written, key)
		c.mu.Unlock()
	}
}

// writing writes until the returned function is called. What is refused, or
// gets no answer, is not counted.
func (c *cluster) writing() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				key := "k" + strconv.FormatInt(c.next.Add(1), 10)
				if c.Set(ctx, key, "v", 0).Err() == nil {
					c.mu.Lock()
					c.written = append(c.written, key)
					c.mu.Unlock()
				} else {
					time.Sleep(10 * time.Millisecond)
				}
			}
		}()
	}
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// sum adds a counter of INFO up over the nodes that run.
func (c *cluster) sum(field string) (sum int) {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n.Alive() != nil {
			continue
		}
		info, err := n.ModuleInfo()
		must(c.t, err)
		i, err := strconv.Atoi(info[field])
		must(c.t, err)
		sum += i
	}
	return sum
}

// settled waits until no node has anything undelivered.
func (c *cluster) settled() {
	c.t.Helper()
	eventually(c.t, func() error {
		for i, n := range c.Nodes {
			if n.Alive() != nil {
				continue
			}
			info, err := n.ModuleInfo()
			if err != nil {
				return err
			}
			replica := n.Do(ctx, "ROLE").String()
			for _, field := range []string{"events_buffered", "fallback_length", "inflight"} {
				if info[field] != "0" {
					return fmt.Errorf("node %d: %v, %s", i, info, replica)
				}
			}
			keys, err := n.Keys(ctx, "key_evt_amqp.fallback*").Result()
			if err != nil || len(keys) > 0 {
				return fmt.Errorf("node %d: lists %v, error %v", i, keys, err)
			}
		}
		return nil
	})
}

// complete checks that every acknowledged write's event has arrived, each event
// under one id only, and that nothing else has: extra names events that are not
// SETs of ours.
func (c *cluster) complete(extra func(body string) bool) {
	c.t.Helper()
	c.settled()
	arrived := map[string]int{}
	eventually(c.t, func() error {
		clear(arrived)
		for _, m := range c.queue.Messages() {
			arrived[string(m.Body)]++
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		missing := 0
		for _, key := range c.written {
			if arrived["0\nset\n"+key] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d events are missing", missing, len(c.written))
		}
		return nil
	})
	for body, n := range arrived {
		if strings.HasPrefix(body, "0\nset\nk") {
			if n == 2 && c.retried > 0 {
				c.retried--
			} else if n != 1 {
				c.t.Errorf("%q came under %d ids", body, n)
			}
		} else if extra == nil || !extra(body) {
			c.t.Errorf("an event of nobody's: %q", body)
		}
	}
}

// healthy checks that redis-cli finds nothing wrong.
func (c *cluster) healthy() {
	c.t.Helper()
	eventually(c.t, func() error {
		out, err := c.Manage("check", c.Masters()[0].Addr())
		if err != nil || !strings.Contains(out, "[OK] All nodes agree") || !strings.Contains(out, "[OK] All 16384 slots covered") ||
			strings.Contains(out, "WARNING") {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
}

// lists are the fallback lists that there are, by node; each must be in a slot
// of its node.
func (c *cluster) lists() map[*servers.Redis]string {
	c.t.Helper()
	lists := map[*servers.Redis]string{}
	for _, n := range c.Masters() {
		keys, err := n.Keys(ctx, "key_evt_amqp.fallback*").Result()
		must(c.t, err)
		for _, key := range keys {
			lists[n] = key
			if err := n.Exists(ctx, key).Err(); err != nil {
				c.t.Errorf("%s has %s: %v", n.Addr(), key, err)
			}
		}
	}
	return lists
}

func (c *cluster) eachHas(field, want string) {
	c.t.Helper()
	eventually(c.t, func() error {
		for i, n := range c.Nodes {
			if n.Alive() != nil {
				continue
			}
			got, err := n.Do(ctx, "CONFIG", "GET", "key_evt_amqp."+field).StringSlice()
			if err != nil || len(got) != 2 || got[1] != want {
				return fmt.Errorf("node %d: %s is %q, want %q, error %v", i, field, got, want, err)
			}
		}
		return nil
	})
}

func TestClusterFailovers(t *testing.T) {
	c, _ := startCluster(t, "appendonly yes", "appendfsync always", "key_evt_amqp.outbox yes", "min-replicas-to-write 0")
	c.write(300)
	c.complete(nil)
	for i, n := range c.Nodes {
		info, err := n.ModuleInfo()
		must(t, err)
		if master := i < 3; (info["events_captured"] != "0") != master {
			t.Errorf("node %d has captured %s events", i, info["events_captured"])
		}
	}
	if got := c.sum("events_captured"); got != 300 {
		t.Errorf("captured %d events of 300", got)
	}

	stop := c.writing()
	defer stop()
	for _, how := range [][]any{{"CLUSTER", "FAILOVER"}, {"CLUSTER", "FAILOVER", "TAKEOVER"}, {"CLUSTER", "FAILOVER", "FORCE"}} {
		replica := c.replica()
		// Redis gives up after a while when a vote is missing.
		must(t, replica.Do(ctx, how...).Err())
		for asked := time.Now(); !strings.Contains(replica.Info(ctx, "replication").Val(), "role:master"); time.Sleep(50 * time.Millisecond) {
			if time.Since(asked) > 10*time.Second {
				asked = time.Now()
				replica.Do(ctx, how...)
			}
		}
		c.becomesMaster(replica)
	}
	// kill -9 of a master, and it comes back as a replica.
	master := c.Masters()[0]
	replica := c.replicaOf(master)
	master.Kill()
	c.retried += 4 * writers // and as many at the failovers
	c.becomesMaster(replica)
	must(t, master.Start())
	stop()
	must(t, c.Agree())
	c.forgetLost()
	c.complete(nil)
	c.healthy()
}

// forgetLost takes the writes off the books that a failover lost: what the
// replica has of a write, it has of its event.
func (c *cluster) forgetLost() {
	c.t.Helper()
	kept := c.written[:0:0]
	for _, key := range c.written {
		n, err := c.Exists(ctx, key).Result()
		must(c.t, err)
		if n == 1 {
			kept = append(kept, key)
		}
	}
	c.t.Logf("of %d acknowledged writes the failovers lost %d", len(c.written), len(c.written)-len(kept))
	c.written = kept
}

func (c *cluster) replicaOf(master *servers.Redis) (found *servers.Redis) {
	c.t.Helper()
	id := master.ID()
	eventually(c.t, func() error {
		for _, n := range c.Nodes {
			nodes, err := n.Do(ctx, "CLUSTER", "NODES").Text()
			if err != nil {
				return err
			}
			for _, line := range strings.Split(nodes, "\n") {
				if f := strings.Fields(line); len(f) > 7 && f[2] == "myself,slave" && f[3] == id {
					found = n
					return nil
				}
			}
		}
		return errors.New("it has no replica")
	})
	return found
}

// replica is a running replica whose link is up.
func (c *cluster) replica() (found *servers.Redis) {
	c.t.Helper()
	eventually(c.t, func() error {
		for _, n := range c.Nodes {
			if n.Alive() == nil {
				info, err := n.Info(ctx, "replication").Result()
				if err == nil && strings.Contains(info, "role:slave") && strings.Contains(info, "master_link_status:up") {
					found = n
					return nil
				}
			}
		}
		return errors.New("no replica is in sync")
	})
	return found
}

func (c *cluster) becomesMaster(n *servers.Redis) {
	c.t.Helper()
	isMaster(c.t, n)
	must(c.t, c.Agree())
}

// TestClusterListsMoveWithTheirSlots: the broker is away while a master is
// killed and its replica promoted, a list's slot is resharded, a node is added
// and the slots rebalanced, a node loses all its slots, and a master restarts.
func TestClusterListsMoveWithTheirSlots(t *testing.T) {
	c, proxy := startCluster(t, "appendonly yes", "appendfsync always", "key_evt_amqp.outbox yes",
		"cluster-allow-replica-migration no")
	c.write(50)
	c.complete(nil)
	proxy.Cut()
	c.write(300)
	if lists := c.lists(); len(lists) != 3 {
		t.Fatalf("lists: %v", lists)
	}

	// A master is killed; its replica has its list.
	master := c.Masters()[1]
	replica := c.replicaOf(master)
	master.Kill()
	c.becomesMaster(replica)
	c.write(100)
	must(t, master.Start())
	must(t, c.Agree())
	c.write(100)

	// A list's own slot moves, under load.
	stop := c.writing()
	defer stop()
	from, to := c.Masters()[0], c.Masters()[1]
	slot, err := from.Do(ctx, "CLUSTER", "KEYSLOT", c.lists()[from]).Int()
	must(t, err)
	c.moveSlot(from, to, slot)
	eventually(t, func() error {
		if key := c.lists()[from]; key == "" || slotOf(t, from, key) == slot {
			return fmt.Errorf("the list of the node that lost slot %d is %q", slot, key)
		}
		return nil
	})
	c.reshard(from, to, 300)

	// A node is added, gets slots, loses them all, and gets its share.
	added, err := c.Add()
	must(t, err)
	must(t, c.Meet(added))
	must(t, c.Agree())
	c.reshard(to, added, 1000)
	eventually(t, func() error {
		if c.lists()[added] == "" {
			return errors.New("the new node has no list")
		}
		return nil
	})
	c.reshard(added, to, 1000)
	eventually(t, func() error {
		if key := c.lists()[added]; key != "" {
			return errors.New("a node without slots has the list " + key)
		}
		return nil
	})
	out, err := c.Manage("rebalance", to.Addr(), "--cluster-use-empty-masters", "--cluster-weight", added.ID()+"=0.2")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	must(t, c.Agree())

	// Restarted, a master refuses writes for two seconds.
	added.Terminate()
	c.retried += writers
	must(t, added.Start())
	must(t, c.Agree())
	stop()
	c.write(100)
	moved := c.sum("fallback_length")
	must(t, proxy.Mend())
	c.complete(restoredOrDeleted)
	c.healthy()
	t.Logf("%d events in lists when the broker came back, %d duplicates", moved, c.queue.Duplicates())
}

// restoredOrDeleted: what MIGRATE makes, as in Redis's own notifications.
func restoredOrDeleted(body string) bool {
	return strings.HasPrefix(body, "0\nrestore\nk") || strings.HasPrefix(body, "0\ndel\nk")
}

func slotOf(t *testing.T, n *servers.Redis, key string) int {
	t.Helper()
	slot, err := n.Do(ctx, "CLUSTER", "KEYSLOT", key).Int()
	must(t, err)
	return slot
}

func (c *cluster) reshard(from, to *servers.Redis, slots int) {
	c.t.Helper()
	out, err := c.Manage("reshard", from.Addr(), "--cluster-from", from.ID(), "--cluster-to", to.ID(),
		"--cluster-slots", strconv.Itoa(slots), "--cluster-yes")
	if err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	must(c.t, c.Agree())
}

// moveSlot moves a slot as redis-cli does.
func (c *cluster) moveSlot(from, to *servers.Redis, slot int) {
	c.t.Helper()
	must(c.t, to.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", from.ID()).Err())
	must(c.t, from.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", to.ID()).Err())
	for {
		keys, err := from.Do(ctx, "CLUSTER", "GETKEYSINSLOT", slot, 100).StringSlice()
		must(c.t, err)
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", "127.0.0.1", to.Port, "", 0, 10000, "KEYS"}
		for _, key := range keys {
			args = append(args, key)
		}
		must(c.t, from.Do(ctx, args...).Err())
	}
	must(c.t, to.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", to.ID()).Err())
	must(c.t, from.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", to.ID()).Err())
	must(c.t, c.Agree())
}

// TestClusterCommandsReachEveryNode: each of the seven, given on each node,
// takes effect on all; nodes that were away catch up.
func TestClusterCommandsReachEveryNode(t *testing.T) {
	c, proxy := startCluster(t)
	states := func(want func(state string) bool) {
		t.Helper()
		eventually(t, func() error {
			for i, n := range c.Nodes {
				if n.Alive() != nil {
					continue
				}
				if info, err := n.ModuleInfo(); err != nil || !want(info["state"]) {
					return fmt.Errorf("node %d is %s, error %v", i, info["state"], err)
				}
			}
			return nil
		})
	}
	port := strconv.Itoa(proxy.Port)
	for i, n := range c.Nodes {
		do := func(args ...any) {
			t.Helper()
			must(t, n.Do(ctx, args...).Err())
		}
		key := fmt.Sprintf("%s-%d", c.name, i)
		do("key_evt_amqp.config_set", "127.0.0.1", port, "guest", "guest", 7, "amq.direct", key)
		c.eachHas("routing_key", key)
		c.eachHas("heartbeat", "7")
		do("key_evt_amqp.keymask_set", fmt.Sprint("^a", i), "two words")
		c.eachHas("key_mask", fmt.Sprintf(`^a%d "two words"`, i))
		do("key_evt_amqp.keymask_add", "b\x00")
		c.eachHas("key_mask", fmt.Sprintf(`^a%d "two words" "b\x00"`, i))
		do("key_evt_amqp.keymask_clean")
		c.eachHas("key_mask", "")
		do("key_evt_amqp.fallback_storage_size_set", 1000+i)
		c.eachHas("fallback_storage_size", strconv.Itoa(1000+i))
		do("key_evt_amqp.disconnect")
		states(is("disabled"))
		do("key_evt_amqp.connect", "127.0.0.1", port, "guest", "guest", 8)
		c.eachHas("heartbeat", "8")
		states(func(s string) bool { return s != "disabled" })
	}

	// CONFIG SET stays local, and a command that does not touch the setting
	// leaves it alone.
	must(t, c.Nodes[2].Do(ctx, "CONFIG", "SET", "key_evt_amqp.heartbeat", 9).Err())
	must(t, c.Nodes[0].Do(ctx, "key_evt_amqp.keymask_set", "ALL").Err())
	c.eachHas("key_mask", "ALL")
	for i, n := range c.Nodes {
		want := "8"
		if i == 2 {
			want = "9"
		}
		if got, err := n.Do(ctx, "CONFIG", "GET", "key_evt_amqp.heartbeat").StringSlice(); err != nil || got[1] != want {
			t.Errorf("node %d: heartbeat is %v, want %s, error %v", i, got, want, err)
		}
	}

	// One that was down has the same soon after it is back.
	down := c.Nodes[4]
	down.Kill()
	must(t, c.Nodes[1].Do(ctx, "key_evt_amqp.config_set", "127.0.0.1", port, "guest", "guest", 5, "amq.direct", c.name).Err())
	c.eachHas("routing_key", c.name)
	must(t, down.Start())
	c.eachHas("routing_key", c.name)
	c.eachHas("key_mask", "ALL")

	// Two that can't reach each other are given different commands: frozen,
	// a node hears nothing, and its own broadcast is lost with its links.
	alone, other := c.Nodes[5], c.Nodes[0]
	must(t, alone.Do(ctx, "CLUSTER", "RESET", "SOFT").Err()) // knows nobody
	must(t, alone.Do(ctx, "key_evt_amqp.fallback_storage_size_set", 111).Err())
	must(t, other.Do(ctx, "key_evt_amqp.fallback_storage_size_set", 222).Err())
	must(t, alone.Do(ctx, "key_evt_amqp.keymask_add", "alone").Err())
	must(t, other.Do(ctx, "key_evt_amqp.keymask_set", "^k").Err())
	must(t, other.Do(ctx, "key_evt_amqp.keymask_add", "later").Err())
	must(t, c.Meet(alone))
	c.eachHas("fallback_storage_size", "222")
	c.eachHas("key_mask", "^k later")
}

// TestClusterSlotLostWithItsKeys: a node that loses a slot deletes its keys,
// and servers from 7.2 on tell modules of each. Nobody deleted anything.
func TestClusterSlotLostWithItsKeys(t *testing.T) {
	c, _ := startCluster(t)
	c.write(20)
	loser, winner := c.Nodes[0], c.Nodes[1]
	const slot = 1584 // of the tag {3}, the first node's
	for i := range 20 {
		must(t, c.Set(ctx, fmt.Sprintf("{3}lost%d", i), "v", 0).Err())
	}
	must(t, c.Set(ctx, "{3}deleted", "v", 0).Err())
	must(t, c.Del(ctx, "{3}deleted").Err())
	must(t, winner.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", loser.ID()).Err())
	must(t, winner.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", winner.ID()).Err())
	eventually(t, func() error {
		if n := loser.Do(ctx, "CLUSTER", "COUNTKEYSINSLOT", slot).Val(); n != int64(0) {
			return fmt.Errorf("the loser has %v keys of the slot", n)
		}
		return nil
	})
	c.write(20)
	deleted := 0
	c.complete(func(body string) bool {
		if body == "0\ndel\n{3}deleted" {
			deleted++
		}
		return strings.HasPrefix(body, "0\nset\n{3}") || body == "0\ndel\n{3}deleted"
	})
	if deleted != 1 {
		t.Errorf("the key that was deleted made %d events", deleted)
	}
}
