// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The fallback list's changes reach replicas and the append-only file as
// commands, and a cluster's slots are asked for with commands. Where one is
// missing the load is refused: else they would lack what INFO says is stored.
func TestARenamedCommandThatIsNeededRefusesTheLoad(t *testing.T) {
	const cluster = "cluster-enabled yes"
	for _, test := range []struct {
		config []string
		says   string // empty: it loads
	}{
		{[]string{`rename-command RPUSH ""`}, "RPUSH has been renamed or removed"},
		{[]string{`rename-command RPUSH append-to-list`}, "RPUSH has been renamed or removed"},
		{[]string{`rename-command LPOP ""`}, "LPOP has been renamed or removed"},
		{[]string{`rename-command LSET ""`}, "LSET has been renamed or removed"},
		{[]string{`rename-command LREM ""`}, "LREM has been renamed or removed"},
		{[]string{`rename-command RPUSH ""`, `rename-command LPUSH RPUSH`}, "RPUSH is the name of another command"},
		{[]string{`rename-command LPOP old`, `rename-command LTRIM LPOP`}, "LPOP is the name of another command"},
		{[]string{cluster, `rename-command LPUSH ""`}, "LPUSH has been renamed or removed"},
		{[]string{cluster, `rename-command RPOP ""`}, "RPOP has been renamed or removed"},
		{[]string{cluster, `rename-command CLUSTER ""`}, "CLUSTER has been renamed or removed"},
		{[]string{cluster, `rename-command SPUBLISH ""`}, "SPUBLISH has been renamed or removed"},
		{[]string{cluster, `rename-command PING ""`}, "PING has been renamed or removed"},
		// Not needed, and gone.
		{[]string{`rename-command LPUSH ""`, `rename-command RPOP ""`, `rename-command COMMAND ""`, `rename-command LTRIM ""`, `rename-command SPUBLISH ""`}, ""},
		{[]string{cluster}, ""},
	} {
		t.Run(strings.Join(test.config, ", "), func(t *testing.T) {
			r := prepare(t, options{noLoad: true, silent: true, config: test.config})
			if slices.Contains(test.config, `rename-command PING ""`) {
				// The rig waits for an answer to PING.
				go func() { _ = r.Start() }()
				eventually(t, func() error { return r.Do(context.Background(), "ECHO", "x").Err() })
			} else {
				must(t, r.Start())
			}
			err := r.load(options{})
			if (err == nil) != (test.says == "") {
				t.Fatalf("load: %v, want an error: %v", err, test.says != "")
			}
			if test.says == "" {
				return
			}
			if log := r.Log(); !strings.Contains(log, "the command "+test.says+" on this server") || !strings.Contains(log, "rename-command") {
				t.Errorf("the log does not say that %s:\n%s", test.says, log)
			}
			// What a refused load leaves behind would crash here.
			for i := range 100 {
				_ = r.Set(ctx, fmt.Sprint("k", i), "v", time.Minute).Err()
			}
			must(t, r.Alive())
		})
	}
}

// Renamed commands that are not needed change nothing for replicas and the AOF.
func TestRenamedCommandsLeaveTheListWhole(t *testing.T) {
	o := options{events: "$", config: []string{
		`rename-command LPUSH ""`, `rename-command RPOP ""`, `rename-command LTRIM trim`, `rename-command COMMAND ""`,
		"appendonly yes", "appendfsync always",
	}}
	master, replica, _ := replicated(t, o)
	master.sets("k", 1000)
	master.until("fallback_length", is("1000"))
	want := master.do("LRANGE", "key_evt_amqp.fallback", 0, -1)
	eventually(t, func() error {
		if got := replica.do("LRANGE", "key_evt_amqp.fallback", 0, -1); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("the replica's list differs")
		}
		return nil
	})
	if n := master.number("replication_errors"); n != 0 {
		t.Errorf("%d replication errors", n)
	}
	master.Kill()
	must(t, master.Start())
	if got := master.do("LRANGE", "key_evt_amqp.fallback", 0, -1); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Error("the list from the append-only file differs")
	}
}
