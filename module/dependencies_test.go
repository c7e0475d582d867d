// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestDependenciesPointOneWay: module knows the others, they know nothing of
// each other, and only c meets C.
func TestDependenciesPointOneWay(t *testing.T) {
	const ours = "github.com/key-evt-amqp/key_evt_amqp/"
	may := map[string][]string{
		"amqp": {"amqp/internal/fault"}, "amqp/internal/fault": nil, "keymask": nil, "fallback": nil, "c": nil,
		"module": {"amqp", "c", "fallback", "keymask"},
	}
	for _, tags := range []string{"", "faults"} {
		out, err := exec.Command("go", "list", "-tags", tags, "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "../...").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		seen := 0
		for line := range strings.Lines(string(out)) {
			words := strings.Fields(line)
			from := strings.TrimPrefix(words[0], ours)
			allowed, known := may[from]
			if known {
				seen++
			}
			for _, to := range words[1:] {
				if to == "C" && from != "c" {
					t.Errorf("%s meets C, which only c may", from)
				}
				to, own := strings.CutPrefix(to, ours)
				if own && known && !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s", from, to)
				}
			}
		}
		if seen != len(may) {
			t.Errorf("%d of %d packages are there:\n%s", seen, len(may), out)
		}
	}
}
