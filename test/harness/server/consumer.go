package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Message is one delivery. DB, Event and Key are taken from a body of the form
// <db>\n<event>\n<key>; DB is -1 when the body has another.
type Message struct {
	ID           string
	Body         []byte
	DB           int
	Event        string
	Key          string
	Headers      amqp.Table
	Type         string
	AppID        string
	Timestamp    time.Time
	DeliveryMode uint8
	ContentType  string
	Exchange     string
	RoutingKey   string
	Redelivered  bool
	Arrived      time.Time
}

// ConsumeOptions says more about the queue. The zero value: a durable classic
// queue of its own name in virtual host /, deleted by Close.
type ConsumeOptions struct {
	URI       string     // default: the broker's; a proxy's, for example
	Vhost     string     // default: /
	Queue     string     // default: a unique name
	Transient bool       // does not survive the broker's restart
	Keep      bool       // Close leaves the queue
	Args      amqp.Table // of the queue: x-max-length, x-queue-type ...
	Declare   string     // kind of the exchange, to be declared first (durable)
	Prefetch  int        // default 2000
}

// Consumer takes every message off one queue and keeps it. It connects again,
// and declares again, for as long as it takes, when the broker goes away.
type Consumer struct {
	uri, exchange, key string
	opts               ConsumeOptions

	cancel     context.CancelFunc
	finished   chan struct{}
	reconnects atomic.Int64

	mu       sync.Mutex
	all      []Message
	distinct []Message
	ids      map[string]struct{}
	changed  chan struct{} // closed at the next arrival; nil: nobody waits
}

var queues atomic.Int64

// Consume declares a queue, binds it to exchange with key (the empty exchange
// needs no binding: its routing key is the queue's name) and starts to consume.
// When it returns, no message that is published from now on is missed.
func (b *Broker) Consume(exchange, key string, opts ConsumeOptions) (*Consumer, error) {
	if opts.Vhost == "" {
		opts.Vhost = "/"
	}
	if opts.URI == "" {
		opts.URI = URI(b.Addr(), opts.Vhost)
	}
	if opts.Queue == "" {
		opts.Queue = fmt.Sprintf("test.%d.%d", time.Now().UnixNano(), queues.Add(1))
	}
	if opts.Prefetch == 0 {
		opts.Prefetch = 2000
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Consumer{
		uri: opts.URI, exchange: exchange, key: key, opts: opts,
		cancel: cancel, finished: make(chan struct{}), ids: make(map[string]struct{}),
	}
	s, err := c.connect()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("consume from %q: %w", exchange, err)
	}
	go c.run(ctx, s)
	return c, nil
}

// session is one connection's life.
type session struct {
	conn       *amqp.Connection
	channel    *amqp.Channel
	deliveries <-chan amqp.Delivery
}

func (c *Consumer) connect() (_ *session, err error) {
	conn, err := dialURI(c.uri, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.CloseDeadline(time.Now().Add(time.Second))
		}
	}()
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if c.opts.Declare != "" {
		if err = ch.ExchangeDeclare(c.exchange, c.opts.Declare, true, false, false, false, nil); err != nil {
			return nil, fmt.Errorf("declare exchange: %w", err)
		}
	}
	if _, err = ch.QueueDeclare(c.opts.Queue, !c.opts.Transient, false, false, false, c.opts.Args); err != nil {
		return nil, fmt.Errorf("declare queue: %w", err)
	}
	if c.exchange != "" {
		if err = ch.QueueBind(c.opts.Queue, c.key, c.exchange, false, nil); err != nil {
			return nil, fmt.Errorf("bind queue: %w", err)
		}
	}
	if err = ch.Qos(c.opts.Prefetch, 0, false); err != nil {
		return nil, err
	}
	deliveries, err := ch.Consume(c.opts.Queue, "", false, false, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("consume: %w", err)
	}
	return &session{conn, ch, deliveries}, nil
}

func (c *Consumer) run(ctx context.Context, s *session) {
	defer close(c.finished)
	for ctx.Err() == nil {
		if s != nil {
			c.take(ctx, s)
			_ = s.conn.CloseDeadline(time.Now().Add(2 * time.Second))
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
			if s, _ = c.connect(); s != nil {
				c.reconnects.Add(1)
			}
		}
	}
}

// take records deliveries until the session or we end. Acks are for many
// deliveries at once: when half the prefetch is open, or nothing has come for a
// moment.
func (c *Consumer) take(ctx context.Context, s *session) {
	idle := time.NewTicker(20 * time.Millisecond)
	defer idle.Stop()
	var last uint64
	var open int
	ack := func() bool {
		if open == 0 {
			return true
		}
		open = 0
		return s.channel.Ack(last, true) == nil
	}
	quiet := false
	for {
		select {
		case d, ok := <-s.deliveries:
			if !ok {
				return
			}
			c.record(&d)
			last, quiet = d.DeliveryTag, false
			if open++; open >= max(1, c.opts.Prefetch/2) && !ack() {
				return
			}
		case <-idle.C:
			if quiet && !ack() {
				return
			}
			quiet = true
		case <-ctx.Done():
			ack()
			if !c.opts.Keep {
				_, _ = s.channel.QueueDelete(c.opts.Queue, false, false, false)
			}
			return
		}
	}
}

func (c *Consumer) record(d *amqp.Delivery) {
	m := Message{
		ID: d.MessageId, Body: d.Body, DB: -1, Headers: d.Headers, Type: d.Type, AppID: d.AppId,
		Timestamp: d.Timestamp, DeliveryMode: d.DeliveryMode, ContentType: d.ContentType,
		Exchange: d.Exchange, RoutingKey: d.RoutingKey, Redelivered: d.Redelivered, Arrived: time.Now(),
	}
	if parts := bytes.SplitN(d.Body, []byte("\n"), 3); len(parts) == 3 {
		if db, err := strconv.Atoi(string(parts[0])); err == nil {
			m.DB, m.Event, m.Key = db, string(parts[1]), string(parts[2])
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, m)
	// Without an id nothing can be told of it: it counts as another.
	if _, seen := c.ids[m.ID]; !seen || m.ID == "" {
		c.ids[m.ID] = struct{}{}
		c.distinct = append(c.distinct, m)
	}
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Queue is the queue's name.
func (c *Consumer) Queue() string { return c.opts.Queue }

// All returns every delivery in order of arrival, duplicates included.
func (c *Consumer) All() []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// Distinct returns the first delivery of each message id, in order of arrival.
func (c *Consumer) Distinct() []Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.distinct)
}

// Count is how many distinct messages have come.
func (c *Consumer) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.distinct)
}

// Duplicates is how many deliveries had an id seen before.
func (c *Consumer) Duplicates() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all) - len(c.distinct)
}

// Reconnects is how often the consumer had to connect again.
func (c *Consumer) Reconnects() int64 { return c.reconnects.Load() }

// Reset forgets what has come, but not the ids: a repetition of a forgotten
// message is a duplicate still.
func (c *Consumer) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all, c.distinct = nil, nil
}

// wait waits until ready, which is called with the lock held.
func (c *Consumer) wait(timeout time.Duration, ready func() bool) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		c.mu.Lock()
		if ready() {
			c.mu.Unlock()
			return true
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// WaitDistinct waits until n distinct messages have come, and returns those
// that have, with an error when they are fewer.
func (c *Consumer) WaitDistinct(n int, timeout time.Duration) ([]Message, error) {
	ok := c.wait(timeout, func() bool { return len(c.distinct) >= n })
	got := c.Distinct()
	if !ok {
		return got, fmt.Errorf("%d distinct messages of %d in %v (%d duplicates)", len(got), n, timeout, c.Duplicates())
	}
	return got, nil
}

// WaitFor waits for a message that match accepts, also among those that have
// come already, and returns the first.
func (c *Consumer) WaitFor(timeout time.Duration, match func(Message) bool) (Message, error) {
	var found Message
	looked := 0
	ok := c.wait(timeout, func() bool {
		for looked = min(looked, len(c.distinct)); looked < len(c.distinct); looked++ {
			if match(c.distinct[looked]) {
				found = c.distinct[looked]
				return true
			}
		}
		return false
	})
	if !ok {
		return found, fmt.Errorf("no such message in %v among %d", timeout, c.Count())
	}
	return found, nil
}

// WaitKey waits for the first message about key.
func (c *Consumer) WaitKey(key string, timeout time.Duration) (Message, error) {
	m, err := c.WaitFor(timeout, func(m Message) bool { return m.DB >= 0 && m.Key == key })
	if err != nil {
		return m, fmt.Errorf("key %q: %w", key, err)
	}
	return m, nil
}

// Close ends the consumer and deletes its queue, if the broker is there. It may
// be called more than once.
func (c *Consumer) Close() error {
	c.cancel()
	select {
	case <-c.finished:
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("the consumer does not end")
	}
}
