// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// gate stands before the broker and can fall silent: it accepts, reads
// nothing, and closes nothing.
type gate struct {
	listener net.Listener
	work     servers.Group

	mu     sync.Mutex
	moved  *sync.Cond
	silent bool
	conns  map[net.Conn]bool
}

func newGate(t *testing.T) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	g := &gate{listener: l, conns: map[net.Conn]bool{}}
	g.moved = sync.NewCond(&g.mu)
	g.work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", broker.Port))
			if err != nil {
				client.Close()
				continue
			}
			g.mu.Lock()
			g.conns[client], g.conns[server] = true, true
			g.mu.Unlock()
			g.work.Go(func() { g.pump(server, client) })
			g.work.Go(func() { g.pump(client, server) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		g.speak()
		g.work.Wait()
	})
	return g
}

func (g *gate) pump(to, from net.Conn) {
	buffer := make([]byte, 16384)
	for {
		n, err := from.Read(buffer)
		g.mu.Lock()
		for g.silent {
			g.moved.Wait()
		}
		g.mu.Unlock()
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			from.Close()
			to.Close()
			return
		}
	}
}

func (g *gate) hush() {
	g.mu.Lock()
	g.silent = true
	g.mu.Unlock()
}

// speak ends the silence, and with it the connections that knew it.
func (g *gate) speak() {
	g.mu.Lock()
	g.silent = false
	for c := range g.conns {
		c.Close()
		delete(g.conns, c)
	}
	g.mu.Unlock()
	g.moved.Broadcast()
}

// gated is proxied, with a gate behind the proxy.
func gated(t *testing.T, o options) (*rig, *servers.Proxy, *gate) {
	t.Helper()
	g := newGate(t)
	p, err := servers.NewProxy(g.listener.Addr().String())
	must(t, err)
	t.Cleanup(p.Cut)
	o.port = p.Port
	o.config = append(o.config, "key_evt_amqp.reconnect_delay_max 300")
	return start(t, o), p, g
}

const shutdownTimeout = 400 * time.Millisecond

// shutDown ends the server with SIGTERM or the words of a command, and checks
// that it took no longer than it may.
func shutDown(t *testing.T, r *rig, words ...any) {
	t.Helper()
	begun := time.Now()
	if words[0] == "SIGTERM" {
		r.Terminate()
	} else if err := r.Do(ctx, words...).Err(); err == nil || strings.HasPrefix(err.Error(), "ERR") {
		t.Fatalf("%v: %v", words, err)
	}
	eventually(t, func() error {
		if r.Alive() == nil {
			return fmt.Errorf("the server is alive")
		}
		return nil
	})
	// Redis needs time of its own: it looks for SIGTERM ten times a second,
	// syncs the AOF, saves.
	if took := time.Since(begun); took > shutdownTimeout+5*time.Second {
		t.Errorf("%v took %v", words, took)
	}
	if !strings.Contains(r.LogTail(3), "bye bye") {
		t.Error("the server did not end in order")
	}
}

// spools are the spool files in the server's folder.
func (r *rig) spools() []string {
	found, _ := filepath.Glob(filepath.Join(r.Dir, "key_evt_amqp.*.spool"))
	return found
}

// spool is the only one.
func (r *rig) spool() string {
	r.t.Helper()
	found := r.spools()
	if len(found) != 1 {
		r.t.Fatalf("the spool files are %q, want one", found)
	}
	return found[0]
}

// noSpool lays folders in the way of all files that the server could write, and
// returns what removes them.
func (r *rig) noSpool() func() {
	r.t.Helper()
	owner, _ := filepath.Glob(filepath.Join(r.Dir, "key_evt_amqp.*.owner"))
	if len(owner) != 1 {
		r.t.Fatalf("the owner files are %q, want one", owner)
	}
	var made []string
	for i := range 110 {
		made = append(made, fmt.Sprintf("%s.%d.spool.new", strings.TrimSuffix(owner[0], ".owner"), i))
		must(r.t, os.Mkdir(made[i], 0o700))
	}
	return func() {
		for _, name := range made {
			must(r.t, os.Remove(name))
		}
	}
}

// spoolIsGone waits until the spool files were removed.
func (r *rig) spoolIsGone() {
	r.t.Helper()
	eventually(r.t, func() error {
		if found := r.spools(); len(found) > 0 {
			return fmt.Errorf("there is %q", found)
		}
		return nil
	})
}

// A shutdown saves the dataset before modules hear of it: what the last turn
// captured comes by the broker's confirm, or by the spool file.
func TestShutdownUnderLoad(t *testing.T) {
	random := seeded(t)
	persistence := []struct{ name, config string }{
		{"RDB", "save 3600 1000000"}, {"AOF", "appendonly yes"}, {"neither", `save ""`},
	}
	brokers := []string{"answers", "is away", "falls silent", "never spoke"}
	type row struct {
		end     string
		persist int
		broker  string
	}
	var rows []row
	for i := range persistence {
		for _, b := range brokers {
			rows = append(rows, row{"SIGTERM", i, b}, row{"SHUTDOWN", i, b})
		}
		for k, flag := range []string{"NOSAVE", "SAVE", "NOW", "FORCE"} {
			rows = append(rows, row{"SHUTDOWN " + flag, i, brokers[(i+k)%len(brokers)]})
		}
	}
	for _, row := range rows {
		persist := persistence[row.persist]
		t.Run(strings.Join([]string{row.end, persist.name, "the broker " + row.broker}, ", "), func(t *testing.T) {
			r, p, g := gated(t, options{events: "$", config: []string{
				persist.config, fmt.Sprintf("key_evt_amqp.shutdown_timeout %d", shutdownTimeout.Milliseconds())}})
			switch row.broker {
			case "is away":
				p.Cut()
			case "never spoke":
				g.hush()
			}
			loads := []*load{{prefix: "a:", pause: time.Millisecond}, {prefix: "b:", pause: time.Millisecond}}
			var work servers.Group
			for _, l := range loads {
				own := rand.New(rand.NewPCG(random.Uint64(), 0))
				work.Go(func() { l.run(r, own) })
			}
			captured := func(n int) {
				eventually(t, func() error {
					if got := r.number("events_captured"); got < n {
						return fmt.Errorf("%d captured", got)
					}
					return nil
				})
			}
			captured(500)
			if row.broker == "falls silent" {
				r.until("events_confirmed", func(v string) bool { return v != "0" })
				g.hush()
				captured(r.number("events_captured") + 200)
			}
			var words []any
			for _, w := range strings.Fields(row.end) {
				words = append(words, w)
			}
			shutDown(t, r, words...)
			work.Wait()
			p.Cut()
			g.speak()
			left := booksAtRest(t, r)
			if row.broker == "answers" && left != 0 {
				// It answers, but a machine under load may be slow.
				t.Logf("%d events were left", left)
			}
			must(t, p.Mend())
			kept := persist.name == "AOF" || row.end == "SHUTDOWN SAVE" ||
				persist.name == "RDB" && row.end != "SHUTDOWN NOSAVE"
			if kept || row.broker != "is away" {
				arrived(t, r, loads)
				gapless(t, r.queue.Messages())
			}
			r.balanced(left, 0)
			r.spoolIsGone()
		})
	}
}

// A shutdown that waits for its replicas goes on turning with writes paused,
// when a propagated write would end the server by an assertion.
func TestShutdownThatWaitsForReplicas(t *testing.T) {
	for _, test := range []struct {
		name    string
		catchUp bool // the replica does, in time
		abort   bool
		away    bool // the broker
	}{
		{name: "that catch up, the broker is away", catchUp: true, away: true},
		{name: "that never do, the broker is away", away: true},
		{name: "that never do, the broker answers"},
		{name: "and is aborted, the broker is away", abort: true, away: true},
		{name: "and is aborted, the broker answers", abort: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			const seconds = 2
			master, replica, mend := replicated(t, options{events: "$", config: []string{
				"appendonly yes", fmt.Sprintf("shutdown-timeout %d", seconds),
				fmt.Sprintf("key_evt_amqp.shutdown_timeout %d", shutdownTimeout.Milliseconds())}})
			want := setBodies("before", 100)
			if !test.away {
				must(t, mend())
			}
			master.sets("before", 100)
			if test.away {
				master.until("fallback_length", is("100"))
			} else {
				master.arrives(want)
			}
			must(t, syscall.Kill(replica.Pid(), syscall.SIGSTOP))
			// In one turn, so that the last event is in memory when the pause
			// begins.
			conn, err := net.Dial("tcp", master.Addr())
			must(t, err)
			defer conn.Close()
			begun := time.Now()
			_, err = fmt.Fprintf(conn, "SET late v\r\nSHUTDOWN\r\n")
			must(t, err)
			want = append(want, "0\nset\nlate")
			eventually(t, func() error {
				if !strings.Contains(master.Log(), "Waiting for replicas") {
					return fmt.Errorf("it does not wait")
				}
				return nil
			})
			if got := master.number("events_captured"); got != 101 {
				t.Errorf("%d captured", got)
			}
			if test.abort {
				master.do("SHUTDOWN", "ABORT")
				master.sets("after", 100)
				want = append(want, setBodies("after", 100)...)
				if test.away {
					master.until("fallback_length", is("201"))
				}
			}
			if test.catchUp || test.abort {
				must(t, syscall.Kill(replica.Pid(), syscall.SIGCONT))
			}
			if test.abort {
				shutDown(t, master, "SHUTDOWN")
			} else {
				eventually(t, func() error {
					if master.Alive() == nil {
						return fmt.Errorf("the server is alive")
					}
					return nil
				})
				if took := time.Since(begun); took > seconds*time.Second+shutdownTimeout+5*time.Second {
					t.Errorf("the shutdown took %v", took)
				}
			}
			left := booksAtRest(t, master)
			if test.away {
				must(t, mend())
			}
			master.arrives(want)
			master.balanced(left, 0)
			master.spoolIsGone()
		})
	}
}

// spooling starts a server whose shutdown leaves n events in a spool file, and
// shuts it down.
func spooling(t *testing.T, n int) (*rig, *servers.Proxy) {
	t.Helper()
	r, p := proxied(t, options{events: "$", limit: "-1", config: []string{
		fmt.Sprintf("key_evt_amqp.shutdown_timeout %d", shutdownTimeout.Milliseconds())}})
	p.Cut()
	r.sets("k", n)
	r.until("state", is("backoff"))
	r.until("events_buffered", is(strconv.Itoa(n)))
	shutDown(t, r, "SIGTERM")
	return r, p
}

// hasOpen reports whether a process has a file open.
func hasOpen(pid int, path string) bool {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	names, _ := os.ReadDir(folder)
	for _, name := range names {
		if to, _ := os.Readlink(filepath.Join(folder, name.Name())); to == path {
			return true
		}
	}
	return false
}

func TestSpoolFileIsTakenInOnceThoughLoadsAreKilled(t *testing.T) {
	random := seeded(t)
	const n = 60000
	r, p := spooling(t, n)
	spool := r.spool()
	info, err := os.Stat(spool)
	must(t, err)
	path, err := exec.LookPath("redis-server")
	must(t, err)
	if named := os.Getenv("KEA_REDIS_SERVER"); named != "" {
		path = named
	}
	const kills = 12
	halfWay := 0
	for i := range kills {
		if i == kills*2/3 { // from here on it is also being delivered
			must(t, p.Mend())
		}
		before := strings.Count(r.Log(), "taken in")
		cmd := exec.Command(path, filepath.Join(r.Dir, "redis.conf"))
		cmd.Dir = r.Dir
		server, err := servers.Run(cmd)
		must(t, err)
		if i < kills/3 {
			// While it reads the file.
			for !hasOpen(cmd.Process.Pid, spool) && strings.Count(r.Log(), "taken in") == before {
			}
		} else {
			time.Sleep(time.Duration(20+random.IntN(200)) * time.Millisecond) // a moment like any other
		}
		server.Kill()
		if i < kills/3 && strings.Count(r.Log(), "taken in") == before {
			halfWay++
		}
		if now, err := os.Stat(spool); err != nil || now.Size() != info.Size() {
			t.Fatalf("kill %d: the spool file is %v, error %v", i, now, err)
		}
	}
	if halfWay == 0 {
		t.Error("no kill came while the file was read")
	}
	must(t, r.Start())
	r.arrives(setBodies("k", n))
	r.balanced(n, 0)
	r.spoolIsGone()
	r.Terminate()
	must(t, r.Start())
	r.do("SET", "after", "v")
	r.arrives(append(setBodies("k", n), "0\nset\nafter"))
	r.balanced(0, 0)
	if got := r.number("events_confirmed"); got != 1 {
		t.Errorf("the load after the last one has delivered %d events, want 1", got)
	}
	if strings.Contains(r.Log(), "damaged") {
		t.Error("the log says that something is damaged")
	}
	t.Logf("%d bytes, %d events; %d kills, %d of them half-way; %d duplicates", info.Size(), n, kills, halfWay, r.queue.Duplicates())
}

func TestDamagedSpoolFileIsKeptAside(t *testing.T) {
	random := seeded(t)
	const n, mark, head, end = 1000, 16, 12, 12 // bytes of the file's parts
	r, p := spooling(t, n)
	must(t, p.Mend())
	spool := r.spool()
	whole, err := os.ReadFile(spool)
	must(t, err)
	// at is where each event begins.
	at := []int{mark}
	for range n {
		from := at[len(at)-1]
		at = append(at, from+head+int(binary.LittleEndian.Uint32(whole[from:])))
	}
	if at[n] != len(whole)-end {
		t.Fatalf("%d events end at %d of %d bytes", n, at[n], len(whole))
	}
	changed := func(where int, with ...byte) []byte {
		b := bytes.Clone(whole)
		copy(b[where:], with)
		return b
	}
	garbage := make([]byte, 100000)
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	k := 1 + random.IntN(n-1)
	kept := spool + ".damaged"
	for i, test := range []struct {
		name  string
		file  []byte
		taken int
	}{
		{"empty", nil, 0},
		{"cut in its first line", whole[:7], 0},
		{"of another version", changed(13, '2'), 0},
		{"garbage", garbage, 0},
		{"garbage behind the first line", append(bytes.Clone(whole[:mark]), garbage...), 0},
		{"cut in an event's head", whole[:at[k]+5], k},
		{"cut in an event", whole[:at[k]+head+9], k},
		{"cut between two events", whole[:at[k]], k},
		{"cut at a moment like any other", whole[:at[k]+random.IntN(at[k+1]-at[k])], k},
		{"a bit flipped in an event", changed(at[k]+head+20, whole[at[k]+head+20]^1), k},
		{"a length beyond the file's end", changed(at[k], 255, 255, 255, 127), k},
		{"a length beyond all memory", changed(at[k], 254, 255, 255, 255), k},
		{"without its end", whole[:at[n]], n},
		{"with another count at its end", changed(at[n]+4, 1, 0, 0, 0), n},
		{"with something behind its end", append(bytes.Clone(whole), 0), n},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.t = t
			must(t, os.WriteFile(spool, test.file, 0o600))
			r.queue.Close()
			r.queue = broker.Consume(r.name) // the same events come again and again
			lines := len(r.Log())
			must(t, r.Start())
			must(t, r.Alive())
			r.do("SET", "after", "v")
			r.arrives(append(setBodies("k", n)[:test.taken:test.taken], "0\nset\nafter"))
			r.balanced(test.taken, 0)
			if log := r.Log()[lines:]; !strings.Contains(log, fmt.Sprintf("is damaged: %d events taken in, the file is kept", test.taken)) {
				t.Errorf("the log does not say what was taken in:\n%s", log)
			}
			r.spoolIsGone()
			if i > 0 { // none takes the place of another
				kept = fmt.Sprintf("%s.damaged.%d", spool, i+1)
			}
			bytesKept, err := os.ReadFile(kept)
			if err != nil || !bytes.Equal(bytesKept, test.file) {
				t.Errorf("the file was not kept as it was: %d bytes of %d, error %v", len(bytesKept), len(test.file), err)
			}
			r.Terminate()
		})
	}
	r.t = t
	// Nothing of it is taken in again.
	lines := len(r.Log())
	must(t, r.Start())
	if log := r.Log()[lines:]; !strings.Contains(log, ".damaged") {
		t.Errorf("the log does not say that damaged files are there:\n%s", log)
	}
	r.balanced(0, 0)
	if got := r.number("events_confirmed"); got != 0 {
		t.Errorf("%d events were delivered by a load that had nothing", got)
	}
}

func TestShutdownThatCannotSpoolSaysSoAndEnds(t *testing.T) {
	r, p := proxied(t, options{events: "$", limit: "-1"})
	p.Cut()
	r.sets("k", 10)
	r.until("events_buffered", is("10"))
	r.noSpool()
	shutDown(t, r, "SIGTERM")
	logHas(t, r, "10 of the undelivered events are in no spool file: can't write", "10 events lost")
}
