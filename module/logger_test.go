// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestEachKindOfLineHasALimitAMinute(t *testing.T) {
	var lines []string
	now := time.Unix(1000, 0)
	l := newLogger()
	l.now = func() time.Time { return now }
	l.write = func(level, text string) { lines = append(lines, level+" "+text) }
	check := func(want ...string) {
		t.Helper()
		if !reflect.DeepEqual(lines, want) {
			t.Fatalf("got %q, want %q", lines, want)
		}
		lines = nil
	}
	fill := func(about kind) {
		t.Helper()
		for i := range linesPerMinute + 7 {
			l.notice(about, fmt.Sprint(i))
		}
		if len(lines) != linesPerMinute {
			t.Fatalf("got %d lines, want %d", len(lines), linesPerMinute)
		}
		lines = nil
	}

	fill(aboutAlarm)
	l.warning(aboutTrouble, "another kind has a limit of its own")
	check("warning another kind has a limit of its own")

	now = now.Add(time.Minute - 1)
	l.notice(aboutAlarm, "still the same minute")
	check()
	now = now.Add(1)
	l.warning(aboutAlarm, "next")
	l.notice(aboutAlarm, "after it")
	check("warning (8 lines about this left out) next", "notice after it")

	now = now.Add(time.Hour)
	fill(aboutAlarm) // nothing was left out before it
	now = now.Add(-24 * time.Hour)
	l.notice(aboutAlarm, "the clock was put back")
	check("notice (7 lines about this left out) the clock was put back")
}
