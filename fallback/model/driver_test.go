// SPDX-License-Identifier: BSD-3-Clause

package model

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/keymask"
)

// sources are those files of c/ that the driver is linked with; it includes
// queue.c itself.
var sources = []string{"module", "flow", "policy", "mirror", "demoted", "cluster", "slots", "nodes", "hashslot", "lent", "list", "record", "spool", "owner", "spooldir", "home", "hook", "extras", "value", "loop", "events", "dataset", "publisher", "shutdown", "match", "redisapi", "info", "slack", "args", "expire", "learn", "looks", "alarm", "watch", "deadlines", "slab", "scan", "snapshot", "lag"}

// trimSlice is how many elements a turn of the driver drops from the list more
// than it has stored.
const trimSlice = 16

// sourceDir has the C sources.
var sourceDir = filepath.Join("..", "..", "c")

// driverVariable names a driver that is built already: planted_test.go.
const driverVariable = "KEA_MODEL_DRIVER"

var driverPath string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if driverPath = os.Getenv(driverVariable); driverPath != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "kea-model-")
	if err == nil {
		defer os.RemoveAll(dir)
		driverPath = filepath.Join(dir, "flow_driver")
		err = compile(sourceDir, driverPath)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// compile builds the driver afresh, with the sanitizers: no cgo, whose cache
// would not see that a file of c/ has changed. CC names the compiler.
func compile(c, out string, flags ...string) error {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	args := []string{"@" + filepath.Join(c, "flags"), "-O1", "-g",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DKEA_FAULTS", fmt.Sprintf("-DKEA_TRIM_SLICE=%d", trimSlice),
		"-I" + filepath.Join(c, "test", "stub"), "-o", out, filepath.Join(c, "test", "flow_driver.c")}
	args = append(args, flags...)
	for _, name := range sources {
		args = append(args, filepath.Join(c, name+".c"))
	}
	// go test takes a result from its cache unless it knows what was read.
	for _, pattern := range []string{"flags", "*.[ch]", "test/*.[ch]", "test/stub/*.h"} {
		files, err := filepath.Glob(filepath.Join(c, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			if _, err := os.ReadFile(file); err != nil {
				return err
			}
		}
	}
	if text, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", cc, strings.Join(args, " "), err, text)
	}
	return nil
}

// id is an event's id; the zero id is an element that is not an event.
type id struct{ origin, seq uint64 }

// answer is what the driver shows after a request; c/test/flow_driver.c knows
// the names.
type answer struct {
	number map[string]int
	ids    map[string][]id
}

// driver is a running c/test/flow_driver.c. After it was broken, the next reset
// starts another.
type driver struct {
	dir     string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	stderr  bytes.Buffer
	pending int // requests that have no whole answer yet

	// step is called when a request has come to the armed step; it may make
	// requests of the publisher, and says whether to crash.
	step func(name string) (crash bool)
}

func newDriver(tb testing.TB) *driver {
	d := &driver{dir: tb.TempDir()}
	tb.Cleanup(func() { d.end() })
	return d
}

func (d *driver) start() error {
	masks, _, err := keymask.ParseList([][]byte{nil}) // an empty mask matches every key
	if err != nil {
		return err
	}
	set, err := keymask.Compile(masks...)
	if err != nil {
		return err
	}
	d.cmd = exec.Command(driverPath, d.dir, hex.EncodeToString(set.Program()))
	d.stderr.Reset()
	d.cmd.Stderr = &d.stderr
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	d.out = bufio.NewReaderSize(out, 1<<16)
	return d.cmd.Start()
}

// end ends the driver and returns what it has said.
func (d *driver) end() error {
	if d.cmd == nil {
		return nil
	}
	d.in.Close()
	err := d.cmd.Wait()
	d.cmd = nil
	if err != nil {
		return fmt.Errorf("%w: %s", err, d.stderr.Bytes())
	}
	return nil
}

// request sends one line and returns the answer.
func (d *driver) request(line string) (*answer, error) {
	if line == "reset" && d.pending > 0 {
		_ = d.end() // a check has failed in the middle of a request
	}
	if d.cmd == nil {
		d.pending = 0
		if err := d.start(); err != nil {
			return nil, err
		}
	}
	d.pending++
	if _, err := fmt.Fprintln(d.in, line); err != nil {
		return nil, d.broken(err)
	}
	a := &answer{number: map[string]int{}, ids: map[string][]id{}}
	for {
		text, err := d.readLine()
		if err != nil {
			return nil, d.broken(err)
		}
		text = strings.TrimSuffix(text, "\n")
		switch {
		case text == ".":
			d.pending--
			return a, nil
		case strings.HasPrefix(text, "broken "):
			return nil, d.broken(fmt.Errorf("%s", text))
		case strings.HasPrefix(text, "!"):
			verdict := "go"
			if d.step(text[1:]) {
				verdict = "crash"
			}
			if _, err := fmt.Fprintln(d.in, verdict); err != nil {
				return nil, d.broken(err)
			}
			continue
		}
		if err := a.read(text); err != nil {
			return nil, d.broken(err)
		}
	}
}

// hang is more than any turn takes: the main thread goes in circles.
const hang = time.Minute

func (d *driver) readLine() (string, error) {
	killer := time.AfterFunc(hang, func() { _ = d.cmd.Process.Kill() })
	text, err := d.out.ReadString('\n')
	if !killer.Stop() {
		return "", fmt.Errorf("broken: the driver has not answered for %v", hang)
	}
	return text, err
}

func (d *driver) broken(err error) error {
	if d.cmd == nil {
		return err
	}
	if said := d.end(); said != nil {
		return fmt.Errorf("%w; the driver: %w", err, said)
	}
	return err
}

// read takes in one line of an answer: a name, then a number or ranges of ids.
func (a *answer) read(text string) error {
	name, values, found := strings.Cut(text, " ")
	if n, err := strconv.Atoi(values); err == nil {
		a.number[name] = n
		return nil
	}
	ids := []id{}
	if found {
		for _, text := range strings.Fields(values) {
			var origin, from, to uint64
			if _, err := fmt.Sscanf(text, "%d:%d-%d", &origin, &from, &to); err != nil {
				return fmt.Errorf("%q: %w", text, err)
			}
			for seq := from; seq <= to; seq++ {
				ids = append(ids, id{origin, seq})
			}
		}
	}
	a.ids[name] = ids
	return nil
}
