// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// readFile reads a file that a setting names, on the main thread when it is set
// and on the publisher's goroutine at each connection. What has that name may be
// anything, and may have become anything since: so it is opened without waiting
// for another end, looked at through the descriptor, and read up to a limit. The
// bare calls, because package os would wait in Go's poller for what can be polled
// (some files of /proc), and the server with it.
func readFile(path string, limit int) (text []byte, err error) {
	failed := func(op string, err error) ([]byte, error) {
		return nil, &os.PathError{Op: op, Path: path, Err: err}
	}
	fd := -1
	again(func() error {
		fd, err = syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return failed("open", err)
	}
	defer syscall.Close(fd)
	var status syscall.Stat_t
	if err := syscall.Fstat(fd, &status); err != nil {
		return failed("stat", err)
	}
	if status.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	tooLarge := fmt.Errorf("%s has more than %d bytes", path, limit)
	if status.Size > int64(limit) {
		return nil, tooLarge
	}
	// It may grow, and files of /proc have no size.
	text = make([]byte, 0, status.Size+512)
	for {
		if len(text) == cap(text) {
			text = append(text, 0)[:len(text)]
		}
		n := 0
		again(func() error {
			n, err = syscall.Read(fd, text[len(text):cap(text)])
			return err
		})
		if err != nil {
			return failed("read", err)
		}
		if n == 0 {
			return text, nil
		}
		if text = text[:len(text)+n]; len(text) > limit {
			return nil, tooLarge
		}
	}
}

// again repeats a call that a signal interrupts.
func again(call func() error) {
	for errors.Is(call(), syscall.EINTR) {
	}
}
