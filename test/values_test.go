// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
)

// valued is an event in format json, values included.
type valued struct {
	DB        int             `json:"db"`
	Event     string          `json:"event"`
	Key       string          `json:"key"`
	Type      string          `json:"type"`
	Value     json.RawMessage `json:"value"`
	Base64    *string         `json:"value_base64"`
	Size      int             `json:"value_size"`
	OldType   string          `json:"old_type"`
	Old       json.RawMessage `json:"old"`
	OldBase64 *string         `json:"old_base64"`
	OldSize   int             `json:"old_size"`
}

func valuedOf(t *testing.T, m lib.Delivery) (e valued) {
	t.Helper()
	if err := json.Unmarshal(m.Body, &e); err != nil {
		t.Fatalf("%s: %v", m.Body, err)
	}
	return e
}

// short is what an event says of the new value, and of the old one if it does.
func (e valued) short() string {
	out := e.Event + " " + e.Key
	part := func(kind string, value json.RawMessage, coded *string, size int) {
		if kind == "" {
			return
		}
		out += " " + kind
		switch {
		case coded != nil:
			out += " base64:" + *coded
		case value != nil:
			out += " " + string(value)
		case size > 0:
			out += " size:" + strconv.Itoa(size)
		}
	}
	part(e.Type, e.Value, e.Base64, e.Size)
	if e.OldType != "" {
		out += " | was"
		part(e.OldType, e.Old, e.OldBase64, e.OldSize)
	}
	return out
}

// tells waits for n events and returns what they say.
func (r *rig) tells(n int) (out []string) {
	r.t.Helper()
	if err := r.queue.Wait(n, patience); err != nil {
		for _, m := range r.queue.Messages() {
			r.t.Log(valuedOf(r.t, m).short())
		}
		r.t.Fatal(err)
	}
	for _, m := range r.queue.Messages() {
		out = append(out, valuedOf(r.t, m).short())
	}
	return out
}

func valueConfig(value string, more ...string) []string {
	return append([]string{"key_evt_amqp.format json", "key_evt_amqp.value " + value}, more...)
}

// hasOld reports whether the server shows what a key held.
func (r *rig) hasOld() bool {
	return r.Do(ctx, "CONFIG", "SET", "key_evt_amqp.value", "both").Err() == nil
}

func (r *rig) has(command string) bool {
	got, err := r.Do(ctx, "COMMAND", "INFO", command).Slice()
	return err == nil && len(got) == 1 && got[0] != nil
}

// Every type and encoding, with the value that is right after each command.
func TestNewValues(t *testing.T) {
	r := start(t, options{config: valueConfig("new", "list-max-listpack-size 4", "set-max-intset-entries 4", "hash-max-listpack-entries 4",
		"zset-max-listpack-entries 4", "stream-node-max-entries 4")})
	long := strings.Repeat("x", 129)
	var want []string
	for _, step := range []struct {
		command string
		events  []string
	}{
		{"SET s 12345", []string{`set s string "12345"`}},
		{"INCR s", []string{`incrby s string "12346"`}},
		{"INCRBYFLOAT s 0.5", []string{`incrbyfloat s string "12346.5"`}},
		{"APPEND s abc", []string{`append s string "12346.5abc"`}},
		{"SET s short", []string{`set s string "short"`}},
		{"SET s " + long, []string{`set s string "` + long + `"`}},
		{"SETRANGE s 0 é", []string{`setrange s string "é` + long[2:] + `"`}},
		{"SET b \xff", []string{`set b string base64:/w==`}},
		{"SETRANGE b 0 \xfe", []string{`setrange b string base64:/g==`}},
		{"MSET m1 1 m2 2", []string{`set m1 string "1"`, `set m2 string "2"`}},
		{"GETDEL m1", []string{`del m1`}},
		{"RENAME m2 m3", []string{`rename_from m2`, `rename_to m3 string "2"`}},
		{"COPY m3 m4", []string{`copy_to m4 string "2"`}},
		{"GETSET m4 3", []string{`set m4 string "3"`}},
		{"RPUSH l a b", []string{`rpush l list ["a","b"]`}},
		{"RPUSH l c d e f", []string{`rpush l list ["a","b","c","d","e","f"]`}}, // quicklist
		{"LSET l 0 é", []string{`lset l list ["é","b","c","d","e","f"]`}},
		{"LMOVE l l2 LEFT RIGHT", []string{`rpush l2 list ["é"]`, `lpop l list ["b","c","d","e","f"]`}},
		{"LPOP l2", []string{`lpop l2 list []`, `del l2`}},
		{"LTRIM l 0 0", []string{`ltrim l list ["b"]`}},
		{"SADD i 1 2", []string{`sadd i set ["1","2"]`}}, // intset
		{"SREM i 1 2", []string{`srem i`, `del i`}},
		{"SADD x one", []string{`sadd x set ["one"]`}},
		{"HSET h f v", []string{`hset h hash {"f":"v"}`}},
		{"HINCRBY h n 7", []string{`hincrby h hash {"f":"v","n":"7"}`}},
		{"HSET h \xff v", []string{`hset h hash [["f","v"],["n","7"],[{"base64":"/w=="},"v"]]`}},
		{"HDEL h f n \xff", []string{`hdel h`, `del h`}},
		{"ZADD z 2 two 1 one 3 three inf inf", []string{`zadd z zset [["one",1],["two",2],["three",3],["inf","inf"]]`}},
		{"ZINCRBY z 0.5 one", []string{`zincr z zset [["one",1.5],["two",2],["three",3],["inf","inf"]]`}},
		{"ZADD z 4 four", []string{`zadd z zset [["one",1.5],["two",2],["three",3],["four",4],["inf","inf"]]`}}, // skiplist
		{"ZPOPMAX z 4", []string{`zpopmax z zset [["one",1.5]]`}},
		{"XADD t 1-1 a 1", []string{`xadd t stream {"id":"1-1","fields":[["a","1"]]}`}},
		{"XADD t MAXLEN 1 2-1 a 1 a 2", []string{`xadd t stream {"id":"2-1","fields":[["a","1"],["a","2"]]}`, `xtrim t stream {"id":"2-1","fields":[["a","1"],["a","2"]]}`}},
		{"XDEL t 2-1", []string{`xdel t stream null`}},
		{"PERSIST s", nil},
		{"DEL s", []string{`del s`}},
		{"PFADD p a", []string{`pfadd p string`}},
	} {
		var args []any
		for _, word := range strings.Split(step.command, " ") {
			args = append(args, word)
		}
		r.do(args...)
		want = append(want, step.events...)
	}
	got := r.tells(len(want))
	for i := range want {
		if got[i] != want[i] && !strings.HasPrefix(got[i], want[i]+" base64:") {
			t.Errorf("event %d: got\n%s, want\n%s", i, got[i], want[i])
		}
	}
	if len(got) > len(want) {
		t.Errorf("more than wanted: %q", got[len(want):])
	}
	r.balanced(0, 0)
}

// The event of SPOP with a count comes before it is done. With nothing of that key after
// it, the value is what remains.
func TestValuesOfCommandsNotYetDone(t *testing.T) {
	r := start(t, options{events: "An", config: valueConfig("new")})
	left := func(e valued) int {
		var members []string
		must(t, json.Unmarshal(e.Value, &members))
		return len(members)
	}
	r.do("SADD", "s", 1, 2, 3, 4, 5, 6)
	r.do("SPOP", "s", 2)
	r.do("SET", "other", 1)
	r.do("SPOP", "s")
	r.do("SPOP", "s", 3)
	pipe := r.TxPipeline()
	pipe.SAdd(ctx, "m", 1, 2, 3)
	pipe.SPopN(ctx, "m", 2)
	pipe.SAdd(ctx, "m", 9)
	pipe.SPopN(ctx, "m", 1)
	_, err := pipe.Exec(ctx)
	must(t, err)
	r.do("EVAL", "redis.call('SADD', 'e', 1, 2, 3, 4) redis.call('SPOP', 'e', 3) redis.call('SET', 'last', 1)", 0)
	want := []string{
		"new s", "sadd s 6", "spop s 4", "new other", "set other", "spop s 3", "spop s", "del s",
		"new m", "sadd m 3", "spop m", "sadd m 2", "spop m 1",
		"new e", "sadd e 4", "spop e 1", "new last", "set last",
	}
	r.tells(len(want))
	var got []string
	for _, m := range r.queue.Messages() {
		e := valuedOf(t, m)
		text := e.Event + " " + e.Key
		if e.Type == "set" {
			text += " " + strconv.Itoa(left(e))
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
	r.balanced(0, 0)
}

// With class n alone nothing of the key follows, and `new` has what it holds.
func TestValuesOfNewKeys(t *testing.T) {
	r := start(t, options{events: "n", config: valueConfig("new")})
	r.do("HSET", "h", "f", "v")
	r.do("MSET", "a", 1, "b", strings.Repeat("b", 200))
	want := []string{`new h hash {"f":"v"}`, `new a string "1"`, `new b string "` + strings.Repeat("b", 200) + `"`}
	if got := r.tells(3); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for n := range 300 {
		r.do("EVAL", "for i = 1, 300 do redis.call('SET', ARGV[1] .. i, i) end", 0, "many"+strconv.Itoa(n)+":")
		if n == 2 {
			break
		}
	}
	must(t, r.queue.Wait(3+900, patience))
	r.balanced(0, 0)
}

func TestOldValues(t *testing.T) {
	r := start(t, options{config: valueConfig("none", "active-expire-effort 10", "hz 100")})
	if !r.hasOld() {
		r.fails("old needs to see what a key held", "CONFIG", "SET", "key_evt_amqp.value", "old")
		r.fails("both needs to see", "CONFIG", "SET", "key_evt_amqp.value", "both")
		if got := r.do("CONFIG", "GET", "key_evt_amqp.value"); !strings.Contains(fmt.Sprint(got), "none") {
			t.Errorf("value is %v", got)
		}
		return
	}
	long := strings.Repeat("x", 70000)
	steps := []struct {
		command string
		events  []string
	}{
		{"SET s 1", []string{`set s string "1"`}},
		{"SET s 2", []string{`set s string "2"`}},
		{"DEL s", []string{`del s | was string "2"`}},
		{"RPUSH l a", []string{`rpush l list ["a"]`}},
		{"UNLINK l", []string{`del l | was list ["a"]`}},
		{"HSET h f v", []string{`hset h hash {"f":"v"}`}},
		{"DEL h nothing", []string{`del h | was hash {"f":"v"}`}},
		{"SADD x a", []string{`sadd x set ["a"]`}},
		{"SREM x a", []string{`srem x`, `del x | was set []`}},
		{"SET g v", []string{`set g string "v"`}},
		{"GETDEL g", []string{`del g | was string "v"`}},
		{"SET a 1", []string{`set a string "1"`}},
		{"SET b 2", []string{`set b string "2"`}},
		{"RENAME a b", []string{`rename_from a`, `rename_to b string "1"`}},
		{"DEL b", []string{`del b | was string "1"`}},
		{"XADD t 1-1 n v", []string{`xadd t stream {"id":"1-1","fields":[["n","v"]]}`}},
		{"DEL t", []string{`del t | was stream {"id":"1-1","fields":[["n","v"]]}`}},
		{"ZADD z 1 m", []string{`zadd z zset [["m",1]]`}},
		{"DEL z", []string{`del z | was zset [["m",1]]`}},
		{"SET big " + long, []string{`set big string size:70000`}},
		{"DEL big", []string{`del big | was string size:70000`}},
		{"SET e gone PX 20", []string{`set e string "gone"`, `expire e string "gone"`, `expired e | was string "gone"`}},
		{"SET s \xff", []string{`set s string base64:/w==`}},
		{"DEL s", []string{`del s | was string base64:/w==`}},
	}
	var want []string
	for _, step := range steps {
		var args []any
		for _, word := range strings.Split(step.command, " ") {
			args = append(args, word)
		}
		r.do(args...)
		want = append(want, step.events...)
		if strings.Contains(step.command, "PX") {
			r.tells(len(want)) // it has expired
		}
	}
	if got := r.tells(len(want)); !slices.Equal(got, want) {
		t.Errorf("got\n%s, want\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// old alone: nothing is read at other events.
	r.do("CONFIG", "SET", "key_evt_amqp.value", "old")
	r.do("SET", "s", "v")
	r.do("DEL", "s")
	if got := r.tells(len(want) + 2)[len(want):]; !slices.Equal(got, []string{`set s`, `del s | was string "v"`}) {
		t.Errorf("value old: got %q", got)
	}
	r.balanced(0, 0)
}

func TestEvictedValues(t *testing.T) {
	r := start(t, options{events: "e", config: valueConfig("none", "maxmemory-policy allkeys-random")})
	if !r.hasOld() {
		return
	}
	for i := range 100 {
		r.do("SET", "k"+strconv.Itoa(i), "v"+strconv.Itoa(i))
	}
	// A client that forces evictions, and touches nothing.
	conn := r.Conn()
	defer conn.Close()
	conn.Do(ctx, "CLIENT", "NO-TOUCH", "ON")
	r.do("CONFIG", "SET", "maxmemory", "1")
	conn.Do(ctx, "SET", "x", "y")
	r.do("CONFIG", "SET", "maxmemory", "0")
	must(t, r.queue.Wait(100, patience))
	for _, m := range r.queue.Messages() {
		e := valuedOf(t, m)
		if want := `evicted ` + e.Key + ` | was string "v` + strings.TrimPrefix(e.Key, "k") + `"`; e.short() != want {
			t.Errorf("got %s, want %s", e.short(), want)
		}
	}
	r.balanced(0, 0)
}

func TestValuesAreBounded(t *testing.T) {
	r := start(t, options{config: valueConfig("new", "key_evt_amqp.value_limit 10", "proto-max-bulk-len 1gb")})
	r.do("SET", "s", "0123456789")
	r.do("SET", "s", "0123456789a")
	r.do("RPUSH", "l", "01234", "56789")
	r.do("RPUSH", "l", "")
	r.do("RPUSH", "l", "x")
	r.do("HSET", "h", "01234", "567890")
	r.do("ZADD", "z", 1, "0123456789")
	r.do("XADD", "t", "1-1", "name", "0123456789")
	r.do("SADD", "many", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	r.do("CONFIG", "SET", "key_evt_amqp.value_limit", "11")
	r.do("RPUSH", "l", "")
	r.do("SETRANGE", "huge", 512<<20-1, "x")
	r.do("DEL", "huge")
	want := []string{
		`set s string "0123456789"`, `set s string size:11`, `rpush l list ["01234","56789"]`, `rpush l list ["01234","56789",""]`, `rpush l list`,
		`hset h hash`, `zadd z zset [["0123456789",1]]`, `xadd t stream`, `sadd many set`, `rpush l list ["01234","56789","","x",""]`,
		`setrange huge string size:536870912`, `del huge`,
	}
	if got := r.tells(len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.fails("value_limit", "CONFIG", "SET", "key_evt_amqp.value_limit", "0")
	r.balanced(0, 0)
}

// Reading a value leaves no trace in the dataset.
func TestReadingHasNoEffects(t *testing.T) {
	r := start(t, options{config: valueConfig("new")})
	listener := r.PSubscribe(ctx, "__key*__:*")
	defer listener.Close()
	_, err := listener.Receive(ctx)
	must(t, err)
	r.do("CONFIG", "SET", "notify-keyspace-events", "KEAm")
	r.do("CONFIG", "RESETSTAT")
	r.do("SET", "int", 1)
	r.do("SET", "emb", "short")
	r.do("RPUSH", "l", "a")
	r.do("HSET", "h", "f", "v")
	r.do("HDEL", "h", "f")
	r.do("DEL", "l")
	for key, want := range map[string]string{"int": "int", "emb": "embstr"} {
		if got := r.do("OBJECT", "ENCODING", key); got != want {
			t.Errorf("%s has become %v", key, got)
		}
	}
	stats := fmt.Sprint(r.do("INFO", "stats"))
	if !strings.Contains(stats, "keyspace_misses:0\r") {
		t.Error("misses were counted")
	}
	r.tells(7)
	if keys := fmt.Sprint(r.do("DBSIZE")); keys != "2" {
		t.Errorf("%s keys", keys)
	}
	for {
		m, err := listener.ReceiveTimeout(ctx, 200*time.Millisecond)
		if err != nil {
			break
		}
		if text, ok := m.(*redis.Message); ok && (text.Payload == "keymiss" || strings.HasSuffix(text.Channel, "keymiss")) {
			t.Errorf("a keymiss was published: %v", m)
		}
	}
	r.balanced(0, 0)
}

// ---- the fold

// fold is what a consumer holds that applies every event: the JSON text of each
// key's value.
type fold map[string]string

func (f fold) apply(t *testing.T, e valued) {
	key := strconv.Itoa(e.DB) + ":" + e.Key
	switch e.Event {
	case "del", "expired", "evicted", "rename_from", "move_from":
		delete(f, key)
		return
	}
	switch {
	case e.Type == "":
	case e.Base64 != nil:
		f[key] = e.Type + " " + *e.Base64
	case e.Type == "set":
		f[key] = "set " + sorted(t, e.Value)
	default:
		f[key] = e.Type + " " + compact(e.Value)
	}
}

func compact(raw json.RawMessage) string {
	var v any
	_ = json.Unmarshal(raw, &v)
	out, _ := json.Marshal(v)
	return string(out)
}

func sorted(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var members []string
	must(t, json.Unmarshal(raw, &members))
	slices.Sort(members)
	out, _ := json.Marshal(members)
	return string(out)
}

// dataset is the same, read from the server.
func (r *rig) dataset(dbs int) fold {
	f := fold{}
	text := func(v any) string { out, _ := json.Marshal(v); return string(out) }
	for db := range dbs {
		c := redis.NewClient(&redis.Options{Addr: r.Options().Addr, DB: db, Protocol: 2})
		defer c.Close()
		keys, err := c.Keys(ctx, "*").Result()
		must(r.t, err)
		for _, key := range keys {
			kind, err := c.Type(ctx, key).Result()
			must(r.t, err)
			value := ""
			switch kind {
			case "string":
				s := c.Get(ctx, key).Val()
				if value = text(s); !json.Valid([]byte(value)) || strings.ToValidUTF8(s, "") != s {
					value = base64.StdEncoding.EncodeToString([]byte(s))
				}
			case "list":
				value = text(c.LRange(ctx, key, 0, -1).Val())
			case "set":
				members := c.SMembers(ctx, key).Val()
				slices.Sort(members)
				value = text(members)
			case "hash":
				value = text(c.HGetAll(ctx, key).Val())
			case "zset":
				pairs := [][]any{}
				for _, z := range c.ZRangeWithScores(ctx, key, 0, -1).Val() {
					pairs = append(pairs, []any{z.Member, z.Score})
				}
				value = text(pairs)
			case "stream":
				value = "null"
				got, err := c.Do(ctx, "XREVRANGE", key, "+", "-", "COUNT", 1).Slice()
				must(r.t, err)
				if len(got) > 0 {
					entry := got[0].([]any)
					fields := [][]any{}
					words := entry[1].([]any)
					for i := 0; i < len(words); i += 2 {
						fields = append(fields, words[i:i+2])
					}
					value = text(map[string]any{"id": entry[0], "fields": fields})
				}
			}
			f[strconv.Itoa(db)+":"+key] = kind + " " + value
		}
	}
	return f
}

// writer makes random commands of all kinds on few keys, mostly on keys of the
// type that they want.
type writer struct {
	*rand.Rand
	kind int
}

func (w *writer) key() string {
	kind := w.kind
	if kind < 0 || w.IntN(10) == 0 {
		kind = w.IntN(6)
	}
	return string("slxhzt"[kind]) + strconv.Itoa(w.IntN(3))
}

func (w *writer) word() string { return "w" + strconv.Itoa(w.IntN(30)) }

func (w *writer) text() string {
	lengths := []int{0, 1, 5, 40, 44, 45, 60, 100, 128, 129, 400}
	return strings.Repeat(string(rune('a'+w.IntN(26))), lengths[w.IntN(len(lengths))])
}

func (w *writer) command() []any {
	w.kind = w.IntN(7)
	if w.kind == 6 {
		w.kind = -1
	}
	k, k2, n := w.key(), w.key(), w.IntN(5)+1
	groups := [][][]any{
		{
			{"SET", k, w.text()}, {"SET", k, w.IntN(1000)}, {"SET", k, "\xff" + w.text()}, {"SET", k, w.text(), "EX", 1000}, {"SETNX", k, w.text()},
			{"MSET", k, w.text(), k2, w.text()}, {"APPEND", k, w.text()}, {"SETRANGE", k, w.IntN(50), "x"}, {"INCRBY", k, n}, {"INCRBYFLOAT", k, "1.5"},
			{"GETSET", k, w.text()}, {"GETDEL", k}, {"SETBIT", k, w.IntN(400), 1}, {"GETEX", k, "PERSIST"}, {"BITOP", "NOT", k, k2}, {"PFADD", k, w.word()},
		},
		{
			{"LPUSH", k, w.word(), w.text()}, {"RPUSH", k, w.word()}, {"RPUSH", k, w.word()}, {"LPOP", k}, {"RPOP", k, n}, {"LINSERT", k, "BEFORE", w.word(), "in"},
			{"LREM", k, 0, w.word()}, {"LTRIM", k, 0, n}, {"LSET", k, 0, w.text()}, {"LMOVE", k, k2, "LEFT", "RIGHT"}, {"RPOPLPUSH", k, k2}, {"LMPOP", 2, k, k2, "LEFT", "COUNT", n},
		},
		{
			{"SADD", k, w.word(), w.word(), w.word()}, {"SADD", k, w.IntN(50), w.IntN(50)}, {"SREM", k, w.word()}, {"SPOP", k}, {"SPOP", k, n}, {"SPOP", k, 2},
			{"SMOVE", k, k2, w.word()}, {"SINTERSTORE", k, k2, w.key()}, {"SUNIONSTORE", k, k2, w.key()}, {"SORT", k, "ALPHA", "STORE", k2},
		},
		{
			{"HSET", k, w.word(), w.text(), w.word(), n}, {"HSET", k, w.word(), n}, {"HDEL", k, w.word()}, {"HDEL", k, w.word(), w.word()}, {"HINCRBY", k, "n", n},
			{"HSETNX", k, w.word(), "x"}, {"HINCRBYFLOAT", k, "f", "0.5"},
		},
		{
			{"ZADD", k, w.IntN(9), w.word(), w.IntN(9), w.word()}, {"ZADD", k, w.IntN(9), w.word()}, {"ZREM", k, w.word()}, {"ZINCRBY", k, 1, w.word()}, {"ZPOPMIN", k, n},
			{"ZPOPMAX", k}, {"ZMPOP", 2, k, k2, "MAX", "COUNT", 2}, {"ZREMRANGEBYRANK", k, 0, 1}, {"ZUNIONSTORE", k, 2, k2, w.key()}, {"ZRANGESTORE", k, k2, 0, 2},
			{"GEOADD", k, 13.3, 38.1, w.word()},
		},
		{
			{"XADD", k, "*", w.word(), w.text()}, {"XADD", k, "*", w.word(), w.text()}, {"XADD", k, "MAXLEN", 2, "*", "a", n}, {"XTRIM", k, "MAXLEN", 1}, {"XTRIM", k, "MAXLEN", 0},
		},
	}
	if w.kind >= 0 {
		group := groups[w.kind]
		return group[w.IntN(len(group))]
	}
	any := [][]any{
		{"DEL", k, k2}, {"UNLINK", k}, {"RENAME", k, k2}, {"RENAMENX", k, k2}, {"COPY", k, k2, "REPLACE"}, {"EXPIRE", k, 1000}, {"PERSIST", k},
		{"PEXPIREAT", k, 1}, {"MOVE", k, 1},
	}
	return any[w.IntN(len(any))]
}

// A MOVE inside a script or a transaction leaves Valkey 8.1's client elsewhere
// for what follows it (see hook.c), whatever a module does.
func (w *writer) grouped() []any {
	for {
		if c := w.command(); c[0] != "MOVE" && c[0] != "COPY" {
			return c
		}
	}
}

// TestTheFoldOfNewValuesIsTheDataset: whoever applies every event, in order, holds
// what Redis holds, whatever was written and how.
func TestTheFoldOfNewValuesIsTheDataset(t *testing.T) {
	for _, events := range []string{"A", "An"} {
		t.Run(events, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			w := &writer{Rand: rand.New(rand.NewPCG(seed, 0))}
			r := start(t, options{events: events, config: valueConfig("new", "list-max-listpack-size 4", "set-max-intset-entries 8",
				"hash-max-listpack-entries 8", "zset-max-listpack-entries 8")})
			for range 4000 {
				switch w.IntN(8) {
				case 0: // a transaction
					pipe := r.TxPipeline()
					for range w.IntN(6) + 1 {
						pipe.Do(ctx, w.grouped()...)
					}
					pipe.Exec(ctx) //nolint:errcheck // wrong types are part of the game
				case 1: // a script
					script, args := "", []any{}
					for range w.IntN(6) + 1 {
						c := w.grouped()
						var slots []string
						for _, a := range c {
							args = append(args, a)
							slots = append(slots, "ARGV["+strconv.Itoa(len(args))+"]")
						}
						script += "redis.pcall(" + strings.Join(slots, ",") + ") "
					}
					r.Do(ctx, append([]any{"EVAL", script, 0}, args...)...)
				case 2: // a pipeline
					pipe := r.Pipeline()
					for range w.IntN(20) + 1 {
						pipe.Do(ctx, w.command()...)
					}
					pipe.Exec(ctx) //nolint:errcheck
				default:
					r.Do(ctx, w.command()...)
				}
			}
			r.do("SET", "last", "one")
			n := r.number("events_captured")
			must(t, r.queue.Wait(n, patience))
			got := fold{}
			for _, m := range r.queue.Messages() {
				got.apply(t, valuedOf(t, m))
			}
			if want := r.dataset(2); !reflect.DeepEqual(got, want) {
				for key := range want {
					if got[key] != want[key] {
						t.Errorf("seed %d: %s: the fold has\n%.300s, Redis\n%.300s", seed, key, got[key], want[key])
						for _, m := range r.queue.Messages() {
							if e := valuedOf(t, m); e.Key == key[2:] {
								t.Logf("%.150s", e.short())
							}
						}
					}
				}
				for key := range got {
					if want[key] == "" {
						t.Errorf("seed %d: the fold has %s: %.200s, Redis has no such key", seed, key, got[key])
					}
				}
			}
			r.balanced(0, 0)
		})
	}
}
