// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// overwriters are scripts that write over and take away short strings, whose
// objects a server may hold on to, in tables that move their entries meanwhile:
// ARGV[1] is what to begin with, ARGV[2] how many keys. Each step sets a key and
// writes over it; every fourth goes.
const overwriters = `
local from, n = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = from, from + n - 1 do
	local k = 'k' .. i
	redis.call('SET', k, 'a' .. i)
	redis.call('SET', k, i)
	redis.call('APPEND', k, 'x')
	redis.call('SET', 'f' .. i % 100, 1)
	redis.call('INCRBYFLOAT', 'f' .. i % 100, '1.5')
	redis.call('GETSET', k, 'b' .. i)
	redis.call('MSET', k, 'c' .. i, 'm' .. i % 1000, i)
	if i % 4 == 0 then redis.call('RENAME', k, 'r' .. i % 1000) end
	if i % 4 == 1 then redis.call('GETDEL', k) end
	if i % 4 == 2 then redis.call('COPY', k, 'r' .. i % 1000, 'REPLACE') end
end`

// What must never be: a server that does not survive a look at a key (it keeps a
// place in its table across the notification, or an object that the look puts
// another in the place of), or values that are not what the client has written.
func TestValuesWhileTablesGrowAndShrink(t *testing.T) {
	r := start(t, options{events: "g$", config: valueConfig("new")})
	r.hasOld()
	const keys, step = 24000, 500 // each key is written over four times
	for from := 0; from < keys; from += step {
		r.do("EVAL", overwriters, 0, from, step)
	}
	// The table shrinks while its keys are written over once more, from pipelines.
	for from := 0; from < keys; from += step {
		pipe := r.Pipeline()
		for i := from; i < from+step; i++ {
			k := "k" + strconv.Itoa(i)
			if i%40 != 0 {
				pipe.Unlink(ctx, k)
			} else {
				pipe.Set(ctx, k, "last"+strconv.Itoa(i), 0)
				pipe.GetSet(ctx, k, "end"+strconv.Itoa(i))
			}
		}
		_, err := pipe.Exec(ctx)
		must(t, err)
	}
	must(t, r.Alive())
	for i := 0; i < keys; i += 40 {
		if got := r.do("GET", "k"+strconv.Itoa(i)); got != "end"+strconv.Itoa(i) {
			t.Fatalf("key %d holds %q", i, got)
		}
	}
	must(t, r.queue.Wait(r.number("events_captured"), 2*patience))
	seen := map[string]string{}
	for _, m := range r.queue.Messages() {
		e := valuedOf(t, m)
		if e.Event == "set" && e.Value == nil {
			t.Fatalf("no value: %s", e.short())
		}
		if e.Event == "del" && e.Old != nil && string(e.Old) != seen[e.Key] {
			t.Fatalf("%s, which held %s", e.short(), seen[e.Key])
		}
		seen[e.Key] = string(e.Value)
	}
	for i := 0; i < keys; i += 40 {
		if got, want := seen["k"+strconv.Itoa(i)], fmt.Sprintf("%q", "end"+strconv.Itoa(i)); got != want {
			t.Fatalf("key %d: the last event has %s, want %s", i, got, want)
		}
	}
	r.balanced(0, 0)
}

// A few large elements, and very many small ones: left out without a copy of
// them. What remains below the limit is there.
func TestLargeElementsAreLeftOut(t *testing.T) {
	r := start(t, options{config: valueConfig("new", "hash-max-listpack-value 64mb", "hash-max-listpack-entries 100000", "save ''")})
	r.hasOld()
	large := string(bytes.Repeat([]byte("x"), 8<<20))
	var want []string
	step := func(event string, args ...any) {
		r.do(args...)
		want = append(want, event)
	}
	step("hset h hash", "HSET", "h", "f", large) // compact, by the settings above
	step("hset h hash", "HSET", "h", "g", 1)
	step(`hdel h hash {"g":"1"}`, "HDEL", "h", "f")
	step("zadd z zset", "ZADD", "z", 1, large)
	step("zadd z zset", "ZADD", "z", 2, "small")
	step(`zrem z zset [["small",2]]`, "ZREM", "z", large)
	step("sadd s set", "SADD", "s", large)
	step("sadd s set", "SADD", "s", "small")
	step(`srem s set ["small"]`, "SREM", "s", large)
	step("rpush l list", "RPUSH", "l", large)
	step("rpush l list", "RPUSH", "l", "small")
	step(`lpop l list ["small"]`, "LPOP", "l")
	for i := range 9 {
		members := []any{"SADD", "many"}
		for n := range 1000 {
			members = append(members, fmt.Sprintf("%d", i*1000+n))
		}
		r.do(members...)
		e := "sadd many set"
		if i < 8 {
			e = "sadd many set […]"
		}
		want = append(want, e)
	}
	got := r.tells(len(want))
	for i := range got {
		if strings.HasPrefix(got[i], "sadd many set [") {
			got[i] = "sadd many set […]"
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%.2000s, want\n%.2000s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.balanced(0, 0)
}

// Values are part of the event in the list: what is captured is what arrives,
// whatever the settings are by then, through a restart and after a promotion.
func TestValuesInTheList(t *testing.T) {
	r, p := proxied(t, options{config: append(valueConfig("new"), outboxDurable...)})
	replica := prepare(t, options{silent: true, key: r.name, config: append(valueConfig("new"), outboxDurable...)})
	must(t, replica.Start())
	replica.do("REPLICAOF", "127.0.0.1", r.Port)
	p.Cut()
	long := strings.Repeat("v", 3000)
	var want []string
	for _, setting := range []struct{ value, limit string }{{"new", "65536"}, {"none", "65536"}, {"new", "10"}, {"new", "4000"}} {
		r.do("CONFIG", "SET", "key_evt_amqp.value", setting.value, "key_evt_amqp.value_limit", setting.limit)
		for i := range 100 {
			r.do("SET", "k"+strconv.Itoa(i), long)
			e := `set k` + strconv.Itoa(i)
			switch {
			case setting.value == "none":
			case setting.limit == "10":
				e += ` string size:3000`
			default:
				e += ` string "` + long + `"`
			}
			want = append(want, e)
		}
	}
	r.do("RPUSH", "l", "a", "\xff")
	want = append(want, `rpush l list ["a",{"base64":"/w=="}]`)
	// Of a write that was acknowledged, the append-only file has the event.
	r.Kill()
	must(t, r.Start())
	r.do("CONFIG", "SET", "key_evt_amqp.value", "none")
	eventually(t, func() error {
		if n, err := replica.LLen(ctx, "key_evt_amqp.fallback").Result(); n != int64(len(want)) {
			return fmt.Errorf("the replica has %d events of %d, error %v", n, len(want), err)
		}
		return nil
	})
	// The master is gone for good, and the replica delivers.
	r.Kill()
	replica.queue = r.queue
	replica.do("REPLICAOF", "NO", "ONE")
	if got := replica.tells(len(want)); !slices.Equal(got, want) {
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("event %d: got %.200s, want %.200s", i, got[i], want[i])
			}
		}
		t.Errorf("%d events, want %d", len(got), len(want))
	}
	replica.balanced(len(want), 0)
	replica.queue = nil // the other rig's
}

// Clients that wait, functions, and a server that is out of memory: each event
// has the value of its own moment.
func TestValuesOfBlockedClientsAndFunctions(t *testing.T) {
	r := start(t, options{config: valueConfig("new")})
	waiting := func(args ...any) {
		done := make(chan error, 1)
		go func() { done <- r.Do(ctx, args...).Err() }()
		t.Cleanup(func() { must(t, <-done) })
		eventually(t, func() error {
			if info := r.Info(ctx, "clients").Val(); !strings.Contains(info, "blocked_clients:1\r\n") {
				return fmt.Errorf("nobody is blocked: %s", info)
			}
			return nil
		})
	}
	idle := func() {
		eventually(t, func() error {
			if info := r.Info(ctx, "clients").Val(); !strings.Contains(info, "blocked_clients:0\r\n") {
				return fmt.Errorf("still blocked")
			}
			return nil
		})
	}
	waiting("BLPOP", "l", 60)
	r.do("RPUSH", "l", "a", "b")
	idle()
	waiting("BZPOPMIN", "z", 60)
	r.do("ZADD", "z", 1, "one", 2, "two")
	idle()
	waiting("BZMPOP", 60, 1, "m", "MAX", "COUNT", 2)
	r.do("ZADD", "m", 1, "one", 2, "two", 3, "three")
	idle()
	waiting("BLMOVE", "from", "to", "LEFT", "RIGHT", 60)
	r.do("RPUSH", "from", "x")
	idle()
	r.do("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function(keys, args) redis.call('SET', 'fn', args[1]) redis.call('APPEND', 'fn', '!') redis.call('SADD', 'fs', 1, 2, 3) redis.call('SPOP', 'fs', 2) end)")
	r.do("FCALL", "f", 0, "v")
	r.do("SET", "full", "v")
	r.do("CONFIG", "SET", "maxmemory", "1")
	r.do("DEL", "l")
	r.fails("OOM", "HSET", "later", "f", "v")
	want := []string{
		`rpush l list ["a","b"]`, `lpop l list ["b"]`,
		`zadd z zset [["one",1],["two",2]]`, `zpopmin z zset [["two",2]]`,
		`zadd m zset [["one",1],["two",2],["three",3]]`, `zpopmax m zset [["one",1]]`,
		`rpush from list ["x"]`, `rpush to list ["x"]`, `lpop from list []`, `del from`,
		`set fn string "v"`, `append fn string "v!"`, `sadd fs set ["1","2","3"]`, `spop fs set […]`,
		`set full string "v"`, `del l`,
	}
	got := r.tells(len(want))
	for i := range got {
		if strings.HasPrefix(got[i], `spop fs set ["`) && len(got[i]) == len(`spop fs set ["1"]`) {
			got[i] = `spop fs set […]`
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.balanced(0, 0)
}

// TestHeldEventsAreKeptByAnUnload: what waits for its command to be done is spooled,
// too, when the module goes in the same turn.
func TestHeldEventsAreKeptByAnUnload(t *testing.T) {
	r := start(t, options{events: "s", config: []string{"key_evt_amqp.value new"}})
	pipe := r.Pipeline()
	pipe.Do(ctx, "SADD", "s", "a", "b", "c")
	pipe.Do(ctx, "SPOP", "s", "2")
	pipe.Do(ctx, "MODULE", "UNLOAD", "key_evt_amqp")
	_, err := pipe.Exec(ctx)
	must(t, err)
	must(t, r.load(options{events: "s"}))
	r.arrives([]string{"0\nsadd\ns", "0\nspop\ns"})
}
