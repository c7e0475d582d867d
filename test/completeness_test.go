// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	lib "github.com/rabbitmq/amqp091-go"
)

// numbers are those in the messages' ids, by origin, in ascending order and each
// once.
func numbers(t *testing.T, messages []lib.Delivery) map[string][]uint64 {
	t.Helper()
	byOrigin := map[string][]uint64{}
	for _, m := range messages {
		origin, rest, ok := strings.Cut(m.MessageId, "-")
		n, err := strconv.ParseUint(rest, 10, 64)
		if !ok || err != nil || n == 0 {
			t.Fatalf("the id %q is not <origin>-<number>", m.MessageId)
		}
		byOrigin[origin] = append(byOrigin[origin], n)
	}
	for origin, n := range byOrigin {
		slices.Sort(n)
		byOrigin[origin] = slices.Compact(n)
	}
	return byOrigin
}

// holes are how many numbers from 1 to the greatest are missing.
func holes(byOrigin map[string][]uint64) (n int) {
	for _, list := range byOrigin {
		n += int(list[len(list)-1]) - len(list)
	}
	return n
}

// Events that are not asked for, cuts, restarts with and without a list: the
// numbers of each origin go from 1 to the last, and what was captured has come.
func TestNumbersOfAnOriginHaveNoHole(t *testing.T) {
	for _, outbox := range []string{"no", "yes"} {
		t.Run("outbox "+outbox, func(t *testing.T) {
			r, p := proxied(t, options{events: "A", masks: "^k", config: []string{
				"appendonly yes", "key_evt_amqp.shutdown_timeout 50", "key_evt_amqp.outbox " + outbox}})
			work := func(prefix string) {
				t.Helper()
				r.sets("other:"+prefix, 200) // masked out
				r.sets("k:"+prefix, 500)
				r.do("EVAL", "redis.call('SELECT', 3) for i = 1, 100 do redis.call('SET', 'k:lua' .. i, 'v') redis.call('DEL', 'k:lua' .. i) end", "0")
				pipe := r.TxPipeline()
				for i := range 50 {
					pipe.SAdd(ctx, "k:set"+prefix, i)
					pipe.LPush(ctx, "other:list", i)
					pipe.Exists(ctx, "k:absent")
				}
				_, err := pipe.Exec(ctx)
				must(t, err)
			}
			captured := 0
			for load := range 3 {
				work(fmt.Sprint(load, "a"))
				p.Cut()
				work(fmt.Sprint(load, "b"))
				if load == 1 { // let events wait over the restart
					captured += r.number("events_captured")
					r.Terminate()
				}
				must(t, p.Mend())
				if load == 1 {
					must(t, r.Start())
				}
				work(fmt.Sprint(load, "c"))
			}
			captured += r.number("events_captured")
			must(t, r.queue.Wait(captured, patience))
			got := numbers(t, r.queue.Messages())
			total := 0
			for _, list := range got {
				total += len(list)
			}
			if len(got) != 2 || holes(got) != 0 || total != captured {
				t.Errorf("%d origins, %d holes, %d events for %d captured", len(got), holes(got), total, captured)
			}
		})
	}
}

// Each event that is dropped leaves a hole, and INFO has counted it.
func TestADropLeavesAHole(t *testing.T) {
	r, p := proxied(t, options{events: "$", limit: "100"})
	r.sets("a", 50)
	r.arrives(setBodies("a", 50))
	r.balanced(0, 0)
	p.Cut()
	r.until("state", is("backoff"))
	r.sets("b", 1000)
	r.until("events_dropped", is("900"))
	must(t, p.Mend())
	want := append(setBodies("a", 50), setBodies("b", 1000)[900:]...)
	r.arrives(want)
	if got := numbers(t, r.queue.Messages()); len(got) != 1 || holes(got) != 900 {
		t.Errorf("%d origins, %d holes", len(got), holes(got))
	}
	r.balanced(0, 900)
}
