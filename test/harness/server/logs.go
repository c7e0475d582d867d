package server

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// alarms are what no healthy server writes: crashes, failed assertions,
// findings of the sanitizers and of Go's runtime.
var alarms = []string{
	"CRASHED", "BUG REPORT", "ASSERTION FAILED",
	"WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "ERROR: LeakSanitizer",
	"panic:", "fatal error:", "runtime error:",
}

// logFile is everything that a process wrote, over all its runs.
type logFile string

// read returns the log from byte offset from on.
func (l logFile) read(from int64) string {
	text, err := os.ReadFile(string(l))
	if err != nil || from > int64(len(text)) {
		return ""
	}
	return string(text[from:])
}

func (l logFile) size() int64 {
	info, err := os.Stat(string(l))
	if err != nil {
		return 0
	}
	return info.Size()
}

func (l logFile) tail(lines int) string {
	all := strings.Split(strings.TrimRight(l.read(0), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (l logFile) check() error {
	for line := range strings.Lines(l.read(0)) {
		for _, alarm := range alarms {
			if strings.Contains(line, alarm) {
				return fmt.Errorf("the log says: %s", strings.TrimSpace(line))
			}
		}
	}
	return nil
}

// waitFor waits until the log holds text at or after offset from.
func (l logFile) waitFor(text string, from int64, timeout time.Duration) error {
	return Poll(timeout, func() error {
		if !strings.Contains(l.read(from), text) {
			return fmt.Errorf("the log does not say %q", text)
		}
		return nil
	})
}

// Poll calls cond until it returns nil, or until timeout; then it returns
// cond's last error. Intervals grow from 2 ms to 50 ms.
func Poll(timeout time.Duration, cond func() error) error {
	deadline := time.Now().Add(timeout)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := cond()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in %v: %w", timeout, err)
		}
		time.Sleep(pause)
	}
}
