// SPDX-License-Identifier: BSD-3-Clause

// Progress shows go test -json as it goes: a line when a test ends, with its
// time, the whole output of a test that fails, and each package's last line. It
// exits 1 unless every package has passed.
//
//	go test -json ./test/... | go run ./test/progress
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := show(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// event is what go test says, see go doc test2json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func show(in io.Reader, out io.Writer) error {
	running := map[string][]string{} // output of what has not ended, by package and test
	open := map[string]bool{}        // packages without a verdict
	ended, failed := 0, 0
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if err != nil && line == "" {
			break
		}
		var e event
		if json.Unmarshal([]byte(line), &e) != nil {
			fmt.Fprint(out, line) // go itself has something to say
			continue
		}
		test, _, sub := strings.Cut(e.Test, "/")
		key := e.Package + " " + test // what a subtest prints belongs to its test
		switch e.Action {
		case "start":
			open[e.Package] = true
		case "output", "build-output":
			if e.Output == "PASS\n" {
				continue
			}
			if e.Package == "" || e.Test == "" {
				fmt.Fprint(out, e.Output)
			} else {
				running[key] = append(running[key], e.Output)
			}
		case "pass", "skip", "fail":
			if e.Test == "" {
				delete(open, e.Package)
			}
			if e.Action == "fail" {
				failed++
			}
			if e.Test == "" || sub {
				continue
			}
			ended++
			if e.Action == "fail" {
				fmt.Fprint(out, strings.Join(running[key], ""))
			}
			fmt.Fprintf(out, "%s %7.1f s  %s\n", e.Action, e.Elapsed, test)
			delete(running, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(running)) {
		fmt.Fprintf(out, "not ended: %s\n%s", key, strings.Join(running[key], ""))
	}
	if failed > 0 || len(open) > 0 || ended == 0 {
		return fmt.Errorf("%d failures, %d packages without a verdict, %d tests", failed, len(open), ended)
	}
	return nil
}
