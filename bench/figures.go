// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// figures are the raw figures of one round, by name; the name ends in the unit.
type figures map[string]float64

// group is what is measured together: its cases take turns within a round.
type group struct {
	name   string
	cases  func(b *rig) []measure
	seldom bool // every other round is enough: no ratio is taken of it
}

// measure takes one case's figures.
type measure func(f figures) error

var groups = []group{
	{"main", mainThread, false},
	{"overload", overload, false},
	{"delivery", delivery, false},
	{"moderate", moderate, false},
	{"latency", latency, false},
	{"drain", drain, false},
	{"memory", memory, false},
	{"idle", idle, false},
	{"growth", growth, true},
	{"windows", windows, true},
	{"buffers", buffers, true},
	{"micro", micro, true},
}

func many(n int, format string) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// ---- delivery

// delivery measures events a second from the first SET to the last confirm, and
// what they cost.
func delivery(b *rig) (out []measure) {
	for _, k := range kinds {
		out = append(out,
			func(f figures) error { return deliver(b, f, "delivery, "+k.name, k, b.scale(200000), 0, nil) },
			func(f figures) error { return deliverPlain(b, f, "delivery, "+k.name, k, b.scale(200000), 0) })
	}
	return out
}

func deliver(b *rig, f figures, name string, k kind, n, size int, masks []string, lines ...string) error {
	queue, drop, err := b.queue(k)
	if err != nil {
		return err
	}
	r, err := b.load(loading{queue: queue, mode: k.mode, masks: masks, lines: lines})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := connect(r); err != nil {
		return err
	}
	if err := warmUp(r, 2000, size); err != nil {
		return err
	}
	before, err := redisUsage(r)
	if err != nil {
		return err
	}
	w, begun := startWatch(), time.Now()
	if err := sets(r, n, n, size, 50, 0); err != nil {
		return err
	}
	if err := until(r, "events_confirmed", 2000+n, patience); err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	after, err := redisUsage(r)
	if err != nil {
		return err
	}
	used := after.minus(before)
	f[name+", module others, cores"] = w.others()
	f[name+", module events/s"] = float64(n) / took
	f[name+", module cost, us/event"] = used.others() * 1e6 / float64(n)
	f[name+", module main thread, us/event"] = used.main * 1e6 / float64(n)
	return drop()
}

// warmUp makes some events and waits until they are confirmed.
func warmUp(r *servers.Redis, n, size int) error {
	if err := sets(r, n, n, size, 50, 0); err != nil {
		return err
	}
	return until(r, "events_confirmed", n, patience)
}

func deliverPlain(b *rig, f figures, name string, k kind, n, size int) error {
	queue, drop, err := b.queue(k)
	if err != nil {
		return err
	}
	w := startWatch()
	done, err := runPlain(order{URI: b.broker.URI(), Key: queue, Mode: k.mode, Events: n, Size: size, Window: 2000})
	if err != nil {
		return err
	}
	f[name+", plain others, cores"] = w.others()
	f[name+", plain events/s"] = float64(n) / done.Seconds
	f[name+", plain cost, us/event"] = done.CPU * 1e6 / float64(n)
	return drop()
}

// ---- moderate load

// moderate measures what an event costs at rates that everybody keeps up with,
// as bursts a thousand times a second.
func moderate(b *rig) (out []measure) {
	for _, rate := range []int{1000, 10000} {
		n := int(b.seconds(5) * float64(rate))
		burst := rate / 1000
		name := fmt.Sprintf("moderate, %d/s", rate)
		out = append(out,
			func(f figures) error { return moderateModule(b, f, name, n, burst, float64(rate)) },
			func(f figures) error {
				queue, drop, err := b.queue(kinds[1])
				if err != nil {
					return err
				}
				w := startWatch()
				done, err := runPlain(order{URI: b.broker.URI(), Key: queue, Mode: 1, Events: n,
					Rate: float64(rate), Burst: burst, Window: 2000})
				if err != nil {
					return err
				}
				f[name+", plain others, cores"] = w.others()
				f[name+", plain cost, us/event"] = done.CPU * 1e6 / float64(n)
				return drop()
			},
			func(f figures) error { return moderateBare(b, f, name, n, burst, float64(rate)) })
	}
	return out
}

func moderateModule(b *rig, f figures, name string, n, burst int, rate float64) error {
	queue, drop, err := b.queue(kinds[1])
	if err != nil {
		return err
	}
	r, err := b.load(loading{queue: queue})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := connect(r); err != nil {
		return err
	}
	if err := warmUp(r, 500, 0); err != nil {
		return err
	}
	used, others, err := pacedUsage(r, n, burst, rate)
	if err != nil {
		return err
	}
	if err := until(r, "events_confirmed", 500+n, patience); err != nil {
		return err
	}
	f[name+", module others, cores"] = others
	f[name+", module cost, us/event"] = used.others() * 1e6 / float64(n)
	f[name+", module main thread, us/event"] = used.main * 1e6 / float64(n)
	return drop()
}

func moderateBare(b *rig, f figures, name string, n, burst int, rate float64) error {
	r, err := b.start()
	if err != nil {
		return err
	}
	defer r.Close()
	used, others, err := pacedUsage(r, n, burst, rate)
	f[name+", bare others, cores"] = others
	f[name+", bare main thread, us/event"] = used.main * 1e6 / float64(n)
	return err
}

func pacedUsage(r *servers.Redis, n, burst int, rate float64) (usage, float64, error) {
	before, err := redisUsage(r)
	if err != nil {
		return usage{}, 0, err
	}
	w := startWatch()
	if err := sets(r, n, 100000, 0, burst, rate); err != nil {
		return usage{}, 0, err
	}
	after, err := redisUsage(r)
	return after.minus(before), w.others(), err
}

// ---- latency

// latency measures, one at a time, from SET sent to message received, and from
// publish to message received.
func latency(b *rig) []measure {
	return []measure{func(f figures) error { return latencyOf(b, f, "latency") }}
}

func latencyOf(b *rig, f figures, name string) error {
	n := b.scale(2000)
	queue, drop, err := b.queue(kinds[1])
	if err != nil {
		return err
	}
	r, err := b.load(loading{queue: queue})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := connect(r); err != nil {
		return err
	}
	p, err := newPingPong(b, r, queue)
	if err != nil {
		return err
	}
	defer p.close()
	w := startWatch()
	var module, direct, ping samples
	// In turn, so that both meet the same machine; with a pause, so that
	// it is a low rate.
	for i := range n {
		time.Sleep(3 * time.Millisecond)
		a, d, g, err := p.each(i)
		if err != nil {
			return err
		}
		if i >= n/10 {
			module, direct, ping = append(module, a), append(direct, d), append(ping, g)
		}
	}
	f[name+" others, cores"] = w.others()
	f[name+", module p50, us"], f[name+", module p99, us"] = module.quantile(0.5), module.quantile(0.99)
	f[name+", PING p50, us"] = ping.quantile(0.5)
	f[name+", direct p50, us"], f[name+", direct p99, us"] = direct.quantile(0.5), direct.quantile(0.99)
	return drop()
}

// ---- drain

// drain measures how a long list is delivered when the broker is back, and what
// commands wait meanwhile.
func drain(b *rig) []measure {
	k := kinds[1]
	return []measure{
		func(f figures) error {
			n := b.scale(1000000)
			used, took, err := drained(b, f, "drain", n, nil)
			f["drain, module events/s"] = float64(n) / took
			f["drain, module cost, us/event"] = used.others() * 1e6 / float64(n)
			f["drain, module main thread, us/event"] = used.main * 1e6 / float64(n)
			return err
		},
		func(f figures) error {
			return deliver(b, f, "drain, delivery of as many", k, b.scale(1000000), 0, nil)
		},
		func(f figures) error {
			// Fewer: only the commands' latency is measured, and measuring
			// it takes some of the machine.
			commands := samples{}
			_, _, err := drained(b, f, "drain and commands", b.scale(300000), &commands)
			f["drain, module p99, us"] = commands.quantile(0.99)
			f["drain, module p50, us"] = commands.quantile(0.5)
			f["drain, module worst, us"] = commands.quantile(1)
			return err
		},
		func(f figures) error {
			// The machine as busy, Redis as it is: a plain publisher
			// keeps the broker at work meanwhile.
			queue, drop, err := b.queue(k)
			if err != nil {
				return err
			}
			r, err := b.start()
			if err != nil {
				return err
			}
			defer r.Close()
			probe := startProbe(r)
			if _, err := runPlain(order{URI: b.broker.URI(), Key: queue, Mode: k.mode, Events: b.scale(200000), Window: 2000}); err != nil {
				return err
			}
			commands, err := probe.stop()
			if err != nil {
				return err
			}
			f["drain, bare p99, us"] = commands.quantile(0.99)
			f["drain, bare p50, us"] = commands.quantile(0.5)
			f["drain, bare worst, us"] = commands.quantile(1)
			if err := drop(); err != nil {
				return err
			}
			// And with nobody at work.
			probe = startProbe(r)
			time.Sleep(time.Duration(b.seconds(3) * float64(time.Second)))
			if commands, err = probe.stop(); err != nil {
				return err
			}
			f["drain, bare and quiet p99, us"] = commands.quantile(0.99)
			return nil
		},
	}
}

// fill makes n events go into the list.
// drained stores n events, then lets the broker be there, and measures what is
// used and how many seconds it takes until all are confirmed. commands, unless
// it is nil, gets the latencies of a PING each millisecond meanwhile.
func drained(b *rig, f figures, name string, n int, commands *samples) (used usage, took float64, err error) {
	k := kinds[1]
	queue, drop, err := b.queue(k)
	if err != nil {
		return used, 0, err
	}
	r, err := b.load(loading{queue: queue, mode: k.mode, port: unreachable})
	if err != nil {
		return used, 0, err
	}
	defer r.Close()
	if err := fill(r, n, 0); err != nil {
		return used, 0, err
	}
	before, err := redisUsage(r)
	if err != nil {
		return used, 0, err
	}
	var p *probe
	if commands != nil {
		p = startProbe(r)
	}
	w, begun := startWatch(), time.Now()
	if err := r.ConfigSet(ctx, "key_evt_amqp.port", fmt.Sprint(b.broker.Port)).Err(); err != nil {
		return used, 0, err
	}
	if err := connect(r); err != nil {
		return used, 0, err
	}
	if err := until(r, "events_confirmed", n, patience); err != nil {
		return used, 0, err
	}
	took = time.Since(begun).Seconds()
	f[name+" others, cores"] = w.others()
	if p != nil {
		if *commands, err = p.stop(); err != nil {
			return used, 0, err
		}
	}
	after, err := redisUsage(r)
	if err != nil {
		return used, 0, err
	}
	return after.minus(before), took, drop()
}

func fill(r *servers.Redis, n, size int) error {
	if err := sets(r, n, 100000, size, 50, 0); err != nil {
		return err
	}
	return until(r, "fallback_length", n, patience)
}

// ---- memory

// memory measures what a stored event takes above its body.
func memory(b *rig) []measure {
	return []measure{func(f figures) error {
		return storedBytes(b, f, "memory", b.scale(200000), 0)
	}}
}

func storedBytes(b *rig, f figures, name string, n, size int) error {
	r, err := b.load(loading{queue: "none", port: unreachable, masks: []string{}})
	if err != nil {
		return err
	}
	defer r.Close()
	// The keys first, so that they don't count.
	if err := sets(r, n, n, size, 50, 0); err != nil {
		return err
	}
	before, err := usedMemory(r)
	if err != nil {
		return err
	}
	if err := r.Do(ctx, "key_evt_amqp.keymask_set", "ALL").Err(); err != nil {
		return err
	}
	if err := sets(r, n, n, size, 50, 0); err != nil {
		return err
	}
	if err := until(r, "fallback_length", n, patience); err != nil {
		return err
	}
	after, err := usedMemory(r)
	if err != nil {
		return err
	}
	f[name+" above the body, bytes/event"] = (after-before)/float64(n) - float64(len("0\nset\n"+key(0, size)))
	return nil
}

func usedMemory(r *servers.Redis) (float64, error) {
	text, err := r.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(text, "used_memory:")
	var n float64
	_, err = fmt.Sscan(rest, &n)
	return n, err
}

// ---- idle

// idle measures the CPU of a server that does nothing, and its threads.
func idle(b *rig) []measure {
	wait := func(f figures, name string, r *servers.Redis) error {
		settle()
		before, err := redisUsage(r)
		if err != nil {
			return err
		}
		w := startWatch()
		time.Sleep(time.Duration(b.seconds(11) * float64(time.Second)))
		after, err := redisUsage(r)
		if err != nil {
			return err
		}
		f[name+" others, cores"] = w.others()
		f[name+" CPU, ms/s"] = after.minus(before).all * 1e3 / time.Since(w.begun).Seconds()
		n, err := threads(r.Pid())
		f[name+" threads"] = float64(n)
		return err
	}
	return []measure{
		func(f figures) error {
			r, err := b.start()
			if err != nil {
				return err
			}
			defer r.Close()
			return wait(f, "idle, bare", r)
		},
		func(f figures) error {
			queue, drop, err := b.queue(kinds[1])
			if err != nil {
				return err
			}
			r, err := b.load(loading{queue: queue})
			if err != nil {
				return err
			}
			defer r.Close()
			if err := connect(r); err != nil {
				return err
			}
			// As it is after some work.
			if err := warmUp(r, b.scale(20000), 0); err != nil {
				return err
			}
			if err := wait(f, "idle, module", r); err != nil {
				return err
			}
			return drop()
		},
	}
}

// derive adds sums and differences of a round's figures.
func derive(f figures) {
	if p, ok := f["latency, PING p50, us"]; ok {
		f["latency, PING and direct p50, us"] = p + f["latency, direct p50, us"]
	}
	for _, unit := range []string{"CPU, ms/s", "threads"} {
		module, ok := f["idle, module "+unit]
		if ok {
			f["idle, module more "+unit] = module - f["idle, bare "+unit]
		}
	}
}
