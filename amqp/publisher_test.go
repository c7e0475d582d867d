package amqp_test

import (
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

var broker *servers.Broker

func TestMain(m *testing.M) {
	code := func() int {
		var err error
		if broker, err = servers.NewBroker(); err == nil {
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

func (s *memory) GiveBack() {
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
		Vhost: "/", Heartbeat: 10 * time.Second, Exchange: "amq.direct", DeliveryMode: 1, Mandatory: true,
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
				t.Errorf("%d messages left of %d, %d not given back", src.left(), test.n, src.out)
			}
		})
	}
}
