// SPDX-License-Identifier: BSD-3-Clause

//go:build faults

package fault

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// wanted is read when the first step is passed: c/fault.go prepares it.
var wanted = sync.OnceValues(func() (name string, count int64) {
	name, times, _ := strings.Cut(os.Getenv("KEA_FAULT"), ":")
	count, _ = strconv.ParseInt(times, 10, 64)
	return name, count
})

var passed atomic.Int64

// Point kills the process when $KEA_FAULT is "name:count" and this is the
// count-th passage. As c/fault.c it leaves the name behind.
func Point(name string) {
	if armed, count := wanted(); name == armed && passed.Add(1) >= count {
		_ = os.WriteFile("key_evt_amqp.fault", []byte(name), 0o600)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // nothing is to follow while the signal is under way
	}
}
