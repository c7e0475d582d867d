// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// withFaultPoints makes the module that servers load from here on the one with
// fault points (c/fault.h).
func withFaultPoints(t *testing.T) {
	t.Helper()
	path, err := filepath.Abs("../build/faults/libredis_keyspace_amqp.so")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v (make test-e2e builds it)", err)
	}
	t.Setenv("KEA_MODULE", path)
}

// arm lets the next server that is started kill itself at a step.
func arm(t *testing.T, point string, passages int) {
	t.Helper()
	t.Logf("KEA_FAULT=%s:%d", point, passages)
	t.Setenv("KEA_FAULT", fmt.Sprintf("%s:%d", point, passages))
}

func disarm(t *testing.T) { t.Setenv("KEA_FAULT", "") }

// hasEnded reports whether the server runs no more.
func (r *rig) hasEnded() bool { return r.Alive() != nil }

// endsAt waits until the server has killed itself, and checks that it was at
// that step.
func (r *rig) endsAt(point string) {
	r.t.Helper()
	eventually(r.t, func() error {
		if !r.hasEnded() {
			return fmt.Errorf("the server does not come to step %s", point)
		}
		return nil
	})
	file := filepath.Join(r.Dir, "key_evt_amqp.fault")
	if came, err := os.ReadFile(file); err != nil || string(came) != point {
		r.t.Fatalf("the server has ended at %q (%v), not at step %s", came, err, point)
	}
	must(r.t, os.Remove(file))
}

// drops cuts the network and mends it, again and again, until the server ends.
func (r *rig) drops(cut func(), mend func() error) {
	state := func(wanted string) bool {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			info, err := r.ModuleInfo()
			if r.hasEnded() {
				return false
			}
			if err == nil && info["state"] == wanted {
				return true
			}
		}
		return false
	}
	for state("connected") {
		cut()
		came := state("backoff")
		if mend() != nil || !came {
			return
		}
	}
}

// How an event of a server that loses nothing at a kill goes through it, and
// what happens when the link is lost. passages: the server is killed at one of
// the first so many.
var steps = []struct {
	point    string
	passages int
	drops    bool // the network does, else these steps are not come to
}{
	{"captured", 1000, false},
	{"store-pushed", 30, false},
	{"store-replicated", 30, false},
	{"memory-lent", 30, false},
	{"publisher-woken", 30, false},
	{"taken", 1000, false},
	{"published", 30, false},
	{"confirm-read", 500, false},
	{"settle-reported", 30, false},
	{"settle-popped", 500, false},
	{"pop-replicated", 30, false},
	{"settled", 500, false},
	{"rewound", 3, true},
	{"reclaimed", 3, true},
	{"connected", 3, true},
	{"list-lent", 6, true},
}

func TestKilledAtEachStepOfAnEvent(t *testing.T) {
	withFaultPoints(t)
	random := seeded(t)
	for _, step := range steps {
		t.Run(step.point, func(t *testing.T) {
			passages := 1 + random.IntN(step.passages)
			if step.point == "connected" {
				passages++ // not before there is any load
			}
			arm(t, step.point, passages)
			r, p := proxied(t, options{events: "$", config: outboxDurable})
			loads := []*load{{prefix: "a:", pause: time.Millisecond}, {prefix: "b:", pause: time.Millisecond}}
			var work servers.Group
			for _, l := range loads {
				own := rand.New(rand.NewPCG(random.Uint64(), 0))
				work.Go(func() { l.run(r, own) })
			}
			if step.drops {
				work.Go(func() { r.drops(p.Cut, p.Mend) })
			}
			r.endsAt(step.point)
			work.Wait()
			disarm(t)
			p.Cut()
			left := booksAtRest(t, r)
			must(t, p.Mend())
			arrived(t, r, loads)
			r.balanced(left, 0)
			gapless(t, r.queue.Messages())
			t.Logf("%d and %d acknowledged writes, %d events, %d duplicates, %d were left in the list",
				len(loads[0].acknowledged), len(loads[1].acknowledged), len(r.queue.Messages()), r.queue.Duplicates(), left)
		})
	}
}

// The list's limit drops the oldest, and nothing else, though the server is
// killed when it has just done so.
func TestKilledWhereTheListIsTrimmed(t *testing.T) {
	withFaultPoints(t)
	random := seeded(t)
	arm(t, "trimmed", 1+random.IntN(30)) // 1: as yet nothing may have survived
	r, p := proxied(t, options{events: "$", limit: "20", config: outboxDurable})
	p.Cut()
	l := &load{prefix: "k"}
	l.run(r, random)
	r.endsAt("trimmed")
	disarm(t)
	left := booksAtRest(t, r)
	// One client, so the writes that have survived are the first ones.
	durable := int(r.do("DBSIZE").(int64) - r.do("EXISTS", "key_evt_amqp.fallback").(int64))
	if n := len(l.acknowledged); n > 0 && l.acknowledged[n-1] >= durable {
		t.Errorf("write %d was acknowledged, %d have survived", l.acknowledged[n-1], durable)
	}
	must(t, p.Mend())
	r.arrives(setBodies("k", durable)[max(0, durable-20):])
	r.balanced(left, 0)
}

// The steps of the spool file: a server that has taken one in comes to the step
// while it loads, while it delivers, or while it ends and writes another. What
// the first file held arrives whatever happens; what was in memory alone when
// the server was killed arrives once it is in a file.
func TestKilledAtEachStepOfTheSpoolFile(t *testing.T) {
	withFaultPoints(t)
	random := seeded(t)
	const events = 60
	for _, step := range []struct {
		point    string
		passages int
		when     string
		newKept  bool // the second server's own events arrive too
	}{
		{"spool-read", events, "loads", false},
		{"spool-taken-in", 1, "loads", false},
		{"spool-delivered", 1, "delivers", true},
		{"spool-removed", 1, "delivers", true},
		{"shutdown-waiting", 5, "waits", false},
		{"spool-added", 2 * events, "ends", false},
		{"spool-written", 1, "ends", false},
		{"spool-synced", 1, "ends", false},
		{"spool-renamed", 1, "ends", true},
	} {
		t.Run(step.point, func(t *testing.T) {
			r, p := spooling(t, events)
			arm(t, step.point, 1+random.IntN(step.passages))
			must(t, r.Start())
			atLoad := events
			if step.when != "loads" {
				must(t, r.Alive())
				if step.when == "waits" {
					must(t, p.Mend())
					must(t, r.queue.Wait(events, patience))
					r.balanced(events, 0)
					r.until("state", is("connected"))
					atLoad = 0
					p.Hold()
				}
				r.sets("new", events)
			}
			switch step.when {
			case "delivers":
				must(t, p.Mend())
				atLoad = 0
				if step.point == "spool-delivered" {
					atLoad = events
				}
			case "waits", "ends":
				r.Terminate()
				if step.newKept {
					// The older file is still there: its events come twice.
					atLoad += 2 * events
				}
			}
			r.endsAt(step.point)
			disarm(t)
			p.Cut()
			p.Release()
			must(t, r.Start())
			must(t, r.Alive())
			r.until("events_buffered", is(fmt.Sprint(atLoad)))
			must(t, p.Mend())
			want := setBodies("k", events)
			if step.newKept {
				want = append(want, setBodies("new", events)...)
			}
			must(t, r.queue.Wait(len(want), patience))
			r.balanced(atLoad, 0)
			r.arrives(want)
			gapless(t, r.queue.Messages())
		})
	}
}

// Each fault point has a case above, and the module that users get has none.
func TestFaultPointsAreAllTriedAndNotInTheProduct(t *testing.T) {
	source, err := os.ReadFile("fault_points_test.go")
	must(t, err)
	call := regexp.MustCompile(`(?:KEA_FAULT|fault\.Point)\("([a-z-]+)"\)`)
	var points []string
	for _, folder := range []string{"../c", "../amqp"} {
		files, err := os.ReadDir(folder)
		must(t, err)
		for _, f := range files {
			if f.IsDir() || strings.HasSuffix(f.Name(), "_test.go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(folder, f.Name()))
			must(t, err)
			for _, m := range call.FindAllSubmatch(text, -1) {
				points = append(points, string(m[1]))
			}
		}
	}
	if len(points) < 20 {
		t.Fatalf("found only %q", points)
	}
	slices.Sort(points)
	for i, point := range points {
		if i > 0 && point == points[i-1] {
			t.Errorf("two fault points have the name %s", point)
		}
		if !bytes.Contains(source, []byte(`"`+point+`"`)) {
			t.Errorf("fault point %s is not tried", point)
		}
	}
	traces := func(path string) (found []string) {
		text, err := os.ReadFile(path)
		must(t, err)
		for _, trace := range []string{"KEA_FAULT", "key_evt_amqp.fault\x00", "amqp/internal/fault", "settle-popped", "settle-reported", "spool-renamed"} {
			if bytes.Contains(text, []byte(trace)) {
				found = append(found, trace)
			}
		}
		symbols, err := exec.Command("nm", "--dynamic", path).Output()
		must(t, err)
		if bytes.Contains(symbols, []byte("kea_fault")) {
			t.Errorf("%s shows kea_fault", path)
		}
		return found
	}
	if found := traces(module(t)); len(found) > 0 {
		t.Errorf("the module has traces of fault points: %q", found)
	}
	withFaultPoints(t)
	// Else the search above would find nothing anywhere.
	if found := traces(module(t)); len(found) != 6 {
		t.Errorf("the module with fault points has traces of %q only", found)
	}
}
