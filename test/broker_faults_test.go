// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// keepsSetting sets keys, two thousand a second, until stop, which returns the bodies
// of their events.
func (r *rig) keepsSetting(prefix string) (stop func() []string) {
	r.t.Helper()
	end, done := make(chan struct{}), make(chan struct{})
	n := 0
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			pipe := r.Pipeline()
			for i := n; i < n+20; i++ {
				pipe.Set(ctx, prefix+strconv.Itoa(i), "v", 0)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				r.t.Errorf("load: %v", err)
				return
			}
			n += 20
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	stopped := false
	stop = func() []string {
		if !stopped {
			stopped = true
			close(end)
			<-done
		}
		return setBodies(prefix, n)
	}
	r.t.Cleanup(func() { stop() })
	return stop
}

// flows waits until more is confirmed than now.
func (r *rig) flows() {
	r.t.Helper()
	before := r.number("events_confirmed")
	r.until("events_confirmed", atLeast(before+1))
}

func atLeast(want int) func(string) bool {
	return func(got string) bool {
		n, err := strconv.Atoi(got)
		return err == nil && n >= want
	}
}

func isNot(other string) func(string) bool { return func(got string) bool { return got != other } }

// trouble waits until last_error names something.
func (r *rig) trouble(name string) {
	r.t.Helper()
	r.until("last_error", contains(name))
}

// saysOnce checks that the server's log names troubles, and that from each
// trouble's begin until it is over it repeats no line of ours.
func (r *rig) saysOnce(names ...string) {
	r.t.Helper()
	log := r.Log()
	for _, name := range names {
		if !strings.Contains(log, name) {
			r.t.Errorf("the log does not say %q", name)
		}
	}
	var said map[string]bool // since the trouble began; nil: there is none
	for _, line := range strings.Split(log, "\n") {
		_, text, ours := strings.Cut(line, "<key_evt_amqp> ")
		if !ours {
			continue
		}
		if said == nil && (strings.HasPrefix(text, "not delivering") || strings.Contains(text, "blocks publishing")) {
			said = map[string]bool{}
		}
		if said[text] {
			r.t.Errorf("the log repeats %q", text)
		}
		if said != nil {
			said[text] = true
		}
		if text == "delivering again" || strings.HasSuffix(text, "takes messages again") {
			said = nil
		}
	}
}

// pings samples PING on a connection of its own until stop, which returns the
// longest one and the median of the longest of each tenth of a second: a busy
// machine delays some of them whatever the server does.
func pings(t *testing.T, r *rig) (stop func() (longest, median time.Duration)) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: r.Addr(), Protocol: 2, MaxRetries: -1, DisableIdentity: true, PoolSize: 1})
	must(t, client.Ping(ctx).Err())
	running, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var windows []time.Duration
	go func() {
		defer close(done)
		defer client.Close()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		begin := time.Now()
		for running.Err() == nil {
			at := time.Now()
			if err := client.Ping(ctx).Err(); err != nil {
				t.Errorf("PING: %v", err)
				return
			}
			took := time.Since(at)
			for len(windows) <= int(at.Sub(begin)/(100*time.Millisecond)) {
				windows = append(windows, 0)
			}
			last := len(windows) - 1
			windows[last] = max(windows[last], took)
			<-tick.C
		}
	}()
	return func() (longest, median time.Duration) {
		cancel()
		<-done
		windows = slices.DeleteFunc(windows, func(d time.Duration) bool { return d == 0 })
		slices.Sort(windows)
		return windows[len(windows)-1], windows[len(windows)/2]
	}
}

func TestHalfOpenNetwork(t *testing.T) {
	for _, test := range []struct {
		name string
		held []servers.Direction // none is all
		mend func(*servers.Proxy)
	}{
		{"nothing comes through, for a while", nil, (*servers.Proxy).Release},
		{"nothing comes from the broker, then the link is cut", []servers.Direction{servers.ToClient}, func(p *servers.Proxy) {
			p.Cut()
			p.Release()
			must(t, p.Mend())
		}},
		{"nothing reaches the broker, for a while", []servers.Direction{servers.ToServer}, (*servers.Proxy).Release},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, p := proxied(t, options{events: "$", config: []string{
				"key_evt_amqp.heartbeat 1", "key_evt_amqp.connect_timeout 500"}})
			stop := r.keepsSetting("k")
			r.flows()
			p.Hold(test.held...)
			r.until("state", isNot("connected"))
			r.until("connect_failures", atLeast(3))
			r.trouble("no answer")
			test.mend(p)
			r.flows()
			r.arrives(stop())
			r.balanced(0, 0)
			r.saysOnce("no answer")
		})
	}
}

func TestPingStaysQuickWhileTheNetworkIsHalfOpen(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{
		"key_evt_amqp.heartbeat 1", "key_evt_amqp.connect_timeout 500"}})
	// What the machine does to any server at the same time.
	bare := start(t, options{noLoad: true, silent: true})
	stopBare := bare.keepsSetting("k")
	stop := r.keepsSetting("k")
	const tries = 3
	for try := 1; ; try++ {
		r.flows()
		failures := r.number("connect_failures")
		ours, theirs := pings(t, r), pings(t, bare)
		p.Hold()
		r.until("connect_failures", atLeast(failures+3))
		longest, median := ours()
		bareLongest, bareMedian := theirs()
		p.Release()
		t.Logf("PING: longest %v, median of the longest %v; without the module %v, %v", longest, median, bareLongest, bareMedian)
		if median < max(20*time.Millisecond, 2*bareMedian) && longest < max(200*time.Millisecond, 2*bareLongest) {
			break
		}
		if try == tries {
			t.Errorf("PING is slow, %d times", tries)
			break
		}
	}
	stopBare()
	r.arrives(stop())
	r.balanced(0, 0)
}

// ctl runs rabbitmqctl, which must succeed.
func ctl(t *testing.T, b *servers.Broker, args ...string) {
	t.Helper()
	_, err := b.Ctl(args...)
	must(t, err)
}

func TestAlarmsAndRestarts(t *testing.T) {
	b := ownBroker(t)
	memory := []string{"set_vm_memory_high_watermark", "0.000001"}
	enough := []string{"set_vm_memory_high_watermark", "0.6"}
	for _, test := range []struct {
		name, reason string
		set, cleared []string
	}{
		{"memory", "low on memory", memory, enough},
		{"disk", "low on disk", []string{"set_disk_free_limit", "900000GB"}, []string{"set_disk_free_limit", "1MB"}},
	} {
		t.Run(test.name+" alarm", func(t *testing.T) {
			r := startAt(t, b, b.Port, "key_evt_amqp.heartbeat 2")
			stop := r.keepsSetting("k")
			r.flows()
			ctl(t, b, test.set...)
			r.until("state", is("blocked"))
			r.trouble(test.reason)
			r.until("fallback_length", atLeast(1))
			// Longer than heartbeats allow a broker to be silent: a blocked
			// one isn't.
			r.until("oldest_event_ms", atLeast(4000))
			if state := r.info("state"); state != "blocked" {
				t.Errorf("state is %q after a while", state)
			}
			ctl(t, b, test.cleared...)
			r.until("state", is("connected"))
			r.arrives(stop())
			r.balanced(0, 0)
			if n := r.number("connects"); n != 1 {
				t.Errorf("%d connections were made", n)
			}
			r.saysOnce(test.reason, "takes messages again")
		})
	}
	t.Run("memory alarm, and the network is cut", func(t *testing.T) {
		p, err := servers.NewProxy("127.0.0.1:" + strconv.Itoa(b.Port))
		must(t, err)
		t.Cleanup(p.Cut)
		r := startAt(t, b, p.Port)
		stop := r.keepsSetting("k")
		r.flows()
		ctl(t, b, memory...)
		r.until("state", is("blocked"))
		p.Cut()
		r.until("state", is("backoff"))
		must(t, p.Mend())
		r.until("state", is("blocked"))
		ctl(t, b, enough...)
		r.flows()
		r.arrives(stop())
		r.balanced(0, 0)
	})
	t.Run("three restarts", func(t *testing.T) {
		r := startAt(t, b, b.Port)
		stop := r.keepsSetting("k")
		for range 3 {
			r.flows()
			b.Stop()
			r.until("state", isNot("connected"))
			r.until("last_error", contains("refused"))
			must(t, b.Start())
		}
		r.flows()
		r.arrives(stop())
		r.balanced(0, 0)
		r.saysOnce("CONNECTION_FORCED", "refused")
	})
}

func TestConnectionsClosedByManagement(t *testing.T) {
	r := start(t, options{events: "$", config: []string{"key_evt_amqp.reconnect_delay_max 300"}})
	stop := r.keepsSetting("k")
	for i, reason := range []string{"first maintenance", "second maintenance"} {
		r.flows()
		ctl(t, broker, "close_all_connections", reason)
		r.until("connects", atLeast(i+2))
		r.trouble(reason)
		r.flows()
	}
	r.arrives(stop())
	r.balanced(0, 0)
	r.saysOnce("first maintenance", "second maintenance")
}

func TestRightsRevokedAndGivenBack(t *testing.T) {
	const user = "events"
	ctl(t, broker, "add_user", user, "secret")
	t.Cleanup(func() { _, _ = broker.Ctl("delete_user", user) })
	rights := []string{"set_permissions", user, "", ".*", ""}
	for _, test := range []struct {
		name, reason string
		revoke       []string
	}{
		{"all", "refused for user", []string{"clear_permissions", user}},
		{"to publish", "ACCESS_REFUSED", []string{"set_permissions", user, "", "", ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctl(t, broker, rights...)
			r := start(t, options{events: "$", config: []string{
				"key_evt_amqp.reconnect_delay_max 300", "key_evt_amqp.username " + user, "key_evt_amqp.password secret"}})
			stop := r.keepsSetting("k")
			r.flows()
			ctl(t, broker, test.revoke...)
			// An open channel remembers the rights that it has checked.
			ctl(t, broker, "close_all_connections", "rights changed")
			r.trouble(test.reason)
			tries := r.number("connects") + r.number("connect_failures")
			eventually(t, func() error {
				if n := r.number("connects") + r.number("connect_failures"); n < tries+4 {
					return fmt.Errorf("tried %d times", n-tries)
				}
				return nil
			})
			ctl(t, broker, rights...)
			r.flows()
			r.arrives(stop())
			r.balanced(0, 0)
			r.saysOnce(test.reason)
		})
	}
}

func TestExchangeDeletedAndCreatedAgain(t *testing.T) {
	r := prepare(t, options{events: "$", silent: true, config: []string{"key_evt_amqp.reconnect_delay_max 300"}})
	exchange := r.name + "-exchange"
	r.Config = append(r.Config, "key_evt_amqp.exchange_name "+exchange)
	c, err := broker.Dial()
	must(t, err)
	defer c.Close()
	ch, err := c.Channel()
	must(t, err)
	create := func() {
		t.Helper()
		must(t, ch.ExchangeDeclare(exchange, "direct", true, false, false, false, nil))
		must(t, broker.Bind(r.name, exchange, r.name, nil))
	}
	create()
	r.queue = broker.Consume(r.name)
	must(t, r.Start())
	must(t, r.Alive())
	stop := r.keepsSetting("k")
	for range 3 {
		r.flows()
		must(t, ch.ExchangeDelete(exchange, false, false))
		failures := r.number("connect_failures")
		r.until("connect_failures", atLeast(failures+3))
		r.trouble("no exchange '" + exchange + "'")
		create()
	}
	r.flows()
	r.arrives(stop())
	r.balanced(0, 0)
	r.saysOnce("no exchange '" + exchange + "'")
}

func TestPasswordCorrectedByConfigSet(t *testing.T) {
	r := start(t, options{events: "$", config: []string{"key_evt_amqp.reconnect_delay_max 300", "key_evt_amqp.password wrong"}})
	r.refused(100, "ACCESS_REFUSED")
	r.until("connect_failures", atLeast(3))
	r.do("CONFIG", "SET", "key_evt_amqp.password", "guest")
	r.arrives(setBodies("k", 100))
	r.balanced(0, 0)
	r.saysOnce("ACCESS_REFUSED")
}

func TestFirstOfTwoHostsIsDead(t *testing.T) {
	p, err := servers.NewProxy("127.0.0.1:" + strconv.Itoa(broker.Port))
	must(t, err)
	t.Cleanup(p.Cut)
	p.Cut()
	r := start(t, options{events: "$", config: []string{"key_evt_amqp.reconnect_delay_max 300",
		fmt.Sprintf("key_evt_amqp.hostname 127.0.0.1:%d,127.0.0.1:%d", p.Port, broker.Port)}})
	stop := r.keepsSetting("k")
	r.flows()
	r.until("broker_port", is(strconv.Itoa(broker.Port)))
	// It has come back: the next connection is to it, as it is preferred.
	must(t, p.Mend())
	ctl(t, broker, "close_all_connections", "change over")
	r.until("broker_port", is(strconv.Itoa(p.Port)))
	r.flows()
	p.Cut()
	r.until("broker_port", is(strconv.Itoa(broker.Port)))
	r.flows()
	r.arrives(stop())
	r.balanced(0, 0)
	r.saysOnce("change over")
}
