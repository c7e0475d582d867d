// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strings"
	"testing"
)

var datasetEvents = []string{"key_evt_amqp.dataset_events yes"}

// Each form of the three commands, among other events, in their order.
func TestEventsOfWholeDatabases(t *testing.T) {
	r := start(t, options{events: "$", config: datasetEvents})
	var want []string
	for _, step := range []struct {
		command []any
		events  []string
	}{
		{[]any{"SET", "a", "v"}, []string{"0\nset\na"}},
		{[]any{"FLUSHDB"}, []string{"0\nflushdb\n"}},
		{[]any{"FLUSHDB", "ASYNC"}, []string{"0\nflushdb\n"}},
		{[]any{"SET", "b", "v"}, []string{"0\nset\nb"}},
		{[]any{"FLUSHALL"}, []string{"0\nflushall\n"}},
		{[]any{"FLUSHALL", "SYNC"}, []string{"0\nflushall\n"}},
		{[]any{"SET", "c", "v"}, []string{"0\nset\nc"}},
		{[]any{"FLUSHALL", "ASYNC"}, []string{"0\nflushall\n"}},
		{[]any{"SWAPDB", "3", "12"}, []string{"3\nswapdb\n12"}},
		{[]any{"SWAPDB", "12", "0"}, []string{"12\nswapdb\n0"}},
		{[]any{"EVAL", "redis.call('SET', 'd', 'v') redis.call('SELECT', 5) redis.call('FLUSHDB') redis.call('SWAPDB', 5, 6) redis.call('SELECT', 0) redis.call('SET', 'e', 'v')", "0"},
			[]string{"0\nset\nd", "5\nflushdb\n", "5\nswapdb\n6", "0\nset\ne"}},
	} {
		r.do(step.command...)
		want = append(want, step.events...)
	}
	pipe := r.TxPipeline()
	pipe.Set(ctx, "f", "v", 0)
	pipe.FlushDBAsync(ctx)
	pipe.Set(ctx, "g", "v", 0)
	pipe.FlushAllAsync(ctx)
	pipe.Do(ctx, "SWAPDB", "0", "1")
	pipe.Set(ctx, "h", "v", 0)
	_, err := pipe.Exec(ctx)
	must(t, err)
	want = append(want, "0\nset\nf", "0\nflushdb\n", "0\nset\ng", "0\nflushall\n", "0\nswapdb\n1", "0\nset\nh")
	r.arrives(want)
	r.balanced(0, 0)
	if n := gapless(t, r.queue.Messages()); n != 1 {
		t.Errorf("events of %d loads", n)
	}
}

func TestEventsOfWholeDatabasesAskNeitherClassNorMask(t *testing.T) {
	r := start(t, options{events: "x", masks: "^nothing$"})
	r.do("FLUSHALL") // off by default
	r.do(configSet("dataset_events", "yes")...)
	r.do("FLUSHDB")
	r.do("SWAPDB", "1", "2")
	r.do("key_evt_amqp.keymask_clean")
	r.do("FLUSHDB") // no masks: nothing is forwarded
	r.do("key_evt_amqp.keymask_set", "^nothing$")
	r.do("FLUSHALL")
	r.do(configSet("dataset_events", "no")...)
	r.do("FLUSHALL")
	r.arrives([]string{"0\nflushdb\n", "1\nswapdb\n2", "0\nflushall\n"})
	r.balanced(0, 0)
}

func TestEventsOfWholeDatabasesInEachForm(t *testing.T) {
	for _, test := range []struct {
		events, format, want string
		rows                 []string
	}{
		{"$", "json", `"db":2,"event":"swapdb","key":"7"}`, nil},
		{"$KE", "plain", "swapdb", []string{"swapdb", "7"}},
	} {
		t.Run(test.events+test.format, func(t *testing.T) {
			r := start(t, options{events: test.events, silent: true,
				config: append([]string{"key_evt_amqp.exchange_name amq.topic", "key_evt_amqp.format " + test.format}, datasetEvents...)})
			must(t, broker.Bind(r.name, "amq.topic", "#", nil))
			r.queue = broker.Consume(r.name)
			r.do("SWAPDB", "2", "7")
			must(t, r.queue.Wait(max(1, len(test.rows)), patience))
			got := r.queue.Messages()
			for i, row := range test.rows {
				if string(got[i].Body) != row {
					t.Errorf("message %d is %q, want %q", i, got[i].Body, row)
				}
			}
			if body := string(got[0].Body); test.rows == nil && body[len(body)-len(test.want):] != test.want {
				t.Errorf("got %s, want it to end with %s", body, test.want)
			}
			r.balanced(0, 0)
		})
	}
}

// A replica says nothing of what its master did, nor of its own emptying for a
// full resynchronisation; promoted, it does.
func TestEventsOfWholeDatabasesAreTheMasters(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$", config: datasetEvents})
	must(t, mend())
	master.do("SET", "a", "v")
	master.do("FLUSHALL")
	master.do("SWAPDB", "0", "1")
	master.do("FLUSHDB")
	master.arrives([]string{"0\nset\na", "0\nflushall\n", "0\nswapdb\n1", "0\nflushdb\n"})
	eventually(t, func() error {
		return sameOffset(master, replica)
	})
	if n := replica.number("events_captured"); n != 0 {
		t.Errorf("the replica captured %d", n)
	}
	replica.do("REPLICAOF", "NO", "ONE")
	replica.do("FLUSHDB")
	must(t, master.queue.Wait(5, patience))
	if got := string(master.queue.Messages()[4].Body); got != "0\nflushdb\n" {
		t.Errorf("the promoted replica's event is %q", got)
	}
	master.balanced(0, 0)
}

// sameOffset is nil when the replica has applied all that its master has written.
func sameOffset(master, replica *rig) error {
	var offsets []string
	for _, r := range []*rig{master, replica} {
		info, err := r.Info(ctx, "replication").Result()
		if err != nil {
			return err
		}
		_, after, _ := strings.Cut(info, "master_repl_offset:")
		offset, _, _ := strings.Cut(after, "\r")
		offsets = append(offsets, offset)
	}
	if offsets[0] != offsets[1] {
		return fmt.Errorf("offsets are %v", offsets)
	}
	return nil
}

// FLUSHALL takes the list away; its own event is behind that, and kept.
func TestAFlushIsKeptThoughItTakesTheList(t *testing.T) {
	for _, outbox := range []string{"no", "yes"} {
		t.Run("outbox "+outbox, func(t *testing.T) {
			r, p := proxied(t, options{events: "$", config: append([]string{"key_evt_amqp.outbox " + outbox}, datasetEvents...)})
			p.Cut()
			r.sets("k", 1000)
			r.until("fallback_length", is("1000"))
			r.do("FLUSHALL")
			r.until("fallback_length", is("1"))
			dropped := r.number("events_dropped")
			r.do("SET", "after", "v")
			must(t, p.Mend())
			want := append(setBodies("k", 1000)[dropped:], "0\nflushall\n", "0\nset\nafter")
			if dropped == 0 {
				t.Error("nothing was dropped: the list was not the flush's")
			}
			r.arrives(want)
			r.balanced(0, dropped)
		})
	}
}
