// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Go ends the process when it cannot make a thread, so a load without room for
// threads is refused. The runtime is there from a first load: what it takes at
// its own start can be asked of nobody.
func TestALoadWithoutRoomForThreadsIsRefused(t *testing.T) {
	r := start(t, options{events: "$"})
	r.do("MODULE", "UNLOAD", "key_evt_amqp")
	limit := func(bytes string) {
		t.Helper()
		if text, err := exec.Command("prlimit", "--pid", fmt.Sprint(r.Pid()), "--as="+bytes+":").CombinedOutput(); err != nil {
			t.Fatalf("prlimit: %v %s", err, text)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.Pid()))
	must(t, err)
	var kib int
	_, text, _ := strings.Cut(string(status), "VmSize:")
	if _, err := fmt.Sscan(text, &kib); err != nil {
		t.Fatal(err)
	}
	// Two stacks, and the few that the C library keeps for the next.
	limit(fmt.Sprint((kib + 16<<10) << 10))
	if err := r.load(options{events: "$"}); err == nil {
		t.Fatal("loaded without room for threads")
	}
	logs(t, r, "more threads can be made here, and the module needs room for")
	r.sets("k", 10)
	limit("unlimited")
	must(t, r.load(options{events: "$"}))
	r.sets("l", 10)
	r.arrives(setBodies("l", 10))
}
