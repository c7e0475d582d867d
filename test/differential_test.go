// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

var differentialCalls = flag.Int("differential", 4000, "commands of TestSameAsTheServersOwn, in each of its parts")

// notification is one message of Redis's own, or one of ours with K and E.
type notification struct{ channel, body string }

// differencesOnPurpose are the messages of the server's own that ours differ
// from. A server outside a cluster has no others; in a cluster the `del` of a
// key that went away with its slot is not our event either (cluster_test.go).
var differencesOnPurpose = []struct {
	why string
	is  func(n notification) bool
	// ours is what we send instead; nil: nothing.
	ours func(n notification) notification
}{
	{"the fallback list is ours, not the users' data",
		func(n notification) bool {
			return strings.HasSuffix(n.channel, "@0__:key_evt_amqp.fallback") || n.body == "key_evt_amqp.fallback" && strings.HasPrefix(n.channel, "__keyevent@0__:")
		}, nil},
	{"an AMQP routing key has at most 255 bytes",
		func(n notification) bool { return len(n.channel) > 255 },
		func(n notification) notification { return notification{n.channel[:255], n.body} }},
}

// expected is what we should send where the server sends this.
func expected(theirs []notification) (ours []notification) {
next:
	for _, n := range theirs {
		for _, d := range differencesOnPurpose {
			if d.is(n) {
				if d.ours != nil {
					ours = append(ours, d.ours(n))
				}
				continue next
			}
		}
		ours = append(ours, n)
	}
	return ours
}

// subscriber collects what the server publishes itself.
type subscriber struct {
	mu  sync.Mutex
	got []notification
	sub *redis.PubSub
}

func subscribe(t *testing.T, r *rig) *subscriber {
	t.Helper()
	s := &subscriber{sub: r.PSubscribe(ctx, "__key*@*__:*")}
	_, err := s.sub.Receive(ctx) // the confirmation
	must(t, err)
	var done servers.Group
	done.Go(func() {
		for {
			m, err := s.sub.ReceiveMessage(ctx)
			if err != nil {
				return // closed
			}
			s.mu.Lock()
			s.got = append(s.got, notification{m.Channel, m.Payload})
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() { s.sub.Close(); done.Wait() })
	return s
}

// upTo waits until a stream has the last event, and returns what came before.
func upTo(t *testing.T, last notification, stream func() []notification) (out []notification) {
	t.Helper()
	looked := 0
	eventually(t, func() error {
		got := stream()
		for ; looked < len(got); looked++ {
			if got[looked] == last {
				out = got[:looked]
				return nil
			}
		}
		return fmt.Errorf("the last event is not among %d messages", len(got))
	})
	return out
}

// Whatever clients do, with K and E the module sends what the server itself
// publishes with the same classes: message by message, in order.
func TestSameAsTheServersOwn(t *testing.T) {
	for _, test := range []struct {
		name    string
		clients int
		config  []string
	}{
		{"one client", 1, nil},
		// Without outbox: FLUSHALL and SWAPDB would take the list, and what is
		// in it counts as dropped.
		{"io-threads, four clients", 4, []string{"io-threads 4"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			seed := *soakSeed
			if seed == 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("-differential %d -seed %d", *differentialCalls, seed)
			differential(t, seed, test.clients, test.config)
		})
	}
}

func differential(t *testing.T, seed uint64, clients int, config []string) {
	exchange := strings.ReplaceAll(name(t), " ", "-")
	conn, err := broker.Dial()
	must(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(t, err)
	must(t, ch.ExchangeDeclare(exchange, "fanout", true, false, false, false, nil))
	must(t, broker.Bind(exchange, exchange, "", nil))

	r := start(t, options{silent: true, events: "KEAmn", config: append([]string{
		"key_evt_amqp.exchange_name " + exchange, "notify-keyspace-events KEAmn",
		"client-output-buffer-limit pubsub 0 0 0", "maxmemory-policy allkeys-random"}, config...)})
	r.queue = broker.Consume(exchange)
	// Classes that newer servers have besides, both or none.
	if r.Do(ctx, "CONFIG", "SET", "notify-keyspace-events", "KEAmnoc").Err() == nil {
		r.do("CONFIG", "SET", "key_evt_amqp.events", "KEAmnoc")
	} else { // a failed one gives back what CONFIG GET says: that has no n
		r.do("CONFIG", "SET", "notify-keyspace-events", "KEAmn")
	}
	own := subscribe(t, r)
	dumps := r.dumps()

	r.first()
	results := make(chan tally, clients)
	stop := make(chan struct{})
	var waiting servers.Group
	for i := range 3 {
		waiting.Go(func() { r.waits(author{rand.New(rand.NewPCG(seed, uint64(100+i))), nil}, stop) })
	}
	for i := range clients {
		go func() {
			results <- r.writes(author{rand.New(rand.NewPCG(seed, uint64(i))), dumps}, *differentialCalls/clients)
		}()
	}
	var all tally
	for range clients {
		one := <-results
		all.sent += one.sent
		all.failed += one.failed
		if one.err != nil {
			t.Error(one.err)
		}
	}
	close(stop)
	waiting.Wait()
	if log := r.Log(); r.Alive() != nil { // the rig shows the log's end only
		crash := log[max(0, strings.Index(log, "BUG REPORT")-500):]
		t.Fatalf("the server has ended:\n%s", crash[:min(len(crash), 6000)])
	}
	r.do("CONFIG", "SET", "maxmemory", "0")
	r.do("SET", "the-last", "")
	last := notification{"__keyevent@0__:set", "the-last"}
	theirs := upTo(t, last, func() []notification {
		own.mu.Lock()
		defer own.mu.Unlock()
		return own.got
	})
	var ours []notification
	ours = upTo(t, last, func() []notification {
		for _, m := range r.queue.Messages()[len(ours):] {
			ours = append(ours, notification{m.RoutingKey, string(m.Body)})
		}
		return ours
	})
	compare(t, expected(theirs), ours)
	seen := eventNames(theirs)
	t.Logf("%d commands, %d refused by the server; %d messages, of %d events: %v", all.sent, all.failed, len(theirs), len(seen), seen)
	if all.failed*2 > all.sent {
		t.Errorf("%d of %d commands were refused: the test no longer tests", all.failed, all.sent)
	}
	for _, event := range strings.Fields("set expire expired evicted new keymiss del rename_from rename_to copy_to move_from move_to " +
		"restore sortstore zrangestore spop lpush lpop hset zadd xadd xgroup-create setbit pfadd") {
		if *differentialCalls >= 4000 && !slices.Contains(seen, event) {
			t.Errorf("no event was %q: the test no longer draws what makes it", event)
		}
	}
	r.balanced(0, 0)
}

// dumps are what RESTORE takes: one key of each type.
func (r *rig) dumps() (out []string) {
	r.t.Helper()
	for _, command := range []string{"SET a v", "RPUSH b 1 2 3", "SADD c m1 m2", "HSET d f1 v f2 v", "ZADD e 1 m1 2 m2", "XADD f 5-1 f v"} {
		args := strings.Fields(command)
		all := make([]any, len(args))
		for i, arg := range args {
			all[i] = arg
		}
		r.do(all...)
		out = append(out, r.do("DUMP", args[1]).(string))
		r.do("DEL", args[1])
	}
	return out
}

// first makes what every run has.
func (r *rig) first() {
	r.t.Helper()
	conn := r.Conn()
	defer func() { // the pool's connections are of database 0
		must(r.t, conn.Do(ctx, "SELECT", "0").Err())
		conn.Close()
	}()
	for _, command := range differentialFirst {
		if err := conn.Do(ctx, author{}.fill(command)...).Err(); err != nil && err != redis.Nil {
			r.t.Fatalf("%s: %v", command, err)
		}
	}
}

type tally struct {
	sent, failed int
	err          error
}

// writes sends commands in pipelines on one connection.
func (r *rig) writes(a author, calls int) (all tally) {
	conn := r.Conn()
	defer func() { // the pool's connections are of database 0
		_ = conn.Do(ctx, "SELECT", "0").Err()
		conn.Close()
	}()
	for all.sent < calls {
		pipe := conn.Pipeline()
		for range 1 + a.IntN(30) {
			for _, args := range a.next() {
				pipe.Do(ctx, args...)
			}
		}
		replies, _ := pipe.Exec(ctx)
		for _, reply := range replies {
			all.sent++
			if err := reply.Err(); err != nil && err != redis.Nil {
				if _, refused := err.(redis.Error); !refused {
					all.err = fmt.Errorf("%.200v: %w", reply.Args(), err)
					return all
				}
				all.failed++
			}
		}
	}
	return all
}

// waits is a client that blocks, and is served or gives up.
func (r *rig) waits(a author, stop chan struct{}) {
	conn := r.Conn()
	defer func() { // the pool's connections are of database 0
		_ = conn.Do(ctx, "SELECT", "0").Err()
		conn.Close()
	}()
	for {
		select {
		case <-stop:
			return
		default:
			_ = conn.Do(ctx, a.fill(differentialBlocking[a.IntN(len(differentialBlocking))])...).Err()
		}
	}
}

func compare(t *testing.T, want, got []notification) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		if i < len(want) && i < len(got) && want[i] == got[i] {
			continue
		}
		around := func(list []notification) (out string) {
			for j := max(0, i-6); j < min(len(list), i+6); j++ {
				out += fmt.Sprintf("  %d %.100q %.60q\n", j, list[j].channel, list[j].body)
			}
			return out
		}
		t.Fatalf("message %d differs (the server sent %d, the module %d); the server:\n%sthe module:\n%s", i, len(want), len(got), around(want), around(got))
	}
}

// eventNames are the events of a stream, each once, in order of appearance.
func eventNames(list []notification) (out []string) {
	seen := map[string]bool{}
	for _, n := range list {
		if _, event, ok := strings.Cut(n.channel, "__:"); ok && strings.HasPrefix(n.channel, "__keyevent@") && !seen[event] {
			seen[event] = true
			out = append(out, event)
		}
	}
	return out
}
