// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

var ctx = context.Background()

// rig is what all measurements share: a broker, the built modules, how much to
// do.
type rig struct {
	root   string // of the repository
	module string
	floor  string
	dir    string
	broker *servers.Broker
	pinned pinning
	quick  bool
	queues int
}

func newRig(root, module string, quick bool) (*rig, error) {
	b := &rig{root: root, quick: quick}
	var err error
	// First of all: what is started inherits it.
	if b.pinned, err = pin(); err != nil {
		return nil, err
	}
	if b.module, err = filepath.Abs(module); err != nil {
		return nil, err
	}
	if _, err = os.Stat(b.module); err != nil {
		return nil, fmt.Errorf("%w (make builds it)", err)
	}
	if b.dir, err = os.MkdirTemp("", "kea-bench-"); err != nil {
		return nil, err
	}
	b.floor = filepath.Join(b.dir, "floor.so")
	if err = b.compile(b.floor, "-shared", "-fPIC", "bench/floor/floor.c", "c/redisapi.c"); err != nil {
		return nil, err
	}
	if b.broker, err = servers.NewBroker(); err != nil {
		return nil, err
	}
	return b, b.broker.Start()
}

// compile runs the C compiler in the repository's folder.
func (b *rig) compile(out string, args ...string) error {
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	cmd := exec.Command(cc, append([]string{"@c/flags", "-O2", "-Ic", "-o", out}, args...)...)
	cmd.Dir = b.root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cc, err, text)
	}
	// The server refuses a module without an x bit.
	return os.Chmod(out, 0o755)
}

func (b *rig) close() {
	if b.broker != nil {
		b.broker.Close()
	}
	os.RemoveAll(b.dir)
}

// scale makes less of a number of events in a smoke run.
func (b *rig) scale(n int) int {
	if b.quick {
		return max(n/100, 1000)
	}
	return n
}

// seconds makes less of a time in a smoke run.
func (b *rig) seconds(s float64) float64 {
	if b.quick {
		return s / 10
	}
	return s
}

// kind is a queue, and how messages are sent to it.
type kind struct {
	name string
	mode uint8
	args lib.Table
}

var kinds = []kind{
	{"persistent, classic queue", 2, nil},
	{"transient, classic queue", 1, nil},
	{"quorum queue", 2, lib.Table{"x-queue-type": "quorum"}},
}

// queue declares a queue bound to amq.direct by its own name; drop deletes it.
func (b *rig) queue(k kind) (name string, drop func() error, err error) {
	b.queues++
	name = fmt.Sprintf("bench%d", b.queues)
	if err := b.broker.Bind(name, "amq.direct", name, k.args); err != nil {
		return "", nil, err
	}
	return name, func() error {
		c, err := b.broker.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		_, err = ch.QueueDelete(name, false, false, false)
		settle()
		return err
	}, nil
}

// loading is how the module is loaded.
type loading struct {
	queue string
	mode  uint8
	masks []string // nil: ALL
	port  int      // 0: the broker's; unreachable for one that is not there
	lines []string // more of redis.conf
}

// unreachable is a port where no broker is.
const unreachable = 1

// start starts a Redis with these lines of redis.conf.
func (b *rig) start(lines ...string) (*servers.Redis, error) {
	r, err := servers.NewRedis(lines...)
	if err != nil {
		return nil, err
	}
	if err = r.Start(); err == nil {
		err = r.Alive()
	}
	if err == nil {
		err = b.pinned.redis(r.Pid())
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// load starts a Redis with the module.
func (b *rig) load(l loading) (*servers.Redis, error) {
	if l.masks == nil {
		l.masks = []string{"ALL"}
	}
	if l.port == 0 {
		l.port = b.broker.Port
	}
	line := fmt.Sprintf("loadmodule %s A 127.0.0.1 %d guest guest 20 amq.direct %s %d 0",
		b.module, l.port, l.queue, max(l.mode, 1))
	for _, mask := range l.masks {
		line += " " + mask
	}
	return b.start(append([]string{line}, l.lines...)...)
}

// number reads a field of INFO key_evt_amqp.
func number(r *servers.Redis, field string) (int, error) {
	info, err := r.ModuleInfo()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(info[field])
}

// until polls a field of INFO key_evt_amqp: soon at first, then seldom, for each
// look takes some of the machine from what is measured.
func until(r *servers.Redis, field string, least int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		n, err := number(r, field)
		if err != nil || n >= least {
			return err
		}
		if time.Now().After(deadline) {
			info, _ := r.ModuleInfo()
			return fmt.Errorf("%s is %d after %v, not %d: %v", field, n, limit, least, info)
		}
		time.Sleep(pause)
	}
}

func connect(r *servers.Redis) error { return r.Do(ctx, "key_evt_amqp.connect").Err() }

const patience = 5 * time.Minute
