// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A plain publisher is this program again, under test too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == plainFlag {
		exit(plainMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

func TestSmokeRunMeasuresEveryRow(t *testing.T) {
	dir := t.TempDir()
	o := options{quick: true, root: "..", module: "../build/libredis_keyspace_amqp.so", out: dir}
	var out bytes.Buffer
	if err := run(o, &out); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if !strings.Contains(out.String(), r.what) {
			t.Errorf("the table lacks %q:\n%s", r.what, &out)
		}
	}
	var res results
	b, err := os.ReadFile(filepath.Join(dir, figuresFile))
	if err == nil {
		err = json.Unmarshal(b, &res)
	}
	if err != nil || len(res.Rounds) != 1 || res.Machine.RabbitMQ == "" {
		t.Fatalf("raw figures: %v %+v", err, res.Machine)
	}
	plots, _ := filepath.Glob(filepath.Join(dir, "*.svg"))
	if len(plots) != 12 {
		t.Errorf("%d plots: %v", len(plots), plots)
	}
	// Drawn again from what was kept, nothing is measured.
	var again bytes.Buffer
	page := filepath.Join(dir, "performance.md")
	text, err := os.ReadFile("../docs/performance.md")
	if err == nil {
		err = os.WriteFile(page, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := run(options{from: dir, docs: page}, &again); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(again.String(), "| 100 literals anywhere |") {
		t.Errorf("the parts' table is missing:\n%s", &again)
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		values         []float64
		low, mid, high float64
	}{
		{[]float64{2}, 2, 2, 2},
		{[]float64{3, 1}, 1, 2, 3},
		{[]float64{9, 1, 2}, 1, 2, 9},
	} {
		low, mid, high := spread(test.values)
		if low != test.low || mid != test.mid || high != test.high {
			t.Errorf("%v: got %v %v %v", test.values, low, mid, high)
		}
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	rounds := []figures{{"a": 1, "b": 2}, {"a": 6, "b": 3}, {"a": 1}}
	got := row{of: "a", over: "b"}.values(rounds)
	if len(got) != 2 || got[0] != 0.5 || got[1] != 2 {
		t.Errorf("got %v, want [0.5 2]", got)
	}
}
