// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"fmt"
	"sync"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

// Consumer reads one queue as a good consumer does: it drops duplicates by
// message_id, acknowledges, and comes back when the broker does.
type Consumer struct {
	Queue string

	dial func() (*lib.Connection, error)
	args lib.Table // of basic.consume
	sink func(body []byte)
	stop chan struct{}
	done chan struct{}

	mu         sync.Mutex
	messages   []lib.Delivery // first arrivals, in order
	seen       map[string]bool
	duplicates int
}

// Bind declares a durable queue and binds it to an exchange.
func (b *Broker) Bind(queue, exchange, key string, args lib.Table) error {
	c, err := b.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	if _, err = ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
		return err
	}
	return ch.QueueBind(queue, key, exchange, false, nil)
}

// Delete removes a queue with what is in it.
func (b *Broker) Delete(queue string) error {
	c, err := b.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	_, err = ch.QueueDelete(queue, false, false, false)
	return err
}

// Consume starts reading a queue that exists.
func (b *Broker) Consume(queue string) *Consumer { return b.ConsumeWith(queue, nil) }

// ConsumeWith gives each delivery's body, duplicates too, to a function instead
// of keeping it, for loads that memory would not hold.
func (b *Broker) ConsumeWith(queue string, sink func(body []byte)) *Consumer {
	return consume(&Consumer{Queue: queue, dial: b.Dial, sink: sink})
}

// ConsumeStream reads a stream from its first message, each time that it
// connects: so it reads it whole, and forgets nothing.
func (b *Broker) ConsumeStream(queue string) *Consumer {
	return consume(&Consumer{Queue: queue, dial: b.Dial, args: lib.Table{"x-stream-offset": "first"}})
}

func consume(c *Consumer) *Consumer {
	c.stop, c.done, c.seen = make(chan struct{}), make(chan struct{}), map[string]bool{}
	go func() {
		defer close(c.done)
		for {
			_ = c.session()
			select {
			case <-c.stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return c
}

func (c *Consumer) session() error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.Qos(1000, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.Consume(c.Queue, "", false, false, false, false, c.args)
	if err != nil {
		return err
	}
	unacked := 0
	for {
		var d lib.Delivery
		var ok bool
		select {
		case d, ok = <-deliveries:
		case <-c.stop:
			return nil
		}
		if !ok {
			return nil
		}
		c.take(d)
		if unacked++; unacked < 200 && len(deliveries) > 0 {
			continue
		}
		unacked = 0
		if err := d.Ack(true); err != nil {
			return err
		}
	}
}

func (c *Consumer) take(d lib.Delivery) {
	if c.sink != nil {
		c.sink(d.Body)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[d.MessageId] {
		c.duplicates++
		return
	}
	c.seen[d.MessageId] = true
	c.messages = append(c.messages, d)
}

// Messages are the first arrivals so far, in order.
func (c *Consumer) Messages() []lib.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.messages[:len(c.messages):len(c.messages)]
}

// Duplicates is how many deliveries were dropped as such.
func (c *Consumer) Duplicates() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.duplicates
}

// Wait waits until n distinct messages have come.
func (c *Consumer) Wait(n int, limit time.Duration) error {
	return until(limit, fmt.Sprintf("%d messages", n), func() error {
		if got := len(c.Messages()); got < n {
			return fmt.Errorf("%d have come", got)
		}
		return nil
	})
}

// Close ends the consumer.
func (c *Consumer) Close() {
	close(c.stop)
	<-c.done
}
