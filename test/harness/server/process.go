package server

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// process is a program that we started, the leader of its own process group.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and err is set
	err  error
}

// starter runs on a thread of its own. The kernel kills a child with
// Pdeathsig when the *thread* that forked it ends, and Go ends threads as it
// likes: so one locked thread forks all children and lives while any of them
// does.
var starter struct {
	sync.Mutex
	children int
	requests chan func() // nil when there are no children
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)

	starter.Lock()
	if starter.children == 0 {
		starter.requests = make(chan func())
		go serveStarts(starter.requests)
	}
	starter.children++
	requests := starter.requests
	starter.Unlock()

	requests <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		childGone()
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		childGone()
		close(p.done)
	}()
	return p, nil
}

func serveStarts(requests <-chan func()) {
	runtime.LockOSThread() // and never unlocked: the thread ends with us
	for start := range requests {
		start()
	}
}

func childGone() {
	starter.Lock()
	defer starter.Unlock()
	starter.children--
	if starter.children == 0 {
		close(starter.requests)
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

func (p *process) wait(timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("%s (pid %d) has not ended in %v", p.cmd.Path, p.pid(), timeout)
	}
}

// kill ends the process and what it started, at once, and waits until it is
// gone. The group is signalled only while its leader is ours: afterwards the
// number may be somebody else's.
func (p *process) kill() error {
	if p.running() {
		if err := syscall.Kill(-p.pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return p.wait(30 * time.Second)
}

// terminate asks the process to end with SIGTERM, and kills it when it has not
// done so in time.
func (p *process) terminate(timeout time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := p.wait(timeout); err != nil {
		return errors.Join(err, p.kill())
	}
	return nil
}

// appendTo opens the file that takes a process's output.
func appendTo(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// makeDir returns dir, made, or a new temporary folder when it is empty, and
// tells whether it is ours to remove.
func makeDir(dir, pattern string) (path string, ours bool, err error) {
	if dir != "" {
		return dir, false, os.MkdirAll(dir, 0o755)
	}
	path, err = os.MkdirTemp("", pattern)
	return path, os.Getenv("KEA_KEEP") == "", err
}
