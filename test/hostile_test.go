// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// TestAHostileBroker: whatever a broker sends, the server lives and answers, its
// memory is bounded, disconnect, connect and MODULE UNLOAD end, and a broker that
// is one gets every event.
func TestAHostileBroker(t *testing.T) {
	const n = 500
	for _, how := range servers.Hostiles() {
		t.Run(how.Name, func(t *testing.T) {
			script, err := servers.NewHostile(how)
			must(t, err)
			defer script.Close()
			r := start(t, options{events: "$", port: script.Port, config: []string{prefix + "reconnect_delay_max 100", prefix + "connect_timeout 1000"}})
			r.sets("k", n)
			before := footprintOf(t, r.Redis).rss
			rounds := 4
			if how.Endless {
				rounds = 2
			}
			eventually(t, func() error {
				r.do("PING")
				if tries := r.number("connects") + r.number("connect_failures"); tries < rounds {
					return fmt.Errorf("%d tries of %d", tries, rounds)
				}
				return nil
			})
			if more := (footprintOf(t, r.Redis).rss - before) >> 10; more > 60 {
				t.Errorf("the server has grown by %d MB", more)
			}
			if how.Name != "alarms without end" && r.info("last_error") == "" {
				t.Error("INFO says nothing of it")
			}
			within := func(limit time.Duration, args ...any) {
				t.Helper()
				begun := time.Now()
				if err := r.Do(ctx, args...).Err(); err != nil && args[0] != prefix+"connect" {
					t.Errorf("%v: %v", args, err)
				}
				if took := time.Since(begun); took > limit {
					t.Errorf("%v took %v", args, took)
				}
			}
			within(time.Second, prefix+"disconnect")
			r.until("state", is("disabled"))
			within(15*time.Second, prefix+"connect")
			within(8*time.Second, "MODULE", "UNLOAD", "key_evt_amqp")
			r.port = broker.Port
			must(t, r.load(options{events: "$"}))
			r.do(prefix + "connect")
			r.arrives(setBodies("k", n))
			r.until("events_buffered", is("0"))
			r.until("inflight", is("0"))
			if dropped := r.info("events_dropped"); dropped != strconv.Itoa(0) {
				t.Errorf("%s events are dropped", dropped)
			}
		})
	}
}
