// SPDX-License-Identifier: BSD-3-Clause

// Package main is the module: it knows the settings and what the commands
// mean, and wires the parts together. It is built as a C shared library that
// redis-server loads; main is never called.
//
// Order of life: Load checks the arguments, Redis then sets configurations,
// Start begins delivering; Stop ends everything, on unload and when a load is
// refused half-way. All of it, and every command, runs on Redis's main thread,
// so module needs no lock.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/c"
)

func main() {}

func init() { c.Implementation = &module{} }

// disconnectTimeout bounds the wait for what is in flight at disconnect.
const disconnectTimeout = 2 * time.Second

type module struct {
	current *settings // in effect, or about to be at Start
	staged  *settings // what CONFIG SET has set and not applied; nil when nothing is
	running bool
	log     *logger // the main thread's

	source    *source
	publisher *amqp.Publisher
	cluster   *cluster // nil without cluster mode
}

// Load implements [c.Module].
func (m *module) Load(args []string) error {
	// A guest in somebody's database server: few threads, little garbage. One
	// processor is enough, and saves the wake-ups of threads for one another;
	// docs/performance.md has the figures.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
	systemAuthorities()
	serverClasses, hasOldValues = c.ServerClasses(), c.HasOldValues()
	*m = module{log: newLogger()}
	s := defaults()
	if _, err := s.setArguments(0, args); err != nil {
		return err
	}
	m.current = s
	return nil
}

// Configs implements [c.Module]. The load arguments are the defaults: a line
// in redis.conf wins over them, and CONFIG REWRITE, which keeps the loadmodule
// line, writes only what differs.
func (m *module) Configs() []c.Config {
	rows := make([]c.Config, len(table))
	for i, row := range table {
		rows[i] = c.Config{
			Name: row.name, Kind: row.kind, Min: row.min, Max: row.max,
			Text: m.current.texts[row.name], Number: m.current.numbers[row.name],
		}
	}
	return rows
}

// Start implements [c.Module].
func (m *module) Start() error {
	if m.staged != nil {
		m.current, m.staged = m.staged, nil
	}
	if _, err := m.current.clientCertificate(); err != nil {
		return err
	}
	if err := m.current.agree(); err != nil {
		return err
	}
	if err := m.configure(m.current); err != nil {
		return err
	}
	if m.current.unverified() {
		m.warnUnverified()
	}
	m.source = newSource(c.EventFD(), layoutOf(m.current))
	m.publisher = amqp.New(m.source, &reporter{log: newLogger()}, m.publisherConfig(m.current))
	m.publisher.Start()
	m.running = true
	if self := c.BusSelf(); self != "" {
		m.cluster = newCluster(self)
	}
	return nil
}

// Stop implements [c.Module].
func (m *module) Stop() {
	if m.running {
		m.publisher.Stop()
		m.source.close()
	}
	*m = module{}
}

// configure hands the main thread what it needs.
func (m *module) configure(s *settings) error {
	program, count, err := s.compiled()
	if err != nil {
		return err
	}
	return c.Configure(c.Settings{
		Classes:     s.events.classes,
		ListLimit:   s.numbers["fallback_storage_size"],
		BufferLimit: uint64(s.numbers["buffer_limit"]),
		// Twice, so that the publisher, when half of it is settled, still
		// has a full flight to send before the main thread has lent more.
		Window:                uint32(2 * s.numbers["max_inflight"]),
		DatasetEvents:         s.numbers["dataset_events"] != 0,
		Outbox:                s.numbers["outbox"] != 0,
		ExpireOnTime:          s.numbers["expire_on_time"] != 0,
		ExpireWatchLimit:      uint64(s.numbers["expire_watch_limit"]),
		ShutdownTimeoutMillis: uint32(s.numbers["shutdown_timeout"]),
		Values:                values[s.texts["value"]],
		ValueLimit:            int(s.numbers["value_limit"]),
		Masks:                 program,
		MasksCount:            count,
	})
}

// change puts new settings into effect, all or nothing.
func (m *module) change(s *settings) error {
	if err := m.configure(s); err != nil {
		return err
	}
	if s.unverified() && !m.current.unverified() {
		m.warnUnverified()
	}
	m.current, m.staged = s, nil
	m.source.layout.Store(layoutOf(s))
	m.publisher.Configure(m.publisherConfig(s))
	return nil
}

func (m *module) warnUnverified() {
	m.log.warning(aboutTLS, "tls_verify is no: the broker's certificate is not checked, whoever answers gets the password and the events")
}

func layoutOf(s *settings) *layout {
	return newLayout(s.events, s.texts["routing_key"], formats[s.texts["format"]])
}

func (m *module) publisherConfig(s *settings) amqp.Config {
	ms := func(name string) time.Duration { return time.Duration(s.numbers[name]) * time.Millisecond }
	host, _ := os.Hostname()
	var secure amqp.TLSFunc
	if s.numbers["tls"] != 0 {
		secure = s.tlsConfig
	}
	return amqp.Config{
		Hosts:             s.brokers(),
		Username:          s.texts["username"],
		Password:          s.password,
		External:          s.external(),
		TLS:               secure,
		Identity:          s.identity(),
		Vhost:             s.texts["vhost"],
		Heartbeat:         time.Duration(s.numbers["heartbeat"]) * time.Second,
		AppID:             "key_evt_amqp",
		Exchange:          s.texts["exchange_name"],
		DeliveryMode:      uint8(s.numbers["delivery_mode"]),
		Mandatory:         s.numbers["mandatory"] != 0,
		MaxInflight:       int(s.numbers["max_inflight"]),
		ConnectTimeout:    ms("connect_timeout"),
		ReconnectDelayMax: ms("reconnect_delay_max"),
		ConnectionName:    fmt.Sprintf("key_evt_amqp on %s, redis pid %d", host, os.Getpid()),
	}
}

// Command implements [c.Module].
func (m *module) Command(name string, args []string) error {
	s := m.current.clone()
	var changed []string
	var connection string
	var err error
	switch name {
	case "config_set":
		changed, err = s.setArguments(firstOfCommands, args)
	case "connect":
		connection = connected
		changed, err = s.setArguments(firstOfCommands, args)
	case "disconnect":
		connection = disconnected
		m.publisher.Disconnect(disconnectTimeout, func() {})
	case "fallback_storage_size_set":
		if changed, err = s.setArguments(sizePosition, args); err != nil {
			err = fmt.Errorf("n: %.32q is not a 64-bit integer", args[0])
		}
	case "keymask_clean":
		changed, err = s.setArguments(maskPosition, nil)
	case "keymask_add":
		changed, err = []string{table[maskPosition].name}, s.addMasks(args)
	case "keymask_set":
		changed, err = s.setArguments(maskPosition, args)
	case "snapshot_cancel":
		m.cancelSnapshot()
	default:
		err = errors.New("unknown command " + name)
	}
	if err == nil && len(changed) > 0 {
		err = m.change(s)
	}
	if err == nil {
		m.spread(changed, connection)
	}
	return err
}

// Connect implements [c.Module].
func (m *module) Connect(done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	m.publisher.Connect(done)
}

// ---- settings as Redis configuration

// editable is where ConfigSet functions write.
func (m *module) editable() *settings {
	if m.staged == nil {
		m.staged = m.current.clone()
	}
	return m.staged
}

func (m *module) shown() *settings {
	if m.staged != nil {
		return m.staged
	}
	return m.current
}

// ConfigText implements [c.Module].
func (m *module) ConfigText(name string) string { return m.shown().texts[name] }

// ConfigNumber implements [c.Module].
func (m *module) ConfigNumber(name string) int64 { return m.shown().numbers[name] }

// stage changes what CONFIG SET stages. The first refusal throws all of it
// away: the server then sets the old values one by one, finds them unchanged,
// and applies nothing.
func (m *module) stage(change func(*settings) error) error {
	err := change(m.editable())
	if err != nil {
		m.staged = nil
	}
	return err
}

// ConfigSetText implements [c.Module]. A value in effect is put back, after
// another parameter was refused, even if it would not be taken any more: a file
// may be gone since.
func (m *module) ConfigSetText(name, value string) error {
	return m.stage(func(s *settings) error {
		err := s.setText(find(name), value)
		if err != nil && m.running && value == m.current.texts[name] {
			s.texts[name] = value
			return nil
		}
		return err
	})
}

// ConfigSetNumber implements [c.Module].
func (m *module) ConfigSetNumber(name string, value int64) error {
	return m.stage(func(s *settings) error { return s.setNumber(find(name), value) })
}

// ConfigApply implements [c.Module].
func (m *module) ConfigApply() error {
	if m.staged == nil || !m.running {
		return nil
	}
	s := m.staged
	m.staged = nil // on failure the server sets the old values again
	if err := s.agree(); err != nil {
		return err
	}
	if !s.samePair(m.current) {
		if _, err := s.clientCertificate(); err != nil {
			return err
		}
	}
	return m.change(s)
}
