// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// onTime starts a server that expires nothing by itself: what expires was
// touched by the module.
func onTime(t *testing.T, o options) *rig {
	t.Helper()
	o.events = or(o.events, "x")
	o.config = append(o.config, "key_evt_amqp.expire_on_time yes", "enable-debug-command yes")
	r := start(t, o)
	r.do("DEBUG", "SET-ACTIVE-EXPIRE", "0")
	return r
}

// passed waits until the server's clock is beyond a time.
func (r *rig) passed(unixMillis int64) {
	r.t.Helper()
	eventually(r.t, func() error {
		if now := r.Time(ctx).Val().UnixMilli(); now <= unixMillis {
			return fmt.Errorf("it is %d", now)
		}
		return nil
	})
}

// waysToATTL are commands that set, move, keep or remove TTLs; % is the case's
// own prefix, @n a time n ms from now, TTLs are long enough for all to be set
// before the first is over. keys: each with its database, and whether it will
// expire.
var waysToATTL = []struct {
	name     string
	commands []string
	keys     string
}{
	{"SET EX, PX, EXAT, PXAT", []string{"SET %a v EX 3", "SET %b v PX 3001", "SET %c v PXAT @3002"}, "0 a yes, 0 b yes, 0 c yes"},
	{"SETEX, PSETEX", []string{"SETEX %a 3 v", "PSETEX %b 3001 v"}, "0 a yes, 0 b yes"},
	{"EXPIRE and its forms", []string{"MSET %a v %b v %c v", "EXPIRE %a 3", "PEXPIRE %b 3001", "PEXPIREAT %c @3002"}, "0 a yes, 0 b yes, 0 c yes"},
	{"prolonged", []string{"SET %a v PX 2500", "PEXPIRE %a 3500", "SET %b v PX 2500", "SET %b v PX 3600", "SET %c v PX 2500", "GETEX %c PX 3700"}, "0 a yes, 0 b yes, 0 c yes"},
	{"shortened", []string{"SET %a v EX 1000", "PEXPIRE %a 3000", "SET %b v EX 1000", "SET %b v PX 3001", "SET %c v EX 1000", "GETEX %c PX 3002"}, "0 a yes, 0 b yes, 0 c yes"},
	{"to and fro", []string{"SET %a v PX 3000", "EXPIRE %a 1000", "PEXPIRE %a 2900", "PEXPIRE %a 3100"}, "0 a yes"},
	{"EXPIRE GT, LT", []string{"SET %a v PX 3000", "PEXPIRE %a 2000 GT", "SET %b v PX 3000", "PEXPIRE %b 2500 LT"}, "0 a yes, 0 b yes"},
	{"removed", []string{"SET %a v PX 2500", "PERSIST %a", "SET %b v PX 2500", "SET %b v", "SET %c v PX 2500", "GETEX %c PERSIST",
		"SET %d v PX 2500", "GETSET %d v"}, "0 a no, 0 b no, 0 c no, 0 d no"},
	{"KEEPTTL, and changes in place", []string{"SET %a v PX 3000", "SET %a w KEEPTTL", "SET %b 1 PX 3001", "INCR %b", "SET %c v PX 3002", "APPEND %c v"}, "0 a yes, 0 b yes, 0 c yes"},
	{"deleted, and made anew", []string{"SET %a v PX 2500", "DEL %a", "SET %b v PX 2500", "UNLINK %b", "SET %b v", "SET %c v PX 2500", "GETDEL %c", "SET %c v PX 3000"},
		"0 a gone, 0 b no, 0 c yes"},
	{"collections", []string{"HSET %a f v", "PEXPIRE %a 3000", "RPUSH %b v", "PEXPIRE %b 2500", "LPOP %b", "ZADD %c 1 m", "PEXPIRE %c 3001", "ZADD %c 2 n",
		"SADD %d m", "PEXPIRE %d 2500", "SUNIONSTORE %d %d"}, "0 a yes, 0 b gone, 0 c yes, 0 d no"},
	{"RENAME", []string{"SET %a v PX 3000", "RENAME %a %b", "SET %c v PX 2500", "SET %d v", "RENAME %d %c", "SET %e v PX 3001", "RENAMENX %e %f"},
		"0 a gone, 0 b yes, 0 c no, 0 e gone, 0 f yes"},
	{"COPY", []string{"SET %a v PX 3000", "COPY %a %b", "COPY %a %a DB 5", "SELECT 0", "SET %c v PX 2500", "SET %d v", "COPY %d %c REPLACE"}, "0 a yes, 0 b yes, 5 a yes, 0 c no"},
	{"MOVE", []string{"SET %a v PX 3000", "MOVE %a 6"}, "0 a gone, 6 a yes"},
	{"RESTORE", []string{"RESTORE %a 3000 " + dumped, "RESTORE %b @3001 " + dumped + " ABSTTL", "SET %c v PX 2500", "RESTORE %c 0 " + dumped + " REPLACE"}, "0 a yes, 0 b yes, 0 c no"},
	{"MULTI", []string{"MULTI", "SET %a v PX 2500", "PERSIST %a", "SET %b v PX 3000", "SELECT 7", "SET %c v PX 3001", "SELECT 0", "SET %d v PX 3002", "COPY %d %d DB 8", "EXEC"},
		"0 a no, 0 b yes, 7 c yes, 0 d yes, 8 d yes"},
	{"Lua", []string{"EVAL redis.call('SET',KEYS[1],'v','PX',2500);redis.call('PERSIST',KEYS[1]);redis.call('SET',KEYS[2],'v','PX',3000) 2 %a %b"}, "0 a no, 0 b yes"},
	{"over when it is set", []string{"SET %a v", "PEXPIREAT %a 1000"}, "0 a gone"},
}

// dumped is what DUMP makes of a key, set when it is known.
const dumped = "DUMPED"

// TestEveryWayToATTL: each key expires at the time that the server itself names,
// and what has no TTL any more stays.
func TestEveryWayToATTL(t *testing.T) {
	r := onTime(t, options{config: []string{"key_evt_amqp.format json"}})
	r.do("SET", "dumped", "v")
	dump := r.do("DUMP", "dumped").(string)
	r.do("DEL", "dumped")
	conn := r.Conn()
	defer conn.Close()
	due := map[string]int64{} // by database and key
	stay := map[string]bool{}
	for i, way := range waysToATTL {
		prefix := fmt.Sprint("k", i)
		for _, command := range way.commands {
			var args []any
			for _, word := range strings.Fields(command) {
				word = strings.ReplaceAll(word, "%", prefix)
				if after, ok := strings.CutPrefix(word, "@"); ok {
					n, _ := strconv.Atoi(after)
					word = fmt.Sprint(time.Now().UnixMilli() + int64(n))
				}
				args = append(args, strings.ReplaceAll(word, dumped, dump))
			}
			if err := conn.Do(ctx, args...).Err(); err != nil && err != redis.Nil {
				t.Fatalf("%s: %q: %v", way.name, command, err)
			}
		}
		for _, key := range strings.Split(way.keys, ", ") {
			f := strings.Fields(key)
			name := f[0] + " " + prefix + f[1]
			must(t, conn.Do(ctx, "SELECT", f[0]).Err())
			at := conn.PExpireTime(ctx, prefix+f[1]).Val()
			if want := map[string]time.Duration{"no": -1, "gone": -2}[f[2]]; (f[2] == "yes" && at < 0) || (f[2] != "yes" && at != want) {
				t.Fatalf("%s: PEXPIRETIME of %s is %d", way.name, name, at)
			}
			if f[2] == "yes" {
				due[name] = at.Milliseconds()
			}
			if f[2] == "no" {
				stay[name] = true
			}
		}
		must(t, conn.Do(ctx, "SELECT", 0).Err())
	}
	// What the server has deleted at once is an event of its own on some.
	r.expiresAt(due, "k17a")
	for name := range stay {
		db, key, _ := strings.Cut(name, " ")
		must(t, conn.Do(ctx, "SELECT", db).Err())
		if conn.Exists(ctx, key).Val() != 1 {
			t.Errorf("%s is gone", name)
		}
	}
	r.balanced(0, 0)
}

// TestKeysOfAllKinds: with a NUL, empty, of a megabyte.
func TestKeysOfAllKindsExpire(t *testing.T) {
	r := onTime(t, options{})
	var want []string
	for i, key := range []string{"", "a\x00b\n", "\xff\xfe", strings.Repeat("k", 1<<20), strings.Repeat("k", 1000), strings.Repeat("k", 1001)} {
		r.do("SET", key, "v", "PX", 1000+100*i)
		want = append(want, "0\nexpired\n"+key)
	}
	r.arrives(want)
	r.until("expire_watched", is("0"))
	r.balanced(0, 0)
}

// TestExpiredBesideManyOthers: the server's own sampling would find one in
// hundreds.
func TestExpiredBesideManyOthers(t *testing.T) {
	others := 100000
	if *long {
		others = 1000000
	}
	r := onTime(t, options{})
	r.do("EVAL", "for i=1,tonumber(ARGV[1]) do redis.call('SET','o:'..i,'v','EX',100000) end", 0, others)
	at := time.Now().UnixMilli() + 3000
	r.do("EVAL", "for i=1,1000 do redis.call('SET','d:'..i,'v','PXAT',ARGV[1]) end", 0, at)
	want := map[string]bool{}
	for i := range 1000 {
		want[fmt.Sprint("0\nexpired\nd:", i+1)] = true
	}
	must(t, r.queue.Wait(1000, patience))
	for _, m := range r.queue.Messages() {
		if !want[string(m.Body)] {
			t.Errorf("%q came, or came twice", m.Body)
		}
		delete(want, string(m.Body))
		if due, err := time.Parse("2006-01-02T15:04:05.000Z07:00", fmt.Sprint(m.Headers["due"])); err != nil || due.UnixMilli() != at {
			t.Fatalf("due is %v, want %d", m.Headers["due"], at)
		}
	}
	r.until("expire_watched", is(fmt.Sprint(others)))
	t.Logf("beside %d: lag p50 %s ms, p99 %s, max %s; %s bytes", others, r.info("expire_lag_p50_ms"), r.info("expire_lag_p99_ms"),
		r.info("expire_lag_max_ms"), r.info("expire_watch_bytes"))
	r.balanced(0, 0)
}

// TestRefreshedSessions: a TTL that is prolonged again and again ends once.
func TestRefreshedSessions(t *testing.T) {
	r := onTime(t, options{config: []string{"key_evt_amqp.format json"}})
	due := map[string]int64{}
	for range 20 {
		pipe := r.Pipeline()
		for i := range 100 {
			pipe.Do(ctx, "SET", fmt.Sprint("s", i), "v", "PX", 400)
			pipe.Do(ctx, "PEXPIRE", fmt.Sprint("s", i), 300)
			pipe.Do(ctx, "PEXPIRE", fmt.Sprint("s", i), 60000)
		}
		_, err := pipe.Exec(ctx)
		must(t, err)
	}
	r.until("expire_watched", is("100"))
	for i := range 100 {
		key := fmt.Sprint("s", i)
		r.do("PEXPIRE", key, 300+i)
		due["0 "+key] = r.PExpireTime(ctx, key).Val().Milliseconds()
	}
	r.expiresAt(due)
	r.balanced(0, 0)
}

// expiresAt checks that these keys expire, once each, with the due time that
// the server has named, and that nothing is watched then. besides: keys that may
// expire, too.
func (r *rig) expiresAt(due map[string]int64, besides ...string) {
	r.t.Helper()
	r.until("expire_watched", is("0"))
	must(r.t, r.queue.Wait(len(due), patience))
	r.balanced(0, 0)
	for _, m := range r.queue.Messages() {
		e := parseJSON(r.t, m.Body)
		if len(besides) > 0 && e.Key == besides[0] {
			continue
		}
		name := fmt.Sprint(e.DB, " ", e.Key)
		at, ok := due[name]
		delete(due, name)
		if e.Event != "expired" || !ok {
			r.t.Errorf("%s came, or came twice", m.Body)
			continue
		}
		if got, err := time.Parse(time.RFC3339Nano, e.Due); err != nil || got.UnixMilli() != at {
			r.t.Errorf("%s: due is %s, want %s", name, e.Due, time.UnixMilli(at).UTC().Format(time.RFC3339Nano))
		}
		if when, err := time.Parse(time.RFC3339Nano, e.Time); err != nil || when.UnixMilli()+20 < at {
			r.t.Errorf("%s was due at %s and expired at %s", name, e.Due, e.Time)
		}
	}
	for name := range due {
		r.t.Errorf("%s did not expire", name)
	}
}

type jsonEvent struct {
	DB            int
	Event, Key    string
	Time, Due, ID string
}

func parseJSON(t *testing.T, body []byte) (e jsonEvent) {
	t.Helper()
	must(t, json.Unmarshal(body, &e))
	return e
}
