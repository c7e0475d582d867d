// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestEachClassOfEvent(t *testing.T) {
	for _, test := range []struct {
		class    string
		commands [][]any
		want     []string
	}{
		{"g", [][]any{{"SET", "k", "v"}, {"DEL", "k"}}, []string{"0\ndel\nk"}},
		{"$", [][]any{{"SET", "k", "v"}, {"APPEND", "k", "v"}, {"DEL", "k"}}, []string{"0\nset\nk", "0\nappend\nk"}},
		{"l", [][]any{{"RPUSH", "k", "v"}, {"LPOP", "k"}}, []string{"0\nrpush\nk", "0\nlpop\nk"}},
		{"s", [][]any{{"SADD", "k", "v"}}, []string{"0\nsadd\nk"}},
		{"h", [][]any{{"HSET", "k", "f", "v"}}, []string{"0\nhset\nk"}},
		{"z", [][]any{{"ZADD", "k", "1", "v"}}, []string{"0\nzadd\nk"}},
		{"t", [][]any{{"XADD", "k", "*", "f", "v"}}, []string{"0\nxadd\nk"}},
		{"m", [][]any{{"GET", "none"}}, []string{"0\nkeymiss\nnone"}},
		{"n", [][]any{{"SET", "k", "v"}, {"SET", "k", "w"}}, []string{"0\nnew\nk"}},
		{"x", [][]any{{"SET", "k", "v", "PX", "20"}, {"DEBUG", "SLEEP", "0.05"}, {"GET", "k"}}, []string{"0\nexpired\nk"}},
		{"A", [][]any{{"SET", "k", "v"}, {"GET", "none"}, {"DEL", "k"}}, []string{"0\nset\nk", "0\ndel\nk"}},
	} {
		t.Run(test.class, func(t *testing.T) {
			r := start(t, options{events: test.class})
			for _, command := range test.commands {
				_ = r.Do(ctx, command...).Err() // GET of nothing is nil
			}
			r.arrives(test.want)
			r.balanced(0, 0)
		})
	}
}

func TestEvictedKeys(t *testing.T) {
	r := start(t, options{events: "e", config: []string{"maxmemory-policy allkeys-lru"}})
	r.sets("k", 100)
	r.do("CONFIG", "SET", "maxmemory", "1")
	_ = r.Do(ctx, "SET", "one", "more").Err()
	r.until("events_captured", func(v string) bool { n, _ := strconv.Atoi(v); return n >= 100 })
	r.do("CONFIG", "SET", "maxmemory", "0")
	must(t, r.queue.Wait(100, patience))
	if m := r.queue.Messages()[0]; !strings.HasPrefix(string(m.Body), "0\nevicted\nk") {
		t.Errorf("got %q", m.Body)
	}
	r.balanced(0, 0)
}

func TestKeysAreBytes(t *testing.T) {
	r := start(t, options{events: "$"})
	var want []string
	for _, key := range []string{"", "\n", "a\nb", "\x00", "a\x00b", "\xff\xfe", " ", "ü", strings.Repeat("long", 1<<18)} {
		r.do("SET", key, "v")
		want = append(want, "0\nset\n"+key)
	}
	r.arrives(want)
	r.balanced(0, 0)
}

func TestEveryDatabase(t *testing.T) {
	r := start(t, options{events: "$"})
	var want []string
	for db := range 16 {
		conn := r.Conn()
		must(t, conn.Select(ctx, db).Err())
		must(t, conn.Set(ctx, "k", "v", 0).Err())
		must(t, conn.Select(ctx, 0).Err())
		conn.Close()
		want = append(want, strconv.Itoa(db)+"\nset\nk")
	}
	r.arrives(want)
	r.balanced(0, 0)
}

func TestTransactionsAndScripts(t *testing.T) {
	r := start(t, options{events: "$"})
	pipe := r.TxPipeline()
	pipe.Set(ctx, "a", "v", 0)
	pipe.Set(ctx, "b", "v", 0)
	_, err := pipe.Exec(ctx)
	must(t, err)
	r.do("EVAL", "for i = 0, 9999 do redis.call('SET', 'lua' .. i, 'v') end", "0")
	r.arrives(append([]string{"0\nset\na", "0\nset\nb"}, setBodies("lua", 10000)...))
	r.balanced(0, 0)
}

func TestMessageProperties(t *testing.T) {
	before := time.Now().Add(-2 * time.Second)
	r := start(t, options{events: "$"})
	r.do("SET", "k", "v")
	r.do("SET", "k", "v")
	r.arrives([]string{"0\nset\nk", "0\nset\nk"})
	one, two := r.queue.Messages()[0], r.queue.Messages()[1]
	if one.ContentType != "text/plain" || one.DeliveryMode != 2 || one.AppId != "key_evt_amqp" || one.Type != "set" {
		t.Errorf("got %+v", one)
	}
	if one.Timestamp.Before(before) || one.Timestamp.After(time.Now().Add(time.Second)) {
		t.Errorf("timestamp is %v", one.Timestamp)
	}
	if one.MessageId == "" || one.MessageId == two.MessageId {
		t.Errorf("ids are %q and %q", one.MessageId, two.MessageId)
	}
	r.balanced(0, 0)
}

func TestMasks(t *testing.T) {
	keys := []string{"", "a", "ab", "xab", "a$b", "*", "x*", "**", "$", "a.b", "user:1", "my user"}
	for _, test := range []struct {
		masks []string
		want  []string
	}{
		{[]string{""}, keys},
		{[]string{"*"}, []string{"*", "x*", "**"}},
		{[]string{"^*"}, []string{"*", "**"}},
		{[]string{"a$b"}, []string{"a$b"}},
		{[]string{"**"}, keys},
		{[]string{"$*"}, keys},
		{[]string{"^$"}, []string{""}},
		{[]string{"^a.*b$"}, []string{"ab", "a$b", "a.b"}},
		{[]string{"^user:", "^my user$"}, []string{"user:1", "my user"}},
		{[]string{"^nothing$", "ALL"}, keys},
		{[]string{"^.$"}, []string{"a", "*", "$"}},
	} {
		t.Run(strings.Join(test.masks, " or "), func(t *testing.T) {
			r := start(t, options{events: "$", masks: "none"})
			args := []any{"key_evt_amqp.keymask_set"}
			for _, m := range test.masks {
				args = append(args, m)
			}
			r.do(args...)
			var want []string
			for _, key := range keys {
				r.do("SET", key, "v")
			}
			for _, key := range test.want {
				want = append(want, "0\nset\n"+key)
			}
			r.arrives(want)
			r.balanced(0, 0)
			if got := r.number("events_filtered"); got != len(keys)-len(want) {
				t.Errorf("events_filtered is %d, want %d", got, len(keys)-len(want))
			}
		})
	}
}

func TestWithoutMasksNothingIsForwardedAndNothingConnects(t *testing.T) {
	r := prepare(t, options{noLoad: true})
	args := r.loadArgs(options{})
	r.Config = append(r.Config, "loadmodule "+strings.Join(args[:len(args)-1], " "))
	must(t, r.Start())
	r.sets("k", 100)
	if got := r.info("state") + " " + r.info("events_captured") + " " + r.info("masks"); got != "idle 0 0" {
		t.Errorf("got %q", got)
	}
}
