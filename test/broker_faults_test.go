package test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// keepsSetting sets keys, some thousands a second, until stop, which returns the bodies
// of their events.
func (r *rig) keepsSetting(prefix string) (stop func() []string) {
	r.t.Helper()
	end, done := make(chan struct{}), make(chan struct{})
	n := 0
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
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
// trouble's begin until events are delivered again it repeats no line of ours.
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
		if text == "delivering again" {
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
