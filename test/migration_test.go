// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// journal is what clients know of their writes: which events there must be.
type journal struct {
	c    *cluster
	kind migrations
	dbs  int
	next int // of the keys' numbers; mu

	mu    sync.Mutex
	want  map[string]int // bodies of events of acknowledged writes
	maybe map[string]int // of writes that had no answer
	// evictable: keys that are gone if, and only if, they were evicted.
	evictable map[string]bool
	clients   map[string]*redis.Client
}

// migrations is how a server moves slots atomically.
type migrations string

const (
	byImport  migrations = "CLUSTER MIGRATION IMPORT"
	bySending migrations = "CLUSTER MIGRATESLOTS"
)

// migrationsOf skips the test on servers that can't.
func migrationsOf(t *testing.T, n *servers.Redis) migrations {
	t.Helper()
	for command, kind := range map[string]migrations{"cluster|migration": byImport, "cluster|migrateslots": bySending} {
		if got, err := n.Do(ctx, "COMMAND", "INFO", command).Slice(); err == nil && len(got) == 1 && got[0] != nil {
			return kind
		}
	}
	t.Skip("this server has no atomic slot migration")
	return ""
}

func newJournal(c *cluster, kind migrations, dbs int) *journal {
	j := &journal{c: c, kind: kind, dbs: dbs, want: map[string]int{}, maybe: map[string]int{}, evictable: map[string]bool{},
		clients: map[string]*redis.Client{}}
	for _, n := range c.Nodes {
		for db := range dbs {
			j.clients[j.client(n, db)] = redis.NewClient(&redis.Options{Addr: n.Addr(), DB: db, Protocol: 2, MaxRetries: -1, DisableIdentity: true})
		}
	}
	c.t.Cleanup(func() {
		for _, client := range j.clients {
			client.Close()
		}
	})
	return j
}

func (j *journal) client(n *servers.Redis, db int) string { return fmt.Sprint(n.Addr(), "/", db) }

// do runs commands as one transaction, or alone, on whichever node takes them,
// and writes their events down. What a node refuses has not happened.
func (j *journal) do(db int, events []string, commands ...[]any) bool {
	for try := range 200 {
		n := j.c.Nodes[try%len(j.c.Nodes)]
		client := j.clients[j.client(n, db)]
		var err error
		if len(commands) == 1 {
			err = client.Do(ctx, commands[0]...).Err()
		} else {
			_, err = client.TxPipelined(ctx, func(p redis.Pipeliner) error {
				for _, command := range commands {
					p.Do(ctx, command...)
				}
				return nil
			})
		}
		var refused redis.Error
		book := j.want
		switch {
		case errors.As(err, &refused):
			if try%len(j.c.Nodes) == len(j.c.Nodes)-1 {
				time.Sleep(5 * time.Millisecond) // the hand-over
			}
			continue
		case err != nil:
			book = j.maybe
		}
		j.mu.Lock()
		for _, e := range events {
			book[strconv.Itoa(db)+"\n"+e]++
		}
		j.mu.Unlock()
		return err == nil
	}
	return false
}

// write makes one of the writes of the mix, in a slot of its own choice.
func (j *journal) write(random *rand.Rand, expires bool) {
	j.mu.Lock()
	j.next++
	key := "k" + strconv.Itoa(j.next)
	j.mu.Unlock()
	db := random.IntN(j.dbs)
	switch random.IntN(9) {
	case 0:
		j.do(db, []string{"set\n" + key}, []any{"SET", key, "v"})
	case 1:
		if j.do(db, []string{"set\n" + key}, []any{"SET", key, "v"}) {
			j.do(db, []string{"del\n" + key}, []any{"DEL", key})
		}
	case 2:
		if j.do(db, []string{"hset\n" + key}, []any{"HSET", key, "f", "v"}) {
			j.do(db, []string{"hset\n" + key}, []any{"HSET", key, "f", "w"})
		}
	case 3:
		if j.do(db, []string{"rpush\n" + key}, []any{"RPUSH", key, "a", "b"}) {
			j.do(db, []string{"lpop\n" + key}, []any{"LPOP", key})
		}
	case 4:
		j.do(db, []string{"zadd\n" + key}, []any{"ZADD", key, 1, "m"})
	case 5:
		j.do(db, []string{"xadd\n" + key}, []any{"XADD", key, "*", "f", "v"})
	case 6: // a transaction
		tag := "{" + key + "}"
		j.do(db, []string{"set\n" + tag + "a", "sadd\n" + tag + "b", "del\n" + tag + "a"},
			[]any{"SET", tag + "a", "v"}, []any{"SADD", tag + "b", "m"}, []any{"DEL", tag + "a"})
	case 7: // one to expire, once, wherever it is then
		if !expires {
			return
		}
		j.do(db, []string{"set\n" + key, "expire\n" + key, "expired\n" + key}, []any{"SET", key, "v", "PX", 1 + random.IntN(1500)})
	case 8:
		if j.do(db, []string{"set\n" + key, "expire\n" + key}, []any{"SET", key, strings.Repeat("v", 500), "EX", 100000}) {
			j.mu.Lock()
			j.evictable[strconv.Itoa(db)+"\n"+key] = true
			j.mu.Unlock()
		}
	}
}

// fill makes n keys in one slot of a node, each with a TTL and 500 bytes.
func (j *journal) fill(n *servers.Redis, tag string, count int) {
	j.c.t.Helper()
	pipe := n.Pipeline()
	for i := range count {
		key := fmt.Sprintf("{%s}f%d", tag, i)
		pipe.Do(ctx, "SET", key, strings.Repeat("v", 500), "EX", 100000)
		j.want["0\nset\n"+key]++
		j.want["0\nexpire\n"+key]++
		j.evictable["0\n"+key] = true
	}
	_, err := pipe.Exec(ctx)
	must(j.c.t, err)
}

// tag is a hash tag of one of the slots from first to last.
func tag(t *testing.T, n *servers.Redis, first, last int) string {
	t.Helper()
	for i := 0; ; i++ {
		text := strconv.Itoa(i)
		if slot := slotOf(t, n, "{"+text+"}"); slot >= first && slot <= last {
			return text
		}
	}
}

// writing writes until the returned function is called.
func (j *journal) writing(expires bool) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range writers {
		random := rand.New(rand.NewPCG(uint64(i), uint64(j.next)))
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
					j.write(random, expires)
				}
			}
		}()
	}
	return sync.OnceFunc(func() { close(done); wg.Wait() })
}

// begin starts the move of slots, first and last of each range in turn.
func (j *journal) begin(from, to *servers.Redis, ranges ...any) {
	j.c.t.Helper()
	eventually(j.c.t, func() error { // it refuses while another is cleaned up after
		if j.kind == byImport {
			return to.Do(ctx, append([]any{"CLUSTER", "MIGRATION", "IMPORT"}, ranges...)...).Err()
		}
		args := append([]any{"CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"}, ranges...)
		return from.Do(ctx, append(args, "NODE", to.ID())...).Err()
	})
}

func (j *journal) cancel(from, to *servers.Redis) {
	if j.kind == byImport {
		to.Do(ctx, "CLUSTER", "MIGRATION", "CANCEL", "ALL")
	} else {
		from.Do(ctx, "CLUSTER", "CANCELSLOTMIGRATIONS")
	}
}

// states are those of all migrations that the nodes know of.
func (j *journal) states() (all []string) {
	for _, n := range j.c.Nodes {
		command := []any{"CLUSTER", "MIGRATION", "STATUS", "ALL"}
		if j.kind == bySending {
			command = []any{"CLUSTER", "GETSLOTMIGRATIONS"}
		}
		list, _ := n.Do(ctx, command...).Slice()
		for _, entry := range list {
			fields, _ := entry.([]any)
			for i := 0; i+1 < len(fields); i += 2 {
				if fields[i] == "state" {
					all = append(all, fmt.Sprint(fields[i+1]))
				}
			}
		}
	}
	return all
}

// over waits until no migration runs.
func (j *journal) over() {
	j.c.t.Helper()
	eventually(j.c.t, func() error {
		for _, state := range j.states() {
			switch state {
			case "completed", "failed", "canceled", "cancelled", "success":
			default:
				return fmt.Errorf("a migration is %s", state)
			}
		}
		return nil
	})
	must(j.c.t, j.c.Agree())
}

// memory is how much of it a node uses.
func memory(t *testing.T, n *servers.Redis) int {
	t.Helper()
	_, text, _ := strings.Cut(n.Info(ctx, "memory").Val(), "used_memory:")
	text, _, _ = strings.Cut(text, "\r")
	used, err := strconv.Atoi(text)
	must(t, err)
	return used
}

// arriving waits until a node has got some hundred keys that are being moved to
// it: it does not count them yet.
func (j *journal) arriving(to *servers.Redis, before int) {
	j.c.t.Helper()
	eventually(j.c.t, func() error {
		if used := memory(j.c.t, to); used < before+300000 {
			return fmt.Errorf("%d bytes have come", used-before)
		}
		return nil
	})
}

// balanced checks that what has arrived is what was written, and nothing else.
func (j *journal) balanced() {
	t := j.c.t
	t.Helper()
	j.c.settled()
	got := map[string]int{}
	eventually(t, func() error {
		clear(got)
		for _, m := range j.c.queue.Messages() {
			got[string(m.Body)]++
		}
		for body, n := range j.want {
			if got[body] < n {
				return fmt.Errorf("%q came %d times, want %d", body, got[body], n)
			}
		}
		return nil
	})
	evicted := map[string]bool{}
	wrong := 0
	for body, n := range got {
		if db, rest, _ := strings.Cut(body, "\n"); strings.HasPrefix(rest, "evicted\n") {
			key := db + "\n" + strings.TrimPrefix(rest, "evicted\n")
			evicted[key] = true
			if j.evictable[key] && n == 1 {
				continue
			}
		}
		if n > j.want[body]+j.maybe[body] {
			wrong++
			if wrong < 10 {
				t.Errorf("%q came %d times, want %d", body, n, j.want[body])
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d events more than were written", wrong)
	}
	for key := range j.evictable {
		db, name, _ := strings.Cut(key, "\n")
		number, _ := strconv.Atoi(db)
		there := false
		for _, n := range j.c.Nodes {
			if v, err := j.clients[j.client(n, number)].Exists(ctx, name).Result(); err == nil && v == 1 {
				there = true
			}
		}
		if there == evicted[key] {
			t.Errorf("%q: there %v, evicted %v", key, there, evicted[key])
		}
	}
	t.Logf("%d different events of %d, %d evicted, %d duplicates", len(got), len(j.c.queue.Messages()), len(evicted), j.c.queue.Duplicates())
}

// startMigrations starts two masters, half of the slots each, every event of
// which is in the list before its write is answered.
func startMigrations(t *testing.T, events string, dbs int, config ...string) (*journal, *servers.Proxy) {
	t.Helper()
	c, proxy := startMasters(t, 2, events, append(config, "appendonly yes", "appendfsync always", "key_evt_amqp.outbox yes",
		"cluster-require-full-coverage no")...)
	return newJournal(c, migrationsOf(t, c.Nodes[0]), dbs), proxy
}

// slow makes a migration last: its child waits at each key.
func (j *journal) slow(from *servers.Redis, delay int) {
	j.c.t.Helper()
	must(j.c.t, from.Do(ctx, "CONFIG", "SET", "rdb-key-save-delay", delay).Err())
}

// ranges are slots of the first node, its fallback list's among them.
func (j *journal) ranges() []any {
	out := []any{0, 3000, 5000, 5999}
	if key := j.c.lists()[j.c.Nodes[0]]; key != "" {
		if slot := slotOf(j.c.t, j.c.Nodes[0], key); slot > 3000 && slot < 5000 || slot > 5999 {
			out = append(out, slot, slot)
		}
	}
	return out
}

// stored waits until both nodes have a list: the broker is away.
func (j *journal) stored() {
	j.c.t.Helper()
	eventually(j.c.t, func() error {
		if lists := j.c.lists(); len(lists) < 2 {
			return fmt.Errorf("lists: %v", lists)
		}
		return nil
	})
}

// TestAtomicMigrationsMakeNoEvents: slots go to the other node and come back,
// under load, in the hand-over window too, keys expire meanwhile; and lists that
// are pushed to and popped from go with them.
func TestAtomicMigrationsMakeNoEvents(t *testing.T) {
	j, proxy := startMigrations(t, "A", 1)
	a, b := j.c.Nodes[0], j.c.Nodes[1]
	stop := j.writing(true)
	defer stop()
	for _, away := range []bool{false, true} {
		if away {
			proxy.Cut()
			j.stored()
		}
		ranges := j.ranges()
		j.slow(a, 500)
		j.begin(a, b, ranges...)
		if away { // the list is popped from, too, while it moves
			must(t, proxy.Mend())
		}
		j.over()
		j.begin(b, a, ranges...)
		j.over()
	}
	stop()
	j.balanced()
}

// TestAtomicMigrationsThatEnd early: cancelled, and with either node killed.
func TestAtomicMigrationsThatEndEarly(t *testing.T) {
	j, _ := startMigrations(t, "A", 1)
	a, b := j.c.Nodes[0], j.c.Nodes[1]
	j.fill(a, tag(t, a, 0, 3000), 3000)
	for i, end := range []func(){
		func() { j.cancel(a, b) },
		func() { b.Kill(); must(t, b.Start()) },
		func() { a.Kill(); must(t, a.Start()) },
	} {
		stop := j.writing(false)
		j.slow(a, 2000)
		before := memory(t, b)
		j.begin(a, b, 0, 3000, 5000, 5999)
		j.arriving(b, before)
		end()
		j.cancel(a, b) // a node that is back tries again
		j.over()
		stop()
		for _, state := range j.states() {
			if state == "completed" || state == "success" {
				t.Errorf("migration %d was completed: %v", i, j.states())
			}
		}
	}
	j.balanced()
}

// TestAtomicMigrationsAndEviction: what is evicted where it arrives, or where it
// leaves, is one event, and only if it is gone.
func TestAtomicMigrationsAndEviction(t *testing.T) {
	j, _ := startMigrations(t, "A", 1, "maxmemory-policy volatile-random")
	a, b := j.c.Nodes[0], j.c.Nodes[1]
	j.fill(a, tag(t, a, 0, 3000), 2000)
	j.fill(b, tag(t, b, 9000, 12000), 2000)
	limit := func(n *servers.Redis, bytes int) {
		must(t, n.ConfigSet(ctx, "maxmemory", strconv.Itoa(memory(t, n)+bytes)).Err())
	}
	stop := j.writing(false)
	defer stop()
	limit(b, 300000) // less than what comes
	j.slow(a, 300)
	j.begin(a, b, 0, 3000, 5000, 5999)
	j.over()
	must(t, b.ConfigSet(ctx, "maxmemory", "0").Err())
	must(t, a.ConfigSet(ctx, "maxmemory", "0").Err())
	if err := b.Do(ctx, "EXISTS", "{"+tag(t, a, 0, 3000)+"}f0").Err(); err != nil {
		t.Logf("the import failed for want of memory: %v", j.states())
	} else {
		limit(b, -100000)
		j.begin(b, a, 0, 3000, 5000, 5999)
		j.over()
	}
	stop()
	for _, n := range j.c.Nodes {
		must(t, n.ConfigSet(ctx, "maxmemory", "0").Err())
	}
	j.balanced()
}

// TestAtomicMigrationsOfDatabases: Valkey 9's clusters have more than one.
func TestAtomicMigrationsOfDatabases(t *testing.T) {
	if kind := configHas(t, "cluster-databases"); !kind {
		t.Skip("this server's clusters have one database")
	}
	j, _ := startMigrations(t, "A", 4, "cluster-databases 4")
	a, b := j.c.Nodes[0], j.c.Nodes[1]
	stop := j.writing(true)
	defer stop()
	ranges := j.ranges()
	for _, node := range [][2]*servers.Redis{{a, b}, {b, a}} {
		j.slow(node[0], 300)
		j.begin(node[0], node[1], ranges...)
		j.over()
	}
	stop()
	j.do(1, []string{"set\n{x}moves"}, []any{"SET", "{x}moves", "v"})
	j.want["1\nmove_from\n{x}moves"], j.want["3\nmove_to\n{x}moves"] = 1, 1
	j.do(1, nil, []any{"MOVE", "{x}moves", 3})
	j.balanced()
}

// configHas reports whether the server has a setting.
func configHas(t *testing.T, name string) bool {
	t.Helper()
	r := prepare(t, options{noLoad: true, silent: true})
	must(t, r.Start())
	got, err := r.ConfigGet(ctx, name).Result()
	must(t, err)
	return len(got) > 0
}

// TestLoadedWhileSlotsArrive: the module is loaded in the middle of an import.
func TestLoadedWhileSlotsArrive(t *testing.T) {
	j, _ := startMigrations(t, "A", 1)
	a, b := j.c.Nodes[0], j.c.Nodes[1]
	j.fill(a, tag(t, a, 0, 3000), 3000)
	must(t, b.Do(ctx, "MODULE", "UNLOAD", "key_evt_amqp").Err())
	j.slow(a, 2000)
	before := memory(t, b)
	j.begin(a, b, 0, 3000)
	j.arriving(b, before)
	args := []any{"MODULE", "LOAD"}
	for _, arg := range strings.Fields(strings.TrimPrefix(j.c.load, "loadmodule ")) {
		args = append(args, arg)
	}
	must(t, b.Do(ctx, args...).Err())
	must(t, b.Do(ctx, "CONFIG", "SET", "key_evt_amqp.outbox", "yes").Err())
	if used := memory(t, b); used > before+1500000 {
		t.Errorf("all %d bytes had come when the module was loaded: that tests nothing", used-before)
	}
	stop := j.writing(false)
	j.over()
	stop()
	j.balanced()
}

// TestClusterNodesNamedMyself: the flag is a flag, and no part of a host's name.
func TestClusterNodesNamedMyself(t *testing.T) {
	c, proxy := startMasters(t, 3, "A", "cluster-announce-hostname myself.example")
	c.write(50)
	c.complete(nil)
	proxy.Cut()
	c.write(100)
	eventually(t, func() error {
		if lists := c.lists(); len(lists) != 3 {
			return fmt.Errorf("lists: %v", lists)
		}
		return nil
	})
	must(t, proxy.Mend())
	c.complete(nil)
	c.healthy()
}

// TestMasterWithoutSlots: a master has events, no broker, and no slot to store
// them in. It does not look for one in every turn.
func TestMasterWithoutSlots(t *testing.T) {
	c, proxy := startMasters(t, 2, "A", "cluster-allow-replica-migration no")
	c.write(20)
	c.complete(nil)
	added, err := c.Add()
	must(t, err)
	must(t, c.Meet(added))
	must(t, c.Agree())
	give := func(slot int, from, to *servers.Redis) {
		t.Helper()
		must(t, to.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", from.ID()).Err())
		must(t, to.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", to.ID()).Err())
		must(t, c.Agree())
	}
	tag := tag(t, added, 0, 8000)
	slot := slotOf(t, added, "{"+tag+"}")
	give(slot, c.Nodes[0], added)
	proxy.Cut()
	must(t, added.Do(ctx, "CONFIG", "SET", "key_evt_amqp.fallback_storage_size", -1).Err())
	for i := range 20 {
		key := fmt.Sprintf("k{%s}%d", tag, i)
		must(t, added.Set(ctx, key, "v", 0).Err())
		c.written = append(c.written, key)
	}
	give(slot, added, c.Nodes[0])
	must(t, added.Do(ctx, "CONFIG", "SET", "key_evt_amqp.fallback_storage_size", 1000).Err())
	must(t, added.Do(ctx, "CONFIG", "RESETSTAT").Err())
	began := time.Now()
	for range 2000 {
		must(t, added.Ping(ctx).Err())
	}
	stats := added.Info(ctx, "commandstats").Val()
	_, calls, _ := strings.Cut(stats, "cmdstat_cluster|nodes:calls=")
	calls, _, _ = strings.Cut(calls, ",")
	// Once a second, by ticks of the server's own clock.
	if n, _ := strconv.Atoi(calls); n > 3+2*int(time.Since(began).Seconds()) {
		t.Errorf("%d looks at the cluster's nodes in %v", n, time.Since(began))
	}
	if info, err := added.ModuleInfo(); err != nil || info["events_buffered"] != "20" || info["fallback_key"] != "" {
		t.Errorf("%v %v", info, err)
	}
	// It has a slot again, and a list at once.
	give(slot, c.Nodes[0], added)
	eventually(t, func() error {
		if c.lists()[added] == "" {
			return errors.New("no list")
		}
		return nil
	})
	must(t, proxy.Mend())
	c.complete(nil)
}
