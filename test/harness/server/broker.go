package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// BrokerOptions says how a broker runs. The zero value is a small one.
type BrokerOptions struct {
	Binary  string   // default: $KEA_RABBITMQ_SERVER, else where packages put it, else PATH
	Config  []string // lines for rabbitmq.conf; they win over the defaults
	Plugins []string // to enable
	ErlArgs string   // for the Erlang VM; default "+S 2:2 +sbwt none"
}

// Broker is a RabbitMQ node with an epmd of its own. Its port, name and data
// stay the same from start to start. Methods may be called from several
// goroutines, but those that start and end the node may not.
type Broker struct {
	opts  BrokerOptions
	dir   string
	ours  bool
	port  *Port
	dist  *Port
	epmd  *Port
	names *process // epmd
	log   logFile

	mu   sync.Mutex
	node *process
}

// NewBroker prepares a broker and does not start it. Close must be called.
func NewBroker(opts BrokerOptions) (*Broker, error) {
	var err error
	if opts.Binary, err = findRabbit(opts.Binary); err != nil {
		return nil, err
	}
	if opts.ErlArgs == "" {
		opts.ErlArgs = "+S 2:2 +sbwt none"
	}
	b := &Broker{opts: opts}
	if b.dir, b.ours, err = makeDir("", "kea-rabbitmq-"); err != nil {
		return nil, err
	}
	b.log = logFile(b.file("output.log"))
	if err := b.prepare(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// findRabbit prefers the script itself to the wrapper in PATH, which changes
// the user and needs root for it.
func findRabbit(binary string) (string, error) {
	if binary == "" {
		binary = os.Getenv("KEA_RABBITMQ_SERVER")
	}
	if binary != "" {
		return exec.LookPath(binary)
	}
	for _, path := range []string{
		"/usr/lib/rabbitmq/bin/rabbitmq-server",
		"/opt/rabbitmq/sbin/rabbitmq-server",
		"rabbitmq-server",
	} {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	return "", errors.New("rabbitmq-server not found: run `sh test/install.sh run`, or set KEA_RABBITMQ_SERVER")
}

// findEpmd looks beside erl too: not every package links epmd into PATH.
func findEpmd() (string, error) {
	if path, err := exec.LookPath("epmd"); err == nil {
		return path, nil
	}
	roots := []string{"/usr/lib/erlang", "/usr/lib64/erlang", "/usr/local/lib/erlang", "/opt/erlang"}
	if erl, err := exec.LookPath("erl"); err == nil {
		if erl, err = filepath.EvalSymlinks(erl); err == nil {
			roots = append(roots, filepath.Dir(filepath.Dir(erl)))
		}
	}
	for _, root := range roots {
		if found, _ := filepath.Glob(filepath.Join(root, "erts-*", "bin", "epmd")); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", errors.New("epmd not found: it is a part of Erlang")
}

func (b *Broker) file(name string) string { return filepath.Join(b.dir, name) }

// prepare chooses ports and writes the configuration.
func (b *Broker) prepare() error {
	for _, p := range []**Port{&b.port, &b.dist, &b.epmd} {
		(*p).Release()
		var err error
		if *p, err = ReservePort(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"mnesia", "log", "conf.d", "generated"} {
		if err := os.MkdirAll(b.file(dir), 0o755); err != nil {
			return err
		}
	}
	plugins := "[" + strings.Join(b.opts.Plugins, ",") + "].\n"
	for name, text := range map[string]string{
		"enabled_plugins": plugins,
		"env.conf":        "", // instead of the machine's
		"advanced.config": "[].\n",
	} {
		if err := os.WriteFile(b.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return b.Configure(b.opts.Config...)
}

// Configure writes rabbitmq.conf anew, with these lines instead of
// BrokerOptions.Config; the next Start reads it.
func (b *Broker) Configure(config ...string) error {
	b.opts.Config = config
	lines := append([]string{
		"listeners.tcp.1 = " + b.port.Addr(),
		// The disk that we test on may be nearly full: that is no alarm.
		"disk_free_limit.absolute = 1MB",
	}, config...)
	return os.WriteFile(b.file("rabbitmq.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// environment is ours without what belongs to another node.
func (b *Broker) environment() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if name != "HOME" && name != "NOTIFY_SOCKET" && name != "MNESIA_BASE" &&
			!strings.HasPrefix(name, "RABBITMQ_") && !strings.HasPrefix(name, "ERL_") {
			env = append(env, kv)
		}
	}
	const loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
	return append(env,
		"HOME="+b.dir, // of the Erlang cookie
		"RABBITMQ_NODENAME="+b.Node(),
		"RABBITMQ_NODE_PORT="+b.port.String(),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_DIST_PORT="+b.dist.String(),
		"RABBITMQ_MNESIA_BASE="+b.file("mnesia"),
		"RABBITMQ_LOG_BASE="+b.file("log"),
		"RABBITMQ_PID_FILE="+b.file("rabbitmq.pid"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+b.file("enabled_plugins"),
		"RABBITMQ_CONFIG_FILE="+b.file("rabbitmq.conf"),
		"RABBITMQ_CONFIG_FILES="+b.file("conf.d"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+b.file("advanced.config"),
		"RABBITMQ_CONF_ENV_FILE="+b.file("env.conf"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+b.file("generated"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+b.opts.ErlArgs+" "+loopback,
		"RABBITMQ_CTL_ERL_ARGS="+loopback,
		"ERL_EPMD_PORT="+b.epmd.String(),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP=/dev/null",
		// So the script becomes the node, and does not stay as a parent
		// that we would have to kill the node through.
		"RUNNING_UNDER_SYSTEMD=true",
	)
}

// Start starts the node, on the data of its last run, and waits until it takes
// AMQP connections.
func (b *Broker) Start() error {
	for try := 0; ; try++ {
		fresh := b.names == nil
		err := b.startOnce()
		if err == nil {
			return nil
		}
		if !fresh || try == 2 || !strings.Contains(b.Log(), "eaddrinuse") {
			return err
		}
		if err := errors.Join(b.names.kill(), b.prepare()); err != nil {
			return err
		}
		b.names = nil
	}
}

func (b *Broker) startOnce() error {
	if b.Running() {
		return fmt.Errorf("broker on port %v runs already", b.port)
	}
	if err := b.startEpmd(); err != nil {
		return err
	}
	out, err := appendTo(string(b.log))
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(b.opts.Binary)
	cmd.Dir, cmd.Env = b.dir, b.environment()
	cmd.Stdout, cmd.Stderr = out, out
	p, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("start rabbitmq-server: %w", err)
	}
	b.mu.Lock()
	b.node = p
	b.mu.Unlock()

	var ended error
	err = Poll(120*time.Second, func() error {
		if !p.running() {
			ended = fmt.Errorf("rabbitmq-server ended: %v\n%s", p.err, b.log.tail(30))
			return nil
		}
		return b.handshake()
	})
	if err := errors.Join(ended, err); err != nil {
		return errors.Join(err, p.kill())
	}
	return nil
}

// startEpmd starts the name service before the node would start one as a
// daemon. It outlives the node's restarts.
func (b *Broker) startEpmd() error {
	if b.names != nil && b.names.running() {
		return nil
	}
	path, err := findEpmd()
	if err != nil {
		return err
	}
	out, err := appendTo(string(b.log))
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(path, "-port", b.epmd.String(), "-address", "127.0.0.1")
	cmd.Dir = b.dir
	cmd.Stdout, cmd.Stderr = out, out
	if b.names, err = startProcess(cmd); err != nil {
		return fmt.Errorf("start epmd: %w", err)
	}
	return Poll(10*time.Second, func() error {
		c, err := net.Dial("tcp", b.epmd.Addr())
		if err != nil {
			return fmt.Errorf("epmd: %w", err)
		}
		return c.Close()
	})
}

func (b *Broker) handshake() error {
	c, err := b.dial("/", 5*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

func (b *Broker) current() *process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.node
}

// Running tells whether the node's process exists.
func (b *Broker) Running() bool {
	p := b.current()
	return p != nil && p.running()
}

// Stop ends the node in good order with SIGTERM, and waits. Asked for more than
// 60 s it kills the node, and that is an error.
func (b *Broker) Stop() error {
	if p := b.current(); p != nil {
		return p.terminate(60 * time.Second)
	}
	return nil
}

// Kill ends the node with SIGKILL.
func (b *Broker) Kill() error {
	if p := b.current(); p != nil {
		return p.kill()
	}
	return nil
}

// Restart is Stop and Start.
func (b *Broker) Restart() error {
	if err := b.Stop(); err != nil {
		return err
	}
	return b.Start()
}

// Signal sends the node a signal: with SIGSTOP it accepts connections (the
// kernel does) and never answers, until SIGCONT.
func (b *Broker) Signal(sig syscall.Signal) error {
	if p := b.current(); p != nil {
		return p.signal(sig)
	}
	return nil
}

// Close kills the node and its epmd, and removes their folder (unless $KEA_KEEP
// is set). It may be called more than once.
func (b *Broker) Close() error {
	err := b.Kill()
	if b.names != nil {
		err = errors.Join(err, b.names.kill())
	}
	for _, p := range []*Port{b.port, b.dist, b.epmd} {
		p.Release()
	}
	if b.ours {
		// What the node started ends itself, a moment after the node,
		// and may still write.
		err = errors.Join(err, Poll(5*time.Second, func() error { return os.RemoveAll(b.dir) }))
	}
	return err
}

// Pid is the node's process; 0 before the first start.
func (b *Broker) Pid() int {
	if p := b.current(); p != nil {
		return p.pid()
	}
	return 0
}

// Port is the AMQP port.
func (b *Broker) Port() int { return b.port.Number }

// Addr is host:port.
func (b *Broker) Addr() string { return b.port.Addr() }

// Dir holds the node's configuration, data and logs.
func (b *Broker) Dir() string { return b.dir }

// Node is the node's Erlang name.
func (b *Broker) Node() string { return "kea-" + b.port.String() + "@localhost" }

// URI is for user guest and virtual host /.
func (b *Broker) URI() string { return URI(b.Addr(), "/") }

// URI is an AMQP address for user guest.
func URI(addr, vhost string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	u := amqp.URI{Scheme: "amqp", Host: host, Username: "guest", Password: "guest", Vhost: vhost}
	if _, err := fmt.Sscan(port, &u.Port); err != nil {
		u.Port = 5672
	}
	return u.String()
}

// Dial connects to virtual host /.
func (b *Broker) Dial() (*amqp.Connection, error) { return b.dial("/", 10*time.Second) }

func (b *Broker) dial(vhost string, timeout time.Duration) (*amqp.Connection, error) {
	return dialURI(URI(b.Addr(), vhost), timeout)
}

func dialURI(uri string, timeout time.Duration) (*amqp.Connection, error) {
	var raw net.Conn
	c, err := amqp.DialConfig(uri, amqp.Config{
		Heartbeat: 10 * time.Second,
		Dial: func(network, addr string) (net.Conn, error) {
			conn, err := net.DialTimeout(network, addr, timeout)
			if err != nil {
				return nil, err
			}
			raw = conn
			// The library clears it when the handshake is done.
			return conn, conn.SetDeadline(time.Now().Add(timeout))
		},
	})
	if err != nil {
		if raw != nil {
			_ = raw.Close() // after some failures the library leaves it open
		}
		return nil, err
	}
	return c, nil
}

// Log is all that the node wrote, in all its runs.
func (b *Broker) Log() string {
	text := b.log.read(0)
	files, _ := filepath.Glob(b.file("log/*.log"))
	for _, f := range files {
		text += "--- " + filepath.Base(f) + "\n" + logFile(f).read(0)
	}
	return text
}

// LogTail is the end of the node's log.
func (b *Broker) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(b.Log(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Ctl runs rabbitmqctl on the node; it takes a second or two. The error holds
// what rabbitmqctl said.
func (b *Broker) Ctl(args ...string) (string, error) {
	ctl := filepath.Join(filepath.Dir(b.opts.Binary), "rabbitmqctl")
	if _, err := os.Stat(ctl); err != nil {
		if ctl, err = exec.LookPath("rabbitmqctl"); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, ctl, append([]string{"-q", "-n", b.Node()}, args...)...)
	cmd.Dir, cmd.Env = b.dir, b.environment()
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	p, err := startProcess(cmd)
	if err != nil {
		return "", err
	}
	<-p.done
	if p.err != nil {
		return out.String(), fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), p.err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// AddVhost makes a virtual host that guest may use, without rabbitmqctl's wait
// when it exists.
func (b *Broker) AddVhost(name string) error {
	if _, err := b.Ctl("add_vhost", name); err != nil {
		return err
	}
	_, err := b.Ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
	return err
}
