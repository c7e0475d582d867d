// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"slices"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// samples are latencies in microseconds.
type samples []float64

func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

var pingCommand = []byte("*1\r\n$4\r\nPING\r\n")

// probe sends one PING each millisecond and notes how long each takes.
type probe struct {
	quit chan struct{}
	done chan error
	took samples
}

func startProbe(r *servers.Redis) *probe {
	p := &probe{quit: make(chan struct{}), done: make(chan error, 1)}
	go func() { p.done <- p.run(r) }()
	return p
}

func (p *probe) run(r *servers.Redis) error {
	c, err := dialRedis(r)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		select {
		case <-p.quit:
			return nil
		case <-time.After(time.Millisecond):
		}
		begun := time.Now()
		if err := c.exchange(pingCommand, 1); err != nil {
			return err
		}
		p.took = append(p.took, microseconds(time.Since(begun)))
	}
}

func (p *probe) stop() (samples, error) {
	close(p.quit)
	err := <-p.done
	return p.took, err
}

// pingPong makes one event, or publishes one message, and waits for it.
type pingPong struct {
	redis      *client
	conn       *lib.Connection
	publishing *lib.Channel
	messages   <-chan lib.Delivery
	queue      string
}

func newPingPong(b *rig, r *servers.Redis, queue string) (p *pingPong, err error) {
	p = &pingPong{queue: queue}
	if p.redis, err = dialRedis(r); err != nil {
		return nil, err
	}
	if p.conn, err = b.broker.Dial(); err != nil {
		return nil, err
	}
	ch, err := p.conn.Channel()
	if err != nil {
		return nil, err
	}
	if p.messages, err = ch.Consume(queue, "", true, false, false, false, nil); err != nil {
		return nil, err
	}
	// Connections of their own, as the module's is.
	conn, err := b.broker.Dial()
	if err != nil {
		return nil, err
	}
	if p.publishing, err = conn.Channel(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pingPong) close() {
	p.redis.Close()
	p.conn.Close()
}

// each measures one of each, and a PING: what a command takes to reach Redis and
// its reply to come back.
func (p *pingPong) each(i int) (module, direct, ping float64, err error) {
	body := "0\nset\n" + key(i, 0)
	set := appendSet(nil, key(i, 0))
	begun := time.Now()
	if _, err := p.redis.Write(set); err != nil {
		return 0, 0, 0, err
	}
	if err := p.wait(body); err != nil {
		return 0, 0, 0, err
	}
	module = microseconds(time.Since(begun))
	if err := p.redis.exchange(nil, 1); err != nil {
		return 0, 0, 0, err
	}
	begun = time.Now()
	if err := p.publishing.Publish("amq.direct", p.queue, true, false, lib.Publishing{
		MessageId: "0123456789abcdef-1", Timestamp: begun, Type: "set", AppId: "key_evt_amqp",
		ContentType: "text/plain", DeliveryMode: 1, Body: []byte(body),
	}); err != nil {
		return 0, 0, 0, err
	}
	if err := p.wait(body); err != nil {
		return 0, 0, 0, err
	}
	direct = microseconds(time.Since(begun))
	begun = time.Now()
	err = p.redis.exchange(pingCommand, 1)
	return module, direct, microseconds(time.Since(begun)), err
}

func (p *pingPong) wait(body string) error {
	select {
	case m, ok := <-p.messages:
		if !ok || string(m.Body) != body {
			return fmt.Errorf("got message %q, want %q", m.Body, body)
		}
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("message %q did not come", body)
	}
}
