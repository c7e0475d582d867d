// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pinning gives Redis's main thread a core that nothing of ours shares, so that
// what it uses is its own, and not the price of a cache that others have filled.
// The zero value pins nothing.
type pinning struct {
	main int   // the core of Redis's main thread
	rest []int // the cores of everything else; none: not pinned
}

// pin keeps this process, and all that it will start, off the first of the cores
// it may use. With one core there is nothing to divide.
func pin() (pinning, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return pinning{}, fmt.Errorf("the cores this process may use: %w", err)
	}
	var cores []int
	for core := range len(allowed) * strconv.IntSize {
		if allowed.IsSet(core) {
			cores = append(cores, core)
		}
	}
	if len(cores) < 2 {
		return pinning{}, nil
	}
	p := pinning{cores[0], cores[1:]}
	// A thread starts on the cores of the one that makes it: once a look finds
	// none that is new, all are where they should be.
	seen := map[string]bool{}
	for again := true; again; {
		again = false
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return pinning{}, err
		}
		for _, task := range tasks {
			if seen[task] {
				continue
			}
			seen[task], again = true, true
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil {
				return pinning{}, err
			}
			if err := setCores(tid, p.rest); err != nil && !errors.Is(err, unix.ESRCH) {
				return pinning{}, err
			}
		}
	}
	return p, nil
}

// redis puts a redis-server's main thread, whose id is the process's, on its core.
func (p pinning) redis(pid int) error {
	if len(p.rest) == 0 {
		return nil
	}
	return setCores(pid, []int{p.main})
}

// String says it in the report's words.
func (p pinning) String() string {
	if len(p.rest) == 0 {
		return "threads not pinned"
	}
	return fmt.Sprintf("Redis's main thread on core %d, everything else on %s", p.main, strings.Trim(fmt.Sprint(p.rest), "[]"))
}

func setCores(tid int, cores []int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(tid, &set))
}
