// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

var fuzzCalls = flag.Int("fuzz-calls", 100000, "calls of TestRandomCalls")

// scribbler makes arguments: good ones, nearly good ones, and noise.
type scribbler struct{ *rand.Rand }

func (s scribbler) bytes(most int) string {
	b := make([]byte, s.IntN(most+1))
	for i := range b {
		b[i] = byte(s.Uint32())
	}
	return string(b)
}

// word is a value that some argument takes, or nearly. Hosts are this machine's
// or none: nothing is to be dialled elsewhere.
func (s scribbler) word() string {
	words := []string{"", "0", "1", "-1", "2", "5672", "65535", "65536", "70000", "9223372036854775807", "-9223372036854775808",
		"9223372036854775808", "1e3", "0x10", " 1", "yes", "no", "YES", "ALL", "all", "xe", "A", "KEA", "Kx", "g$lshzxetdmn", "Q", "AA",
		"127.0.0.1", "[::1]", "127.0.0.1:1,[::1]:2", "127.0.0.1:", ":1", "[::1", "nosuch.invalid", "127.0.0.1:99999", ",", "127.0.0.1,,",
		"guest", "amq.direct", "amq.topic", "plain", "json", "cloudevents", "xml", "{db}.{event}.{key}", "{", "^a.*$", "a*a*a*a*b$", "**", "^", "$", "\"", "'a b'", `"\x00"`,
		`"\`, "/", "/nosuch", "/etc/passwd", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("a*", 2000), "\n", "\r\nX", "\x00"}
	if s.IntN(4) == 0 {
		return s.bytes(40)
	}
	return words[s.IntN(len(words))]
}

// host keeps what is noise from naming another machine.
func host(word string) string {
	if strings.ContainsAny(word, ".0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") && !strings.HasPrefix(word, "127.") &&
		!strings.HasSuffix(word, ".invalid") {
		return word + ".invalid"
	}
	return word
}

// TestRandomCalls: whatever commands and configurations are given, the server
// lives, what is refused is refused by name, and all is well afterwards.
func TestRandomCalls(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d calls with seed %d", *fuzzCalls, seed)
	s := scribbler{rand.New(rand.NewPCG(seed, 0))}
	r := start(t, options{config: []string{"slowlog-log-slower-than -1"}})
	r.do("SET", "before", 1)
	r.arrives([]string{"0\nset\nbefore"})
	before := footprintOf(t, r.Redis)
	settings := r.configurations()
	var names []string
	for name := range settings {
		names = append(names, name)
	}
	commands := []string{"config_set", "connect", "disconnect", "fallback_storage_size_set", "keymask_clean", "keymask_add", "keymask_set", "fallback_peek"}
	accepted, refused := 0, 0
	for left := *fuzzCalls; left > 0; {
		pipe := r.Pipeline()
		for range min(left, 500) {
			left--
			if s.IntN(2) == 0 {
				args := []any{"key_evt_amqp." + commands[s.IntN(len(commands))]}
				for i := range s.IntN(13) {
					word := s.word()
					if i == 0 && (args[0] == "key_evt_amqp.config_set" || args[0] == "key_evt_amqp.connect") {
						word = host(word)
					}
					args = append(args, word)
				}
				// In MULTI connect answers at once, and waits for nobody.
				if args[0] == "key_evt_amqp.connect" {
					pipe.Do(ctx, "MULTI")
					pipe.Do(ctx, args...)
					pipe.Do(ctx, "EXEC")
				} else {
					pipe.Do(ctx, args...)
				}
				continue
			}
			args := []any{"CONFIG", "SET"}
			for range 1 + s.IntN(3) {
				name, word := names[s.IntN(len(names))], s.word()
				if name == "hostname" {
					word = host(word)
				}
				args = append(args, "key_evt_amqp."+name, word)
			}
			pipe.Do(ctx, args...)
		}
		pipe.Do(ctx, "SET", "meanwhile", 1)
		replies, _ := pipe.Exec(ctx)
		for _, reply := range replies {
			err := reply.Err()
			if list, ok := reply.(*redis.Cmd).Val().([]any); ok && len(list) == 1 {
				err, _ = list[0].(error)
			}
			if err == nil || err == redis.Nil {
				accepted++
				continue
			}
			refused++
			if text := err.Error(); !strings.HasPrefix(text, "ERR ") || len(text) < 10 || strings.ContainsAny(text, "\r\n") ||
				strings.Contains(text, "internal error") {
				t.Fatalf("%.300q: error %.300q", reply.Args(), text)
			}
		}
		must(t, r.Alive())
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted < *fuzzCalls/20 || refused < *fuzzCalls/20 {
		t.Error("one kind of answer is too rare for the test to mean something")
	}

	// All settings still have values that can be given back, and set anew.
	for name, value := range r.configurations() {
		r.do("CONFIG", "SET", "key_evt_amqp."+name, value)
	}
	args := []any{"CONFIG", "SET"}
	for name, value := range settings {
		args = append(args, "key_evt_amqp."+name, value)
	}
	r.do(args...)
	r.do("key_evt_amqp.connect")
	r.do("SET", "after", 1)
	eventually(t, func() error {
		for _, m := range r.queue.Messages() {
			if string(m.Body) == "0\nset\nafter" {
				return nil
			}
		}
		return fmt.Errorf("the event after all that has not come")
	})
	r.until("events_buffered", is("0"))
	r.until("inflight", is("0"))
	// Connections that were begun under other settings end in their time.
	eventually(t, func() error {
		after := footprintOf(t, r.Redis)
		if after.rss > 2*before.rss+64<<10 || after.threads > before.threads+4 || after.descriptors > before.descriptors+4 {
			return fmt.Errorf("rss %d -> %d kB, threads %d -> %d, descriptors %d -> %d",
				before.rss, after.rss, before.threads, after.threads, before.descriptors, after.descriptors)
		}
		return nil
	})
}

// TestHostileMask: masks and keys made to explode a backtracking matcher cost
// microseconds.
func TestHostileMask(t *testing.T) {
	r := start(t, options{events: "$", masks: "^nothing$"})
	key := strings.Repeat("a", 20<<10)
	cost := func() time.Duration {
		best := time.Hour
		for range 5 {
			r.do("CONFIG", "RESETSTAT")
			pipe := r.Pipeline()
			for range 200 {
				pipe.Set(ctx, key, "v", 0)
			}
			_, err := pipe.Exec(ctx)
			must(t, err)
			var calls, usec int
			for _, line := range strings.Split(r.Info(ctx, "commandstats").Val(), "\r\n") {
				if _, err := fmt.Sscanf(line, "cmdstat_set:calls=%d,usec=%d", &calls, &usec); err == nil {
					best = min(best, time.Duration(usec)*time.Microsecond/time.Duration(calls))
				}
			}
		}
		return best
	}
	plain := cost()
	r.do("key_evt_amqp.keymask_set", "a*a*a*a*b$", "a*a*a*a*a*a*a*a*a*a*c", "^.*.*.*.*.*d$")
	hostile := cost()
	t.Logf("a SET of a key of 20 KiB: %v with a plain mask, %v with hostile ones", plain, hostile)
	// Backtracking would need (20,000^4)/24 steps.
	if hostile > plain+5*time.Millisecond {
		t.Errorf("%v with hostile masks, %v with a plain one", hostile, plain)
	}
}
