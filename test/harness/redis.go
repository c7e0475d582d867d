package harness

import (
	"strconv"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/test/harness/server"
)

// RedisOptions says how a server runs. The zero value is a plain one.
type RedisOptions = server.RedisOptions

// Redis is a redis-server that ends with its test.
type Redis struct {
	*server.Redis
	t           testing.TB
	mayComplain bool
}

// NewRedis starts a server.
func NewRedis(t testing.TB, opts RedisOptions) *Redis {
	t.Helper()
	r, err := TryRedis(t, opts)
	must(t, "start Redis", err)
	return r
}

// TryRedis starts a server that may refuse to start, because of the module's
// arguments for example: then the error holds the end of its log, and the
// server can be configured and started again.
func TryRedis(t testing.TB, opts RedisOptions) (*Redis, error) {
	t.Helper()
	r := PrepareRedis(t, opts)
	return r, r.Redis.Start()
}

// PrepareRedis prepares a server and does not start it.
func PrepareRedis(t testing.TB, opts RedisOptions) *Redis {
	t.Helper()
	s, err := server.NewRedis(opts)
	must(t, "prepare Redis", err)
	r := &Redis{Redis: s, t: t}
	t.Cleanup(func() {
		if err := s.CheckLog(); err != nil && !r.mayComplain {
			t.Errorf("redis on port %d: %v", s.Port(), err)
		}
		ended(t, "redis.log of port "+strconv.Itoa(s.Port()), s.LogTail(100))
		if err := s.Close(); err != nil {
			t.Errorf("close Redis: %v", err)
		}
	})
	return r
}

// MayCrash says that this test wants a crash or a panic in the log.
func (r *Redis) MayCrash() { r.mayComplain = true }

// Start starts the server again and waits until it answers.
func (r *Redis) Start() { r.t.Helper(); must(r.t, "start Redis", r.Redis.Start()) }

// Stop ends the server with SIGTERM, and waits.
func (r *Redis) Stop() { r.t.Helper(); must(r.t, "stop Redis", r.Redis.Stop()) }

// Shutdown ends the server with SHUTDOWN and args, and waits.
func (r *Redis) Shutdown(args ...string) {
	r.t.Helper()
	must(r.t, "SHUTDOWN", r.Redis.Shutdown(args...))
}

// Kill ends the server with SIGKILL.
func (r *Redis) Kill() { r.t.Helper(); must(r.t, "kill Redis", r.Redis.Kill()) }

// Restart is Stop and Start.
func (r *Redis) Restart() { r.t.Helper(); must(r.t, "restart Redis", r.Redis.Restart()) }

// Configure writes redis.conf anew for the next start.
func (r *Redis) Configure(config ...string) {
	r.t.Helper()
	must(r.t, "write redis.conf", r.Redis.Configure(config...))
}

// LoadModule writes the module into redis.conf for the next start.
func (r *Redis) LoadModule(path string, args ...string) {
	r.t.Helper()
	must(r.t, "write redis.conf", r.Redis.LoadModule(path, args...))
}

// Do runs a command that must succeed. A nil reply is nil.
func (r *Redis) Do(args ...any) any {
	r.t.Helper()
	reply, err := r.Redis.Do(args...)
	if err != nil {
		r.t.Fatalf("%q: %v", args, err)
	}
	return reply
}

// Info returns the fields of one section of INFO.
func (r *Redis) Info(section string) map[string]string {
	r.t.Helper()
	fields, err := r.Redis.Info(section)
	must(r.t, "INFO "+section, err)
	return fields
}

// ModuleInfo returns the fields of INFO key_evt_amqp without their prefix.
func (r *Redis) ModuleInfo() map[string]string {
	r.t.Helper()
	fields, err := r.Redis.ModuleInfo()
	must(r.t, "INFO key_evt_amqp", err)
	return fields
}

// WaitLog waits up to 10 s until the log holds text.
func (r *Redis) WaitLog(text string) {
	r.t.Helper()
	must(r.t, "log of Redis", r.Redis.WaitLog(text))
}

// WaitLogSince is WaitLog for what is written after a mark.
func (r *Redis) WaitLogSince(mark int64, text string) {
	r.t.Helper()
	must(r.t, "log of Redis", r.Redis.WaitLogSince(mark, text))
}

// Args are the module's arguments by name. Zero values stand for useful ones:
// classes A, the standard exchange and routing key, every key, and otherwise
// the module's own defaults.
type Args struct {
	Events          string
	Host            string
	Port            int
	User            string
	Password        string
	Heartbeat       string // default 30
	Exchange        string // default amq.direct
	DefaultExchange bool   // the empty exchange name
	RoutingKey      string // default redis_keyspace_events
	DeliveryMode    int    // default 2
	Fallback        string // fallback_storage_size, default 10000000
	Masks           []string
	NoMasks         bool
}

// List is the arguments as the module takes them.
func (a Args) List() []string {
	or := func(s, def string) string {
		if s == "" {
			return def
		}
		return s
	}
	exchange := or(a.Exchange, "amq.direct")
	if a.DefaultExchange {
		exchange = ""
	}
	port, mode := a.Port, a.DeliveryMode
	if port == 0 {
		port = 5672
	}
	if mode == 0 {
		mode = 2
	}
	list := []string{
		or(a.Events, "A"), or(a.Host, "127.0.0.1"), strconv.Itoa(port),
		or(a.User, "guest"), or(a.Password, "guest"), or(a.Heartbeat, "30"),
		exchange, or(a.RoutingKey, "redis_keyspace_events"),
		strconv.Itoa(mode), or(a.Fallback, "10000000"),
	}
	switch {
	case a.NoMasks:
		return list
	case len(a.Masks) == 0:
		return append(list, "ALL")
	default:
		return append(list, a.Masks...)
	}
}
