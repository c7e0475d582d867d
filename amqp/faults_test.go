// SPDX-License-Identifier: BSD-3-Clause

package amqp_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// shaped is a memory whose messages get their shape from a function of their
// number.
type shaped struct {
	*memory
	shape func(n int, m *amqp.Message)
}

func (s shaped) Next(m *amqp.Message) bool {
	if !s.memory.Next(m) {
		return false
	}
	var n int
	if _, err := fmt.Sscanf(m.ID, "id-%d", &n); err != nil {
		panic(err)
	}
	s.shape(n, m)
	return true
}

// queue declares a queue that is bound by its name, the test's, and consumes
// it unless args say how it is to refuse messages.
func queue(t *testing.T, args lib.Table) *servers.Consumer {
	t.Helper()
	if err := broker.Bind(t.Name(), "amq.direct", t.Name(), args); err != nil {
		t.Fatal(err)
	}
	if args != nil {
		return nil
	}
	c := broker.Consume(t.Name())
	t.Cleanup(c.Close)
	return c
}

func run(t *testing.T, src amqp.Source, obs amqp.Observer, cfg amqp.Config) *amqp.Publisher {
	p := amqp.New(src, obs, cfg)
	p.Start()
	t.Cleanup(sync.OnceFunc(p.Stop))
	return p
}

func TestARejectedMessageIsSentAgain(t *testing.T) {
	queue(t, lib.Table{"x-max-length": int32(20), "x-overflow": "reject-publish"})
	src, obs := newMemory(t), &states{}
	run(t, src, obs, config(broker.Port))
	src.add(500)
	eventually(t, "rejected", func() bool {
		s, n := obs.get()
		return n.Nacked > 0 && s.State == amqp.Backoff && strings.Contains(s.Err.Error(), "nack")
	})
	c := broker.Consume(t.Name())
	defer c.Close()
	eventually(t, "all settled", func() bool { return src.left() == 0 })
	distinct(t, c, 500)
}

// started waits until the node is all there: it takes connections before.
var started = sync.OnceValue(func() error { _, err := broker.Ctl("await_startup"); return err })

func ctl(t *testing.T, args ...string) {
	t.Helper()
	if err := started(); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Ctl(args...); err != nil {
		t.Fatal(err)
	}
}

// distinct checks that messages 1 to n arrive, whatever the order: rejected
// ones come again after those that followed them.
func distinct(t *testing.T, c *servers.Consumer, n int) {
	t.Helper()
	if err := c.Wait(n, time.Minute); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range c.Messages() {
		seen[string(m.Body)] = true
	}
	for i := range n {
		if !seen[fmt.Sprint(i+1)] {
			t.Fatalf("message %d is missing", i+1)
		}
	}
}

// A message that one queue rejects at once, between others that a quorum queue
// confirms later, all by one ack: what was rejected stays rejected.
func TestARejectionIsNotForgottenInAConfirmOfMany(t *testing.T) {
	full, slow := t.Name()+" full", t.Name()+" slow"
	for name, args := range map[string]lib.Table{
		full: {"x-max-length": int32(1), "x-overflow": "reject-publish"},
		slow: {"x-queue-type": "quorum"},
	} {
		if err := broker.Bind(name, "amq.direct", name, args); err != nil {
			t.Fatal(err)
		}
	}
	src, obs := newMemory(t), &states{}
	run(t, shaped{src, func(n int, m *amqp.Message) {
		if m.RoutingKey = slow; n%10 == 5 {
			m.RoutingKey = full
		}
	}}, obs, config(broker.Port))
	src.add(1000)
	eventually(t, "rejected", func() bool { _, n := obs.get(); return n.Nacked > 0 })
	a, b := broker.Consume(full), broker.Consume(slow)
	defer a.Close()
	defer b.Close()
	eventually(t, "all settled", func() bool { return src.left() == 0 })
	if err := a.Wait(100, 10*time.Second); err != nil {
		t.Error("the queue that rejects: ", err)
	}
	if err := b.Wait(900, 10*time.Second); err != nil {
		t.Error("the quorum queue: ", err)
	}
}

func TestAnUnroutableMessageWaitsForItsQueue(t *testing.T) {
	src, obs := newMemory(t), &states{}
	run(t, shaped{src, func(n int, m *amqp.Message) {
		if n%50 == 0 { // a return has several frames
			m.Body = append(bytes.Repeat([]byte{' '}, 200_000), m.Body...)
		}
	}}, obs, config(broker.Port))
	src.add(200)
	wanted := fmt.Sprintf("NO_ROUTE: exchange %q, routing key %q", "amq.direct", t.Name())
	eventually(t, "returned", func() bool {
		s, n := obs.get()
		return n.Returned > 0 && s.State == amqp.Backoff && s.Err.Error() == wanted
	})
	c := queue(t, nil)
	if err := c.Wait(200, time.Minute); err != nil {
		t.Fatal(err)
	}
	for i, m := range c.Messages() {
		if got := strings.TrimLeft(string(m.Body), " "); got != fmt.Sprint(i+1) {
			t.Fatalf("message %d is %.20q", i+1, got)
		}
	}
	eventually(t, "all settled", func() bool { return src.left() == 0 })
}

func TestAMessageThatTheBrokerCannotTakeIsPassedOver(t *testing.T) {
	c := queue(t, nil)
	src, obs := newMemory(t), &states{}
	run(t, shaped{src, func(n int, m *amqp.Message) {
		switch n {
		case 70:
			m.Body = make([]byte, maxMessage+1)
		case 90:
			m.Type = strings.Repeat("t", 256)
		}
	}}, obs, config(broker.Port))
	src.add(200)
	eventually(t, "all settled", func() bool { return src.left() == 0 })
	if err := c.Wait(198, time.Minute); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range c.Messages() {
		got = append(got, string(m.Body))
	}
	for i := range 200 {
		if i+1 != 70 && i+1 != 90 {
			want = append(want, fmt.Sprint(i+1))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	eventually(t, "counted", func() bool { _, n := obs.get(); return n.Dropped == 2 })
}

// The link goes dead without a sign: only the heartbeats notice.
func TestALinkThatGoesDead(t *testing.T) {
	c := queue(t, nil)
	proxy, err := servers.NewProxy(fmt.Sprint("127.0.0.1:", broker.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Cut)
	src, obs := newMemory(t), &states{}
	cfg := config(proxy.Port)
	cfg.Heartbeat, cfg.ConnectTimeout = time.Second, time.Second
	run(t, src, obs, cfg)
	const rounds, each = 3, 2000
	for range rounds {
		src.add(each)
		eventually(t, "delivering", func() bool { s, _ := obs.get(); return s.State == amqp.Connected })
		proxy.Hold()
		before := time.Now()
		eventually(t, "noticed", func() bool { s, _ := obs.get(); return s.State != amqp.Connected })
		t.Logf("noticed after %v", time.Since(before))
		proxy.Release()
	}
	arrive(t, c, rounds*each)
	eventually(t, "all settled", func() bool { return src.left() == 0 })
}

// An idle connection stays, by heartbeats of both sides.
func TestAnIdleConnectionStays(t *testing.T) {
	c := queue(t, nil)
	src, obs := newMemory(t), &states{}
	cfg := config(broker.Port)
	cfg.Heartbeat = time.Second
	run(t, src, obs, cfg)
	src.add(1)
	arrive(t, c, 1)
	// The broker gives up after two heartbeats, we after one and a half:
	// that much time has to pass.
	select {
	case <-time.After(5 * time.Second):
	case <-t.Context().Done():
	}
	src.add(1)
	arrive(t, c, 2)
	if s, n := obs.get(); n.Connects != 1 {
		t.Errorf("connected %d times, %v", n.Connects, s.Err)
	}
}

func TestTheBrokerClosesTheConnection(t *testing.T) {
	c := queue(t, nil)
	src, obs := newMemory(t), &states{}
	said := &reasons{states: obs}
	run(t, src, said, config(broker.Port))
	src.add(1000)
	arrive(t, c, 1000)
	ctl(t, "close_all_connections", "maintenance")
	eventually(t, "connected again", func() bool { _, n := obs.get(); return n.Connects == 2 })
	src.add(1000)
	arrive(t, c, 2000)
	want := "connection lost: CONNECTION_FORCED - maintenance"
	if got := said.all(); !slices.Contains(got, want) {
		t.Errorf("got the reasons %q, want %q", got, want)
	}
}

// reasons remembers all errors.
type reasons struct {
	*states
	errs []string
}

func (r *reasons) StateChanged(c amqp.Change) {
	r.states.StateChanged(c)
	if c.Err != nil {
		r.mu.Lock()
		r.errs = append(r.errs, c.Err.Error())
		r.mu.Unlock()
	}
}

func (r *reasons) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

func TestWhatAnOperatorReadsOfAFailure(t *testing.T) {
	for _, test := range []struct {
		name, want string
		change     func(*amqp.Config)
	}{
		{"a wrong password", "the broker refuses the username or password (ACCESS_REFUSED)",
			func(c *amqp.Config) { c.Password = func() (string, error) { return "wrong", nil } }},
		{"an unknown vhost", "NOT_ALLOWED - vhost none not found", func(c *amqp.Config) { c.Vhost = "none" }},
		{"an unknown exchange", "NOT_FOUND - no exchange 'none' in vhost '/'", func(c *amqp.Config) { c.Exchange = "none" }},
		{"a port that is closed", "connect: connection refused", func(c *amqp.Config) { c.Hosts[0].Port = 1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := config(broker.Port)
			test.change(&cfg)
			cfg.ConnectTimeout = 30 * time.Second
			p := run(t, newMemory(t), &states{}, cfg)
			answer := make(chan error, 1)
			p.Connect(func(err error) { answer <- err })
			if err := <-answer; err == nil || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// A user without the right to look at the exchange may still publish.
func TestAUserWhoMayOnlyPublish(t *testing.T) {
	ctl(t, "add_user", "writer", "secret")
	ctl(t, "set_permissions", "writer", "^$", "^amq[.]direct$", "^$")
	c := queue(t, nil)
	src := newMemory(t)
	cfg := config(broker.Port)
	cfg.Username, cfg.Password = "writer", func() (string, error) { return "secret", nil }
	run(t, src, &states{}, cfg)
	src.add(100)
	arrive(t, c, 100)
}

// alarmed runs f while the broker is out of memory.
func alarmed(t *testing.T, f func()) {
	t.Helper()
	ctl(t, "set_vm_memory_high_watermark", "absolute", "1MB")
	defer ctl(t, "set_vm_memory_high_watermark", "0.9")
	f()
}

func TestAnAlarmBlocksUntilItIsOver(t *testing.T) {
	c := queue(t, nil)
	src, obs := newMemory(t), &states{}
	cfg := config(broker.Port)
	cfg.Heartbeat = time.Second
	run(t, src, obs, cfg)
	src.add(100)
	arrive(t, c, 100)
	alarmed(t, func() {
		src.add(2000)
		eventually(t, "blocked", func() bool { s, _ := obs.get(); return s.State == amqp.Blocked })
	})
	arrive(t, c, 2100)
	eventually(t, "all settled", func() bool { return src.left() == 0 })
	if s, n := obs.get(); s.State != amqp.Connected || n.Connects != 1 {
		t.Errorf("state is %v, connected %d times, %v", s.State, n.Connects, s.Err)
	}
}

// A broker under an alarm reads nothing: a large message hangs in the write.
func TestStopIsBoundedWhileAWriteIsBlocked(t *testing.T) {
	alarmed(t, func() {
		queue(t, lib.Table{})
		for _, end := range []struct {
			name string
			end  func(*amqp.Publisher, chan struct{})
		}{
			{"stop", func(p *amqp.Publisher, done chan struct{}) { p.Stop(); close(done) }},
			{"disconnect", func(p *amqp.Publisher, done chan struct{}) {
				p.Disconnect(100*time.Millisecond, func() { close(done) })
			}},
			{"another host", func(p *amqp.Publisher, done chan struct{}) {
				bad := config(1)
				p.Configure(bad)
				p.Connect(func(error) { close(done) })
			}},
		} {
			t.Run(end.name, func(t *testing.T) {
				src, obs := newMemory(t), &states{}
				p := amqp.New(shaped{src, func(_ int, m *amqp.Message) { m.Body = make([]byte, maxMessage) }}, obs, config(broker.Port))
				p.Start()
				if end.name != "stop" {
					defer p.Stop()
				}
				src.add(400)
				eventually(t, "connected", func() bool { s, _ := obs.get(); return s.State == amqp.Connected })
				// Not before the socket's buffers are full.
				handed := func() int { src.mu.Lock(); defer src.mu.Unlock(); return src.out }
				for before := -1; handed() != before; time.Sleep(300 * time.Millisecond) {
					before = handed()
				}
				if n := handed(); n == 0 || n == 400 {
					t.Fatalf("%d messages were handed out, a write should hang", n)
				}
				before := time.Now()
				done := make(chan struct{})
				go end.end(p, done)
				select {
				case <-done:
					t.Logf("after %v", time.Since(before))
				case <-time.After(20 * time.Second):
					t.Fatal("still not ended")
				}
			})
		}
	})
}

// Chaos: cuts and dead links at random moments, under load, and messages of all
// sizes.
func TestChaos(t *testing.T) {
	c := queue(t, nil)
	proxy, err := servers.NewProxy(fmt.Sprint("127.0.0.1:", broker.Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Cut)
	src, obs := newMemory(t), &states{}
	cfg := config(proxy.Port)
	cfg.Heartbeat, cfg.ConnectTimeout, cfg.MaxInflight = time.Second, time.Second, 2048
	run(t, shaped{src, func(n int, m *amqp.Message) {
		if n%1000 == 0 {
			m.Body = append(make([]byte, 300_000), m.Body...)
		}
	}}, obs, cfg)
	const n = 60_000
	src.add(n)
	random := rand.New(rand.NewPCG(7, 7))
	for i := range 20 {
		_, k := obs.get()
		goal := min(k.Confirmed+uint64(random.IntN(n/20)), n)
		eventually(t, "progress", func() bool { _, k := obs.get(); return k.Confirmed >= goal || src.left() == 0 })
		if i%7 == 6 {
			proxy.Hold()
			eventually(t, "noticed", func() bool { s, _ := obs.get(); return s.State != amqp.Connected })
			proxy.Release()
			continue
		}
		proxy.Cut()
		if err := proxy.Mend(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Wait(n, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	for i, m := range c.Messages() {
		if got := strings.TrimLeft(string(m.Body), "\x00"); got != fmt.Sprint(i+1) {
			t.Fatalf("message %d is %q", i+1, got)
		}
	}
	eventually(t, "all settled", func() bool { return src.left() == 0 })
	_, k := obs.get()
	t.Logf("%d connections, %d duplicates of %d", k.Connects, c.Duplicates(), n)
}

// Messages wait, the exchange is missing; it is declared, the publisher connects,
// and the queue is bound some milliseconds later: what came back must not arrive
// behind what was taken.
func TestOrderWhenAQueueIsBoundWhileASessionBegins(t *testing.T) {
	conn, err := broker.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const n = 2500
	returned := uint64(0)
	for try := range 40 {
		name := fmt.Sprint(t.Name(), " ", try)
		src, obs := newMemory(t), &states{}
		cfg := config(broker.Port)
		cfg.Exchange, cfg.MaxInflight = name, 2048
		p := amqp.New(src, obs, cfg)
		p.Start()
		src.add(n)
		eventually(t, "no exchange", func() bool { s, _ := obs.get(); return s.State == amqp.Backoff })
		_, err := ch.QueueDeclare(name, false, false, false, false, nil)
		must(err)
		must(ch.ExchangeDeclare(name, "direct", false, false, false, false, nil))
		p.Connect(func(error) {})
		time.Sleep(time.Duration(try) * time.Millisecond / 2) // the moment is what is tried
		must(ch.QueueBind(name, t.Name(), name, false, nil))
		c := broker.Consume(name)
		arrive(t, c, n)
		eventually(t, "all settled", func() bool { return src.left() == 0 })
		p.Stop()
		c.Close()
		_, k := obs.get()
		returned += k.Returned
		must(ch.ExchangeDelete(name, false, false))
		must(broker.Delete(name))
	}
	if returned == 0 {
		t.Error("nothing came back: the test tries nothing")
	}
	t.Logf("%d messages came back", returned)
}
