// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	lib "github.com/rabbitmq/amqp091-go"
)

// Broker is one private RabbitMQ node. Its folder and ports outlive a restart.
type Broker struct {
	Port   int
	Config []string // lines of rabbitmq.conf

	TLSPort int // of the listener that ListenTLS asks for
	plugins []string
	vhost   string // empty: the default one

	dir     string
	env     []string
	process *process
	epmd    *process // Erlang's port mapper: ours, so that none stays behind
}

// NewBroker prepares a node; Start starts it. Close removes its folder.
func NewBroker(config ...string) (*Broker, error) {
	dir, err := os.MkdirTemp("", "kea-rabbit-")
	if err != nil {
		return nil, err
	}
	var ports [3]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	b := &Broker{Port: ports[0], Config: config, dir: dir}
	b.env = append(withoutRabbit(os.Environ()),
		"HOME="+dir,
		// Makes the script become Erlang's process: else it stays as its
		// parent, and a kill hits the script alone.
		"RUNNING_UNDER_SYSTEMD=true",
		// Nothing of the machine's own RabbitMQ.
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_CONFIG_FILES="+filepath.Join(dir, "conf.d"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+filepath.Join(dir, "advanced"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		// A name that needs no resolver, not even for localhost.
		fmt.Sprintf("RABBITMQ_NODENAME=kea%d@127.0.0.1", ports[0]),
		"RABBITMQ_USE_LONGNAME=true",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+strconv.Itoa(ports[0]),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(ports[1]),
		"ERL_EPMD_PORT="+strconv.Itoa(ports[2]),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "mnesia"),
		"RABBITMQ_LOG_BASE="+filepath.Join(dir, "log"),
		"RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "plugins"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq"),
	)
	return b, nil
}

func withoutRabbit(env []string) (out []string) {
	for _, line := range env {
		if !strings.HasPrefix(line, "RABBITMQ_") {
			out = append(out, line)
		}
	}
	return out
}

// ListenTLS asks for a listener for amqps beside the plain one; called before
// Start. With clients, those who connect must show a certificate by that
// authority, and may log in by it (SASL EXTERNAL): the user's name is its common
// name.
func (b *Broker) ListenTLS(own, clients *Certificate) (err error) {
	if b.TLSPort, err = freePort(); err != nil {
		return err
	}
	certificate, key, err := own.Write(b.dir, "tls")
	if err != nil {
		return err
	}
	b.Config = append(b.Config,
		fmt.Sprintf("listeners.ssl.1 = 127.0.0.1:%d", b.TLSPort),
		"ssl_options.certfile = "+certificate, "ssl_options.keyfile = "+key)
	if clients == nil {
		b.Config = append(b.Config, "ssl_options.verify = verify_none")
		return nil
	}
	authority, _, err := clients.Write(b.dir, "clients")
	if err != nil {
		return err
	}
	b.plugins = append(b.plugins, "rabbitmq_auth_mechanism_ssl")
	b.Config = append(b.Config,
		"ssl_options.cacertfile = "+authority,
		"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = true",
		"auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL",
		"ssl_cert_login_from = common_name")
	return nil
}

// ShowTLS changes the certificate of a running broker: new connections see it.
func (b *Broker) ShowTLS(own *Certificate) error {
	if _, _, err := own.Write(b.dir, "tls"); err != nil {
		return err
	}
	_, err := b.Ctl("eval", "ssl:clear_pem_cache().")
	return err
}

const rabbitBin = "/usr/lib/rabbitmq/bin/"

// Start starts the node and waits until it takes connections.
func (b *Broker) Start() error {
	path, err := binary("KEA_RABBITMQ_SERVER", rabbitBin+"rabbitmq-server", "rabbitmq-server")
	if err != nil {
		return err
	}
	if b.epmd == nil {
		epmd, err := binary("KEA_EPMD", "epmd")
		if err != nil {
			return err
		}
		cmd := exec.Command(epmd)
		cmd.Dir, cmd.Env = b.dir, b.env
		if b.epmd, err = start(cmd); err != nil {
			return err
		}
	}
	files := map[string]string{
		"plugins": "[" + strings.Join(b.plugins, ",") + "].\n",
		// A full disk of the machine is not what is tested.
		"rabbitmq.conf": strings.Join(append([]string{"disk_free_limit.absolute = 1MB"}, b.Config...), "\n") + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(filepath.Join(b.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(path)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = b.dir, b.env, out, out
	if b.process, err = start(cmd); err != nil {
		return err
	}
	return until(90*time.Second, "RabbitMQ answers", func() error {
		if !b.process.alive() {
			text, _ := os.ReadFile(filepath.Join(b.dir, "out"))
			return fmt.Errorf("it has ended: %s", text)
		}
		c, err := b.Dial()
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// URI is amqp://… of the default vhost.
func (b *Broker) URI() string { return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", b.Port) }

// Dial connects to the node itself.
func (b *Broker) Dial() (*lib.Connection, error) {
	return lib.DialConfig(b.URI(), lib.Config{Vhost: b.vhost, Dial: lib.DefaultDial(10 * time.Second)})
}

// With asks for plugins; called before Start.
func (b *Broker) With(plugins ...string) *Broker {
	b.plugins = append(b.plugins, plugins...)
	return b
}

// In is the same node, for queues and consumers in another vhost.
func (b *Broker) In(vhost string) *Broker {
	other := *b
	other.vhost = vhost
	return &other
}

// Kill is kill -9. Stop is orderly. Start starts it again with its data.
func (b *Broker) Kill() { b.process.end(syscall.SIGKILL) }

// Stop ends the node as an operator would.
func (b *Broker) Stop() { b.process.end(syscall.SIGTERM) }

// Ctl runs rabbitmqctl on the node.
func (b *Broker) Ctl(args ...string) (string, error) {
	path, err := binary("KEA_RABBITMQCTL", rabbitBin+"rabbitmqctl", "rabbitmqctl")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Dir = b.env, b.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("rabbitmqctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Close ends the node and its port mapper, and removes the folder.
func (b *Broker) Close() {
	if b.process != nil {
		b.process.end(syscall.SIGKILL)
	}
	if b.epmd != nil {
		b.epmd.end(syscall.SIGKILL)
	}
	os.RemoveAll(b.dir)
}
