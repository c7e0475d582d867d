package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// stacks counts samples by stack, the outermost frame first, the thread's name
// before it.
type stacks map[string]int

// profile samples all threads of the server while 400,000 events are delivered,
// with a module that has kept its symbols.
func profile(b *rig, k kind) (stacks, error) {
	module := filepath.Join(b.dir, "profiled.so")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-o", module, "./module")
	build.Dir = b.root
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -g -fno-omit-frame-pointer")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if err := os.Chmod(module, 0o755); err != nil {
		return nil, err
	}
	with := *b
	with.module = module
	queue, drop, err := with.queue(k)
	if err != nil {
		return nil, err
	}
	r, err := with.load(loading{queue: queue, mode: k.mode})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := connect(r); err != nil {
		return nil, err
	}
	if err := warmUp(r, 2000, 0); err != nil {
		return nil, err
	}
	data := filepath.Join(b.dir, "perf.data")
	// No hardware counters in most virtual machines: the kernel's clock.
	perf := exec.Command("perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-g",
		"-o", data, "-p", strconv.Itoa(r.Pid()))
	if err := perf.Start(); err != nil {
		return nil, err
	}
	n := 400000
	if b.quick {
		n = 40000
	}
	if err = sets(r, n, n, 0, 50, 0); err == nil {
		err = until(r, "events_confirmed", 2000+n, patience)
	}
	_ = perf.Process.Signal(syscall.SIGINT)
	_ = perf.Wait()
	if err != nil {
		return nil, err
	}
	if err := drop(); err != nil {
		return nil, err
	}
	out, err := exec.Command("perf", "script", "-i", data, "-F", "comm,tid,pid,ip,sym").Output()
	if err != nil {
		return nil, fmt.Errorf("perf script: %w", err)
	}
	return fold(string(out)), nil
}

// fold reads perf script's output: a line with the thread, then one for each
// frame, the innermost first, then an empty line.
func fold(text string) stacks {
	out := stacks{}
	var thread string
	var frames []string
	end := func() {
		if thread != "" {
			stack := thread
			for i := len(frames) - 1; i >= 0; i-- {
				stack += ";" + frames[i]
			}
			out[stack]++
		}
		thread, frames = "", nil
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
			end()
		case line[0] != ' ' && line[0] != '\t' || strings.Contains(f[len(f)-1], "/") && thread == "":
			thread = otherThreadsName
			pid, tid, ok := strings.Cut(f[len(f)-1], "/")
			if ok && pid == tid {
				thread = mainThreadName
			}
		case thread != "" && len(f) > 1:
			frames = append(frames, strings.Join(f[1:], " "))
		}
	}
	end()
	return out
}

const (
	mainThreadName   = "main thread"
	otherThreadsName = "other threads"
)

// of are the stacks of one kind of thread.
func (s stacks) of(thread string) stacks {
	out := stacks{}
	for stack, n := range s {
		if rest, ok := strings.CutPrefix(stack, thread+";"); ok {
			out[rest] = n
		}
	}
	return out
}
