// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Cluster is a Redis Cluster on 127.0.0.1: masters first, then a replica of
// each, if there are any.
type Cluster struct {
	Nodes []*Redis
	*redis.ClusterClient

	config []string
}

// NewCluster starts masters and as many replicas, each with the lines of
// config, and waits until all agree.
func NewCluster(masters int, config ...string) (*Cluster, error) {
	return newCluster(masters, masters, config)
}

// NewMasters starts a cluster without replicas.
func NewMasters(masters int, config ...string) (*Cluster, error) {
	return newCluster(masters, 0, config)
}

func newCluster(masters, replicas int, config []string) (c *Cluster, err error) {
	c = &Cluster{config: config}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	for range masters + replicas {
		if _, err = c.Add(); err != nil {
			return c, err
		}
	}
	for i, n := range c.Nodes[:masters] {
		if err = n.Do(bg, "CLUSTER", "ADDSLOTSRANGE", i*16384/masters, (i+1)*16384/masters-1).Err(); err != nil {
			return c, err
		}
		if err = n.Do(bg, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(); err != nil {
			return c, err
		}
	}
	for _, n := range c.Nodes[1:] {
		if err = c.Meet(n); err != nil {
			return c, err
		}
	}
	if err = c.Agree(); err != nil {
		return c, err
	}
	for i, n := range c.Nodes[masters:] {
		if err = n.Do(bg, "CLUSTER", "REPLICATE", c.Nodes[i].ID()).Err(); err != nil {
			return c, err
		}
	}
	var addrs []string
	for _, n := range c.Nodes[:masters] {
		addrs = append(addrs, n.Addr())
	}
	c.ClusterClient = redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: addrs, Protocol: 2,
		DisableIdentity: true, MaxRedirects: 16, ReadTimeout: 60 * time.Second,
		MinRetryBackoff: 20 * time.Millisecond, MaxRetryBackoff: 500 * time.Millisecond,
	})
	return c, c.Agree()
}

var bg = context.Background()

// Add starts one node more, not yet met.
func (c *Cluster) Add() (*Redis, error) {
	bus, err := freePort()
	if err != nil {
		return nil, err
	}
	n, err := NewRedis(append([]string{
		"cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 2000",
		"cluster-replica-validity-factor 0", "cluster-port " + strconv.Itoa(bus),
	}, c.config...)...)
	if err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, n)
	return n, n.Start()
}

// Meet introduces a node to the first.
func (c *Cluster) Meet(n *Redis) error {
	first := c.Nodes[0]
	for _, line := range first.Config {
		if bus, ok := strings.CutPrefix(line, "cluster-port "); ok {
			return n.Do(bg, "CLUSTER", "MEET", "127.0.0.1", first.Port, bus).Err()
		}
	}
	return errors.New("the first node has no cluster port")
}

// ID is a cluster node's id.
func (r *Redis) ID() string {
	id, _ := r.Do(bg, "CLUSTER", "MYID").Text()
	return id
}

// Agree waits until every node that runs knows every node and the cluster is
// whole, replicas included.
func (c *Cluster) Agree() error {
	return until(120*time.Second, "the cluster agrees", func() error {
		var view string
		for i, n := range c.Nodes {
			if n.Alive() != nil {
				continue
			}
			info, err := n.Do(bg, "CLUSTER", "INFO").Text()
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") ||
				!strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", len(c.Nodes))) {
				return fmt.Errorf("node %d: %s", i, info)
			}
			role, err := n.Info(bg, "replication").Result()
			if err != nil {
				return err
			}
			if strings.Contains(role, "master_link_status:down") {
				return fmt.Errorf("node %d: %s", i, role)
			}
			nodes, err := n.Do(bg, "CLUSTER", "NODES").Text()
			if err != nil {
				return err
			}
			if v := roles(nodes); view != "" && v != view {
				return fmt.Errorf("views differ: %s and %s", view, v)
			} else {
				view = v
			}
		}
		return nil
	})
}

// roles is what CLUSTER NODES says of roles and slots, whoever is asked.
func roles(nodes string) string {
	var out []string
	for _, line := range strings.Split(nodes, "\n") {
		f := strings.Fields(line)
		if len(f) < 8 || strings.Contains(f[2], "fail") {
			continue
		}
		role := "master"
		if strings.Contains(f[2], "slave") {
			role = "replica of " + f[3]
		}
		out = append(out, fmt.Sprintln(f[0], role, f[8:]))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// Masters are the running nodes that are masters now and own slots.
func (c *Cluster) Masters() (out []*Redis) {
	for _, n := range c.Nodes {
		if n.Alive() != nil {
			continue
		}
		nodes, _ := n.Do(bg, "CLUSTER", "NODES").Text()
		for _, line := range strings.Split(nodes, "\n") {
			if f := strings.Fields(line); len(f) > 8 && strings.Contains(f[2], "myself,master") {
				out = append(out, n)
			}
		}
	}
	return out
}

// Manage runs redis-cli --cluster.
func (c *Cluster) Manage(args ...string) (string, error) {
	out, err := exec.Command("redis-cli", append([]string{"--cluster"}, args...)...).CombinedOutput()
	return string(out), err
}

// Close ends all nodes.
func (c *Cluster) Close() {
	if c.ClusterClient != nil {
		c.ClusterClient.Close()
	}
	for _, n := range c.Nodes {
		n.Close()
	}
}
