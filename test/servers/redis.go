// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis is one private redis-server. Its folder and port outlive a restart.
type Redis struct {
	Port   int
	Dir    string
	Config []string // lines of redis.conf
	Env    []string // more of the environment, name=value
	Before []string // words before the program's name: who runs it
	// KeepConfig makes Start use redis.conf as CONFIG REWRITE left it.
	KeepConfig bool
	*redis.Client

	process *process
}

// NewRedis prepares a server; Start starts it. Close removes its folder.
func NewRedis(config ...string) (*Redis, error) {
	dir, err := os.MkdirTemp("", "kea-redis-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &Redis{Port: port, Dir: dir, Config: config}
	r.Client = redis.NewClient(&redis.Options{
		Addr: r.Addr(), Protocol: 2, MaxRetries: -1, DisableIdentity: true,
		ReadTimeout: 60 * time.Second, PoolSize: 16,
	})
	return r, nil
}

// Addr is host:port.
func (r *Redis) Addr() string { return "127.0.0.1:" + strconv.Itoa(r.Port) }

// Start starts the server and waits until it has loaded its data.
func (r *Redis) Start() error {
	path, err := binary("KEA_REDIS_SERVER", "redis-server")
	if err != nil {
		return err
	}
	lines := append([]string{
		"bind 127.0.0.1", "port " + strconv.Itoa(r.Port), "dir " + r.Dir,
		"logfile " + filepath.Join(r.Dir, "log"), `save ""`,
		"enable-module-command yes", "enable-debug-command yes",
		"repl-diskless-sync-delay 0",
	}, r.Config...)
	file := filepath.Join(r.Dir, "redis.conf")
	if !r.KeepConfig {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	words := append(slices.Clone(r.Before), path, file)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = r.Dir
	cmd.Env = append(os.Environ(), r.Env...)
	if r.process, err = start(cmd); err != nil {
		return err
	}
	return until(60*time.Second, "redis-server answers", func() error {
		if !r.process.alive() {
			return nil // Alive tells
		}
		return r.Ping(context.Background()).Err()
	})
}

// Alive reports whether the server runs; else how it ended is in its log.
func (r *Redis) Alive() error {
	if r.process == nil || !r.process.alive() {
		return errors.New("redis-server has ended:\n" + r.LogTail(20))
	}
	return nil
}

// Kill is kill -9. Terminate is SIGTERM. Both wait for the end.
func (r *Redis) Kill()      { r.process.end(syscall.SIGKILL) }
func (r *Redis) Terminate() { r.process.end(syscall.SIGTERM) }

// Pid is the server's process id.
func (r *Redis) Pid() int { return r.process.cmd.Process.Pid }

// Close ends the server and removes its folder.
func (r *Redis) Close() {
	r.Client.Close()
	if r.process != nil {
		r.process.end(syscall.SIGKILL)
	}
	os.RemoveAll(r.Dir)
}

// Log is the whole log file.
func (r *Redis) Log() string {
	b, _ := os.ReadFile(filepath.Join(r.Dir, "log"))
	return string(b)
}

// LogTail is its last n lines.
func (r *Redis) LogTail(n int) string {
	lines := strings.Split(r.Log(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// ModuleInfo is INFO key_evt_amqp, names without the prefix.
func (r *Redis) ModuleInfo() (map[string]string, error) {
	text, err := r.Info(context.Background(), "key_evt_amqp").Result()
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for _, line := range strings.Split(text, "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if ok {
			fields[strings.TrimPrefix(name, "key_evt_amqp_")] = value
		}
	}
	if len(fields) == 0 {
		return nil, fmt.Errorf("INFO key_evt_amqp is empty")
	}
	return fields, nil
}
