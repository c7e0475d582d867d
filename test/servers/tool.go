// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Tool is a program other than the servers, started for as long as a test
// needs it.
type Tool struct {
	process *process
	out     string
}

// StartTool starts a program whose output goes to a file in dir.
func StartTool(dir, program string, args ...string) (*Tool, error) {
	path, err := binary("", program)
	if err != nil {
		return nil, err
	}
	t := &Tool{out: filepath.Join(dir, filepath.Base(program)+".out")}
	out, err := os.Create(t.out)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	t.process, err = start(cmd)
	return t, err
}

// Alive is an error with all that the program said once it has ended.
func (t *Tool) Alive() error {
	if t.process.alive() {
		return nil
	}
	text, _ := os.ReadFile(t.out)
	return errors.New("it has ended: " + string(text))
}

// Close ends the program.
func (t *Tool) Close() { t.process.end(syscall.SIGTERM) }

// FreePort is a port of 127.0.0.1 that nobody listens on now.
func FreePort() (int, error) { return freePort() }

// Env is the environment in which RabbitMQ's command line tools find the node.
func (b *Broker) Env() []string { return append([]string(nil), b.env...) }
