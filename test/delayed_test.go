// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A key with a TTL is a message with a delay: examples/delayed's jobs arrive, each
// once, whole, and not those that were taken back; also when the worker was away.
func TestDelayedJobs(t *testing.T) {
	r := start(t, options{events: "x", masks: "^job:", silent: true})
	if !r.hasOld() {
		r.fails("old needs to see what a key held", "CONFIG", "SET", "key_evt_amqp.format", "payload", "key_evt_amqp.value", "old")
		return
	}
	r.do("CONFIG", "SET", "key_evt_amqp.format", "payload", "key_evt_amqp.value", "old", "key_evt_amqp.expire_on_time", "yes")
	program := filepath.Join(t.TempDir(), "delayed")
	if out, err := exec.Command("go", "build", "-o", program, "../examples/delayed").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	worker := newExample(t, broker.Port, program, "work", "--queue", r.name, "--routing-key", r.name)
	produce := func(after string, jobs ...string) []string {
		out, err := exec.Command(program, append([]string{"produce", "-redis", r.Addr(), "-after", after}, jobs...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("produce: %v\n%s", err, out)
		}
		return strings.Fields(string(out))
	}
	worker.start()
	want := []string{`{"to":"ada"}`, "", "\xff\n\xfe", strings.Repeat("x", 60000)}
	produce("50ms", want[0], want[1], want[2], want[3])
	taken := produce("1h", "taken back")
	r.do("DEL", taken[0])
	jobs := func() (all []string) {
		text, _ := os.ReadFile(worker.out)
		lines := bufio.NewScanner(bytes.NewReader(text))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var one struct {
				Key string
				Job []byte
			}
			if err := json.Unmarshal(lines.Bytes(), &one); err == nil && strings.HasPrefix(one.Key, "job:") {
				all = append(all, string(one.Job))
			}
		}
		slices.Sort(all)
		return all
	}
	done := func(want []string) {
		t.Helper()
		slices.Sort(want)
		eventually(t, func() error {
			if got := jobs(); !slices.Equal(got, want) {
				return fmt.Errorf("%d jobs are done, want %d: %.300q", len(got), len(want), got)
			}
			return nil
		})
	}
	done(want)
	worker.terminate()
	produce("20ms", "while it was away")
	r.until("events_confirmed", is("5"))
	worker.start()
	done(append(want, "while it was away"))
	worker.terminate()
	r.balanced(0, 0)
}
