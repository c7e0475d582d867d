// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// sizes are of keys, in bytes; lengths of the list, in events.
var (
	keySizes    = []int{10, 100, 1024}
	maskCounts  = []int{1, 10, 100}
	listLengths = []int{1, 10, 100, 1000, 10000, 100000, 1000000}
	windowSizes = []int{512, 1024, 2048, 4096}
	bufferSizes = []int{1, 16, 64, 256} // MiB
)

// growth measures how figures grow with masks, keys and the list.
func growth(b *rig) (out []measure) {
	for _, n := range maskCounts {
		for _, shape := range []struct{ name, format string }{
			{"prefixes", "^other%d:"}, {"with stars", "^other%d:.*name$"}, {"literals anywhere", "other%d"},
		} {
			out = append(out, func(f figures) error {
				r, err := b.load(loading{queue: "none", port: unreachable, masks: many(n, shape.format)})
				if err != nil {
					return err
				}
				defer r.Close()
				used, _, err := mainUsage(r, b.scale(300000))
				f[fmt.Sprintf("growth, %d masks, %s main thread, ns/SET", n, shape.name)] = used * 1e9 / float64(b.scale(300000))
				return err
			})
		}
		out = append(out, func(f figures) error {
			masks := append(many(n-1, "^other%d:.*name$"), "^key")
			k := kinds[1]
			return deliver(b, f, fmt.Sprintf("growth, %d masks", n), k, b.scale(50000), 0, masks)
		})
	}
	for _, size := range keySizes {
		name := fmt.Sprintf("growth, keys of %d B", size)
		k := kinds[1]
		out = append(out,
			func(f figures) error { return deliver(b, f, name, k, b.scale(50000), size, nil) },
			func(f figures) error { return deliverPlain(b, f, name, k, b.scale(50000), size) },
			func(f figures) error { return storedBytes(b, f, name, b.scale(50000), size) },
			func(f figures) error { return sized(b, f, name, size) })
	}
	for _, n := range listLengths {
		if b.quick {
			n = min(n, 10000)
		}
		out = append(out, func(f figures) error {
			name := fmt.Sprintf("growth, list of %d drained", n)
			_, took, err := drained(b, f, name, n, nil)
			f[name+" in, ms"] = took * 1e3
			return err
		})
	}
	return out
}

// sized measures the main thread for keys of a size: bare, filtered, stored.
func sized(b *rig, f figures, name string, size int) error {
	for _, c := range []struct {
		name  string
		masks []string
	}{{"bare", nil}, {"filtered", []string{"^other:"}}, {"stored", []string{"ALL"}}} {
		n := b.scale(300000)
		start := func() (*servers.Redis, error) { return b.start() }
		if c.masks != nil {
			start = func() (*servers.Redis, error) {
				return b.load(loading{queue: "none", port: unreachable, masks: c.masks})
			}
		}
		r, err := start()
		if err != nil {
			return err
		}
		err = func() error {
			defer r.Close()
			if err := sets(r, 20000, 20000, size, 50, 0); err != nil {
				return err
			}
			before, err := redisUsage(r)
			if err != nil {
				return err
			}
			if err := sets(r, n, 20000, size, 50, 0); err != nil {
				return err
			}
			after, err := redisUsage(r)
			f[name+", "+c.name+" main thread, ns/SET"] = after.minus(before).main * 1e9 / float64(n)
			return err
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

// windows measures delivery by max_inflight; buffers Redis under overload by
// buffer_limit.
func windows(b *rig) (out []measure) {
	for _, k := range kinds {
		for _, n := range windowSizes {
			out = append(out, func(f figures) error {
				return deliver(b, f, fmt.Sprintf("window %d, %s", n, k.name), k, b.scale(60000), 0, nil,
					fmt.Sprintf("key_evt_amqp.max_inflight %d", n))
			})
		}
	}
	return out
}

func buffers(b *rig) (out []measure) {
	for _, mib := range bufferSizes {
		out = append(out, func(f figures) error {
			return captured(b, f, fmt.Sprintf("buffer %d MiB", mib), kinds[1], b.scale(2000000),
				loading{lines: []string{fmt.Sprintf("key_evt_amqp.buffer_limit %d", mib<<20)}})
		})
	}
	return out
}
