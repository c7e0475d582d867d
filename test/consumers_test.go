// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// example is one of the consumers of examples/, as a program that is run again
// after it was killed.
type example struct {
	t       *testing.T
	command []string
	url     string
	out     string // what it has done, a line for each event
	log     string
	program *servers.Program
}

func goExample(t *testing.T) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "consumer-go")
	if out, err := exec.Command("go", "build", "-o", path, "../examples/consumer-go").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return []string{path}
}

// pythonExample finds a python3 that has pika: not always the first in PATH.
func pythonExample(t *testing.T, script string) []string {
	t.Helper()
	path, err := filepath.Abs("../examples/consumer-python/" + script)
	must(t, err)
	var tried []string
	for _, python := range []string{os.Getenv("KEA_PYTHON"), "python3", "/usr/bin/python3"} {
		if python == "" {
			continue
		}
		out, err := exec.Command(python, "-c", "import pika").CombinedOutput()
		if err == nil {
			return []string{python, path}
		}
		tried = append(tried, fmt.Sprintf("%s: %v %s", python, err, out))
	}
	t.Fatalf("no python3 has pika (test/install.sh installs python3-pika, and $KEA_PYTHON may name one):\n%s", strings.Join(tried, "\n"))
	return nil
}

// nodeExample copies the example into a folder where npm installs its library.
func nodeExample(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"consumer.js", "package.json"} {
		text, err := os.ReadFile("../examples/consumer-node/" + name)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	limit, stop := context.WithTimeout(ctx, 3*time.Minute)
	defer stop()
	npm := exec.CommandContext(limit, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm could not install amqplib, which the test needs; does its registry answer? %v\n%s", err, out)
	}
	return []string{"node", filepath.Join(dir, "consumer.js")}
}

func newExample(t *testing.T, port int, command ...string) *example {
	t.Helper()
	dir := t.TempDir()
	e := &example{t: t, out: filepath.Join(dir, "events.jsonl"), log: filepath.Join(dir, "log"),
		url: fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", port)}
	e.command = append(command, "--out", e.out)
	t.Cleanup(func() {
		if e.program != nil {
			e.program.Kill()
		}
		if t.Failed() {
			text := e.logged()
			t.Logf("the consumer's log:\n%s", text[max(0, len(text)-3000):])
		}
	})
	return e
}

// start starts it and waits until it says that it waits for events.
func (e *example) start() {
	e.t.Helper()
	before := strings.Count(e.logged(), "waiting for events")
	log, err := os.OpenFile(e.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(e.t, err)
	defer log.Close()
	cmd := exec.Command(e.command[0], e.command[1:]...)
	cmd.Env = append(os.Environ(), "AMQP_URL="+e.url)
	cmd.Stdout, cmd.Stderr = log, log
	e.program, err = servers.Run(cmd)
	must(e.t, err)
	eventually(e.t, func() error {
		if !e.program.Alive() {
			e.t.Fatalf("it has ended: %s", e.logged())
		}
		if strings.Count(e.logged(), "waiting for events") == before {
			return errors.New("it does not wait for events yet")
		}
		return nil
	})
}

// terminate ends it as an operator would.
func (e *example) terminate() {
	e.t.Helper()
	if code := e.program.Terminate(); code != 0 {
		e.t.Errorf("after SIGTERM its exit code is %d", code)
	}
}

func (e *example) logged() string {
	text, _ := os.ReadFile(e.log)
	return string(text)
}

func (e *example) says(what string) {
	e.t.Helper()
	eventually(e.t, func() error {
		if !strings.Contains(e.logged(), what) {
			return fmt.Errorf("its log has no %q", what)
		}
		return nil
	})
}

type processed struct {
	ID        string  `json:"id"`
	DB        int     `json:"db"`
	Event     string  `json:"event"`
	Key       *string `json:"key"`
	KeyBase64 []byte  `json:"key_base64"`
}

// body is the module's plain message again.
func (p *processed) body() string {
	key := string(p.KeyBase64)
	if p.Key != nil {
		key = *p.Key
	}
	return fmt.Sprintf("%d\n%s\n%s", p.DB, p.Event, key)
}

// did are the events that it has worked on, in order.
func (e *example) did() (all []processed) {
	e.t.Helper()
	text, err := os.ReadFile(e.out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(e.t, err)
	if at := bytes.LastIndexByte(text, '\n'); at >= 0 {
		text = text[:at+1]
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var p processed
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			e.t.Fatalf("%q: %v", lines.Text(), err)
		}
		all = append(all, p)
	}
	return all
}

// progresses waits until it has done more than now.
func (e *example) progresses() {
	e.t.Helper()
	size := func() int64 {
		info, err := os.Stat(e.out)
		must(e.t, err)
		return info.Size()
	}
	before := size()
	eventually(e.t, func() error {
		if size() == before {
			return errors.New("the consumer does nothing")
		}
		return nil
	})
}

// worked checks that it did exactly these, in order, each once.
func (e *example) worked(want []string) {
	e.t.Helper()
	eventually(e.t, func() error {
		text, _ := os.ReadFile(e.out)
		if n := bytes.Count(text, []byte("\n")); n < len(want) {
			return fmt.Errorf("%d of %d events are done", n, len(want))
		}
		return nil
	})
	got := e.did()
	ids := map[string]bool{}
	for i := range got {
		if i >= len(want) || got[i].body() != want[i] {
			e.t.Fatalf("event %d of %d is %q; %d were expected, this one %q", i, len(got), got[i].body(), len(want), want[min(i, len(want)-1)])
		}
		if ids[got[i].ID] {
			e.t.Fatalf("%s was done twice", got[i].ID)
		}
		ids[got[i].ID] = true
	}
}

// left is how many messages of a queue nobody has acknowledged, once no
// consumer holds any.
func left(t *testing.T, queue string) int {
	t.Helper()
	conn, err := broker.Dial()
	must(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(t, err)
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	must(t, err)
	return q.Messages
}

// exampleConsumers are the same consumer in each language.
var exampleConsumers = []struct {
	name    string
	command func(*testing.T) []string
}{
	{"Go", goExample},
	{"Python", func(t *testing.T) []string { return pythonExample(t, "consumer.py") }},
	{"Node", nodeExample},
}

func TestExampleConsumersWorkOnceForEachEvent(t *testing.T) {
	for _, kind := range exampleConsumers {
		t.Run(kind.name, func(t *testing.T) { exampleWorksOnce(t, kind.command(t)) })
	}
}

// A drop makes a hole in the numbers of the ids; the examples see it, and see
// none where nothing was dropped.
func TestExampleConsumersReportHoles(t *testing.T) {
	for _, kind := range exampleConsumers {
		t.Run(kind.name, func(t *testing.T) {
			r, p := proxied(t, options{events: "$", limit: "5"})
			queue := r.name + "-example"
			e := newExample(t, broker.Port, append(kind.command(t), "--queue", queue, "--exchange", "amq.direct", "--routing-key", r.name)...)
			e.start()
			r.sets("before", 3)
			e.worked(setBodies("before", 3))
			r.balanced(0, 0)
			p.Cut()
			r.until("state", is("backoff"))
			r.sets("k", 20)
			r.until("events_dropped", is("15"))
			must(t, p.Mend())
			want := append(setBodies("before", 3), setBodies("k", 20)[15:]...)
			e.worked(want)
			e.says("15 events are missing before")
			if e.terminate(); strings.Count(e.logged(), "missing") != 1 {
				t.Error("it has seen a hole where there is none")
			}
			// What came last is known after a restart, too.
			e.start()
			r.sets("after", 3)
			e.worked(append(want, setBodies("after", 3)...))
			if e.terminate(); strings.Count(e.logged(), "missing") != 1 {
				t.Error("it has seen a hole after a restart")
			}
			r.balanced(0, 15)
		})
	}
}

func exampleWorksOnce(t *testing.T, command []string) {
	r, modules := proxied(t, options{events: "$"})
	consumers, err := servers.NewProxy(fmt.Sprintf("127.0.0.1:%d", broker.Port))
	must(t, err)
	t.Cleanup(consumers.Cut)
	queue := r.name + "-example"
	e := newExample(t, consumers.Port, append(command, "--queue", queue, "--exchange", "amq.direct", "--routing-key", r.name)...)
	e.start()

	var want []string
	stop, load := make(chan struct{}), servers.Group{}
	load.Go(func() {
		for n := 0; ; n++ {
			// A load that does not end, but waits for who reads it.
			for len(want)-len(r.queue.Messages()) > 2000 {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			pipe := r.Pipeline()
			for i := range 100 {
				key := fmt.Sprintf("key %d-%d", n, i)
				if i%10 == 0 { // of any bytes
					key = fmt.Sprintf("\xff\x00\n%d\n%d ü", n, i)
				}
				pipe.Set(ctx, key, "v", 0)
				want = append(want, "0\nset\n"+key)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				t.Error(err)
				return
			}
		}
	})
	ends := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer ends()

	// Cut both links until messages have come twice from the module, and
	// the example has seen some twice.
	eventually(t, func() error {
		r.until("state", is("connected"))
		e.progresses()
		modules.Cut()
		consumers.Cut()
		must(t, modules.Mend())
		must(t, consumers.Mend())
		if r.queue.Duplicates() == 0 || !strings.Contains(e.logged(), "duplicate") {
			return errors.New("no duplicates yet")
		}
		return nil
	})
	e.progresses()
	e.program.Kill()
	// As if the kill had come amidst a line.
	half, err := os.OpenFile(e.out, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = half.WriteString(`{"id":"half a li`)
	must(t, err)
	must(t, half.Close())
	e.start()
	ends()
	e.worked(want)
	e.terminate()

	// A message that is not an event must not stop those behind it.
	conn, err := broker.Dial()
	must(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(t, err)
	must(t, ch.Publish("", queue, false, false, lib.Publishing{MessageId: "nonsense", Body: []byte("no event\nat all")}))
	r.do("SET", "last", "v")
	e.start()
	e.says("rejected")
	want = append(want, "0\nset\nlast")
	e.worked(want)
	e.terminate()
	if n := left(t, queue); n != 0 {
		t.Errorf("%d messages are not acknowledged", n)
	}
	r.balanced(0, 0)
	t.Logf("%d events; duplicates: %d from the module, %d seen by the consumer", len(want), r.queue.Duplicates(), strings.Count(e.logged(), "duplicate"))
}

func TestExampleTakesOverAPubSubListener(t *testing.T) {
	// The lines of docs/migrating.md.
	r := start(t, options{events: "Ex", silent: true, config: []string{
		"notify-keyspace-events Ex", prefix + "exchange_name amq.topic", prefix + "mandatory no"}})
	queue := r.name
	e := newExample(t, broker.Port, append(pythonExample(t, "expired.py"), "--queue", queue)...)
	e.start()
	listener := r.Subscribe(ctx, "__keyevent@0__:expired")
	defer listener.Close()
	_, err := listener.Receive(ctx)
	must(t, err)
	heard := listener.Channel()

	var want []string
	expire := func(n int) {
		t.Helper()
		other := r.Conn()
		defer other.Close()
		must(t, other.Select(ctx, 1).Err())
		for i := range n {
			// Of a database that nobody listens to: discarded, as with Pub/Sub.
			must(t, other.Do(ctx, "SET", fmt.Sprint("elsewhere", i), "v", "PX", "1").Err())
			r.do("SET", fmt.Sprintf("session %d \xff\x00\n", len(want)+i), "v", "PX", "1")
		}
		for range n {
			select {
			case m := <-heard:
				if m.Channel != "__keyevent@0__:expired" {
					t.Errorf("heard %q", m.Channel)
				}
				want = append(want, "0\nexpired\n"+m.Payload)
			case <-time.After(patience):
				t.Fatal("Redis's own notification does not come")
			}
		}
		must(t, other.Select(ctx, 0).Err())
	}
	expire(50)
	e.worked(want)
	// While it is away Pub/Sub's listener would miss them.
	e.program.Kill()
	expire(50)
	e.start()
	e.worked(want)
	e.terminate()
	if n := left(t, queue); n != 0 {
		t.Errorf("%d messages are not acknowledged", n)
	}
	r.balanced(0, 0)
}
