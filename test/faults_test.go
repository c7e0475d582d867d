// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// ownBroker starts a broker for one test, with a queue that r's events reach.
func ownBroker(t *testing.T) *servers.Broker {
	t.Helper()
	b, err := servers.NewBroker()
	must(t, err)
	t.Cleanup(b.Close)
	must(t, b.Start())
	return b
}

// proxied starts a rig whose module reaches the broker through a proxy.
func proxied(t *testing.T, o options) (*rig, *servers.Proxy) {
	t.Helper()
	p, err := servers.NewProxy(fmt.Sprintf("127.0.0.1:%d", broker.Port))
	must(t, err)
	t.Cleanup(p.Cut)
	o.port = p.Port
	o.config = append(o.config, "key_evt_amqp.reconnect_delay_max 300")
	return start(t, o), p
}

func TestBrokerKilledUnderLoad(t *testing.T) {
	b := ownBroker(t)
	r := start(t, options{events: "$", port: b.Port, silent: true, config: []string{"key_evt_amqp.reconnect_delay_max 500"}})
	must(t, b.Bind(r.name, "amq.direct", r.name, nil))
	r.queue = b.Consume(r.name)
	const events = 100000
	var load servers.Group
	load.Add(1)
	go func() {
		defer load.Done()
		r.sets("k", events)
	}()
	eventually(t, func() error {
		if n := r.number("events_confirmed"); n < 5000 {
			return fmt.Errorf("%d confirmed", n)
		}
		return nil
	})
	b.Kill()
	load.Wait()
	r.until("state", is("backoff"))
	must(t, b.Start())
	r.arrives(setBodies("k", events))
	r.balanced(0, 0)
}

func TestNetworkCutAgainAndAgain(t *testing.T) {
	r, p := proxied(t, options{events: "$"})
	r.throughCuts(p, 30, 8)
}

// throughCuts makes thousands of events while the network is cut again and
// again, and sees them arrive.
func (r *rig) throughCuts(p *servers.Proxy, thousands, cuts int) {
	r.t.Helper()
	var load servers.Group
	load.Go(func() {
		for i := range thousands {
			r.sets(fmt.Sprintf("k%02d-", i), 1000)
		}
	})
	for range cuts {
		r.until("state", is("connected"))
		p.Cut()
		r.until("state", func(s string) bool { return s == "backoff" || s == "connecting" })
		must(r.t, p.Mend())
	}
	load.Wait()
	var want []string
	for i := range thousands {
		want = append(want, setBodies(fmt.Sprintf("k%02d-", i), 1000)...)
	}
	r.arrives(want)
	r.balanced(0, 0)
}

func TestTheNewestRemainWhenTheListIsFull(t *testing.T) {
	r, p := proxied(t, options{events: "$", limit: "100"})
	p.Cut()
	r.sets("k", 1000)
	r.until("fallback_length", is("100"))
	r.until("events_dropped", is("900"))
	must(t, p.Mend())
	r.arrives(setBodies("k", 1000)[900:])
	r.balanced(0, 900)
}

func TestAListThatIsOffKeepsEventsInMemory(t *testing.T) {
	r, p := proxied(t, options{events: "$", limit: "-1"})
	p.Cut()
	r.sets("k", 500)
	r.until("events_buffered", is("500"))
	if n := r.do("EXISTS", "key_evt_amqp.fallback"); n != int64(0) {
		t.Error("something was stored")
	}
	must(t, p.Mend())
	r.arrives(setBodies("k", 500))
	r.balanced(0, 0)
}

func TestMemoryIsBoundedWhenNothingCanBeStored(t *testing.T) {
	r, p := proxied(t, options{events: "$", limit: "-1", config: []string{"key_evt_amqp.buffer_limit 65536"}})
	p.Cut()
	r.sets("k", 5000)
	r.until("state", is("backoff"))
	dropped := 0
	eventually(t, func() error {
		info, err := r.ModuleInfo()
		must(t, err)
		fmt.Sscan(info["events_dropped"], &dropped)
		buffered := 0
		fmt.Sscan(info["events_buffered"], &buffered)
		if dropped == 0 || dropped+buffered != 5000 {
			return fmt.Errorf("%d dropped, %d buffered", dropped, buffered)
		}
		return nil
	})
	must(t, p.Mend())
	r.arrives(setBodies("k", 5000)[dropped:])
	r.balanced(0, dropped)
}

func TestListLostToOthers(t *testing.T) {
	for _, test := range []struct {
		name string
		lose []any
	}{
		{"DEL", []any{"DEL", "key_evt_amqp.fallback"}},
		{"FLUSHALL", []any{"FLUSHALL"}},
		{"SWAPDB", []any{"SWAPDB", "0", "1"}},
		{"LTRIM", []any{"LTRIM", "key_evt_amqp.fallback", "1000", "-1"}},
		{"another type", []any{"SET", "key_evt_amqp.fallback", "x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, p := proxied(t, options{events: "s"})
			p.Cut()
			sadds := func(prefix string, n int) (bodies []string) {
				pipe := r.Pipeline()
				for i := range n {
					key := fmt.Sprintf("%s%d", prefix, i)
					pipe.SAdd(ctx, key, "v")
					bodies = append(bodies, "0\nsadd\n"+key)
				}
				_, err := pipe.Exec(ctx)
				must(t, err)
				return bodies
			}
			sadds("before", 1000)
			r.until("fallback_length", is("1000"))
			r.do(test.lose...)
			r.until("events_dropped", is("1000"))
			want := sadds("after", 1000)
			if test.name == "another type" {
				r.until("events_buffered", is("1000"))
				r.do("DEL", "key_evt_amqp.fallback")
			}
			r.until("fallback_length", is("1000"))
			must(t, p.Mend())
			r.arrives(want)
			r.balanced(0, 1000)
		})
	}
}

func TestNeitherPauseNorItsEndLosesAnything(t *testing.T) {
	// A replica makes a write during the pause fatal to the server.
	r, p := proxied(t, options{events: "x$", config: []string{"appendonly yes"}})
	p.Cut()
	r.sets("k", 100)
	r.until("state", is("backoff"))
	// Set and pause in one turn: their events can't be stored any more.
	pipe := r.Pipeline()
	pipe.Set(ctx, "late", "v", 0)
	pipe.Do(ctx, "CLIENT", "PAUSE", "1500", "WRITE")
	_, err := pipe.Exec(ctx)
	must(t, err)
	r.until("events_captured", is("101"))
	r.do("PING")
	must(t, p.Mend())
	r.arrives(append(setBodies("k", 100), "0\nset\nlate"))
	r.balanced(0, 0)
}

func TestElementsThatAreNoEvents(t *testing.T) {
	r, p := proxied(t, options{events: "$"})
	p.Cut()
	r.sets("a", 10)
	r.until("fallback_length", is("10"))
	for i := range 5 {
		r.do("RPUSH", "key_evt_amqp.fallback", fmt.Sprintf("\xea\x01junk%d", i))
	}
	r.sets("b", 10)
	r.until("fallback_length", is("25"))
	must(t, p.Mend())
	r.arrives(append(setBodies("a", 10), setBodies("b", 10)...))
	r.balanced(0, 5)
}

func TestUnroutableEventsWaitForTheirQueue(t *testing.T) {
	r := start(t, options{events: "$", silent: true})
	r.sets("k", 500)
	r.until("state", is("backoff"))
	eventually(t, func() error {
		if r.number("events_returned") == 0 {
			return fmt.Errorf("nothing was returned")
		}
		return nil
	})
	// Said once, however often it is tried.
	eventually(t, func() error {
		if n := r.number("events_returned"); n < 4 {
			return fmt.Errorf("returned %d times", n)
		}
		return nil
	})
	if n := strings.Count(r.Log(), "NO_ROUTE"); n != 1 {
		t.Errorf("the log says NO_ROUTE %d times", n)
	}
	r.bind()
	r.arrives(setBodies("k", 500))
	r.balanced(0, 0)
	eventually(t, func() error {
		if !strings.Contains(r.Log(), "delivering again") {
			return fmt.Errorf("the log does not say that events are delivered again")
		}
		return nil
	})
}

func TestMissingExchangeThatComesLater(t *testing.T) {
	r := start(t, options{events: "$", silent: true, config: []string{"key_evt_amqp.reconnect_delay_max 300"}})
	exchange := r.name + "-exchange"
	r.do("CONFIG", "SET", "key_evt_amqp.exchange_name", exchange)
	r.sets("k", 100)
	r.until("last_error", func(v string) bool { return len(v) > 0 })
	c, err := broker.Dial()
	must(t, err)
	defer c.Close()
	ch, err := c.Channel()
	must(t, err)
	must(t, ch.ExchangeDeclare(exchange, "direct", true, false, false, false, nil))
	must(t, broker.Bind(r.name, exchange, r.name, nil))
	r.queue = broker.Consume(r.name)
	r.arrives(setBodies("k", 100))
	r.balanced(0, 0)
}

// In which order they come first is the queue's doing: it may reject one, and
// take one behind it that was on its way when there was room again.
func TestAQueueThatRejects(t *testing.T) {
	r := start(t, options{events: "$", silent: true, config: []string{"key_evt_amqp.reconnect_delay_max 300"}})
	must(t, broker.Bind(r.name, "amq.direct", r.name, map[string]any{"x-max-length": int32(50), "x-overflow": "reject-publish"}))
	r.sets("k", 500)
	eventually(t, func() error {
		if r.number("events_nacked") == 0 {
			return fmt.Errorf("nothing was rejected")
		}
		return nil
	})
	r.queue = broker.Consume(r.name)
	must(t, r.queue.Wait(500, patience))
	missing := map[string]bool{}
	for _, body := range setBodies("k", 500) {
		missing[body] = true
	}
	for _, m := range r.queue.Messages() {
		delete(missing, string(m.Body))
	}
	if len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
	r.balanced(0, 0)
}

func TestWrongPasswordCorrectedAtRunTime(t *testing.T) {
	r := start(t, options{events: "$", config: []string{"key_evt_amqp.reconnect_delay_max 300"}})
	r.fails("ACCESS_REFUSED", "key_evt_amqp.connect", "127.0.0.1", fmt.Sprint(broker.Port), "guest", "wrong")
	r.sets("k", 100)
	r.until("fallback_length", is("100"))
	if got := r.do("key_evt_amqp.connect", "127.0.0.1", fmt.Sprint(broker.Port), "guest", "guest"); got != "OK" {
		t.Errorf("got %v", got)
	}
	r.arrives(setBodies("k", 100))
	r.balanced(0, 0)
}

func TestABrokerThatNeverSpeaks(t *testing.T) {
	port, stop := silence(t)
	defer stop()
	r := start(t, options{events: "$", config: []string{"key_evt_amqp.connect_timeout 300", "key_evt_amqp.reconnect_delay_max 300"}})
	r.do("CONFIG", "SET", "key_evt_amqp.port", fmt.Sprint(port))
	before := time.Now()
	r.fails("no answer", "key_evt_amqp.connect")
	if d := time.Since(before); d > 20*time.Second {
		t.Errorf("connect answered after %v", d)
	}
	r.sets("k", 100)
	r.until("fallback_length", is("100"))
	r.do("key_evt_amqp.config_set", fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", port, broker.Port))
	r.arrives(setBodies("k", 100))
	if got := r.number("broker_port"); got != broker.Port {
		t.Errorf("broker_port is %d, want the second host's %d", got, broker.Port)
	}
	r.balanced(0, 0)
}

func TestAMessageLargerThanTheBrokerTakes(t *testing.T) {
	b, err := servers.NewBroker("max_message_size = 65536")
	must(t, err)
	t.Cleanup(b.Close)
	must(t, b.Start())
	r := start(t, options{events: "$", port: b.Port, silent: true})
	must(t, b.Bind(r.name, "amq.direct", r.name, nil))
	r.queue = b.Consume(r.name)
	r.sets("a", 100)
	r.do("SET", string(make([]byte, 100000)), "v")
	r.sets("b", 100)
	r.arrives(append(setBodies("a", 100), setBodies("b", 100)...))
	r.balanced(0, 1)
}
