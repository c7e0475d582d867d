// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// examples/spool lists what fallback_peek listed before the server was shut down,
// and leaves the file for the next load.
func TestSpoolFileIsListedInWords(t *testing.T) {
	program := filepath.Join(t.TempDir(), "spool")
	if out, err := exec.Command("go", "build", "-o", program, "../examples/spool").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	const n = 21
	r, p := proxied(t, options{events: "$", limit: "-1", config: []string{
		fmt.Sprintf("key_evt_amqp.shutdown_timeout %d", shutdownTimeout.Milliseconds())}})
	p.Cut()
	conn := r.Conn()
	must(t, conn.Select(ctx, 3).Err())
	must(t, conn.Set(ctx, "a\x00b\n", "v", 0).Err())
	must(t, conn.Select(ctx, 0).Err()) // the connection is used again
	conn.Close()
	r.sets("k", n-1)
	r.until("state", is("backoff"))
	r.until("events_buffered", is(fmt.Sprint(n)))
	var want strings.Builder
	for _, e := range r.peek(1000) {
		key := e.key
		if e.db == 3 {
			key = `"a\x00b\n"`
		}
		fmt.Fprintf(&want, "%s\t%s\t%d\t%s\t%s\n", e.id, e.time, e.db, e.event, key)
	}
	shutDown(t, r, "SIGTERM")
	path := r.spool()
	before, err := os.ReadFile(path)
	must(t, err)

	list := exec.Command(program, path)
	var out, said bytes.Buffer
	list.Stdout, list.Stderr = &out, &said
	if err := list.Run(); err != nil || out.String() != want.String() {
		t.Errorf("error %v, %s\nlisted:\n%s\nwant:\n%s", err, &said, &out, &want)
	}
	id := strings.Split(filepath.Base(path), ".")[1]
	if about := fmt.Sprintf("%d events, of server %s, port %d,", n, id, r.Port); !strings.Contains(said.String(), about) {
		t.Errorf("it says %q, want %q", &said, about)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file has changed: error %v", err)
	}

	must(t, p.Mend())
	must(t, r.Start())
	r.arrives(append([]string{"3\nset\na\x00b\n"}, setBodies("k", n-1)...))
	r.spoolIsGone()
	r.balanced(n, 0)
}
