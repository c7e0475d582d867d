// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestAOFIsNotReplayedAsEvents(t *testing.T) {
	r := start(t, options{events: "$", config: []string{"appendonly yes", "appendfsync always"}})
	r.sets("k", 1000)
	r.arrives(setBodies("k", 1000))
	r.balanced(0, 0)
	r.Kill()
	must(t, r.Start())
	if got := r.number("events_captured"); got != 0 {
		t.Errorf("%d events were captured while the AOF was loaded", got)
	}
	r.do("SET", "after", "v")
	r.arrives(append(setBodies("k", 1000), "0\nset\nafter"))
	r.balanced(0, 0)
}

func TestAFullListSurvivesARestart(t *testing.T) {
	for _, test := range []struct {
		name   string
		config []string
		end    func(r *rig)
	}{
		{"RDB", []string{"save 3600 1000000"}, func(r *rig) { r.do("SAVE"); r.Kill() }},
		{"AOF", []string{"appendonly yes", "appendfsync always"}, func(r *rig) { r.Kill() }},
		{"SIGTERM with RDB", []string{"save 3600 1000000"}, func(r *rig) { r.Terminate() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, p := proxied(t, options{events: "$", config: test.config})
			p.Cut()
			r.sets("k", 10000)
			r.until("fallback_length", is("10000"))
			test.end(r)
			must(t, p.Mend())
			must(t, r.Start())
			r.arrives(setBodies("k", 10000))
			r.balanced(10000, 0)
		})
	}
}

// replicated starts a master and a replica of it, both with the module.
func replicated(t *testing.T, o options) (master, replica *rig, mend func() error) {
	t.Helper()
	master, p := proxied(t, o)
	replica = prepare(t, options{noLoad: true, silent: true, config: slices.Clone(o.config)})
	args := o
	args.port = p.Port
	replica.name = master.name
	replica.port = p.Port
	replica.Config = append(replica.Config, "key_evt_amqp.reconnect_delay_max 300",
		"loadmodule "+replica.loadLine(args), fmt.Sprintf("replicaof 127.0.0.1 %d", master.Port))
	must(t, replica.Start())
	eventually(t, func() error {
		info, err := replica.Info(ctx, "replication").Result()
		if err != nil || !strings.Contains(info, "master_link_status:up") {
			return fmt.Errorf("%v %s", err, info)
		}
		return nil
	})
	p.Cut()
	return master, replica, p.Mend
}

// A client that watches the list, or caches it on its side, hears of changes and
// of nothing else; the module looks at it every second.
func TestOnlyChangesOfTheListAreSignalled(t *testing.T) {
	r, p := proxied(t, options{events: "$"})
	p.Cut()
	conn := r.Conn()
	defer conn.Close()
	watched := func(meanwhile func()) (kept bool) {
		must(t, conn.Do(ctx, "WATCH", "key_evt_amqp.fallback").Err())
		meanwhile()
		must(t, conn.Do(ctx, "MULTI").Err())
		must(t, conn.Do(ctx, "ECHO", "x").Err())
		err := conn.Do(ctx, "EXEC").Err()
		if err != nil && err != redis.Nil {
			t.Fatal(err)
		}
		return err == nil
	}
	looks := func() { // more than one look
		uptime := func() (n int) {
			_, text, _ := strings.Cut(r.Info(ctx, "server").Val(), "uptime_in_seconds:")
			_, _ = fmt.Sscanf(text, "%d", &n)
			return n
		}
		eventually(t, func(end int) func() error {
			return func() error {
				if now := uptime(); now < end {
					return fmt.Errorf("up for %d seconds, want %d", now, end)
				}
				return nil
			}
		}(uptime()+3))
	}
	if !watched(looks) {
		t.Error("a missing list has changed")
	}
	stored := func() { r.sets("k", 10); r.until("fallback_length", is("10")) }
	if watched(stored) {
		t.Error("ten events were stored, and the client that watches has not heard of it")
	}
	if !watched(looks) {
		t.Error("a list has changed of which nobody took anything")
	}
	delivered := func() { must(t, p.Mend()); r.until("fallback_length", is("0")) }
	if watched(delivered) {
		t.Error("ten events were delivered, and the client that watches has not heard of it")
	}
	r.arrives(setBodies("k", 10))
	r.balanced(0, 0)
}

// Events of two databases in one command: neither the client nor what replicas
// and the AOF get may change over to the other.
func TestMoveLeavesTheClientInItsDatabase(t *testing.T) {
	for _, events := range []string{"g", "n", "An"} {
		t.Run(events, func(t *testing.T) {
			master, replica, mend := replicated(t, options{events: events, masks: "^k$", config: []string{"appendonly yes"}})
			conn := master.Conn()
			defer conn.Close()
			must(t, conn.Select(ctx, 2).Err())
			want := []string{"2\nnew\nk", "2\nset\nk", "5\nnew\nk", "2\nmove_from\nk", "5\nmove_to\nk"}
			must(t, conn.Set(ctx, "k", "v", 0).Err())
			must(t, conn.Move(ctx, "k", 5).Err())
			must(t, conn.Set(ctx, "after", "v", 0).Err())
			digest := func(r *rig) string { return fmt.Sprint(r.do("DEBUG", "DIGEST")) }
			for db, keys := range map[int]string{2: "[after]", 5: "[k]"} {
				must(t, conn.Select(ctx, db).Err())
				if got := fmt.Sprint(conn.Keys(ctx, "*").Val()); got != keys {
					t.Errorf("database %d has the keys %s, want %s", db, got, keys)
				}
			}
			must(t, mend())
			master.arrives(slices.DeleteFunc(want, func(body string) bool {
				event := strings.Split(body, "\n")[1]
				return events == "g" && !strings.HasPrefix(event, "move") || events == "n" && event != "new"
			}))
			master.until("fallback_length", is("0"))
			same := digest(master)
			eventually(t, func() error {
				if got := digest(replica); got != same {
					return fmt.Errorf("the replica's digest is %s, the master's %s", got, same)
				}
				return nil
			})
			master.do("DEBUG", "LOADAOF")
			if got := digest(master); got != same {
				t.Errorf("from the AOF came %s, not %s", got, same)
			}
		})
	}
}

func TestReplicaSendsNothingAndDeliversWhenPromoted(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$"})
	master.sets("k", 5000)
	master.until("fallback_length", is("5000"))
	eventually(t, func() error {
		n, err := replica.LLen(ctx, "key_evt_amqp.fallback").Result()
		if n != 5000 {
			return fmt.Errorf("the replica's list has %d, error %v", n, err)
		}
		return nil
	})
	if got := replica.info("events_captured") + replica.info("state"); got != "0idle" {
		t.Errorf("the replica captured or connected: %s", got)
	}
	master.Kill()
	replica.do("REPLICAOF", "NO", "ONE")
	must(t, mend())
	replica.sets("new", 100)
	master.arrives(append(setBodies("k", 5000), setBodies("new", 100)...))
	replica.balanced(5000, 0)
}

func TestADemotedMasterStopsCapturing(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$"})
	master.sets("k", 100)
	master.until("fallback_length", is("100"))
	eventually(t, func() error {
		if n, _ := replica.LLen(ctx, "key_evt_amqp.fallback").Result(); n != 100 {
			return fmt.Errorf("the replica has %d", n)
		}
		return nil
	})
	master.do("FAILOVER", "TO", "127.0.0.1", fmt.Sprint(replica.Port))
	eventually(t, func() error {
		if err := replica.Set(ctx, "late0", "v", 0).Err(); err != nil {
			return err
		}
		return nil
	})
	must(t, mend())
	master.arrives(append(setBodies("k", 100), setBodies("late", 1)...))
	replica.balanced(100, 0)
	if got := master.info("events_captured"); got != "100" {
		t.Errorf("the demoted master has captured %s", got)
	}
}

func TestCommandsReachReplicasButNotTheAOF(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$", config: []string{"appendonly yes"}})
	must(t, mend())
	master.do("key_evt_amqp.keymask_set", "^a", "^b")
	master.do("key_evt_amqp.keymask_add", "^c")
	master.do("key_evt_amqp.fallback_storage_size_set", "77")
	master.do("key_evt_amqp.disconnect")
	eventually(t, func() error {
		masks := replica.ConfigGet(ctx, "key_evt_amqp.key_mask").Val()["key_evt_amqp.key_mask"]
		size := replica.ConfigGet(ctx, "key_evt_amqp.fallback_storage_size").Val()["key_evt_amqp.fallback_storage_size"]
		if masks != "^a ^b ^c" || size != "77" || replica.info("state") != "disabled" {
			return fmt.Errorf("masks %q, size %q, state %s", masks, size, replica.info("state"))
		}
		return nil
	})
	master.do("key_evt_amqp.connect")
	replica.until("state", is("connected"))
	master.Kill()
	must(t, master.Start())
	if got := master.ConfigGet(ctx, "key_evt_amqp.key_mask").Val()["key_evt_amqp.key_mask"]; got != "ALL" {
		t.Errorf("the AOF carried a command: key_mask is %q", got)
	}
}
