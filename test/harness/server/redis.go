package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// RedisOptions says how a server runs. The zero value is a plain one.
type RedisOptions struct {
	Binary    string   // default: $KEA_REDIS_SERVER, else redis-server in PATH
	Config    []string // lines for redis.conf; they win over the defaults
	Module    string   // file of a module to load; empty: none
	Args      []string // its arguments, quoted as need be
	ReplicaOf string   // host:port of a master
	Dir       string   // kept; default: a temporary folder, removed by Close
}

// Redis is one redis-server. Its port, folder and redis.conf stay the same from
// start to start, so what CONFIG REWRITE wrote counts. Methods may be called
// from several goroutines, but those that start and end the server may not.
type Redis struct {
	opts    RedisOptions
	dir     string
	ours    bool // dir is ours to remove
	port    *Port
	cluster *Port // of the cluster bus; nil: no cluster
	log     logFile
	starts  int

	mu      sync.Mutex
	process *process
	clients []*redis.Client // closed with us
	control *redis.Client   // of this run of the server
}

// NewRedis prepares a server and does not start it. Close must be called.
func NewRedis(opts RedisOptions) (*Redis, error) {
	if opts.Binary == "" {
		opts.Binary = os.Getenv("KEA_REDIS_SERVER")
	}
	if opts.Binary == "" {
		opts.Binary = "redis-server"
	}
	r := &Redis{opts: opts}
	var err error
	if r.dir, r.ours, err = makeDir(opts.Dir, "kea-redis-"); err != nil {
		return nil, err
	}
	r.log = logFile(filepath.Join(r.dir, "redis.log"))
	if err := r.prepare(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// prepare chooses ports and writes redis.conf.
func (r *Redis) prepare() error {
	var err error
	r.port.Release()
	if r.port, err = ReservePort(); err != nil {
		return err
	}
	if r.isCluster() {
		r.cluster.Release()
		if r.cluster, err = ReservePort(); err != nil {
			return err
		}
	}
	return r.Configure(r.opts.Config...)
}

func (r *Redis) isCluster() bool {
	return slices.ContainsFunc(r.opts.Config, func(line string) bool {
		return slices.Equal(strings.Fields(line), []string{"cluster-enabled", "yes"})
	})
}

// Configure writes redis.conf anew, with these lines instead of
// RedisOptions.Config; the next Start reads it.
func (r *Redis) Configure(config ...string) error {
	r.opts.Config = config
	lines := []string{
		"bind 127.0.0.1",
		"port " + r.port.String(),
		"dir " + quote(r.dir),
		"daemonize no",
		"loglevel notice",
		// To standard output, that is into our file, together with what
		// the Go runtime and the sanitizers say.
		`logfile ""`,
		"enable-module-command yes",
		"enable-debug-command yes",
	}
	// A save line adds to those before it: ours must not stand beside theirs.
	saves := func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "save ") }
	if !slices.ContainsFunc(config, saves) {
		lines = append(lines, `save ""`)
	}
	if r.cluster != nil {
		lines = append(lines, "cluster-port "+r.cluster.String())
	}
	if r.opts.Module != "" {
		words := []string{"loadmodule", quote(r.opts.Module)}
		for _, arg := range r.opts.Args {
			words = append(words, quote(arg))
		}
		lines = append(lines, strings.Join(words, " "))
	}
	if r.opts.ReplicaOf != "" {
		host, port, err := net.SplitHostPort(r.opts.ReplicaOf)
		if err != nil {
			return fmt.Errorf("ReplicaOf: %w", err)
		}
		lines = append(lines, "replicaof "+host+" "+port)
	}
	lines = append(lines, config...)
	return os.WriteFile(r.ConfigFile(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// LoadModule sets the module and arguments that redis.conf loads, and writes it
// anew.
func (r *Redis) LoadModule(path string, args ...string) error {
	r.opts.Module, r.opts.Args = path, args
	return r.Configure(r.opts.Config...)
}

// quote writes a word as redis.conf wants it.
func quote(word string) string {
	plain := word != ""
	for i := range len(word) {
		c := word[i]
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\'' || c == '\\' || c == '#' {
			plain = false
		}
	}
	if plain {
		return word
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(word) {
		if c := word[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Start starts the server and waits until it answers and has loaded its
// dataset. Its error holds the end of the log when the server refused to start.
func (r *Redis) Start() error {
	for try := 0; ; try++ {
		mark := r.log.size()
		err := r.startOnce()
		if err == nil {
			return nil
		}
		clash := strings.Contains(r.log.read(mark), "Address already in use")
		if !clash || r.starts > 0 || try == 4 {
			return err
		}
		if err := r.prepare(); err != nil {
			return err
		}
	}
}

func (r *Redis) startOnce() error {
	if r.Running() {
		return fmt.Errorf("redis-server on port %v runs already", r.port)
	}
	out, err := appendTo(string(r.log))
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(r.opts.Binary, r.ConfigFile())
	cmd.Dir = r.dir
	cmd.Stdout, cmd.Stderr = out, out
	p, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	r.mu.Lock()
	r.process = p
	r.mu.Unlock()
	r.renewControl()

	var ended error
	err = Poll(60*time.Second, func() error {
		if !p.running() {
			ended = fmt.Errorf("redis-server ended: %v\n%s", p.err, r.log.tail(20))
			return nil
		}
		return r.ping()
	})
	if err := errors.Join(ended, err); err != nil {
		return errors.Join(err, p.kill())
	}
	r.starts++
	return nil
}

// renewControl makes our own client anew: the old one's pool may hold
// connections to the server's former life.
func (r *Redis) renewControl() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.control != nil {
		_ = r.control.Close()
	}
	r.control = redis.NewClient(r.clientOptions(nil))
}

func (r *Redis) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := r.controlClient().Ping(ctx).Err()
	if err != nil && strings.HasPrefix(err.Error(), "MASTERDOWN") {
		return nil
	}
	return err
}

func (r *Redis) controlClient() *redis.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.control == nil {
		r.control = redis.NewClient(r.clientOptions(nil))
	}
	return r.control
}

func (r *Redis) current() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.process
}

// Running tells whether the process exists.
func (r *Redis) Running() bool {
	p := r.current()
	return p != nil && p.running()
}

// Alive tells whether the server runs and answers.
func (r *Redis) Alive() bool { return r.Running() && r.ping() == nil }

// Starts counts the successful starts.
func (r *Redis) Starts() int { return r.starts }

// Stop ends the server with SIGTERM, and waits. Asked for more than 30 s it
// kills the server, and that is an error.
func (r *Redis) Stop() error {
	if p := r.current(); p != nil {
		return p.terminate(30 * time.Second)
	}
	return nil
}

// Shutdown ends the server with SHUTDOWN and args, NOSAVE for example, and
// waits. It returns the server's error when the server refuses.
func (r *Redis) Shutdown(args ...string) error {
	words := []any{"SHUTDOWN"}
	for _, a := range args {
		words = append(words, a)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := redis.NewClient(r.clientOptions(nil))
	defer func() { _ = client.Close() }()
	err := client.Do(ctx, words...).Err()
	var refused redis.Error
	if errors.As(err, &refused) {
		return refused
	}
	return r.Wait(30 * time.Second) // any other error is the connection's end
}

// Kill ends the server with SIGKILL.
func (r *Redis) Kill() error {
	if p := r.current(); p != nil {
		return p.kill()
	}
	return nil
}

// Restart is Stop and Start.
func (r *Redis) Restart() error {
	if err := r.Stop(); err != nil {
		return err
	}
	return r.Start()
}

// Wait waits until the process has ended.
func (r *Redis) Wait(timeout time.Duration) error {
	if p := r.current(); p != nil {
		return p.wait(timeout)
	}
	return nil
}

// Signal sends the process a signal: SIGSTOP and SIGCONT, for example.
func (r *Redis) Signal(sig syscall.Signal) error {
	if p := r.current(); p != nil {
		return p.signal(sig)
	}
	return nil
}

// Close kills the server, closes every client and removes the folder when it is
// temporary (and $KEA_KEEP is not set). It may be called more than once.
func (r *Redis) Close() error {
	r.mu.Lock()
	for _, c := range append(r.clients, r.control) {
		if c != nil {
			_ = c.Close()
		}
	}
	r.clients, r.control = nil, nil
	r.mu.Unlock()
	err := r.Kill()
	r.port.Release()
	r.cluster.Release()
	if r.ours {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	return err
}

// Pid is the process's number; 0 before the first start.
func (r *Redis) Pid() int {
	if p := r.current(); p != nil {
		return p.pid()
	}
	return 0
}

// Port is the server's port.
func (r *Redis) Port() int { return r.port.Number }

// Addr is host:port.
func (r *Redis) Addr() string { return r.port.Addr() }

// Dir is the server's working folder.
func (r *Redis) Dir() string { return r.dir }

// ConfigFile is the path of redis.conf.
func (r *Redis) ConfigFile() string { return filepath.Join(r.dir, "redis.conf") }

// Log is all that the server wrote, in all its runs.
func (r *Redis) Log() string { return r.log.read(0) }

// LogSize is where the log ends now: a mark for LogSince and WaitLogSince.
func (r *Redis) LogSize() int64 { return r.log.size() }

// LogSince is the log from a mark on.
func (r *Redis) LogSince(mark int64) string { return r.log.read(mark) }

// LogTail is the log's last lines.
func (r *Redis) LogTail(lines int) string { return r.log.tail(lines) }

// WaitLog waits up to 10 s until the log holds text.
func (r *Redis) WaitLog(text string) error { return r.WaitLogSince(0, text) }

// WaitLogSince waits up to 10 s until the log holds text after a mark.
func (r *Redis) WaitLogSince(mark int64, text string) error {
	return r.log.waitFor(text, mark, 10*time.Second)
}

// CheckLog returns an error when the log tells of a crash, a failed assertion,
// a panic or a sanitizer's finding.
func (r *Redis) CheckLog() error { return r.log.check() }

// Client returns a new client: RESP2, no retries, and nothing sent that was not
// asked for. Close of the server closes it. After a restart take a new one, or
// expect the first calls to fail.
func (r *Redis) Client(opts *redis.Options) *redis.Client {
	c := redis.NewClient(r.clientOptions(opts))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients = append(r.clients, c)
	return c
}

func (r *Redis) clientOptions(opts *redis.Options) *redis.Options {
	var o redis.Options
	if opts != nil {
		o = *opts
	}
	if o.Addr == "" {
		o.Addr = r.Addr()
	}
	if o.Protocol == 0 {
		o.Protocol = 2
	}
	if o.MaxRetries == 0 {
		o.MaxRetries = -1
	}
	if o.DialerRetries == 0 {
		o.DialerRetries = 1
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 60 * time.Second // a script may make a million events
	}
	o.DisableIdentity = true
	o.ContextTimeoutEnabled = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return &o
}

// Do runs one command on a connection of our own; a nil reply is nil, without
// error.
func (r *Redis) Do(args ...any) (any, error) {
	reply, err := r.controlClient().Do(context.Background(), args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the server closed the connection: %w", err)
	}
	return reply, err
}

// Info returns the fields of one section of INFO.
func (r *Redis) Info(section string) (map[string]string, error) {
	reply, err := r.Do("INFO", section)
	if err != nil {
		return nil, err
	}
	text, ok := reply.(string)
	if !ok {
		return nil, fmt.Errorf("INFO %s: reply is a %T", section, reply)
	}
	fields := make(map[string]string)
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, "#") {
			fields[name] = value
		}
	}
	return fields, nil
}

// ModuleInfo returns the fields of INFO key_evt_amqp without their prefix; an
// error when there are none.
func (r *Redis) ModuleInfo() (map[string]string, error) {
	all, err := r.Info("key_evt_amqp")
	if err != nil {
		return nil, err
	}
	fields := make(map[string]string)
	for name, value := range all {
		if name, ok := strings.CutPrefix(name, "key_evt_amqp_"); ok {
			fields[name] = value
		}
	}
	if len(fields) == 0 {
		return nil, errors.New("INFO key_evt_amqp is empty: the module is not loaded")
	}
	return fields, nil
}

// ModuleNumber returns one field of INFO key_evt_amqp as a number.
func (r *Redis) ModuleNumber(field string) (int64, error) {
	fields, err := r.ModuleInfo()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(fields[field], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("INFO field %s: %w", field, err)
	}
	return n, nil
}
