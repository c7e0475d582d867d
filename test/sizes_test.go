// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// allSettings are all module configurations as CONFIG GET shows them.
func (r *rig) allSettings() string {
	r.t.Helper()
	return fmt.Sprint(r.do("CONFIG", "GET", "key_evt_amqp.*"))
}

// Arguments that are too many or too long are refused before they cost anything,
// by each of the ways in, and nothing has changed.
func TestArgumentsOfAnySizeAreRefused(t *testing.T) {
	r := start(t, options{events: "$", masks: "^k"})
	before := r.allSettings()
	many := func(command string, n int, arg string) []any {
		args := make([]any, n+1)
		args[0] = "key_evt_amqp." + command
		for i := range n {
			args[i+1] = arg
		}
		return args
	}
	large := strings.Repeat("x", 9<<20)
	for _, test := range []struct {
		names string
		args  []any
	}{
		{"1000000 arguments", many("keymask_set", 1000000, "k")},
		{"1000000 arguments", many("keymask_add", 1000000, "")},
		{"100001 masks", many("keymask_add", 100000, "k")}, // one is there
		{"masks of 2000000 bytes", many("keymask_set", 2, strings.Repeat("k", 1000000))},
		{"at most 8388608", many("keymask_set", 1, large)},
		{"at most 8388608", many("config_set", 1, large)},
		{"at most 8388608", many("connect", 1, large)},
		{"hostname", many("config_set", 1, strings.Repeat("h,", 9000)+"h")},
		{"65 hosts", many("config_set", 1, strings.Repeat("h,", 64)+"h")},
		{"port", []any{"key_evt_amqp.config_set", "h", strings.Repeat("1", 1000000)}},
		{"password", []any{"key_evt_amqp.config_set", "h", "1", "u", strings.Repeat("p", 100000)}},
		{"routing_key", []any{"key_evt_amqp.config_set", "h", "1", "u", "p", "1", "e", strings.Repeat("p", 100000)}},
		{"integer", many("fallback_storage_size_set", 1, strings.Repeat("1", 1000000))},
		{"8388608", []any{"CONFIG", "SET", "key_evt_amqp.key_mask", large}},
		{"key_mask", []any{"CONFIG", "SET", "key_evt_amqp.key_mask", strings.Repeat("k ", 1000000)}},
		{"words", []any{"CONFIG", "SET", "key_evt_amqp.key_mask", strings.Repeat("k ", 100001)}},
		{"hostname", []any{"CONFIG", "SET", "key_evt_amqp.hostname", strings.Repeat("h", 1000000)}},
		{"password_file", []any{"CONFIG", "SET", "key_evt_amqp.password_file", "/" + strings.Repeat("h", 1000000)}},
		{"vhost", []any{"CONFIG", "SET", "key_evt_amqp.vhost", strings.Repeat("h", 1000000)}},
		{"format", []any{"CONFIG", "SET", "key_evt_amqp.format", strings.Repeat("h", 1000000)}},
		{"events", []any{"CONFIG", "SET", "key_evt_amqp.events", strings.Repeat("x", 1000000)}},
	} {
		err := r.Do(ctx, test.args...).Err()
		if err == nil || !strings.Contains(err.Error(), test.names) || len(err.Error()) > 1000 {
			t.Errorf("%s with %d arguments: error %.300v, want one that names %q", test.args[:min(3, len(test.args)-1)], len(test.args), err, test.names)
		}
	}
	if after := r.allSettings(); after != before {
		t.Errorf("the settings were %.300s and are %.300s", before, after)
	}
	// The most that is taken works, and the old masks are gone.
	must(t, r.Do(ctx, many("keymask_set", 100000, "^x")...).Err())
	if n := r.number("masks"); n != 100000 {
		t.Errorf("%d masks", n)
	}
	r.do("SET", "k", "v")
	r.do("SET", "x", "v")
	r.arrives([]string{"0\nset\nx"})
	r.balanced(0, 0)
}

// Go's own limit for a text from C is 2 GiB, and a fatal error.
func TestAnArgumentAboveTwoGiBIsRefused(t *testing.T) {
	if !*long {
		t.Skip("with -long: it moves 4 GiB")
	}
	r := start(t, options{events: "$", config: []string{"proto-max-bulk-len 4gb", "client-query-buffer-limit 4gb"}})
	const size = 1<<31 + 100
	for _, head := range []string{
		"*2\r\n$24\r\nkey_evt_amqp.keymask_set\r\n",
		"*4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$18\r\nkey_evt_amqp.vhost\r\n",
	} {
		conn, err := net.Dial("tcp", r.Addr())
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(5*patience)))
		_, err = fmt.Fprintf(conn, "%s$%d\r\n", head, size)
		must(t, err)
		block := make([]byte, 1<<20)
		for left := size; left > 0; {
			n, err := conn.Write(block[:min(left, len(block))])
			must(t, err)
			left -= n
		}
		_, err = io.WriteString(conn, "\r\n")
		must(t, err)
		answer := make([]byte, 200)
		n, err := conn.Read(answer)
		must(t, err)
		if got := string(answer[:n]); !strings.HasPrefix(got, "-ERR") || !strings.Contains(got, "at most 8388608") {
			t.Errorf("the answer is %q", got)
		}
		conn.Close()
		must(t, r.Alive())
	}
	r.do("SET", "k", "v")
	r.arrives([]string{"0\nset\nk"})
	r.balanced(0, 0)
}

// A body that is made of a key may be six times as long. What would be too large
// is dropped and counted before memory is taken for it, and blocks nothing.
func TestABodyTooLargeToMakeIsDropped(t *testing.T) {
	for _, format := range []string{"json", "cloudevents"} {
		t.Run(format, func(t *testing.T) {
			r := start(t, options{events: "$", config: []string{"key_evt_amqp.format " + format}})
			r.do("SET", "before", "v")
			for i := range 3 {
				r.do("SET", strings.Repeat("\x07", 64<<20+i), "v")
			}
			r.do("SET", "after", "v")
			must(t, r.queue.Wait(2, patience))
			messages := r.queue.Messages()
			if len(messages) != 2 || !strings.Contains(string(messages[0].Body), `"before"`) || !strings.Contains(string(messages[1].Body), `"after"`) {
				t.Fatalf("%d messages", len(messages))
			}
			r.balanced(0, 3)
			if log := r.Log(); !strings.Contains(log, "at most 33554432 are made") {
				t.Error("the log does not say why")
			}
			// The keys' own 192 MiB are the server's.
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.Pid()))
			must(t, err)
			_, rest, _ := strings.Cut(string(status), "VmHWM:")
			peak := 0
			fmt.Sscan(rest, &peak)
			if peak > 900<<10 {
				t.Errorf("the server's peak was %d KiB", peak)
			}
			t.Logf("peak %d MiB", peak>>10)
		})
	}
}
