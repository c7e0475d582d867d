// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strings"
	"testing"
)

// TestDatabaseOfAnEvent: whatever command, alone or in a transaction, a script or
// a function: an event is of the database in which the key is.
func TestDatabaseOfAnEvent(t *testing.T) {
	valkey81 := strings.HasPrefix(serverVersion(t), "Valkey 8.1")
	set := [][]any{{"SELECT", 1}, {"SET", "a", "v"}}
	type commands = [][]any
	for _, test := range []struct {
		name     string
		commands commands // behind the SELECT and the SET
		want     []string
		copies   bool // with COPY, of which Valkey 8.1 makes something else
	}{
		{"MOVE", commands{{"MOVE", "a", 3}, {"SET", "b", "v"}},
			[]string{"3 new a", "1 move_from a", "3 move_to a", "1 new b", "1 set b"}, false},
		{"COPY", commands{{"COPY", "a", "c", "DB", 4}, {"SET", "b", "v"}},
			[]string{"4 new c", "4 copy_to c", "1 new b", "1 set b"}, true},
		{"COPY over a key that has expired", commands{{"SELECT", 4}, {"SET", "c", "v", "PX", 1}, {"DEBUG", "SLEEP", "0.01"},
			{"SELECT", 1}, {"COPY", "a", "c", "DB", 4}, {"SET", "b", "v"}},
			[]string{"4 new c", "4 set c", "4 expire c", "4 expired c", "4 new c", "4 copy_to c", "1 new b", "1 set b"}, true},
		{"SELECT in between", commands{{"SELECT", 5}, {"SET", "b", "v"}, {"SELECT", 1}, {"MOVE", "a", 6}},
			[]string{"5 new b", "5 set b", "6 new a", "1 move_from a", "6 move_to a"}, false},
		{"RENAME, DEL and MOVE", commands{{"RENAME", "a", "b"}, {"MOVE", "b", 3}, {"SELECT", 3}, {"DEL", "b"}},
			[]string{"1 new b", "1 rename_from a", "1 rename_to b", "3 new b", "1 move_from b", "3 move_to b", "3 del b"}, false},
	} {
		script := "redis.setresp(2); "
		for _, c := range append(set, test.commands...) {
			words := make([]string, len(c))
			for i, word := range c {
				words[i] = fmt.Sprintf("'%v'", word)
			}
			script += "redis.call(" + strings.Join(words, ", ") + "); "
		}
		blocked := strings.Contains(script, "DEBUG")
		for _, how := range []struct {
			name string
			run  func(r *rig)
		}{
			{"plain", func(r *rig) {
				conn := r.Conn()
				defer conn.Close()
				for _, c := range append(set, test.commands...) {
					must(t, conn.Do(ctx, c...).Err())
				}
			}},
			{"MULTI", func(r *rig) {
				conn := r.Conn()
				defer conn.Close()
				must(t, conn.Do(ctx, "SELECT", 1).Err())
				_, before, _ := cutAt(test.commands, "DEBUG")
				for _, c := range append(set, before...) {
					must(t, conn.Do(ctx, c...).Err())
				}
				must(t, conn.Do(ctx, "MULTI").Err())
				after, _, found := cutAt(test.commands, "DEBUG")
				if !found {
					after = test.commands
				}
				for _, c := range after {
					must(t, conn.Do(ctx, c...).Err())
				}
				must(t, conn.Do(ctx, "EXEC").Err())
			}},
			{"script", func(r *rig) { r.do("EVAL", script, 0) }},
			{"script in MULTI", func(r *rig) {
				conn := r.Conn()
				defer conn.Close()
				must(t, conn.Do(ctx, "MULTI").Err())
				must(t, conn.Do(ctx, "EVAL", script, 0).Err())
				must(t, conn.Do(ctx, "EXEC").Err())
			}},
			{"function", func(r *rig) {
				r.do("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() "+script+" end)")
				r.do("FCALL", "f", 0)
			}},
		} {
			// In a script no time passes.
			if blocked && how.name != "plain" && how.name != "MULTI" {
				continue
			}
			t.Run(test.name+"/"+how.name, func(t *testing.T) {
				if test.copies && valkey81 {
					t.Skip("Valkey 8.1 leaves the client of a COPY in the other database while a module listens")
				}
				r := start(t, options{events: "An", config: []string{"hz 1", "databases 16"}})
				r.do("DEBUG", "SET-ACTIVE-EXPIRE", 0)
				how.run(r)
				want := []string{"1\nnew\na", "1\nset\na"}
				for _, w := range test.want {
					want = append(want, strings.Replace(strings.Replace(w, " ", "\n", 1), " ", "\n", 1))
				}
				r.sameBodies(want)
				r.balanced(0, 0)
			})
		}
	}
}

// cutAt splits commands behind the first that begins with a word.
func cutAt(commands [][]any, word string) (after, before [][]any, found bool) {
	for i, c := range commands {
		if c[0] == word {
			return commands[i+1:], commands[:i+1], true
		}
	}
	return nil, nil, false
}

// serverVersion is the name and the version of the server under test.
func serverVersion(t *testing.T) string {
	t.Helper()
	r := prepare(t, options{noLoad: true, silent: true})
	must(t, r.Start())
	info := r.Info(ctx, "server").Val()
	_, version, valkey := strings.Cut(info, "valkey_version:")
	name := "Valkey "
	if !valkey {
		_, version, _ = strings.Cut(info, "redis_version:")
		name = "Redis "
	}
	version, _, _ = strings.Cut(version, "\r")
	return name + version
}

// sameBodies checks that these bodies arrive, in whatever order: servers make
// "new" before or after the others.
func (r *rig) sameBodies(want []string) {
	r.t.Helper()
	must(r.t, r.queue.Wait(len(want), patience))
	count := map[string]int{}
	for _, w := range want {
		count[w]++
	}
	for _, m := range r.queue.Messages() {
		count[string(m.Body)]--
	}
	for body, n := range count {
		if n != 0 {
			r.t.Errorf("%q: %+d missing", body, n)
		}
	}
}
