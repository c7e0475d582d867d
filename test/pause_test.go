// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"strings"
	"testing"
)

// turn sends SETs of prefix and a command that forbids writes, all in one
// turn of the event loop: when it ends, nothing can be stored any more.
func (r *rig) turn(prefix string, n int, last ...any) {
	r.t.Helper()
	pipe := r.Pipeline()
	for i := range n {
		pipe.Set(ctx, fmt.Sprintf("%s%d", prefix, i), "v", 0)
	}
	pipe.Do(ctx, last...)
	_, err := pipe.Exec(ctx)
	must(r.t, err)
}

// With outbox on, the events of acknowledged writes are safe also where the
// server lets nobody store them.
func TestOutboxKeepsEventsOfTheTurnThatPauses(t *testing.T) {
	r, p := proxied(t, options{events: "$m", config: []string{"appendonly yes", "appendfsync always", "key_evt_amqp.outbox yes"}})
	p.Cut()
	r.sets("before", 20)
	r.until("fallback_length", is("20"))
	r.turn("in", 10, "CLIENT", "PAUSE", "100000", "WRITE")
	r.Kill()
	must(t, r.Start())
	must(t, p.Mend())
	r.arrives(append(setBodies("before", 20), setBodies("in", 10)...))
	r.balanced(30, 0)
	r.spoolIsGone()
}

// Reads go on in a pause, and make events; the file is not written for each.
func TestReadsInAPauseWriteNoFile(t *testing.T) {
	r, p := proxied(t, options{events: "$m", config: []string{"key_evt_amqp.outbox yes"}})
	p.Cut()
	r.sets("k", 1)
	r.until("fallback_length", is("1"))
	r.do("CLIENT", "PAUSE", "100000", "WRITE")
	_ = r.Get(ctx, "missing").Err()
	r.until("events_buffered", is("1"))
	r.spoolIsGone()
	r.do("CLIENT", "UNPAUSE")
	must(t, p.Mend())
	r.arrives(append(setBodies("k", 1), "0\nkeymiss\nmissing"))
	r.balanced(0, 0)
}

// The broker is there: it need not wait for the pause's end.
func TestOutboxDeliversInAPause(t *testing.T) {
	r := start(t, options{events: "$", config: []string{"appendonly yes", "key_evt_amqp.outbox yes"}})
	r.sets("before", 20)
	r.turn("in", 10, "CLIENT", "PAUSE", "100000", "WRITE")
	r.arrives(append(setBodies("before", 20), setBodies("in", 10)...))
	r.do("CLIENT", "UNPAUSE")
	r.balanced(0, 0)
	r.spoolIsGone()
}

// failOver makes the replica the master in a turn that writes.
func failOver(t *testing.T, master, replica *rig, prefix string, n int) {
	t.Helper()
	eventually(t, func() error { // it has to be online first
		if info := master.Info(ctx, "replication").Val(); !strings.Contains(info, "state=online") {
			return fmt.Errorf("no replica online: %s", info)
		}
		return nil
	})
	master.turn(prefix, n, "FAILOVER")
	isMaster(t, replica.Redis)
}

// The master of a FAILOVER is killed once it is a replica: what it could not
// store any more is nowhere else.
func TestADemotedMasterIsKilledBeforeItDelivers(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$", config: []string{"appendonly yes", "appendfsync always", "key_evt_amqp.outbox yes"}})
	master.sets("before", 20)
	master.until("fallback_length", is("20"))
	failOver(t, master, replica, "in", 10)
	master.Kill()
	master.Config = append(master.Config, fmt.Sprintf("replicaof 127.0.0.1 %d", replica.Port))
	must(t, master.Start())
	must(t, mend())
	must(t, master.queue.Wait(30, patience))
	master.until("events_buffered", is("0"))
	replica.until("fallback_length", is("0"))
	sameDataset(t, replica, master)
	for _, r := range []*rig{master, replica} {
		if got := r.info("events_dropped"); got != "0" {
			t.Errorf("%s were dropped", got)
		}
	}
	master.spoolIsGone()
}

// What the turn of a FAILOVER made is younger than the list, which the new
// master delivers.
func TestADemotedMasterWaitsForTheListInFrontOfIt(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$", config: []string{"appendonly yes", "key_evt_amqp.outbox yes"}})
	const n = 30000
	master.sets("before", n)
	master.until("fallback_length", is(fmt.Sprint(n)))
	failOver(t, master, replica, "in", 10)
	must(t, mend())
	master.arrives(append(setBodies("before", n), setBodies("in", 10)...))
	master.until("events_buffered", is("0"))
	replica.until("fallback_length", is("0"))
	sameDataset(t, replica, master)
}

// Its new master has no module: nobody delivers the list.
func TestADemotedMasterDoesNotWaitForEver(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{"key_evt_amqp.outbox yes"}})
	other := start(t, options{noLoad: true, silent: true})
	p.Cut()
	r.sets("listed", 20)
	r.until("fallback_length", is("20"))
	other.do("REPLICAOF", "127.0.0.1", fmt.Sprint(r.Port))
	other.linkIsUp()
	other.do("REPLICAOF", "NO", "ONE")
	// In the turn of its demotion: no more can be stored.
	r.turn("in", 10, "REPLICAOF", "127.0.0.1", fmt.Sprint(other.Port))
	r.linkIsUp()
	must(t, p.Mend())
	r.arrives(setBodies("in", 10))
	r.until("events_buffered", is("0"))
	sameDataset(t, other, r)
	// And is a master again, whose list that is.
	r.do("REPLICAOF", "NO", "ONE")
	r.arrives(append(setBodies("in", 10), setBodies("listed", 20)...))
	r.balanced(0, 0)
}

// The list that has the first pause's events is in no file yet when the second
// one writes the spool file anew; the RDB has their writes.
func TestASecondPauseKeepsWhatTheFirstHasSpooled(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{"key_evt_amqp.outbox yes"}})
	p.Cut()
	r.sets("first", 1)
	r.until("fallback_length", is("1"))
	r.turn("one", 10, "CLIENT", "PAUSE", "100000", "WRITE")
	r.do("SAVE")
	r.do("CLIENT", "UNPAUSE")
	r.until("fallback_length", is("11"))
	r.turn("two", 10, "CLIENT", "PAUSE", "100000", "WRITE")
	r.Kill()
	must(t, r.Start())
	must(t, p.Mend())
	r.arrives(append(append(setBodies("first", 1), setBodies("one", 10)...), setBodies("two", 10)...))
	r.balanced(21, 0)
	r.spoolIsGone()
}

// The old master comes back without a dataset: until it has its new master's it
// can't tell what is in front of its events.
func TestADemotedMasterComesBackWithoutADataset(t *testing.T) {
	master, replica, mend := replicated(t, options{events: "$", config: []string{`save ""`, "key_evt_amqp.outbox yes"}})
	const n = 30000
	master.sets("before", n)
	master.until("fallback_length", is(fmt.Sprint(n)))
	failOver(t, master, replica, "in", 10)
	master.Kill()
	master.Config = append(master.Config, fmt.Sprintf("replicaof 127.0.0.1 %d", replica.Port))
	must(t, mend())
	must(t, master.Start())
	master.arrives(append(setBodies("before", n), setBodies("in", 10)...))
	master.spoolIsGone()
}
