// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	lib "github.com/rabbitmq/amqp091-go"
)

// BrokerCluster is a RabbitMQ cluster on 127.0.0.1. Its nodes can be killed and
// started one by one.
type BrokerCluster struct{ Nodes []*Broker }

// NewBrokerCluster starts nodes that are one cluster. Close ends them.
func NewBrokerCluster(nodes int, config ...string) (c *BrokerCluster, err error) {
	c = &BrokerCluster{}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	for range nodes {
		b, err := NewBroker(config...)
		if err != nil {
			return c, err
		}
		c.Nodes = append(c.Nodes, b)
		// What lets them speak to each other.
		if err := os.WriteFile(filepath.Join(b.dir, ".erlang.cookie"), []byte("KEAKEAKEAKEAKEAKEAKE"), 0o400); err != nil {
			return c, err
		}
	}
	first := c.Nodes[0]
	for i, b := range c.Nodes {
		if i > 0 {
			// The same port mapper; and a new node joins the first.
			b.epmd = first.epmd
			b.env = append(b.env, "ERL_EPMD_PORT="+first.variable("ERL_EPMD_PORT"))
			b.Config = append(b.Config, "cluster_formation.peer_discovery_backend = classic_config")
			for j, node := range c.Nodes[:i+1] {
				b.Config = append(b.Config, fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s", j+1, node.variable("RABBITMQ_NODENAME")))
			}
		}
		if err := b.Start(); err != nil {
			return c, err
		}
	}
	others, err := first.Ctl("eval", "length(nodes()).")
	if err == nil && strings.TrimSpace(others) != fmt.Sprint(nodes-1) {
		err = fmt.Errorf("%d nodes are not a cluster: one sees %s others", nodes, others)
	}
	return c, err
}

// variable is the last value of a variable in the node's environment.
func (b *Broker) variable(name string) (value string) {
	for _, line := range b.env {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			value = v
		}
	}
	return value
}

// Hosts is what hostname is set to: all nodes.
func (c *BrokerCluster) Hosts() string {
	var hosts []string
	for _, b := range c.Nodes {
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", b.Port))
	}
	return strings.Join(hosts, ",")
}

// Dial connects to the first node that answers.
func (c *BrokerCluster) Dial() (conn *lib.Connection, err error) {
	var all []error
	for _, b := range c.Nodes {
		if conn, err = b.Dial(); err == nil {
			return conn, nil
		}
		all = append(all, err)
	}
	return nil, errors.Join(all...)
}

// Consume starts reading a queue, from whichever node is there.
func (c *BrokerCluster) Consume(queue string) *Consumer {
	return consume(&Consumer{Queue: queue, dial: c.Dial})
}

// Close ends all nodes, and removes their folders.
func (c *BrokerCluster) Close() {
	for i, b := range c.Nodes {
		if i > 0 {
			b.epmd = nil // the first one's
			defer b.Close()
		}
	}
	if len(c.Nodes) > 0 {
		defer c.Nodes[0].Close()
	}
}
