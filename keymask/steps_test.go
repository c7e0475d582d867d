// SPDX-License-Identifier: BSD-3-Clause

// steps_test.go counts the reference matcher's steps, from inside.

package keymask

import (
	"strings"
	"testing"
)

// hostile makes a backtracking matcher take time to the fourth power.
const hostile = "a*a*a*a*b$"

func TestHostileMaskTakesLinearSteps(t *testing.T) {
	for _, text := range []string{hostile, "^" + hostile, "^" + strings.Repeat("a*", 200) + "b", ".*.*.*.*x"} {
		m, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 1000, 20480} {
			ok, steps := m.simulate([]byte(strings.Repeat("a", n)))
			if bound := (n + 1) * (len(text) + 1); ok || steps > bound {
				t.Errorf("mask %q, key of %d a: match %v in %d steps, want none in at most %d", text, n, ok, steps, bound)
			}
		}
	}
}

func TestSimplifyLeavesNoStarThatChangesNothing(t *testing.T) {
	same := func(a, b string) {
		t.Helper()
		ma, _ := Parse([]byte(a))
		mb, _ := Parse([]byte(b))
		if sa, sb := simplify(ma.shape), simplify(mb.shape); sa.identity() != sb.identity() {
			t.Errorf("%q simplifies to %+v, %q to %+v", a, sa, b, sb)
		}
	}
	same("a*a*a*a*b$", "b$")
	same("^.*a", "a")
	same("a.*$", "a")
	same(".*a*.*b*.*", "")
	same("^.*$", "")
	same("$", "")
	same("^a*.*b*c$", "c$")
	same("^ab*b*.*", "^a")
	same("...", "^...")
	same("^a*a*b*b*a*c", "^a*b*a*c")
}
