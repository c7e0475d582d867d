// SPDX-License-Identifier: BSD-3-Clause

// Package servers starts real redis-servers and RabbitMQ nodes for the tests
// and for make run: on free ports of 127.0.0.1, in temporary folders, ended by
// their own process id, and by the kernel if we die first.
package servers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// process is one server that we started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// starter runs commands on one OS thread that never ends: the kernel kills a
// child when the thread that made it ends (Pdeathsig), not the process.
var starter = func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}()

// start starts a command in a process group of its own.
func start(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	result := make(chan error)
	starter <- func() { result <- cmd.Start() }
	if err := <-result; err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// end sends a signal to the process group and waits; after a while it kills.
func (p *process) end(sig syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
	}
	// What the group still holds, if it is its own leader's orphan.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// freePort returns a port of 127.0.0.1 that nobody listens on now. Not one of
// the range for outgoing connections: a client that keeps dialling a dead
// server there may one day be given that port for its own end, and reach
// itself.
func freePort() (port int, err error) {
	for range 100 {
		port = 15000 + rand.IntN(15000)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

// binary finds a server: an environment variable's word first.
func binary(variable string, places ...string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	for _, place := range places {
		if path, err := exec.LookPath(place); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (test/install.sh does it, and $%s may name it)", filepath.Base(places[0]), variable)
}

// until polls a condition until it holds.
func until(limit time.Duration, what string, cond func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := cond()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v: %w", what, limit, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
