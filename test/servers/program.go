// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"os/exec"
	"syscall"
)

// Program is any other program that a test runs, killed if we die first.
type Program struct{ process *process }

// Run starts a command.
func Run(cmd *exec.Cmd) (*Program, error) {
	p, err := start(cmd)
	return &Program{p}, err
}

// Kill is kill -9.
func (p *Program) Kill() { p.process.end(syscall.SIGKILL) }

// Terminate is SIGTERM; the exit code reports whether it ended orderly.
func (p *Program) Terminate() (code int) {
	p.process.end(syscall.SIGTERM)
	return p.process.cmd.ProcessState.ExitCode()
}

// Alive reports whether it runs.
func (p *Program) Alive() bool { return p.process.alive() }
