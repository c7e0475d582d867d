package harness

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/harness/server"
)

type (
	// BrokerOptions says how a broker runs. The zero value is a small one.
	BrokerOptions = server.BrokerOptions
	// ConsumeOptions says more about a consumer's queue.
	ConsumeOptions = server.ConsumeOptions
	// Message is one delivery.
	Message = server.Message
)

// Broker is a RabbitMQ node as one test sees it.
type Broker struct {
	*server.Broker
	t testing.TB
}

// NewBroker starts a broker for one test: for those that stop, kill or alarm it.
func NewBroker(t testing.TB, opts BrokerOptions) *Broker {
	t.Helper()
	s, err := server.NewBroker(opts)
	must(t, "prepare RabbitMQ", err)
	t.Cleanup(func() {
		ended(t, "RabbitMQ's log", s.LogTail(100))
		if err := s.Close(); err != nil {
			t.Errorf("close RabbitMQ: %v", err)
		}
	})
	must(t, "start RabbitMQ", s.Start())
	return &Broker{s, t}
}

// SharedBroker is the broker of all tests of a package, started for the first.
// Use queues and routing keys of your own, or a Vhost, and leave it running.
// Main ends it.
func SharedBroker(t testing.TB) *Broker {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.broker == nil && shared.err == nil {
		s, err := server.NewBroker(BrokerOptions{})
		must(t, "prepare RabbitMQ", err)
		if shared.err = s.Start(); shared.err != nil {
			_ = s.Close()
		} else {
			shared.broker = s
		}
	}
	must(t, "start RabbitMQ", shared.err)
	return &Broker{shared.broker, t}
}

// Start starts the node again, on its data, and waits until it answers.
func (b *Broker) Start() { b.t.Helper(); must(b.t, "start RabbitMQ", b.Broker.Start()) }

// Stop ends the node in good order, and waits.
func (b *Broker) Stop() { b.t.Helper(); must(b.t, "stop RabbitMQ", b.Broker.Stop()) }

// Kill ends the node with SIGKILL.
func (b *Broker) Kill() { b.t.Helper(); must(b.t, "kill RabbitMQ", b.Broker.Kill()) }

// Restart is Stop and Start.
func (b *Broker) Restart() { b.t.Helper(); must(b.t, "restart RabbitMQ", b.Broker.Restart()) }

// Ctl runs rabbitmqctl, which must succeed.
func (b *Broker) Ctl(args ...string) string {
	b.t.Helper()
	out, err := b.Broker.Ctl(args...)
	must(b.t, "rabbitmqctl", err)
	return out
}

// Dial connects; the connection ends with the test.
func (b *Broker) Dial() *amqp.Connection {
	b.t.Helper()
	c, err := b.Broker.Dial()
	must(b.t, "connect to RabbitMQ", err)
	b.t.Cleanup(func() { _ = c.CloseDeadline(time.Now().Add(2 * time.Second)) })
	return c
}

// Channel is a channel on a connection of its own.
func (b *Broker) Channel() *amqp.Channel {
	b.t.Helper()
	ch, err := b.Dial().Channel()
	must(b.t, "open channel", err)
	return ch
}

var names atomic.Int64

// Name is a name that no other test uses: for queues, routing keys, vhosts.
func Name(t testing.TB) string {
	clean := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r > 0x7e {
			return '_'
		}
		return r
	}, t.Name())
	return fmt.Sprintf("%.60s.%d", clean, names.Add(1))
}

// Vhost makes a virtual host for the test, and deletes it in the end.
func (b *Broker) Vhost() string {
	b.t.Helper()
	name := Name(b.t)
	must(b.t, "add vhost", b.AddVhost(name))
	b.t.Cleanup(func() { _, _ = b.Broker.Ctl("delete_vhost", name) })
	return name
}

// Consumer takes every message off a queue of the test's own.
type Consumer struct {
	*server.Consumer
	t testing.TB
}

// Consume declares a queue, binds it to exchange with key and consumes it until
// the test ends.
func (b *Broker) Consume(exchange, key string, opts ConsumeOptions) *Consumer {
	b.t.Helper()
	c, err := b.Broker.Consume(exchange, key, opts)
	must(b.t, "consume", err)
	b.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.t.Errorf("close consumer: %v", err)
		}
	})
	return &Consumer{c, b.t}
}

// WaitDistinct waits for n distinct messages and returns all that have come.
func (c *Consumer) WaitDistinct(n int, timeout time.Duration) []Message {
	c.t.Helper()
	got, err := c.Consumer.WaitDistinct(n, timeout)
	must(c.t, "consumer", err)
	return got
}

// WaitKey waits for the first message about key.
func (c *Consumer) WaitKey(key string, timeout time.Duration) Message {
	c.t.Helper()
	m, err := c.Consumer.WaitKey(key, timeout)
	must(c.t, "consumer", err)
	return m
}

// WaitFor waits for the first message that match accepts.
func (c *Consumer) WaitFor(timeout time.Duration, match func(Message) bool) Message {
	c.t.Helper()
	m, err := c.Consumer.WaitFor(timeout, match)
	must(c.t, "consumer", err)
	return m
}
