// SPDX-License-Identifier: BSD-3-Clause

package model

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	plant       = flag.String("plant", "", "plant the faults whose names match, and see that the model finds each")
	plantChecks = flag.Int("plant.checks", 3000, "runs that the model has for finding a fault")
	plantTime   = flag.Duration("plant.time", 20*time.Minute, "time that it has")
)

// planted are mistakes that somebody could make in the main thread's code: text
// in a file of c/, and what stands there instead.
var planted = []struct{ name, file, right, wrong string }{
	{"nothing is wrong", "policy.c", "bool kea_policy_turn(", "bool kea_policy_turn("},
	{"store_lent without the pending check", "policy.c",
		`	if (f->mirror.pending > 0)
		return;
	while (i > 0`,
		`	while (i > 0`},
	{"settle ignores trimmed", "policy.c",
		"if (r->stored && t->f->mirror.trimmed > 0) {",
		"if (0) {"},
	{"demoted wait forgotten", "policy.c",
		"return f->mirror.pending > 0 || f->demoted.waits;",
		"return f->mirror.pending > 0;"},
	{"memory lent before pending (younger before older)", "policy.c",
		"return f->mirror.pending > 0 || f->demoted.waits;",
		"return f->demoted.waits;"},
	{"outbox: memory lent while list has pending", "policy.c",
		`		if (f->mirror.pending == 0)
			lend_memory(t, true);`,
		`		lend_memory(t, true);`},
	{"outbox stores nothing that is lent already", "policy.c",
		`		store_lent(t); /* from before outbox was turned on */
`,
		""},
	{"outbox: memory lent without the list", "policy.c",
		`	if (f->settings.outbox && t->access == ACCESS_WRITE && uses_list(f) &&
	    picture != KEA_PICTURE_WRONG_TYPE)
		return true;
`,
		""},
	{"unknown list: memory lent first", "policy.c",
		`	if (t->master && picture == KEA_PICTURE_UNKNOWN)
		return true;
`,
		""},
	{"pop not by id", "list.c",
		`	if (!string_record(s, &head) || head.origin != expected->origin ||
	    head.seq != expected->seq) {`,
		`	(void)head; (void)expected; if (0) {`},
	{"pops not replicated at close", "list.c",
		`	replicate_pops(l);
	refused = l->refused;`,
		`	refused = l->refused;`},
	{"pops replicated after pushes", "list.c",
		`	replicate_pops(l); /* they came first */
`,
		""},
	{"write during a pause", "policy.c",
		"return RedisModule_AvoidReplicaTraffic() == 0 ? ACCESS_WRITE :",
		"return 1 ? ACCESS_WRITE :"},
	{"write on a replica", "policy.c",
		`	if (!(flags & REDISMODULE_CTX_FLAGS_MASTER))
		return ACCESS_REPLICA;
`,
		""},
	{"settle releases stored without popping when not writable", "policy.c",
		`			if (!may_write(t))
				return false;
`,
		`			if (!may_write(t)) { t->f->mirror.held--; kea_lent_release(lent, &t->f->queue, 1); continue; }
`},
	{"reclaim: stored events dropped from the picture", "mirror.c",
		`	m->pending += m->held;
	m->held = 0;
	return gone;`,
		`	m->held = 0;
	return gone;`},
	{"reclaim: trimmed not counted", "mirror.c",
		`	uint64_t gone = m->trimmed;`,
		`	uint64_t gone = 0;`},
	{"reclaim: unstored released, not put back", "policy.c",
		`			kea_queue_putback(&f->queue, &r.run);`,
		`			kea_run_release(&f->queue, &r.run, r.run.count);`},
	{"reclaim: stored put back too (twice)", "policy.c",
		`		if (r.stored)
			kea_run_release(&f->queue, &r.run, r.run.count);
		else
			kea_queue_putback`,
		`		kea_queue_putback`},
	{"reclaim before settle is taken in", "policy.c",
		`	if (settle(&t))
		reclaim(f);`,
		`	reclaim(f);
	settle(&t);`},
	{"trim off by one", "policy.c",
		"len - (uint64_t)limit : 0;",
		"len - (uint64_t)limit + 1 : 0;"},
	{"trim: dropped not counted", "policy.c",
		`	kea_flow_drop(f, kea_mirror_trimmed(&f->mirror, n),
		      "the fallback list is full");`,
		`	(void)kea_mirror_trimmed(&f->mirror, n);`},
	{"trim: held counted as dropped", "mirror.c",
		`	m->pending -= n - held;
	return n - held;`,
		`	m->pending -= n - held;
	return n;`},
	{"reconcile never compares", "mirror.c",
		`	if (len == kea_mirror_length(m))
		return 0;
	lose_held`,
		`	return 0;
	lose_held`},
	{"reconcile: gone not counted", "mirror.c",
		`	m->pending = rest;
	return gone;`,
		`	m->pending = rest;
	return 0;`},
	{"reconcile: all held taken for gone", "mirror.c",
		"head ? held_before(m, head) : m->held",
		"m->held"},
	{"drop_memory drops the newest bound wrong (no bound)", "policy.c",
		`	while (f->queue.bytes > f->settings.buffer_limit &&`,
		`	while (f->queue.bytes > 0 &&`},
	{"drop_memory not counted", "policy.c",
		`	kea_flow_drop(f, n, "memory is full`,
		`	kea_flow_drop(f, 0, "memory is full`},
	{"lend_list reads from the head again", "policy.c",
		"(long)f->mirror.held, max, &run,",
		"0L, max, &run,"},
	{"resume missing", "policy.c",
		`	kea_lent_resume(f->lent);
`,
		""},
	{"no wake when more is to be stored", "policy.c",
		`	f->left.stores |= excess(f) > 0;
`,
		""},
	{"idle ignores a rewind", "policy.c",
		`	       f->lent->count == 0 && !kea_lent_rewound(f->lent) &&
`,
		`	       f->lent->count == 0 &&
`},
	{"role change keeps the picture", "events.c",
		`		kea_flow_forget_list(&kea_flow);
`,
		""},
	{"spool not written in a pause", "loop.c",
		`	kea_spool_turn(ctx);
`,
		""},
	{"spool dropped at once", "shutdown.c",
		"!spool_passed() && !spool_emptied()",
		"0"},
	{"visit spools settled events' successors short", "flow.c",
		`		for (; skip > 0 && run.count > 0; skip--) {`,
		`		for (; run.count > 0 && i == 0; skip--) {`},
	{"forget keeps stored marks", "mirror.c",
		`		r->stored = false;
`,
		`		(void)r;
`},
	{"aliens not counted", "policy.c",
		`	kea_flow_drop(t->f, n, "no event in a list element");`,
		`	(void)n;`},
	{"store counts twice in the picture", "mirror.c",
		`void kea_mirror_stored(struct kea_mirror *m, uint64_t n)
{
	m->pending += n;`,
		`void kea_mirror_stored(struct kea_mirror *m, uint64_t n)
{
	m->pending += n + 1;`},
}

// TestPlantedFaultsAreFound says what the model is worth: with each fault in a
// copy of c/, one of this package's tests must fail. It runs with -plant only,
// and takes long: make test-model.
func TestPlantedFaultsAreFound(t *testing.T) {
	if *plant == "" {
		t.Skip("only with -plant")
	}
	chosen, err := regexp.Compile(*plant)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range planted {
		// The first changes nothing: what it finds then is not a fault in c/.
		if fault.right != fault.wrong && !chosen.MatchString(fault.name) {
			continue
		}
		t.Run(fault.name, func(t *testing.T) {
			c := filepath.Join(t.TempDir(), "c")
			if err := os.CopyFS(c, os.DirFS(sourceDir)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(c, fault.file)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(text, []byte(fault.right)); n != 1 {
				t.Fatalf("%s has this text %d times:\n%s", fault.file, n, fault.right)
			}
			text = bytes.Replace(text, []byte(fault.right), []byte(fault.wrong), 1)
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			driver := filepath.Join(filepath.Dir(c), "flow_driver")
			if err := compile(c, driver, "-Wno-error"); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			cmd := exec.Command(os.Args[0], "-test.run=^Test[^P]", "-test.failfast", fmt.Sprintf("-test.timeout=%v", *plantTime),
				fmt.Sprintf("-rapid.checks=%d", *plantChecks), "-rapid.shrinktime=1ms")
			cmd.Env = append(os.Environ(), driverVariable+"="+driver)
			out, err := cmd.CombinedOutput()
			took := time.Since(begun).Round(time.Second)
			if fault.right == fault.wrong {
				if err != nil {
					t.Fatalf("the sources as they are do not pass:\n%s", out)
				}
				return
			}
			if err == nil {
				t.Fatalf("not found in %d runs, %v", *plantChecks, took)
			}
			if bytes.Contains(out, []byte("panic: test timed out")) {
				t.Fatalf("undecided: neither found nor at the end after %v", took)
			}
			how := regexp.MustCompile(`(?m)--- FAIL: \S+|after \d+ tests|broken .*|^ +model_test.go:\d+: [^\[r].*`).FindAllString(string(out), 4)
			if how == nil {
				t.Fatalf("the tests did not run:\n%s", out)
			}
			t.Logf("%v: %s", took, strings.Join(how, "; "))
		})
	}
}
