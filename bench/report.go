// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// row is one line of the table: a ratio of two figures of the same round, or a
// figure with its unit.
type row struct {
	group   string
	what    string
	of      string // figure
	over    string // figure; empty: of itself is shown
	goal    float64
	atLeast bool // the goal is a least value, not a most; no goal is 0
}

var rows = []row{
	{"main", "main thread, floor (empty callback) over bare", "floor main thread, ns/SET", "bare main thread, ns/SET", 0, false},
	{"main", "main thread, no mask, over floor", "no mask main thread, ns/SET", "floor main thread, ns/SET", 0, false},
	{"main", "main thread, filtered, over floor", "1 mask, none matches main thread, ns/SET", "floor main thread, ns/SET", 1.03, false},
	{"main", "main thread, filtered, over bare", "1 mask, none matches main thread, ns/SET", "bare main thread, ns/SET", 0, false},
	{"main", "100 masks, none matches, over floor", "100 masks, none matches main thread, ns/SET", "floor main thread, ns/SET", 1.12, false},
	{"main", "100 masks, none matches, over bare", "100 masks, none matches main thread, ns/SET", "bare main thread, ns/SET", 0, false},
	{"main", "captured, broker keeps up, over floor at the same rate", "captured, broker keeps up main thread, ns/SET", "floor, paced main thread, ns/SET", 1.12, false},
	{"main", "captured, broker slower, over floor on busy cores", "captured, broker slower main thread, ns/SET", "floor, busy main thread, ns/SET", 1.12, false},
	{"main", "captured, broker slower, over floor on quiet cores", "captured, broker slower main thread, ns/SET", "floor main thread, ns/SET", 0, false},
	{"main", "captured, broker away (every event stored), over floor", "captured, broker away main thread, ns/SET", "floor main thread, ns/SET", 1.25, false},
	{"main", "captured, broker away, over bare", "captured, broker away main thread, ns/SET", "bare main thread, ns/SET", 0, false},
	{"main", "outbox yes, over floor on busy cores", "outbox main thread, ns/SET", "floor, busy main thread, ns/SET", 1.25, false},
	{"main", "outbox yes, over floor on quiet cores", "outbox main thread, ns/SET", "floor main thread, ns/SET", 0, false},
	{"main", "native notifications AKE, over floor", "native AKE main thread, ns/SET", "floor main thread, ns/SET", 0, false},
	{"main", "native notifications AKE, over bare", "native AKE main thread, ns/SET", "bare main thread, ns/SET", 0, false},

	{"overload", "throughput under overload, transient, over bare", "overload, transient, classic queue, module SETs/s", "overload, bare SETs/s", 0.5, true},
	{"overload", "throughput under overload, persistent, over bare", "overload, persistent, classic queue, module SETs/s", "overload, bare SETs/s", 0.5, true},
	{"overload", "worst latency under overload, transient, ms", "overload, transient, classic queue, module worst, ms", "", 25, false},
	{"overload", "worst latency under overload, persistent, ms", "overload, persistent, classic queue, module worst, ms", "", 25, false},
	{"overload", "worst latency of bare Redis, quiet cores, ms", "overload, bare worst, ms", "", 0, false},
	{"main", "worst latency of bare Redis, busy cores, ms", "bare, busy worst, ms", "", 0, false},

	{"delivery", "delivery, persistent, classic queue, over plain", "delivery, persistent, classic queue, module events/s", "delivery, persistent, classic queue, plain events/s", 1, true},
	{"delivery", "delivery, transient, classic queue, over plain", "delivery, transient, classic queue, module events/s", "delivery, transient, classic queue, plain events/s", 1.1, true},
	{"delivery", "delivery, quorum queue, over plain", "delivery, quorum queue, module events/s", "delivery, quorum queue, plain events/s", 1.1, true},
	{"delivery", "cost of delivery, persistent, classic queue, us/event", "delivery, persistent, classic queue, module cost, us/event", "", 3.5, false},
	{"delivery", "cost of delivery, transient, classic queue, us/event", "delivery, transient, classic queue, module cost, us/event", "", 7, false},
	{"delivery", "cost of delivery, quorum queue, us/event", "delivery, quorum queue, module cost, us/event", "", 4, false},
	{"delivery", "cost of delivery over plain, persistent, classic queue", "delivery, persistent, classic queue, module cost, us/event", "delivery, persistent, classic queue, plain cost, us/event", 0, false},
	{"delivery", "cost of delivery over plain, transient, classic queue", "delivery, transient, classic queue, module cost, us/event", "delivery, transient, classic queue, plain cost, us/event", 0, false},
	{"delivery", "cost of delivery over plain, quorum queue", "delivery, quorum queue, module cost, us/event", "delivery, quorum queue, plain cost, us/event", 0, false},

	{"moderate", "moderate load, 1,000/s, cost over plain", "moderate, 1000/s, module cost, us/event", "moderate, 1000/s, plain cost, us/event", 0.5, false},
	{"moderate", "moderate load, 10,000/s, cost over plain", "moderate, 10000/s, module cost, us/event", "moderate, 10000/s, plain cost, us/event", 0.5, false},
	{"moderate", "main thread at 1,000/s, over bare", "moderate, 1000/s, module main thread, us/event", "moderate, 1000/s, bare main thread, us/event", 0, false},
	{"moderate", "main thread at 10,000/s, over bare", "moderate, 10000/s, module main thread, us/event", "moderate, 10000/s, bare main thread, us/event", 0, false},

	{"latency", "latency, SET to message, over direct publish, median", "latency, module p50, us", "latency, direct p50, us", 1.15, false},
	{"latency", "latency, SET to message, over direct publish, p99", "latency, module p99, us", "latency, direct p99, us", 1.15, false},

	{"latency", "latency, SET to message, over PING and direct publish together, median", "latency, module p50, us", "latency, PING and direct p50, us", 0, false},

	{"drain", "drain of 1,000,000 over delivery of 200,000", "drain, module events/s", "delivery, transient, classic queue, module events/s", 0.9, true},
	{"drain", "drain of 1,000,000 over delivery of 1,000,000", "drain, module events/s", "drain, delivery of as many, module events/s", 0, true},
	{"drain", "command latency during a drain, p99, over bare on busy cores", "drain, module p99, us", "drain, bare p99, us", 1.5, false},
	{"drain", "command latency during a drain, p99, over bare on quiet cores", "drain, module p99, us", "drain, bare and quiet p99, us", 0, false},

	{"memory", "memory per stored event above its body, bytes", "memory above the body, bytes/event", "", 48, false},

	{"idle", "idle CPU over bare", "idle, module CPU, ms/s", "idle, bare CPU, ms/s", 0, false},
	{"idle", "idle CPU more than bare, ms/s", "idle, module more CPU, ms/s", "", 0, false},
	{"idle", "threads added", "idle, module more threads", "", 8, false},
}

// values are the row's, a round each.
func (r row) values(rounds []figures) (out []float64) {
	for _, f := range rounds {
		v, ok := f[r.of]
		if !ok {
			continue
		}
		if r.over != "" {
			d, ok := f[r.over]
			if !ok || d == 0 {
				continue
			}
			v /= d
		}
		out = append(out, v)
	}
	return out
}

// spread is minimum, median, maximum.
func spread(v []float64) (low, mid, high float64) {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	return s[0], (s[(n-1)/2] + s[n/2]) / 2, s[n-1]
}

func (r row) goalText() string {
	switch {
	case r.goal == 0:
		return ""
	case r.atLeast:
		return fmt.Sprintf(">= %g", r.goal)
	default:
		return fmt.Sprintf("<= %g", r.goal)
	}
}

// met is rounded as it is printed: a figure that reads as the goal has met it.
func (r row) met(mid float64) string {
	mid = math.Round(mid*100) / 100
	switch {
	case r.goal == 0:
		return ""
	case r.atLeast == (mid >= r.goal) || mid == r.goal:
		return "yes"
	default:
		return "no"
	}
}

// writeTable prints the table, as Markdown or in columns.
func writeTable(w io.Writer, rounds []figures, markdown bool) {
	line := func(cells ...string) string { return strings.Join(cells, "\t") + "\n" }
	if markdown {
		line = func(cells ...string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
		fmt.Fprint(w, line("figure", "goal", "min", "median", "max", "met"), line("---", "---", "---", "---", "---", "---"))
	} else {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		defer t.Flush()
		w = t
		fmt.Fprint(w, line("figure", "goal", "min", "median", "max", "met"))
	}
	for _, r := range rows {
		v := r.values(rounds)
		if len(v) == 0 {
			continue
		}
		low, mid, high := spread(v)
		n := func(x float64) string { return fmt.Sprintf("%.2f", x) }
		fmt.Fprint(w, line(r.what, r.goalText(), n(low), n(mid), n(high), r.met(mid)))
	}
}

// median is of one raw figure.
func median(rounds []figures, name string) (float64, bool) {
	v := row{of: name}.values(rounds)
	if len(v) == 0 {
		return 0, false
	}
	_, mid, _ := spread(v)
	return mid, true
}

// rawTable is the spread of every raw figure, as Markdown.
func rawTable(rounds []figures) string {
	names := map[string]bool{}
	for _, f := range rounds {
		for name := range f {
			names[name] = true
		}
	}
	var out strings.Builder
	out.WriteString("| figure | min | median | max |\n| --- | --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		low, mid, high := spread(row{of: name}.values(rounds))
		fmt.Fprintf(&out, "| %s | %.5g | %.5g | %.5g |\n", name, low, mid, high)
	}
	return out.String()
}
