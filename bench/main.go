// SPDX-License-Identifier: BSD-3-Clause

// Bench measures the module beside what it is compared with, in one run: bare
// Redis, a module that does nothing, Redis's own notifications, a plain
// publisher. It prints ratios, writes raw figures as JSON and draws plots. It is
// a Go module of its own (`make bench` builds it), and runs in the repository's root.
//
//	build/bench                         print the table
//	build/bench -out docs/performance      and keep raw figures and plots
//	build/bench -from docs/performance     draw and print again, measure nothing
//	build/bench -only main,delivery -rounds 2
//	build/bench -quick                  a smoke run
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == plainFlag {
		exit(plainMain(os.Args[2]))
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often everything is measured, one case after the other")
	flag.StringVar(&o.only, "only", "", "only these groups, separated by commas: "+strings.Join(groupNames(), ", "))
	flag.BoolVar(&o.quick, "quick", false, "a smoke run: everything once, a hundredth as long; its figures are worth nothing")
	flag.StringVar(&o.module, "module", "build/libredis_keyspace_amqp.so", "the built module")
	flag.StringVar(&o.out, "out", "", "folder for raw figures and plots; none: only print")
	flag.StringVar(&o.from, "from", "", "folder with raw figures: measure nothing, draw and print them again")
	flag.StringVar(&o.docs, "docs", "", "page to write the tables into")
	flag.Parse()
	exit(run(o, os.Stdout))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type options struct {
	rounds    int
	only      string
	quick     bool
	module    string
	out, from string
	docs      string
	root      string // of the repository; empty: here
}

func groupNames() (names []string) {
	for _, g := range groups {
		names = append(names, g.name)
	}
	return names
}

// results are what a run leaves behind.
type results struct {
	Date    string
	Machine machine
	Rounds  []figures
}

type machine struct {
	CPU      string
	Cores    int
	Kernel   string
	Redis    string
	RabbitMQ string
	Go       string
	Pinned   string // which threads run on which cores
}

// pinning is what Pinned says; figures of before it was noted have none.
func (m machine) pinning() string {
	if m.Pinned == "" {
		return pinning{}.String()
	}
	return m.Pinned
}

const figuresFile = "figures.json"

func run(o options, w io.Writer) error {
	var res results
	dir := o.out
	if o.from != "" {
		dir = o.from
		b, err := os.ReadFile(filepath.Join(dir, figuresFile))
		if err == nil {
			err = json.Unmarshal(b, &res)
		}
		if err != nil {
			return err
		}
	} else {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		var err error
		if res, err = measureAll(o, dir); err != nil {
			return err
		}
	}
	m := res.Machine
	fmt.Fprintf(w, "%s, %d cores, Linux %s, Redis %s, RabbitMQ %s, %s; %s; %d rounds, %s\n\n",
		m.CPU, m.Cores, m.Kernel, m.Redis, m.RabbitMQ, m.Go, m.pinning(), len(res.Rounds), res.Date)
	writeTable(w, res.Rounds, o.from != "")
	if o.from != "" {
		fmt.Fprintf(w, "\n%s\n", microTable(res.Rounds))
		fmt.Fprintf(w, "%s\n", rawTable(res.Rounds))
	}
	if o.docs != "" {
		if err := res.writeDocs(o.docs); err != nil {
			return err
		}
	}
	if dir == "" {
		return nil
	}
	return drawAll(res.Rounds, dir)
}

// keep writes the raw figures, after every round: a long run that is broken off
// has not been for nothing.
func (res results) keep(dir string) error {
	if dir == "" {
		return nil
	}
	b, err := json.MarshalIndent(res, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, figuresFile), append(b, '\n'), 0o644)
}

func measureAll(o options, dir string) (res results, err error) {
	chosen := groupNames()
	if o.only != "" {
		chosen = strings.Split(o.only, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(groupNames(), name) {
			return res, fmt.Errorf("no group %q; there are %s", name, strings.Join(groupNames(), ", "))
		}
	}
	if o.root == "" {
		o.root = "."
	}
	if o.quick {
		o.rounds = 1
	}
	b, err := newRig(o.root, o.module, o.quick)
	if b != nil {
		defer b.close()
	}
	if err != nil {
		return res, err
	}
	res.Date = time.Now().UTC().Format(time.DateOnly)
	if res.Machine, err = b.machine(); err != nil {
		return res, err
	}
	for n := range o.rounds {
		f := figures{}
		for _, g := range groups {
			if !slices.Contains(chosen, g.name) || g.seldom && n%2 == 1 {
				continue
			}
			begun := time.Now()
			cases := g.cases(b)
			for i := range cases {
				// Each round begins with another case.
				if err := cases[(i+n)%len(cases)](f); err != nil {
					return res, fmt.Errorf("%s: %w", g.name, err)
				}
			}
			fmt.Fprintf(os.Stderr, "round %d of %d, %s: %.0f s\n", n+1, o.rounds, g.name, time.Since(begun).Seconds())
		}
		derive(f)
		res.Rounds = append(res.Rounds, f)
		if err := res.keep(dir); err != nil {
			return res, err
		}
	}
	return res, nil
}

func (b *rig) machine() (m machine, err error) {
	m.Cores, m.Go, m.Pinned = runtime.NumCPU(), runtime.Version(), b.pinned.String()
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	_, rest, _ := strings.Cut(string(cpu), "model name")
	rest, _, _ = strings.Cut(rest, "\n")
	m.CPU = strings.TrimSpace(strings.TrimLeft(rest, " \t:"))
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, err
	}
	m.Kernel = strings.TrimSpace(string(kernel))
	out, err := exec.Command("redis-server", "--version").Output()
	if err != nil {
		return m, err
	}
	_, rest, _ = strings.Cut(string(out), "v=")
	m.Redis, _, _ = strings.Cut(rest, " ")
	conn, err := b.broker.Dial()
	if err != nil {
		return m, err
	}
	defer conn.Close()
	var ok bool
	if m.RabbitMQ, ok = lib.Table(conn.Properties)["version"].(string); !ok {
		return m, errors.New("the broker does not tell its version")
	}
	return m, nil
}
