// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// turns is in how many pieces the servers that a broker does not disturb are
// measured, one after the other: they meet the same machine.
const turns = 10

// mainThread measures Redis's main thread: its CPU time for each SET.
func mainThread(b *rig) []measure {
	return []measure{
		func(f figures) error { return quietMain(b, f) },
		func(f figures) error { return busyFloor(b, f) },
		func(f figures) error {
			return captured(b, f, "captured, broker slower", kinds[1], b.scale(1000000), loading{})
		},
		func(f figures) error {
			return captured(b, f, "outbox", kinds[1], b.scale(1000000), loading{lines: []string{"key_evt_amqp.outbox yes"}})
		},
		func(f figures) error { return keepingUp(b, f, "floor, paced", false) },
		func(f figures) error { return keepingUp(b, f, "captured, broker keeps up", true) },
	}
}

// quietMain measures the servers that no broker works for.
func quietMain(b *rig, f figures) error {
	idle := func(masks ...string) func() (*servers.Redis, error) {
		return func() (*servers.Redis, error) {
			return b.load(loading{queue: "none", port: unreachable, masks: append([]string{}, masks...)})
		}
	}
	cases := []struct {
		name  string
		start func() (*servers.Redis, error)
	}{
		{"bare", func() (*servers.Redis, error) { return b.start() }},
		{"floor", func() (*servers.Redis, error) { return b.start("loadmodule " + b.floor) }},
		{"native AKE", func() (*servers.Redis, error) { return b.start("notify-keyspace-events AKE") }},
		{"no mask", idle()},
		{"1 mask, none matches", idle("^other:")},
		{"100 masks, none matches", idle(many(100, "^other%d:.*name$")...)},
		{"captured, broker away", idle("ALL")},
	}
	up := make([]*servers.Redis, len(cases))
	defer func() {
		for _, r := range up {
			if r != nil {
				r.Close()
			}
		}
	}()
	for i, c := range cases {
		var err error
		if up[i], err = c.start(); err != nil {
			return err
		}
		// The keys exist, the allocator is warm.
		if _, err := redisBenchmark(up[i], b.scale(200000)); err != nil {
			return err
		}
	}
	n := b.scale(2000000) / turns
	used := make([]float64, len(cases))
	for turn := range turns {
		for k := range cases {
			i := (k + turn) % len(cases)
			u, _, err := mainUsage(up[i], n)
			if err != nil {
				return err
			}
			used[i] += u
		}
	}
	for i, c := range cases {
		f[c.name+" main thread, ns/SET"] = used[i] * 1e9 / float64(n*turns)
	}
	return nil
}

// mainUsage is the main thread's CPU for n SETs of redis-benchmark, in seconds.
func mainUsage(r *servers.Redis, n int) (float64, benchmarked, error) {
	before, err := redisUsage(r)
	if err != nil {
		return 0, benchmarked{}, err
	}
	result, err := redisBenchmark(r, n)
	if err != nil {
		return 0, result, err
	}
	after, err := redisUsage(r)
	return after.minus(before).main, result, err
}

// pipelined measures one server alone.
func pipelined(b *rig, f figures, name string, r *servers.Redis, n int) error {
	if _, err := redisBenchmark(r, b.scale(200000)); err != nil {
		return err
	}
	w := startWatch()
	used, result, err := mainUsage(r, n)
	if err != nil {
		return err
	}
	f[name+" others, cores"] = w.others()
	f[name+" main thread, ns/SET"] = used * 1e9 / float64(n)
	f[name+" SETs/s"] = result.perSecond
	f[name+" p99, ms"] = result.p99
	f[name+" worst, ms"] = result.worst
	f[name+" resident, MiB"] = resident(r.Pid()) / (1 << 20)
	return nil
}

// captured measures the module connected to a broker that takes what it can.
func captured(b *rig, f figures, name string, k kind, n int, l loading) error {
	queue, drop, err := b.queue(k)
	if err != nil {
		return err
	}
	l.queue, l.mode = queue, k.mode
	r, err := b.load(l)
	if err != nil {
		return err
	}
	if err = connect(r); err == nil {
		err = pipelined(b, f, name, r, n)
	}
	r.Close()
	if err != nil {
		return err
	}
	return drop()
}

// withPlain runs f while a plain publisher keeps the broker at work.
func withPlain(b *rig, k kind, f func() error) error {
	queue, drop, err := b.queue(k)
	if err != nil {
		return err
	}
	wait, cmd, err := startPlain(order{URI: b.broker.URI(), Key: queue, Mode: k.mode, Events: 2000000, Window: 2000})
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // it has prepared its messages
	err = f()
	_ = cmd.Process.Kill()
	_, _ = wait()
	if err != nil {
		return err
	}
	return drop()
}

// busyFloor measures bare Redis and the floor while the cores are as busy as
// under the module: with a plain publisher and the broker.
func busyFloor(b *rig, f figures) error {
	for name, lines := range map[string][]string{"bare, busy": nil, "floor, busy": {"loadmodule " + b.floor}} {
		err := withPlain(b, kinds[1], func() error {
			r, err := b.start(lines...)
			if err != nil {
				return err
			}
			defer r.Close()
			return pipelined(b, f, name, r, b.scale(1000000))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keepingUp measures the same at a rate that the broker takes: 400 pipelines of
// 50 a second.
func keepingUp(b *rig, f figures, name string, module bool) error {
	const rate = 20000
	queue, drop, err := b.queue(kinds[1])
	if err != nil {
		return err
	}
	var r *servers.Redis
	if module {
		if r, err = b.load(loading{queue: queue}); err == nil {
			err = connect(r)
		}
	} else {
		r, err = b.start("loadmodule " + b.floor)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	n := int(b.seconds(5) * rate)
	if err := sets(r, n/5, 100000, 0, 50, rate); err != nil {
		return err
	}
	used, others, err := pacedUsage(r, n, 50, rate)
	if err != nil {
		return err
	}
	f[name+" others, cores"] = others
	f[name+" main thread, ns/SET"] = used.main * 1e9 / float64(n)
	if module {
		stored, err := number(r, "events_stored")
		if err != nil || stored != 0 {
			return fmt.Errorf("the broker did not keep up: %d events stored, %v", stored, err)
		}
	}
	return drop()
}

// overload measures throughput and latency of redis-benchmark while RabbitMQ
// takes what it can.
func overload(b *rig) []measure {
	n := b.scale(3000000)
	out := []measure{
		func(f figures) error {
			r, err := b.start()
			if err != nil {
				return err
			}
			defer r.Close()
			return pipelined(b, f, "overload, bare", r, n)
		},
	}
	for _, k := range kinds[:2] {
		name := "overload, " + k.name
		out = append(out, func(f figures) error { return captured(b, f, name+", module", k, n, loading{}) })
	}
	return out
}
