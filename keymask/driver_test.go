// SPDX-License-Identifier: BSD-3-Clause

// driver_test.go compiles the C matcher afresh and talks to it over pipes. No
// cgo: test files may not use it, Go's build cache would not see that match.c
// has changed, and this way the sanitizers come along.

package keymask_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// builds is where compiled C programs go, for the whole run.
var builds string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "keymask-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		builds = dir
		return m.Run()
	}())
}

// sanitize is the flags for C under test. KEYMASK_SANITIZE=thread chooses
// another sanitizer.
func sanitize() []string {
	what := os.Getenv("KEYMASK_SANITIZE")
	if what == "" {
		what = "address,undefined"
	}
	return []string{"-O1", "-g", "-fsanitize=" + what, "-fno-sanitize-recover=all"}
}

// compileC builds c/match.c with a program of c/test; CC names the compiler.
func compileC(tb testing.TB, program string, flags ...string) string {
	tb.Helper()
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	out, err := os.CreateTemp(builds, program)
	if err != nil {
		tb.Fatal(err)
	}
	out.Close()
	args := append([]string{"@../c/flags",
		"-pthread", "-o", out.Name(), filepath.Join("..", "c", "match.c"), filepath.Join("..", "c", "test", program+".c")}, flags...)
	if text, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s %s: %v\n%s", cc, strings.Join(args, " "), err, text)
	}
	return out.Name()
}

// driver is a running c/test/match_driver.c, one request at a time.
type driver struct {
	mu     sync.Mutex
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// startDriver stops the driver when the test ends.
func startDriver(tb testing.TB, flags ...string) *driver {
	tb.Helper()
	d := &driver{cmd: exec.Command(compileC(tb, "match_driver", flags...))}
	in, err := d.cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	d.in, d.out, d.cmd.Stderr = in, bufio.NewReader(out), &d.stderr
	if err := d.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		if err := d.cmd.Wait(); err != nil {
			tb.Errorf("C driver: %v\n%s", err, &d.stderr)
		}
	})
	return d
}

// match returns what C says for each key, or why it refuses the program.
func (d *driver) match(tb testing.TB, program []byte, keys [][]byte, repeats int) (got []bool, refusal string) {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()

	request := binary.LittleEndian.AppendUint32(nil, uint32(len(program)))
	request = binary.LittleEndian.AppendUint32(request, uint32(len(keys)))
	request = binary.LittleEndian.AppendUint32(request, uint32(repeats))
	request = append(request, program...)
	for _, key := range keys {
		request = binary.LittleEndian.AppendUint32(request, uint32(len(key)))
		request = append(request, key...)
	}
	// The answer begins before a long request ends.
	sent := make(chan error, 1)
	go func() {
		_, err := d.in.Write(request)
		sent <- err
	}()
	got, refusal, err := d.read(len(keys))
	if err == nil {
		err = <-sent
	}
	if err != nil {
		d.in.Close()
		tb.Fatalf("C driver: %v, program of %d bytes, keys %q: %v\n%s", err, len(program), keys, d.cmd.Wait(), &d.stderr)
	}
	return got, refusal
}

func (d *driver) read(keys int) (got []bool, refusal string, err error) {
	kind, err := d.out.ReadByte()
	if err != nil {
		return nil, "", err
	}
	if kind == 'r' {
		var n [4]byte
		if _, err := io.ReadFull(d.out, n[:]); err != nil {
			return nil, "", err
		}
		text := make([]byte, binary.LittleEndian.Uint32(n[:]))
		_, err := io.ReadFull(d.out, text)
		return nil, string(text), err
	}
	answers := make([]byte, keys)
	if _, err := io.ReadFull(d.out, answers); err != nil {
		return nil, "", err
	}
	for _, a := range answers {
		got = append(got, a == '1')
	}
	return got, "", nil
}
