// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// sections are the parts of docs/performance.md that a run writes: each between
// a line "<!-- bench: name -->" and a line "<!-- end -->".
func (res results) sections() map[string]string {
	var table bytes.Buffer
	writeTable(&table, res.Rounds, true)
	m := res.Machine
	return map[string]string{
		"machine": fmt.Sprintf("%s, %d cores; Linux %s, Redis %s, RabbitMQ %s, %s; %s. %d rounds, %s.\n",
			m.CPU, m.Cores, m.Kernel, m.Redis, m.RabbitMQ, m.Go, m.pinning(), len(res.Rounds), res.Date),
		"table": table.String(),
		"parts": microTable(res.Rounds) + "\n" + namedTable(res.Rounds, "ns a record",
			[]string{"append", "read and release"}, []string{"50 at a time, as in a turn", "100,000 at a time, as in a burst"},
			func(row, column int) string {
				return fmt.Sprintf("queue %s, %s at a time, ns", []string{"append", "read"}[column], []string{"50", "100,000"}[row])
			}),
		"windows": namedTable(res.Rounds, "max_inflight", strings.Split("persistent, events/s|us/event|transient, events/s|us/event|quorum, events/s|us/event", "|"),
			texts(windowSizes), func(row, column int) string {
				return fmt.Sprintf("window %d, %s, module %s", windowSizes[row], kinds[column/2].name,
					[]string{"events/s", "cost, us/event"}[column%2])
			}),
		"buffers": namedTable(res.Rounds, "buffer_limit, MiB", strings.Split("SETs/s|main thread, ns/SET|p99, ms|worst, ms|resident, MiB", "|"),
			texts(bufferSizes), func(row, column int) string {
				return fmt.Sprintf("buffer %d MiB %s", bufferSizes[row],
					[]string{"SETs/s", "main thread, ns/SET", "p99, ms", "worst, ms", "resident, MiB"}[column])
			}),
		"delivery": namedTable(res.Rounds, "", strings.Split("plain, events/s|module, events/s|plain, us/event|module, us/event", "|"),
			[]string{"persistent, classic queue", "transient, classic queue", "quorum queue"}, func(row, column int) string {
				return fmt.Sprintf("delivery, %s, %s", kinds[row].name,
					[]string{"plain events/s", "module events/s", "plain cost, us/event", "module cost, us/event"}[column])
			}),
	}
}

func texts(values []int) (out []string) {
	for _, v := range values {
		out = append(out, fmt.Sprint(v))
	}
	return out
}

// namedTable is a table of medians, as Markdown.
func namedTable(rounds []figures, corner string, columns, lines []string, name func(row, column int) string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "| %s | %s |\n|%s\n", corner, strings.Join(columns, " | "), strings.Repeat(" --- |", 1+len(columns)))
	for i, line := range lines {
		fmt.Fprintf(&out, "| %s |", line)
		for k := range columns {
			cell := ""
			if v, ok := median(rounds, name(i, k)); ok {
				cell = rounded(v)
			}
			fmt.Fprintf(&out, " %s |", cell)
		}
		out.WriteString("\n")
	}
	return out.String()
}

// rounded shows three digits that mean something.
func rounded(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// writeDocs puts the sections into a page.
func (res results) writeDocs(file string) error {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(page)
	for name, section := range res.sections() {
		begin := "<!-- bench: " + name + " -->\n"
		before, rest, ok := strings.Cut(text, begin)
		_, after, closed := strings.Cut(rest, "<!-- end -->")
		if !ok || !closed {
			return fmt.Errorf("%s has no section %q", file, name)
		}
		text = before + begin + "\n" + section + "\n<!-- end -->" + after
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
