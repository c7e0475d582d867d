// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// usage is CPU time that a redis-server has used, in seconds.
type usage struct{ main, all float64 }

// others is what all threads but Redis's main one have used.
func (u usage) others() float64 { return u.all - u.main }

func (u usage) minus(v usage) usage { return usage{u.main - v.main, u.all - v.all} }

func redisUsage(r *servers.Redis) (u usage, err error) {
	text, err := r.Info(context.Background(), "cpu").Result()
	if err != nil {
		return u, err
	}
	for _, line := range strings.Split(text, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		f, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "used_cpu_sys", "used_cpu_user":
			u.all += f
		case "used_cpu_sys_main_thread", "used_cpu_user_main_thread":
			u.main += f
		}
	}
	return u, nil
}

// ownUsage is the CPU time of this process, in seconds.
func ownUsage() float64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		panic(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
}

// A tick is the kernel's unit in /proc, whatever its own timer's rate.
const tick = 0.01

// watch measures what the rest of the machine does meanwhile: a figure that was
// taken while others were busy is worth less, and the raw figures say so.
type watch struct {
	begun      time.Time
	busy, ours float64
}

func startWatch() watch {
	return watch{time.Now(), machineBusy(), oursBusy()}
}

// others is the number of cores that others have kept busy since.
func (w watch) others() float64 {
	d := (machineBusy() - w.busy - (oursBusy() - w.ours)) / time.Since(w.begun).Seconds()
	return max(d, 0)
}

// machineBusy is the CPU time of all processes since boot, in seconds.
func machineBusy() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	sum := 0.0
	for i, field := range strings.Fields(line)[1:] {
		if i == 3 || i == 4 || i > 7 {
			continue // idle, iowait; a guest's time is counted in user's
		}
		f, _ := strconv.ParseFloat(field, 64)
		sum += f
	}
	return sum * tick
}

// oursBusy is the CPU time of this process and all that it started, those that
// have ended included.
func oursBusy() float64 {
	type stat struct {
		parent int
		time   float64
	}
	all := map[int]stat{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything.
		end := strings.LastIndexByte(string(b), ')')
		f := strings.Fields(string(b)[end+1:])
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		s := stat{}
		s.parent, _ = strconv.Atoi(f[1])
		for _, i := range []int{11, 12, 13, 14} { // user, system, and those of ended children
			t, _ := strconv.ParseFloat(f[i], 64)
			s.time += t * tick
		}
		all[pid] = s
	}
	self, sum := os.Getpid(), 0.0
	for pid, s := range all {
		for at := pid; at != 0; at = all[at].parent {
			if at == self {
				sum += s.time
				break
			}
		}
	}
	return sum
}

// settle waits until what we started is quiet, so that what one measurement left
// behind (a broker that deletes a queue) is not counted to the next.
func settle() {
	for range 50 {
		before := oursBusy()
		time.Sleep(100 * time.Millisecond)
		if oursBusy()-before < 2*tick {
			return
		}
	}
}

func threads(pid int) (int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	return len(tasks), err
}

func resident(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize())
}
