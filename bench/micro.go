// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/key-evt-amqp/key_evt_amqp/keymask"
)

// part is one kind of mask whose callback is timed.
type part struct {
	name  string
	masks []string // nil: none at all
}

var parts = []part{
	{"no mask", nil},
	{"ALL, captured", []string{""}},
	{"prefix, captured", []string{"^session:"}},
	{"other prefix", []string{"^user:"}},
	{"suffix", []string{":name$"}},
	{"literal anywhere", []string{"name"}},
	{"any byte inside", []string{"n.me"}},
	{"both ends", []string{"^session:.*:name$"}},
	{"stars anywhere", []string{"use*r:.*name"}},
	{"100 other prefixes", many(100, "^user%d:")},
	{"100 literals anywhere", many(100, "user%d")},
	{"100 with stars, other prefixes", many(100, "^user%d:.*name$")},
	{"100 with stars, same prefix", many(100, "^session:.*name%d")},
}

var partSizes = []int{16, 100, 1024}

// micro times the main thread's parts by themselves.
func micro(b *rig) []measure {
	return []measure{func(f figures) error {
		program := filepath.Join(b.dir, "micro")
		if err := b.compile(program, "bench/micro/micro.c", "c/hook.c", "c/extras.c", "c/value.c", "c/home.c", "c/slots.c", "c/nodes.c", "c/hashslot.c", "c/queue.c", "c/record.c", "c/match.c", "c/redisapi.c"); err != nil {
			return err
		}
		for _, p := range parts {
			if err := p.time(f, program); err != nil {
				return err
			}
		}
		out, err := exec.Command(program, "queue", "64").Output()
		if err != nil {
			return fmt.Errorf("micro queue: %w", err)
		}
		var v [4]float64
		if _, err := fmt.Sscan(string(out), &v[0], &v[1], &v[2], &v[3]); err != nil {
			return fmt.Errorf("micro wrote %q: %w", out, err)
		}
		f["queue append, 50 at a time, ns"], f["queue read, 50 at a time, ns"] = v[0], v[1]
		f["queue append, 100,000 at a time, ns"], f["queue read, 100,000 at a time, ns"] = v[2], v[3]
		return watched(b, f)
	}}
}

// watched times c/watch: what each deadline costs that is kept.
func watched(b *rig, f figures) error {
	program := filepath.Join(b.dir, "watch")
	if err := b.compile(program, "bench/micro/watch.c", "c/watch.c", "c/deadlines.c", "c/slab.c"); err != nil {
		return err
	}
	for _, keys := range []int{1000, 1000000, 10000000} {
		out, err := exec.Command(program, fmt.Sprint(keys)).Output()
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		var v [5]float64
		if _, err := fmt.Sscan(string(out), &v[0], &v[1], &v[2], &v[3], &v[4]); err != nil {
			return fmt.Errorf("watch wrote %q: %w", out, err)
		}
		for i, what := range []string{"add, ns", "put off, ns", "moves on, ns", "due, ns", "bytes a key"} {
			f[fmt.Sprintf("watch of %d keys, %s", keys, what)] = v[i]
		}
	}
	return nil
}

func (p part) time(f figures, program string) error {
	file := "-"
	if p.masks != nil {
		raw := make([][]byte, len(p.masks))
		for i, m := range p.masks {
			raw[i] = []byte(m)
		}
		masks, _, err := keymask.ParseList(raw)
		if err != nil {
			return err
		}
		set, err := keymask.Compile(masks...)
		if err != nil {
			return err
		}
		file = program + ".masks"
		if err := os.WriteFile(file, set.Program(), 0o600); err != nil {
			return err
		}
	}
	for _, size := range partSizes {
		out, err := exec.Command(program, "callback", file, fmt.Sprint(size)).Output()
		if err != nil {
			return fmt.Errorf("micro callback: %w", err)
		}
		var callback, match float64
		var matched int
		if _, err := fmt.Sscan(string(out), &callback, &match, &matched); err != nil {
			return fmt.Errorf("micro wrote %q: %w", out, err)
		}
		if want := strings.HasSuffix(p.name, "captured"); want != (matched == 1) {
			return fmt.Errorf("%s: matched is %d", p.name, matched)
		}
		f[fmt.Sprintf("callback, %s, key of %d B, ns", p.name, size)] = callback
		if p.masks != nil {
			f[fmt.Sprintf("match, %s, key of %d B, ns", p.name, size)] = match
		}
	}
	return nil
}

// microTable is the callback's and the match's figures, as Markdown.
func microTable(rounds []figures) string {
	var out strings.Builder
	out.WriteString("| masks |")
	for _, what := range []string{"callback", "match"} {
		for _, size := range partSizes {
			fmt.Fprintf(&out, " %s, %d B |", what, size)
		}
	}
	out.WriteString("\n|" + strings.Repeat(" --- |", 1+2*len(partSizes)) + "\n")
	for _, p := range parts {
		fmt.Fprintf(&out, "| %s |", p.name)
		for _, what := range []string{"callback", "match"} {
			for _, size := range partSizes {
				cell := ""
				if v, ok := median(rounds, fmt.Sprintf("%s, %s, key of %d B, ns", what, p.name, size)); ok {
					cell = fmt.Sprintf("%.1f", v)
				}
				fmt.Fprintf(&out, " %s |", cell)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}
