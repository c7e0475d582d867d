// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// Three nodes, a quorum queue, all three as hosts: whichever node is killed under
// load, the events go on by the others, none lost, in order.
func TestEachNodeOfABrokerClusterKilledUnderLoad(t *testing.T) {
	cluster, err := servers.NewBrokerCluster(3)
	must(t, err)
	defer cluster.Close()
	queue := name(t)
	must(t, cluster.Nodes[0].Bind(queue, "amq.direct", queue, lib.Table{"x-queue-type": "quorum"}))
	r := start(t, options{silent: true, key: queue, config: []string{
		"key_evt_amqp.hostname " + cluster.Hosts()}})
	var want []string
	for i, node := range cluster.Nodes {
		stop := r.keepsSetting(fmt.Sprintf("%d-", i))
		r.flows()
		used := r.info("broker_port") == fmt.Sprint(node.Port)
		node.Kill()
		if used {
			r.until("broker_port", isNot(fmt.Sprint(node.Port)))
		}
		// The others elect a leader, and go on.
		r.flows()
		t.Logf("node %d killed, in use: %v; now %s, %s stored", i, used, r.info("broker_port"), r.info("events_stored"))
		want = append(want, stop()...)
		// A start takes the processors that the load would have.
		began := time.Now()
		must(t, node.Start())
		t.Logf("started again in %v", time.Since(began).Round(time.Millisecond))
	}
	r.until("inflight", is("0"))
	r.until("fallback_length", is("0"))
	// Read at the end: what a queue's node had sent to a consumer when it was
	// killed comes to that consumer again, behind what others got meanwhile.
	r.queue = cluster.Consume(queue)
	r.arrives(want)
	r.balanced(0, 0)
	if r.number("connects") < 2 {
		t.Error("no node that was in use was killed")
	}
	t.Logf("%d events, %d duplicates", len(want), r.queue.Duplicates())
}

// docs/scaling.md: queues behind an exchange that hashes the routing key, with
// {key} as routing key, share the events; each key's are in one queue, in order.
func TestKeysSharedAmongQueuesKeepTheirOrder(t *testing.T) {
	b, err := servers.NewBroker()
	must(t, err)
	defer b.Close()
	must(t, b.With("rabbitmq_consistent_hash_exchange", "rabbitmq_sharding").Start())
	for _, exchange := range []string{"x-consistent-hash", "x-modulus-hash"} {
		for _, queueType := range []string{"quorum", "stream"} {
			t.Run(exchange+", "+queueType, func(t *testing.T) { sharedKeys(t, b, exchange, queueType) })
		}
	}
}

func sharedKeys(t *testing.T, b *servers.Broker, exchange, queueType string) {
	conn, err := b.Dial()
	must(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(t, err)
	base := exchange + "-" + queueType
	must(t, ch.ExchangeDeclare(base, exchange, true, false, false, false, nil))
	const consumers, keys, rounds = 3, 60, 20
	var queues []*servers.Consumer
	for i := range consumers {
		queue := fmt.Sprintf("%s-%d", base, i)
		must(t, b.Bind(queue, base, "1", lib.Table{"x-queue-type": queueType}))
		if queueType == "stream" { // two readers of each: all see the same
			queues = append(queues, b.ConsumeStream(queue), b.ConsumeStream(queue))
		} else {
			queues = append(queues, b.Consume(queue))
		}
	}
	defer func() {
		for _, q := range queues {
			q.Close()
		}
	}()
	r := start(t, options{silent: true, port: b.Port, config: []string{
		"key_evt_amqp.exchange_name " + base, "key_evt_amqp.routing_key {key}"}})
	// What each key's events are tells their order.
	var each []string
	for range rounds {
		for _, step := range []string{"SET %s v", "APPEND %s w", "EXPIRE %s 100", "PERSIST %s", "SETRANGE %s 1 x", "DEL %s"} {
			command, event := strings.Fields(step), strings.ToLower(strings.Fields(step)[0])
			each = append(each, event)
			pipe := r.Pipeline()
			for k := range keys {
				var args []any
				for _, word := range command {
					args = append(args, strings.ReplaceAll(word, "%s", fmt.Sprintf("key:%d", k)))
				}
				pipe.Do(ctx, args...)
			}
			_, err := pipe.Exec(ctx)
			must(t, err)
		}
	}
	readers := len(queues) / consumers
	eventually(t, func() error {
		got := 0
		for _, q := range queues {
			got += len(q.Messages())
		}
		if want := readers * keys * len(each); got < want {
			return fmt.Errorf("%d of %d messages have come", got, want)
		}
		return nil
	})
	homes := map[string]int{} // of each key, its queue
	for i, q := range queues {
		got := map[string][]string{}
		for _, m := range q.Messages() {
			parts := strings.SplitN(string(m.Body), "\n", 3)
			got[parts[2]] = append(got[parts[2]], parts[1])
		}
		if len(got) == 0 {
			t.Errorf("queue %d got nothing", i/readers)
		}
		for key, events := range got {
			if other, ok := homes[key]; ok && other != i/readers {
				t.Errorf("%s is in the queues %d and %d", key, other, i/readers)
			}
			homes[key] = i / readers
			if !slices.Equal(events, each) {
				t.Errorf("%s has %d events, not the %d in order: %.200v", key, len(events), len(each), events)
			}
		}
	}
	if len(homes) != keys {
		t.Errorf("%d keys arrived, of %d", len(homes), keys)
	}
	r.balanced(0, 0)
}
