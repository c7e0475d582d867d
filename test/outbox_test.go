// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// outboxDurable is the configuration in which a kill -9 loses nothing.
var outboxDurable = []string{"appendonly yes", "appendfsync always", "key_evt_amqp.outbox yes"}

// seeded returns a source of random numbers and says how to repeat it.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KEA_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("KEA_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// gapless checks what a message's id tells: the first arrivals of each load of
// the module are all that it captured up to some moment, from its first event
// on, in the order of capture; and no load's events come among another's. It
// returns how many loads there were.
func gapless(t *testing.T, messages []lib.Delivery) int {
	t.Helper()
	last := map[string]uint64{}
	current := ""
	for i, m := range messages {
		origin, number, _ := strings.Cut(m.MessageId, "-")
		seq, err := strconv.ParseUint(number, 10, 64)
		must(t, err)
		if _, old := last[origin]; old && origin != current {
			t.Fatalf("message %d: load %s is back after load %s", i, origin, current)
		}
		if seq != last[origin]+1 {
			t.Fatalf("message %d: event %d of load %s after %d", i, seq, origin, last[origin])
		}
		last[origin], current = seq, origin
	}
	return len(last)
}

// load writes keys of its own, each once, in pipelines of random length until
// the server is gone, and remembers which writes were acknowledged.
type load struct {
	prefix       string
	pause        time.Duration // between pipelines
	next         int
	acknowledged []int
}

func (l *load) run(r *rig, random *rand.Rand) {
	for {
		from, n := l.next, 1+random.IntN(60)
		l.next += n
		pipe := r.Pipeline()
		for i := from; i < l.next; i++ {
			pipe.Set(ctx, l.prefix+strconv.Itoa(i), "v", 0)
		}
		// A pipeline cut short was answered in part; DEBUG LOADAOF, and a
		// long DEBUG RELOAD, refuse what comes meanwhile.
		answers, err := pipe.Exec(ctx)
		for i, a := range answers {
			if a.Err() == nil {
				l.acknowledged = append(l.acknowledged, from+i)
			}
		}
		if err != nil && !strings.HasPrefix(err.Error(), "LOADING") {
			return
		}
		time.Sleep(l.pause)
	}
}

// arrived checks that each load's acknowledged writes have their events, in the
// client's own order.
func arrived(t *testing.T, r *rig, loads []*load) {
	t.Helper()
	noneMissing(t, r, loads)
	last := map[string]int{}
	for _, m := range r.queue.Messages() {
		prefix, number, _ := strings.Cut(strings.TrimPrefix(string(m.Body), "0\nset\n"), ":")
		i, err := strconv.Atoi(number)
		if before, old := last[prefix]; err != nil || old && i <= before {
			t.Fatalf("got %q after number %d, error %v", m.Body, before, err)
		}
		last[prefix] = i
	}
}

// noneMissing waits until each acknowledged write's event has come.
func noneMissing(t *testing.T, r *rig, loads []*load) {
	t.Helper()
	came := map[string]bool{}
	seen := 0
	eventually(t, func() error {
		for _, m := range r.queue.Messages()[seen:] {
			came[string(m.Body)] = true
			seen++
		}
		for _, l := range loads {
			for _, i := range l.acknowledged {
				if key := l.prefix + strconv.Itoa(i); !came["0\nset\n"+key] {
					return fmt.Errorf("the event of acknowledged write %s is missing", key)
				}
			}
		}
		return nil
	})
}

// booksAtRest starts the server with the broker out of reach, and returns the
// length of the list that it found.
func booksAtRest(t *testing.T, r *rig) int {
	t.Helper()
	must(t, r.Start())
	must(t, r.Alive())
	r.until("events_buffered", is("0")) // what a spool file held is in the list
	n := int(r.do("LLEN", "key_evt_amqp.fallback").(int64))
	r.until("fallback_length", is(strconv.Itoa(n)))
	return n
}

func TestOutboxKeepsEventsOfAcknowledgedWritesThroughKills(t *testing.T) {
	random := seeded(t)
	r, p := proxied(t, options{events: "$", config: outboxDurable})
	loads := []*load{{prefix: "a:"}, {prefix: "b:"}, {prefix: "c:"}}
	const kills = 30
	for i := range kills {
		if i > 0 {
			must(t, r.Start())
		}
		// With the broker, without it, and lost on the way.
		cut := i % 3
		if cut == 1 {
			p.Cut()
		}
		var work servers.Group
		for _, l := range loads {
			own := rand.New(rand.NewPCG(random.Uint64(), 0))
			work.Go(func() { l.run(r, own) })
		}
		time.Sleep(time.Duration(10+random.IntN(100)) * time.Millisecond) // a moment like any other
		if cut == 2 {
			p.Cut()
			time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
		}
		r.Kill()
		work.Wait()
		if cut != 0 {
			must(t, p.Mend())
		}
	}
	p.Cut()
	left := booksAtRest(t, r)
	must(t, p.Mend())
	arrived(t, r, loads)
	r.balanced(left, 0)
	origins := gapless(t, r.queue.Messages())
	acknowledged := 0
	for _, l := range loads {
		acknowledged += len(l.acknowledged)
	}
	t.Logf("%d kills, %d acknowledged writes, %d events of %d loads, %d duplicates, the last load found %d in the list",
		kills, acknowledged, len(r.queue.Messages()), origins, r.queue.Duplicates(), left)
}

// On 7.0 the commands of a client that was just unblocked run after
// BEFORE_SLEEP, where the list is written, and are answered in the same turn.
func TestOutboxKeepsEventsOfClientsJustUnblocked(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: outboxDurable})
	p.Cut()
	const kills = 30
	for i := range kills {
		if i > 0 {
			must(t, r.Start())
		}
		blocked, err := net.Dial("tcp", r.Addr())
		must(t, err)
		_, err = fmt.Fprintf(blocked, "BLPOP wait 0\r\nSET k%d v\r\n", i)
		must(t, err)
		eventually(t, func() error {
			info, err := r.Info(ctx, "clients").Result()
			if err != nil || !strings.Contains(info, "blocked_clients:1\r\n") {
				return fmt.Errorf("nobody is blocked, error %v", err)
			}
			return nil
		})
		go r.RPush(ctx, "wait", "x")
		answers := bufio.NewReader(blocked)
		for line := ""; line != "+OK\r\n"; {
			line, err = answers.ReadString('\n')
			must(t, err)
		}
		r.Kill()
		blocked.Close()
	}
	left := booksAtRest(t, r)
	if left != kills {
		t.Errorf("%d events of %d acknowledged writes are in the list", left, kills)
	}
	must(t, p.Mend())
	r.arrives(setBodies("k", kills))
	r.balanced(kills, 0)
	if n := gapless(t, r.queue.Messages()); n != kills {
		t.Errorf("events of %d loads, want %d", n, kills)
	}
}

// In that gap the list is written in the middle of commands: no command may
// notice, and the AOF and a replica must come to the same dataset.
func TestOutboxInTheGapLeavesTheDatasetRight(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "Amn", config: outboxDurable})
	commands := []string{
		"SET s v", "SET old v PX 1", "DEBUG SLEEP 0.01", "GET old", "GET none", "APPEND s w", "INCR n", "RENAME s t", "DEL t",
		"RPUSH l a b c", "LMOVE l m LEFT RIGHT", "LPOP l 2", "LINSERT m BEFORE a z", "SORT m ALPHA STORE sorted",
		"SADD set a b c", "SPOP set 3", "SADD one a b", "SADD two b c", "SINTERSTORE both one two", "SMOVE one two a",
		"HSET h f v g w", "HDEL h f g", "ZADD z 1 a 2 b", "ZPOPMIN z 2", "ZADD z 1 a", "ZUNIONSTORE zz 1 z",
		"XADD x 1-1 f v", "XTRIM x MAXLEN 0", "COPY m m2", "MOVE m2 3", "SELECT 3", "SET third v", "SWAPDB 3 4", "SELECT 0",
		"MULTI", "SET in v", "LPUSH in2 v", "EXEC",
		`EVAL "for i = 1, 300 do redis.call('SET', 'lua' .. i, i) end redis.call('DEL', 'lua1')" 0`,
		"GETDEL in", "GETEX n EX 1000", "PERSIST n", "BITOP NOT bits n", "PFADD p a", "GEOADD g 1 1 a", "EXPIRE n -1", "SET last v",
	}
	blocked, err := net.Dial("tcp", master.Addr())
	must(t, err)
	defer blocked.Close()
	_, err = fmt.Fprintf(blocked, "BLPOP wait 0\r\n%s\r\nECHO finished\r\n", strings.Join(commands, "\r\n"))
	must(t, err)
	eventually(t, func() error {
		info, err := master.Info(ctx, "clients").Result()
		if err != nil || !strings.Contains(info, "blocked_clients:1\r\n") {
			return fmt.Errorf("nobody is blocked, error %v", err)
		}
		return nil
	})
	master.do("RPUSH", "wait", "x")
	answers := bufio.NewReader(blocked)
	for line := ""; line != "finished\r\n"; {
		line, err = answers.ReadString('\n')
		must(t, err)
		if strings.HasPrefix(line, "-") {
			t.Errorf("a command failed: %s", line)
		}
	}
	captured := master.number("events_captured")
	if n := int(master.do("LLEN", "key_evt_amqp.fallback").(int64)); n != captured {
		t.Errorf("%d events captured, %d in the list", captured, n)
	}
	digest := master.do("DEBUG", "DIGEST")
	eventually(t, func() error {
		if got := replica.do("DEBUG", "DIGEST"); got != digest {
			return fmt.Errorf("the replica's digest is %v, the master's %v", got, digest)
		}
		return nil
	})
	master.Kill()
	must(t, master.Start())
	if got := master.do("DEBUG", "DIGEST"); got != digest {
		t.Errorf("from the AOF came %v, not %v", got, digest)
	}
	must(t, mend())
	must(t, master.queue.Wait(captured, patience))
	master.balanced(captured, 0)
	if n := gapless(t, master.queue.Messages()); n != 1 {
		t.Errorf("events of %d loads", n)
	}
}
