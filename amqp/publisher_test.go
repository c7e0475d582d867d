// SPDX-License-Identifier: BSD-3-Clause

package amqp_test

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

var broker *servers.Broker

const maxMessage = 1 << 20 // that the broker takes

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run()) // each worker would start a broker, and none is needed
	}
	code := func() int {
		var err error
		if broker, err = servers.NewBroker(fmt.Sprint("max_message_size = ", maxMessage)); err == nil {
			defer broker.Close()
			err = broker.Start()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := goleak.Find(goleak.IgnoreTopFunction("github.com/key-evt-amqp/key_evt_amqp/test/servers.init.func1.1"),
			goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait")); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}()
	os.Exit(code)
}

// memory is a source that holds numbered messages, and checks that the
// publisher keeps its side of the contract.
type memory struct {
	mu        sync.Mutex
	t         *testing.T
	made, out int // messages 1 to made exist; those up to out were handed out
	settled   int
	wake      chan struct{}
	backs     int
}

func (s *memory) add(n int) {
	s.mu.Lock()
	s.made += n
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *memory) Next(m *amqp.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == s.made {
		return false
	}
	s.out++
	*m = amqp.Message{ID: fmt.Sprint("id-", s.out), Time: time.Now(), Type: "test", RoutingKey: s.t.Name(), Body: fmt.Append(nil, s.out)}
	return true
}

func (s *memory) Settle(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled += n; s.settled > s.out || n < 1 {
		s.t.Errorf("settled %d of %d handed out", s.settled, s.out)
	}
}

func (s *memory) Rewind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = s.settled
	s.backs++
}

func (s *memory) Sleep() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out == s.made
}

func (s *memory) Wake() <-chan struct{} { return s.wake }

func (s *memory) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made - s.settled
}

// states remembers what the publisher reports.
type states struct {
	mu  sync.Mutex
	now amqp.Change
	n   amqp.Counters
}

func (o *states) StateChanged(c amqp.Change)   { o.mu.Lock(); o.now = c; o.mu.Unlock() }
func (o *states) Counted(n amqp.Counters)      { o.mu.Lock(); o.n = n; o.mu.Unlock() }
func (o *states) Dropped(*amqp.Message, error) {}
func (o *states) get() (amqp.Change, amqp.Counters) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now, o.n
}

func config(port int) amqp.Config {
	return amqp.Config{
		Hosts:    []amqp.Host{{Name: "127.0.0.1", Port: port}},
		Username: "guest", Password: func() (string, error) { return "guest", nil },
		Vhost: "/", Heartbeat: 10 * time.Second, AppID: "test", Exchange: "amq.direct", DeliveryMode: 1, Mandatory: true,
		MaxInflight: 500, ConnectTimeout: 5 * time.Second, ReconnectDelayMax: 300 * time.Millisecond,
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute: ", what)
		}
	}
}

func newMemory(t *testing.T) *memory { return &memory{t: t, wake: make(chan struct{}, 1)} }

// arrive checks that messages 1 to n arrive in order.
func arrive(t *testing.T, c *servers.Consumer, n int) {
	t.Helper()
	if err := c.Wait(n, time.Minute); err != nil {
		t.Fatal(err)
	}
	for i, m := range c.Messages() {
		if string(m.Body) != fmt.Sprint(i+1) {
			t.Fatalf("message %d is %q", i+1, m.Body)
		}
	}
}

func TestMessagesArriveInOrderAndAreSettled(t *testing.T) {
	if err := broker.Bind(t.Name(), "amq.direct", t.Name(), nil); err != nil {
		t.Fatal(err)
	}
	c := broker.Consume(t.Name())
	defer c.Close()
	src, obs := newMemory(t), &states{}
	p := amqp.New(src, obs, config(broker.Port))
	p.Start()
	defer p.Stop()
	const n = 20000
	for range 20 {
		src.add(n / 20)
	}
	arrive(t, c, n)
	eventually(t, "all settled", func() bool { return src.left() == 0 })
	eventually(t, "counters", func() bool { _, k := obs.get(); return k.Confirmed == n && k.Inflight == 0 })
	if _, k := obs.get(); k.Published != n || k.Connects != 1 || k.Returned+k.Nacked+k.Dropped+k.ConnectFailures != 0 {
		t.Errorf("counters are %+v", k)
	}
}

func TestAConnectionCutAgainAndAgain(t *testing.T) {
	if err := broker.Bind(t.Name(), "amq.direct", t.Name(), nil); err != nil {
		t.Fatal(err)
	}
	c := broker.Consume(t.Name())
	defer c.Close()
	proxy, err := servers.NewProxy(fmt.Sprint("127.0.0.1:", broker.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Cut()
	src, obs := newMemory(t), &states{}
	p := amqp.New(src, obs, config(proxy.Port))
	p.Start()
	defer p.Stop()
	const rounds, each = 10, 3000
	for range rounds {
		src.add(each)
		eventually(t, "connected", func() bool { s, _ := obs.get(); return s.State == amqp.Connected })
		proxy.Cut()
		eventually(t, "cut", func() bool { s, _ := obs.get(); return s.State != amqp.Connected })
		if err := proxy.Mend(); err != nil {
			t.Fatal(err)
		}
	}
	arrive(t, c, rounds*each)
	eventually(t, "all settled", func() bool { return src.left() == 0 })
	// What was in flight when the connection went has no answer: nobody
	// rejected it.
	if _, k := obs.get(); k.Nacked != 0 {
		t.Errorf("%d messages count as rejected by a broker that was cut off", k.Nacked)
	}
	t.Logf("%d duplicates of %d", c.Duplicates(), rounds*each)
}

func TestDisconnectAndConnect(t *testing.T) {
	if err := broker.Bind(t.Name(), "amq.direct", t.Name(), nil); err != nil {
		t.Fatal(err)
	}
	c := broker.Consume(t.Name())
	defer c.Close()
	src, obs := newMemory(t), &states{}
	p := amqp.New(src, obs, config(broker.Port))
	p.Start()
	defer p.Stop()
	connect := func() error {
		answer := make(chan error, 1)
		p.Connect(func(err error) { answer <- err })
		return <-answer
	}
	for i := range 5 {
		if err := connect(); err != nil {
			t.Fatal(err)
		}
		src.add(100)
		arrive(t, c, (i+1)*200-100)
		closed := make(chan struct{})
		p.Disconnect(time.Second, func() { close(closed) })
		<-closed
		src.add(100)
		if s, _ := obs.get(); s.State != amqp.Disabled {
			t.Fatalf("state is %v", s.State)
		}
		if err := connect(); err != nil {
			t.Fatal(err)
		}
		arrive(t, c, (i+1)*200)
	}
	bad := config(broker.Port)
	bad.Vhost = "none"
	p.Configure(bad)
	if err := connect(); err == nil {
		t.Error("connected to a vhost that does not exist")
	} else {
		t.Log(err)
	}
}

func TestStopIsBoundedInEveryState(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := silent.Addr().(*net.TCPAddr).Port
	for _, test := range []struct {
		name  string
		port  int
		n     int
		state amqp.State
	}{
		{"idle", broker.Port, 0, amqp.Idle},
		{"connecting", port, 1, amqp.Connecting},
		{"backoff", 1, 1, amqp.Backoff},
		{"unroutable", broker.Port, 10, amqp.Backoff},
	} {
		t.Run(test.name, func(t *testing.T) {
			src, obs := newMemory(t), &states{}
			p := amqp.New(src, obs, config(test.port))
			p.Start()
			src.add(test.n)
			eventually(t, test.state.String(), func() bool { s, _ := obs.get(); return s.State == test.state })
			before := time.Now()
			p.Stop()
			if d := time.Since(before); d > 10*time.Second {
				t.Errorf("Stop took %v", d)
			}
			if src.left() != test.n || src.out != 0 {
				t.Errorf("%d messages left of %d, %d not rewound", src.left(), test.n, src.out)
			}
		})
	}
}

// large gives a source's messages bodies that fill every buffer on the way.
type large struct{ *memory }

func (s large) Next(m *amqp.Message) bool {
	ok := s.memory.Next(m)
	m.Body = make([]byte, 1<<20)
	return ok
}

// deaf passes on to the broker until it is told to read no more.
func deaf(t *testing.T, secure *tls.Config) (port int, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	var held []net.Conn
	var mu sync.Mutex
	var reads atomic.Bool
	reads.Store(true)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", broker.Port))
			if err != nil {
				c.Close()
				continue
			}
			mu.Lock()
			held = append(held, c, up)
			mu.Unlock()
			go io.Copy(c, up)
			go func() {
				b := make([]byte, 4096)
				for reads.Load() {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					up.Write(b[:n])
				}
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range held {
			c.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).Port, func() { reads.Store(false) }
}

func TestStopIsBoundedWhenAPeerReadsNoMore(t *testing.T) {
	c, err := servers.NewCertificate(servers.Issue{Name: "deaf", Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(c.PEM, c.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for name, secure := range map[string]*tls.Config{"plain": nil, "TLS": {Certificates: []tls.Certificate{pair}}} {
		t.Run(name, func(t *testing.T) {
			port, stop := deaf(t, secure)
			src, obs := newMemory(t), &states{}
			cfg := config(port)
			if secure != nil {
				cfg.TLS = func() (*tls.Config, error) { return &tls.Config{InsecureSkipVerify: true}, nil }
			}
			p := amqp.New(large{src}, obs, cfg)
			p.Start()
			connected := make(chan error)
			p.Connect(func(err error) { connected <- err })
			if err := <-connected; err != nil {
				t.Fatal(err)
			}
			stop()
			src.add(400)
			// Until nothing goes out any more.
			last := -1
			eventually(t, "the publisher is stuck", func() bool {
				time.Sleep(200 * time.Millisecond)
				src.mu.Lock()
				defer src.mu.Unlock()
				stuck := src.out == last && last > 0
				last = src.out
				return stuck
			})
			before := time.Now()
			p.Stop()
			if d := time.Since(before); d > 3*time.Second {
				t.Errorf("Stop took %v", d)
			}
			if src.left() != 400 || src.out != 0 {
				t.Errorf("%d messages left of 400, %d not rewound", src.left(), src.out)
			}
		})
	}
}
