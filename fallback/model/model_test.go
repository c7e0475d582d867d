// SPDX-License-Identifier: BSD-3-Clause

package model

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// settings are those of the module that the flow of events depends on.
type settings struct {
	limit   int64 // of the list: > 0 the most kept, 0 unlimited, < 0 store none
	buffer  uint64
	window  uint32
	outbox  bool
	timeout uint32 // of a shutdown, in steps of its wait
}

// model is the reference, and what stands for the publisher and the broker.
type model struct {
	rapid.TB
	draw *rapid.T // nil: a scripted run, without actions
	d    *driver
	s    *answer     // the driver's last one that showed a loaded module
	here map[id]bool // and what was undelivered then

	// What may happen in this run.
	edits, roles, kills bool
	always              bool // appendfsync always: durable after every turn
	jobs                bool // a server newer than 7.0
	set                 settings

	number   map[id]int // in the order of capture
	settled  map[id]bool
	arrived  map[id]bool
	last     int         // number of the last first arrival
	gone     map[id]bool // dropped and counted, removed by others, or lost by a kill that may
	late     map[id]bool // whose order nobody promises
	origin   uint64      // of this load
	captured int         // by this load
	dropped  int         // as this load has counted so far
	peers    uint64      // events made by another master

	// The queue as it should be, oldest first, while it is known exactly:
	// others' edits and changes of role leave that to be found out.
	queue []id
	exact bool

	spool   []id        // what the spool file holds
	spooled bool        // and that it is in the queue, too
	aside   int         // captured when it was last looked whether to spool
	limited bool        // the list had a limit at some time
	safe    map[id]bool // was in the list when the AOF was fsynced, by outbox
	durable []id        // the list as it would survive a kill
	replica bool
	guarded bool

	// The publisher: what it took and did not settle, oldest first, how much of
	// that is on its way, has reached the broker, and was confirmed by it.
	up                  bool
	asleep              bool
	taken               []id
	sent, reached, acks int
	settles             int  // events settled, ever
	stepping            bool // the main thread is in the middle of a turn
}

// wrongType is the key's when it holds no list.
const wrongType = 1

func newModel(tb rapid.TB, d *driver) *model {
	return &model{
		TB: tb, d: d, up: true, set: settings{window: 8, buffer: 1 << 20},
		number: map[id]int{}, settled: map[id]bool{}, arrived: map[id]bool{},
		gone: map[id]bool{}, late: map[id]bool{}, safe: map[id]bool{},
	}
}

// begin starts the server for the first time.
func (m *model) begin() {
	m.ask("reset")
	m.sendSettings()
	m.load()
}

func (m *model) ask(format string, args ...any) *answer {
	m.Helper()
	line := fmt.Sprintf(format, args...)
	m.Log("request:", line)
	a, err := m.d.request(line)
	if err != nil {
		m.Fatal(err)
	}
	if a.number["woken"] == 1 {
		m.asleep = false
	}
	return a
}

// do makes a request to a loaded module and checks what it leads to.
func (m *model) do(format string, args ...any) *answer {
	m.Helper()
	a := m.ask(format, args...)
	m.observe(a)
	return a
}

// ---- what must hold

// parts of the queue, as the driver shows them.
func held(a *answer) []id { return a.ids["list"][:a.number["held"]] }

func unsettled(a *answer) []id { return a.ids["lent"][a.number["settling"]:] }

// pictured reports whether what the main thread believes of the list is so.
func (m *model) pictured(a *answer) bool {
	if m.replica || a.number["check"] == 1 {
		return false
	}
	if a.number["type"] == wrongType {
		return a.number["known"] == 0
	}
	h, p, t := a.number["held"], a.number["pending"], a.number["trimmed"]
	// In flight from a replica's memory, before what the list has: given back
	// it comes after that.
	if p > 0 && len(a.ids["lent_not_stored"]) > 0 {
		return false
	}
	return a.number["known"] == 1 && h+p == len(a.ids["list"]) && t+h <= len(a.ids["lent"]) &&
		slices.Equal(held(a), a.ids["lent"][t:t+h])
}

// queued is the whole queue: what is lent, what of the list is not, memory.
func queued(a *answer) []id {
	q := slices.Clone(unsettled(a))
	if a.number["known"] == 1 {
		q = append(q, a.ids["list"][min(a.number["held"], len(a.ids["list"])):]...)
	} else {
		q = append(q, a.ids["list"]...)
	}
	return append(q, a.ids["memory"]...)
}

// everywhere is every event that is undelivered and not gone.
func (m *model) everywhere(a *answer) map[id]bool {
	all := map[id]bool{}
	for _, part := range [][]id{a.ids["lent"], a.ids["list"], a.ids["memory"]} {
		for _, e := range part {
			if _, known := m.number[e]; known && !m.settled[e] {
				all[e] = true
			}
		}
	}
	return all
}

// observe compares the module with the reference.
func (m *model) observe(a *answer) {
	m.Helper()
	before := m.s
	m.s = a
	m.capturedNow(a)
	drops := a.number["events_dropped"] - m.dropped
	m.dropped = a.number["events_dropped"]
	if drops < 0 {
		m.Fatal("events_dropped went backwards")
	}
	q := queued(a)
	if m.exact {
		m.compare(before, a, q, drops)
	} else {
		if before != nil {
			m.vanished(before, a, drops)
		}
		m.exact = m.pictured(a) && !slices.Contains(q, id{})
	}
	m.queue = q
	m.figures(a)
	m.promises(a)
	if m.spool != nil && a.number["spool"] == 0 {
		all := m.everywhere(a)
		for _, e := range a.ids["lent"][:a.number["trimmed"]] {
			delete(all, e) // others or the limit took it, though it is in flight
		}
		for _, e := range m.spool {
			if all[e] {
				m.Fatalf("the spool file is gone, and %v is not delivered", e)
			}
		}
		m.spool = nil
	}
	m.spoolNow(a)
}

// spoolNow takes over what the file holds.
func (m *model) spoolNow(a *answer) {
	if a.number["spool"] == 0 {
		m.spool = nil
	} else if has := a.ids["spool_has"]; !slices.Equal(has, m.spool) {
		m.spool, m.spooled = has, true
	}
}

// vanished checks, while the queue is not known exactly, that what is nowhere
// any more was counted as dropped.
func (m *model) vanished(before, a *answer, drops int) {
	m.Helper()
	all := m.everywhere(a)
	lost := 0
	were := m.everywhere(before)
	for n := before.number["events_captured"]; n < m.captured; n++ {
		were[id{m.origin, uint64(n + 1)}] = true
	}
	for e := range were {
		if !all[e] && !m.gone[e] {
			m.gone[e] = true
			lost++
		}
	}
	if lost > drops {
		m.Fatalf("%d events have vanished, %d were counted as dropped", lost, drops)
	}
}

// capturedNow numbers what this load has captured since.
func (m *model) capturedNow(a *answer) {
	for n := a.number["events_captured"]; m.captured < n; {
		m.captured++
		e := id{m.origin, uint64(m.captured)}
		m.number[e] = len(m.number)
		m.queue = append(m.queue, e)
		if m.replica {
			m.Fatal("a replica has captured an event")
		}
	}
}

// compare checks that the queue is the reference's except dropped events, and
// that those were the oldest that could be dropped.
func (m *model) compare(before, a *answer, q []id, drops int) {
	m.Helper()
	// From the end: an event may be there twice, and the older one goes first.
	dropped := []id{}
	kept := make([]bool, len(m.queue))
	i := len(q)
	for at, e := range slices.Backward(m.queue) {
		if i > 0 && q[i-1] == e {
			i--
			kept[at] = true
		} else {
			dropped = append(dropped, e)
		}
	}
	slices.Reverse(dropped)
	if i != 0 || len(dropped) != drops {
		m.Fatalf("the queue is not what it should be, %d dropped:\n got %v\nwant %v", drops, ranges(q), ranges(m.queue))
	}
	if drops == 0 {
		return
	}
	for _, e := range dropped {
		m.gone[e] = true
	}
	// What is lent is older, but may still arrive; what is in memory is
	// younger than what is in the list, but alone is bounded when nothing can
	// be stored.
	memoryOnly := m.set.limit < 0 || a.number["type"] == wrongType
	exempt := map[id]bool{}
	for _, e := range slices.Concat(before.ids["lent"], a.ids["lent"]) {
		exempt[e] = true
	}
	if memoryOnly {
		for _, e := range a.ids["list"] {
			exempt[e] = true
		}
	}
	younger := false
	for at, e := range m.queue {
		if exempt[e] {
			continue
		}
		if !kept[at] && younger {
			m.Fatalf("dropped %v of %v: not the oldest", ranges(dropped), ranges(m.queue))
		}
		younger = younger || kept[at]
	}
	switch {
	case memoryOnly:
	case m.set.limit > 0 && len(a.ids["list"]) == int(m.set.limit):
	case m.set.limit > 0 && len(a.ids["list"]) > int(m.set.limit): // a slice of what is above it
	case before.number["trimmed"] > 0: // not confirmed after all
	default:
		m.Fatalf("dropped %v for no reason: limit %d, %d in the list", ranges(dropped), m.set.limit, len(a.ids["list"]))
	}
}

// figures checks INFO.
func (m *model) figures(a *answer) {
	m.Helper()
	if !m.exact {
		return
	}
	is := func(name string, want int) {
		m.Helper()
		if got := a.number[name]; got != want {
			m.Fatalf("%s is %d, want %d", name, got, want)
		}
	}
	is("buffer_bytes", a.number["queue_bytes"]+a.number["lent_bytes"])
	is("events_captured", m.captured)
	inList := a.number["held"] + a.number["trimmed"]
	is("events_buffered", len(a.ids["lent"])-inList+len(a.ids["memory"]))
	if a.number["known"] == 1 {
		is("fallback_length", len(a.ids["list"]))
		is("undelivered", len(queued(a))-a.number["pending"]-max(0, inList-a.number["settling"]))
	}
	if len(a.ids["memory"]) == 0 && a.number["queue_bytes"] != 0 || len(a.ids["lent"]) == 0 && a.number["lent_bytes"] != 0 {
		m.Fatalf("bytes are counted where nothing is: %v", a.number)
	}
}

// promises checks the window, and outbox's word.
func (m *model) promises(a *answer) {
	m.Helper()
	if a.number["trimmed"] > len(a.ids["lent"]) {
		m.Fatalf("%d trimmed of %d lent", a.number["trimmed"], len(a.ids["lent"]))
	}
}

// mayStore reports whether a turn can put events into the list.
func (m *model) mayStore() bool {
	return !m.replica && !m.guarded && m.set.limit >= 0 && m.s.number["type"] != wrongType
}

// ranges makes ids short enough to read.
func ranges(ids []id) (out []string) {
	for i := 0; i < len(ids); {
		j := i + 1
		for j < len(ids) && ids[j].origin == ids[i].origin && ids[j].seq == ids[j-1].seq+1 {
			j++
		}
		out = append(out, fmt.Sprintf("%d:%d-%d", ids[i].origin, ids[i].seq, ids[j-1].seq))
		i = j
	}
	return out
}

// ---- the server

func (m *model) drawSettings() {
	m.set = settings{
		limit:   rapid.SampledFrom([]int64{0, 0, 0, 0, 3, 40, 1000, -1}).Draw(m.draw, "limit"),
		buffer:  rapid.SampledFrom([]uint64{1 << 20, 1 << 20, 0, 300, 100000}).Draw(m.draw, "buffer"),
		window:  rapid.SampledFrom([]uint32{8, 1, 2, 40, 2000}).Draw(m.draw, "window"),
		outbox:  rapid.Bool().Draw(m.draw, "outbox"),
		timeout: rapid.SampledFrom([]uint32{0, 1, 5}).Draw(m.draw, "shutdown_timeout"),
	}
	m.sendSettings()
}

func (m *model) sendSettings() {
	outbox := 0
	if m.set.outbox {
		outbox = 1
	}
	a := m.ask("settings %d %d %d %d %d", m.set.limit, m.set.buffer, m.set.window, outbox, m.set.timeout)
	m.limited = m.limited || m.set.limit > 0
	if m.s != nil {
		m.observe(a)
	}
}

// load starts the server: what was durable is there, and what was spooled.
func (m *model) load() {
	m.taken, m.sent, m.reached, m.acks, m.asleep, m.up = nil, 0, 0, 0, false, true
	m.captured, m.dropped, m.aside = 0, 0, 0
	m.s, m.exact = nil, false
	jobs := 0
	if m.jobs {
		jobs = 1
	}
	a := m.ask("load %d", jobs)
	m.origin = uint64(a.number["origin"])
	want := slices.Concat(m.durable, m.spool)
	if got := queued(a); !slices.Equal(got, want) {
		m.Fatalf("after the load there are %v, want %v", ranges(got), ranges(want))
	}
	if m.limited {
		// What the limit dropped comes back with the spool file, late.
		for _, e := range m.spool {
			m.late[e] = m.late[e] || m.spooled
		}
	}
	m.spooled = true
	m.queue = want
	m.exact = !m.replica && !slices.Contains(want, id{}) && a.number["type"] != wrongType
	if m.replica {
		m.disorder(a)
	}
	m.observe(a)
}

// disorder: the events that are there may come in any order from now on.
func (m *model) disorder(a *answer) {
	for e := range m.everywhere(a) {
		m.late[e] = true
	}
}

func (m *model) capture(late bool) {
	// More than one batch, one slice, one chunk: seldom, for they take long.
	n := rapid.IntRange(1, 12).Draw(m.draw, "events")
	size := rapid.IntRange(0, 40).Draw(m.draw, "key's bytes")
	switch rapid.IntRange(0, 199).Draw(m.draw, "extreme") {
	case 199:
		n = 5000
	case 198, 197:
		n = 600
	case 196, 195, 194, 193, 192:
		size = 30000
	case 191, 190:
		size = 70000
	}
	word := "capture"
	if late {
		// Past a turn's end each may be in a spool file of its own.
		word, n = "late", min(n, 600)
	}
	before := m.captured
	a := m.do("%s %d %d", word, n, size)
	if got := m.captured - before; got != n && !m.replica {
		m.Fatalf("%d of %d events were captured", got, n)
	}
	if late && !m.jobs && a.number["past_turn"] == 1 {
		if m.set.outbox {
			m.putAside(a)
		}
		m.afterTurn(a, true) // answered before the next one
	}
}

func (m *model) turn() {
	before := m.dropped
	a := m.do("turn")
	m.putAside(a)
	m.afterTurn(a, m.dropped == before)
}

// afterTurn is what has to hold at a turn's end. whole: it dropped nothing.
func (m *model) afterTurn(a *answer, whole bool) {
	m.Helper()
	if m.set.outbox && m.mayStore() && m.exact {
		if n := len(a.ids["memory"]); n > 0 {
			m.Fatalf("outbox, and %d events are in memory alone at the end of a turn", n)
		}
		// What was lent before a change of role is not stored behind what the
		// list has: that waits, was lent later, or was not an event and dropped.
		for _, e := range slices.Backward(a.ids["lent"]) {
			if !whole || a.number["pending"] > 0 || !slices.Contains(a.ids["lent_not_stored"], e) {
				break
			}
			if !slices.Contains(a.ids["list"], e) {
				m.Fatalf("outbox, and %v is lent and not in the list at the end of a turn", e)
			}
		}
	}
	if m.always {
		m.flush()
	}
}

// undelivered is what neither the list has nor the broker.
func undelivered(a *answer, delivered int) []id {
	inList := a.number["held"] + a.number["trimmed"]
	return slices.Concat(a.ids["lent_not_stored"], a.ids["memory"])[max(0, delivered-inList):]
}

// putAside: with outbox, what a turn captured and nobody may store is spooled.
func (m *model) putAside(a *answer) {
	rest := undelivered(a, a.number["settling"])
	barred := m.set.outbox && m.set.limit >= 0 && (m.replica || m.guarded)
	if barred && m.aside != m.captured && len(rest) > 0 {
		for _, e := range rest {
			// What the list had when this node was demoted is its new
			// master's, which may have delivered it.
			kept := slices.Contains(m.spool, e) || slices.Contains(a.ids["list"], e)
			if !kept && !m.arrived[e] && !m.gone[e] {
				m.Fatalf("outbox, and nothing keeps %v", ranges(rest))
			}
		}
		for _, e := range rest {
			m.safe[e] = m.safe[e] || m.always
		}
	}
	m.aside = m.captured
}

// flush makes all that was propagated durable.
func (m *model) flush() {
	m.do("flush")
	m.durable = m.s.ids["list"]
	if m.s.number["type"] == wrongType {
		m.durable = nil
	}
	if m.always {
		for _, e := range m.durable {
			m.safe[e] = true
		}
	}
}

// end forgets the process; survives is what it left behind.
func (m *model) end(durable, spool []id) {
	survives := map[id]bool{}
	for _, e := range slices.Concat(durable, spool) {
		survives[e] = true
	}
	for _, e := range m.s.ids["lent"][:m.s.number["trimmed"]] {
		m.gone[e] = true // its element has left the list: dropped, if not confirmed
	}
	for e := range m.everywhere(m.s) {
		if survives[e] {
			continue
		}
		if m.safe[e] && !m.gone[e] {
			m.Fatalf("%v was in the list and fsynced, and is lost", e)
		}
		m.gone[e] = true
	}
	m.durable, m.spool = durable, spool
}

func (m *model) crash() {
	m.ask("crash")
	m.end(m.durable, m.spool)
	m.load()
}

// shutdown: Redis saves, then the module waits for confirms and spools.
func (m *model) shutdown() { m.putAway("shutdown") }

// unload unloads the module, which leaves the list as it is and spools the
// rest, and loads it again.
func (m *model) unload() { m.putAway("unload") }

func (m *model) putAway(command string) {
	crashed := false
	remaining := 10
	step := func(string) bool {
		if m.kills && rapid.IntRange(0, 9).Draw(m.draw, "a kill while waiting") == 0 {
			crashed = true
			return true
		}
		m.publisherStep()
		if remaining--; remaining > 0 {
			m.ask("arm shutdown-waiting 1")
		}
		return false
	}
	point := "shutdown-waiting"
	if m.kills {
		point = rapid.SampledFrom([]string{point, point, "spool-added", "spool-written", "spool-synced", "spool-renamed"}).Draw(m.draw, "step")
	}
	if point != "shutdown-waiting" {
		step = func(string) bool { crashed = true; return true }
	}
	m.d.step = step
	m.ask("arm %s 1", point)
	before, settles := m.s, m.settles
	a := m.ask("%s", command)
	// The step may be one that this command does not come to.
	if command == "unload" && !crashed {
		if a.number["unloaded"] != 1 {
			m.Fatal("not unloaded")
		}
		if list := a.ids["list"]; !slices.Equal(list, before.ids["list"]) {
			m.Fatalf("unloaded, the list has %v, it had %v", ranges(list), ranges(before.ids["list"]))
		}
		m.ask("flush")
	}
	delivered := before.number["settling"] + m.settles - settles
	spool := undelivered(before, delivered)
	durable := before.ids["list"]
	if before.number["type"] == wrongType {
		durable = nil
	}
	if command == "unload" && crashed {
		durable = m.durable
	}
	switch {
	case crashed && point != "spool-renamed":
		spool = m.spool
	case crashed: // the older files are there, too
		spool = slices.Concat(m.spool, spool)
	case len(spool) == 0:
		spool = nil
	}
	if there := a.number["spool"] == 1; there != (spool != nil) {
		m.Fatalf("a spool file: %v, want one with %v", there, ranges(spool))
	}
	m.end(durable, spool)
	m.spooled = crashed
	m.load()
}

func (m *model) role() {
	m.replica = !m.replica
	m.disorder(m.s)
	m.exact = false
	n := 0
	if m.replica {
		n = 1
	}
	m.do("role %d", n)
	m.disorder(m.s)
}

// peer is what the replica's master does: it delivers from the list, and adds
// to it.
func (m *model) peer() {
	n := rapid.IntRange(1, 6).Draw(m.draw, "events")
	const origin = 1 << 40
	if rapid.Bool().Draw(m.draw, "delivers") {
		for _, e := range m.s.ids["list"][:min(n, len(m.s.ids["list"]))] {
			if e == (id{}) {
				continue // it passes over what is not an event
			}
			m.arrive(e)
			m.gone[e] = true
		}
		m.do("peer pop 0 0 %d", n)
		return
	}
	for i := range n {
		e := id{origin, m.peers + uint64(i) + 1}
		m.number[e] = len(m.number)
	}
	m.do("peer push %d %d %d", origin, m.peers+1, n)
	m.peers += uint64(n)
}

// edit is what somebody does to the key.
func (m *model) edit() {
	how := rapid.SampledFrom([]string{"del", "htrim", "ttrim", "hjunk", "tjunk", "string"}).Draw(m.draw, "how")
	n := rapid.IntRange(1, 12).Draw(m.draw, "elements")
	told := rapid.IntRange(0, 1).Draw(m.draw, "notified")
	list := m.s.ids["list"]
	m.exact = false
	switch how {
	case "del", "string":
	case "htrim":
		list = list[:min(n, len(list))]
	case "ttrim":
		list = list[max(0, len(list)-n):]
	default:
		list = nil
	}
	// What is lent may still arrive.
	for _, e := range list {
		m.gone[e] = true
	}
	m.do("edit %s %d %d", how, n, told)
}

// stepped is a turn during which the publisher acts, or the server is killed.
func (m *model) stepped() {
	steps := []string{"store-pushed", "store-replicated", "memory-lent", "list-lent", "settle-popped", "pop-replicated", "settled", "reclaimed", "trimmed", "publisher-woken", "spool-delivered", "spool-removed", "spool-added", "spool-written", "spool-synced", "spool-renamed"}
	name := rapid.SampledFrom(steps).Draw(m.draw, "step")
	kill := m.kills && rapid.Bool().Draw(m.draw, "kill")
	killed := false
	m.d.step = func(string) bool {
		killed = kill
		if !kill {
			m.stepping = true
			m.publisherStep()
			m.stepping = false
		}
		return kill
	}
	m.ask("arm %s %d", name, rapid.IntRange(1, 3).Draw(m.draw, "passage"))
	a := m.ask("turn")
	if !killed {
		m.observe(a)
		m.ask("arm none 1")
		m.putAside(a)
		m.afterTurn(a, true)
		return
	}
	m.spoolNow(a)
	m.end(m.durable, m.spool)
	m.load()
}

// ---- the publisher and the broker

// publisherStep is one of the publisher's within a turn.
func (m *model) publisherStep() {
	switch rapid.IntRange(0, 4).Draw(m.draw, "the publisher's step") {
	case 0:
		m.take(m.ask)
	case 1:
		m.lose(m.ask)
	case 2:
		m.connect(m.ask)
	default:
		m.take(m.ask)
		m.sent = len(m.taken)
		m.reach(len(m.taken))
		m.acks = m.reached
		m.settle(m.ask, m.acks)
	}
}

type asker func(format string, args ...any) *answer

func (m *model) take(ask asker) bool {
	if m.asleep || !m.up {
		return false
	}
	ids := ask("take").ids["taken"]
	m.taken = append(m.taken, ids...)
	return len(ids) > 0
}

func (m *model) sleep(ask asker) {
	if m.asleep || !m.up {
		return
	}
	m.asleep = ask("sleep").number["slept"] == 1
}

func (m *model) arrive(e id) {
	m.Helper()
	n, known := m.number[e]
	if !known {
		m.Fatalf("%v has arrived, which nobody captured", e)
	}
	if m.arrived[e] {
		return
	}
	m.arrived[e] = true
	if m.late[e] || m.gone[e] {
		return
	}
	if n < m.last {
		m.Fatalf("%v, number %d, has arrived after number %d", e, n, m.last)
	}
	m.last = n
}

// reach: the broker gets messages up to the n-th.
func (m *model) reach(n int) {
	for m.reached < n {
		m.arrive(m.taken[m.reached])
		m.reached++
	}
}

func (m *model) settle(ask asker, n int) {
	m.Helper()
	if n == 0 {
		return
	}
	for _, e := range m.taken[:n] {
		m.settled[e] = true
		if !m.exact {
			continue
		}
		// In the middle of a turn older ones may just have been dropped.
		at := slices.Index(m.queue, e)
		if at < 0 || at > 0 && !m.stepping {
			m.Fatalf("the publisher has %v, the queue begins with %v", ranges(m.taken), ranges(m.queue[:min(len(m.queue), 5)]))
		}
		m.queue = slices.Delete(m.queue, at, at+1)
	}
	m.taken = m.taken[n:]
	m.settles += n
	m.sent, m.reached, m.acks = m.sent-n, m.reached-n, m.acks-n
	ask("settle %d", n)
}

// lose: the session ends; what is under way is lost, confirms that were not
// read too.
func (m *model) lose(ask asker) {
	m.taken, m.sent, m.reached, m.acks = nil, 0, 0, 0
	m.up = false
	ask("rewind")
}

func (m *model) connect(ask asker) {
	m.up, m.asleep = true, false
	ask("away 0")
}

func (m *model) upTo(label string, from, to int) int {
	if from >= to {
		return to
	}
	return rapid.IntRange(from, to).Draw(m.draw, label)
}

// ---- the property

func (m *model) actions() map[string]func(*rapid.T) {
	all := map[string]func(){
		"capture":       func() { m.capture(false) },
		"capture again": func() { m.capture(false) },
		"capture late":  func() { m.capture(true) },
		"turn":          m.turn,
		"turn again":    m.turn,
		"stepped turn":  m.stepped,
		"cron":          func() { m.do("cron") },
		"flush":         m.flush,
		"take":          func() { m.take(m.do) },
		"sleep":         func() { m.sleep(m.do) },
		"send":          func() { m.sent = m.upTo("sent", m.sent, len(m.taken)) },
		"reach":         func() { m.reach(m.upTo("reached", m.reached, m.sent)) },
		"acknowledge":   func() { m.acks = m.upTo("acknowledged", m.acks, m.reached) },
		"settle":        func() { m.settle(m.do, m.upTo("settled", 0, m.acks)) },
		"deliver":       m.deliver,
		"deliver again": m.deliver,
		"lose":          func() { m.lose(m.do) },
		"connect":       func() { m.connect(m.do) },
		"settings":      m.drawSettings,
		"shutdown":      m.shutdown,
		"unload":        m.unload,
		"guard": func() {
			m.guarded = !m.guarded
			n := 0
			if m.guarded {
				n = 1
			}
			m.do("guard %d", n)
		},
	}
	if m.kills {
		all["crash"] = m.crash
	}
	if m.roles {
		all["role"] = m.role
		all["peer"] = func() {
			if m.replica {
				m.peer()
			}
		}
	}
	if m.edits {
		all["edit"] = func() {
			if !m.replica {
				m.edit()
			}
		}
	}
	out := map[string]func(*rapid.T){}
	for name, f := range all {
		out[name] = func(t *rapid.T) {
			m.TB, m.draw = t, t
			f()
		}
	}
	return out
}

// deliver is a stretch without trouble: all that is lent is taken and
// delivered.
func (m *model) deliver() {
	for m.take(m.do) {
	}
	m.sent = len(m.taken)
	m.reach(m.sent)
	m.acks = m.reached
	m.settle(m.do, m.acks)
	m.sleep(m.do)
}

// heal ends all trouble, and lets the loop run until everything is delivered.
func (m *model) heal() {
	if m.guarded {
		m.guarded = false
		m.do("guard 0")
	}
	if m.replica {
		m.role()
	}
	if m.s.number["type"] == wrongType {
		m.exact = false
		m.do("edit del 0 1")
	}
	if len(m.queue) > 200 {
		m.set.window = 2000 // to come to an end
		m.sendSettings()
	}
	m.connect(m.do)
	rounds := 30 + 3*len(m.queue)
	for round := 0; ; round++ {
		if round == rounds {
			m.Fatalf("stuck: after %d rounds there are %v, %v", rounds, ranges(queued(m.s)), m.s.number)
		}
		if round%10 == 9 {
			m.do("cron")
		}
		m.turn()
		m.deliver()
		if len(m.queue) == 0 && len(m.s.ids["lent"]) == 0 && m.s.number["spool"] == 0 && m.s.number["known"] == 1 {
			break
		}
	}
	m.turn()
	for _, name := range []string{"events_buffered", "fallback_length", "buffer_bytes", "oldest_event_ms", "lent_bytes", "held", "pending", "trimmed"} {
		if n := m.s.number[name]; n != 0 {
			m.Fatalf("%s is %d at the end", name, n)
		}
	}
	missing := []id{}
	for e := range m.number {
		if !m.arrived[e] && !m.gone[e] {
			missing = append(missing, e)
		}
	}
	if len(missing) > 0 {
		m.Fatalf("%d events have not arrived", len(missing))
	}
	// Unloading checks that nothing of its memory remains.
	if a := m.ask("unload"); a.number["unloaded"] != 1 {
		m.Fatal("not unloaded, with nothing to deliver")
	}
}

// Bounded for make test; -rapid.checks=10000 and the like for more. A failure
// names its seed, so no file of it is kept.
func init() {
	for name, value := range map[string]string{"rapid.checks": "120", "rapid.steps": "60", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

func TestNothingIsLostReorderedOrStuck(t *testing.T) {
	d := newDriver(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, d)
		m.draw = t
		m.edits = rapid.Bool().Draw(t, "edits")
		m.roles = rapid.Bool().Draw(t, "roles")
		m.kills = rapid.Bool().Draw(t, "kills")
		m.always = rapid.Bool().Draw(t, "appendfsync always")
		m.jobs = rapid.Bool().Draw(t, "newer than 7.0")
		m.begin()
		t.Repeat(m.actions())
		m.TB, m.draw = t, t
		m.heal()
	})
}

// A bug that the property found, once in some thousand runs.
func TestLimitCountsWhatAnotherMasterStored(t *testing.T) {
	m := newModel(t, newDriver(t))
	m.begin()
	m.do("capture 1 0")
	m.role()
	for n := range uint64(3) {
		m.number[id{1 << 40, n + 1}] = len(m.number)
	}
	m.do("peer push %d 1 3", 1<<40)
	m.set.limit, m.set.outbox = 3, true
	m.sendSettings()
	m.turn() // lends the event, as a replica does
	m.role()
	m.turn()
	m.heal()
}

// Others have exchanged elements, and the list is as long as before: only the
// ids tell, which chance seldom comes to.
func TestSettlingPopsByIdAlone(t *testing.T) {
	m := newModel(t, newDriver(t))
	m.begin()
	m.set.outbox = true
	m.sendSettings()
	m.do("capture 4 0")
	m.turn()
	m.take(m.do)
	m.gone[m.taken[0]], m.exact = true, false
	m.do("edit htrim 1 0")
	m.exact = false
	m.do("edit tjunk 1 0")
	m.sent, m.acks = 1, 1
	m.reach(1)
	m.settle(m.do, 1)
	m.turn()
	m.lose(m.do)
	m.heal()
}

// A smaller limit is kept in slices, a slice a turn, and exactly in the end.
func TestASmallerLimitIsKeptInSlices(t *testing.T) {
	m := newModel(t, newDriver(t))
	m.begin()
	m.lose(m.ask)
	m.do("capture 100 0")
	m.turn()
	m.set.limit = 1
	m.sendSettings()
	turns := 0
	for length := 100; length > 1; turns++ {
		a := m.do("turn")
		now := len(a.ids["list"])
		if length-now != min(trimSlice, length-1) {
			t.Fatalf("a turn has dropped %d of %d, want %d", length-now, length, min(trimSlice, length-1))
		}
		if a.number["events_dropped"] != 100-now || a.number["fallback_length"] != now {
			t.Fatalf("with %d in the list: %v", now, a.number)
		}
		if now > 1 && a.number["one_shots"] == 0 {
			t.Fatalf("%d are left, and no turn was asked for", now)
		}
		length = now
	}
	if turns != (99+trimSlice-1)/trimSlice {
		t.Errorf("%d turns", turns)
	}
	m.heal()
}

// Elements that are not events are dropped hundreds at a time.
func TestElementsThatAreNoEventsGoInSlices(t *testing.T) {
	m := newModel(t, newDriver(t))
	m.begin()
	for range 1000 {
		m.exact = false
		m.do("edit tjunk 1 0")
	}
	m.exact = false
	m.connect(m.do)
	for range 2 {
		m.exact = false
		m.do("turn")
	}
	if left, dropped := len(m.s.ids["list"]), m.s.number["events_dropped"]; left != 0 || dropped != 1000 {
		t.Fatalf("after two turns %d are left, %d counted as dropped", left, dropped)
	}
	m.heal()
}
