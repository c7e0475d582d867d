// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"strings"
	"testing"
)

func TestOnlyWhatHasPassedIsTakenForPassed(t *testing.T) {
	const start = `{"Action":"start","Package":"p"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestA/x","Output":"why\n"}` + "\n"
	for _, c := range []struct {
		name, lines string
		ok          bool
	}{
		{"all passed", `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"pass","Package":"p"}`, true},
		{"a test failed", `{"Action":"fail","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"fail","Package":"p"}`, false},
		{"the package failed outside a test", `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"fail","Package":"p"}`, false},
		{"go test was ended", `{"Action":"pass","Package":"p","Test":"TestA"}`, false},
		{"no test ran", `{"Action":"pass","Package":"p"}`, false},
	} {
		var out strings.Builder
		if err := show(strings.NewReader(start+c.lines), &out); (err == nil) != c.ok {
			t.Errorf("%s: %v\n%s", c.name, err, &out)
		}
		if !c.ok && strings.Contains(c.lines, `fail","Package":"p","Test`) && !strings.Contains(out.String(), "why\n") {
			t.Errorf("%s: its output is missing:\n%s", c.name, &out)
		}
	}
}
