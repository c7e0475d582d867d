package harness_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/harness"
)

func TestMain(m *testing.M) {
	if os.Getenv("KEA_TEST_VICTIM") != "" {
		victim()
	}
	harness.Main(m, harness.NoLeaks())
}

func TestRedisAnswersAndKeepsItsDataFolder(t *testing.T) {
	r := harness.NewRedis(t, harness.RedisOptions{Config: []string{"appendonly yes", "appendfsync always"}})
	if got := r.Do("SET", "k", "v"); got != "OK" {
		t.Fatalf("SET says %v", got)
	}
	if got := r.Do("GET", "nothing"); got != nil {
		t.Fatalf("GET of no key says %v", got)
	}
	pid, addr := r.Pid(), r.Addr()
	for name, again := range map[string]func(){
		"kill":     func() { r.Kill(); r.Start() },
		"restart":  r.Restart,
		"shutdown": func() { r.Shutdown("NOSAVE"); r.Start() },
	} {
		again()
		if r.Pid() == pid || r.Addr() != addr {
			t.Fatalf("%s: pid %d, address %s; before %d, %s", name, r.Pid(), r.Addr(), pid, addr)
		}
		if got := r.Do("GET", "k"); got != "v" {
			t.Fatalf("after %s GET says %v", name, got)
		}
	}
	if r.Starts() != 4 {
		t.Errorf("started %d times", r.Starts())
	}
	if !r.Alive() {
		t.Error("not alive")
	}
	r.Stop()
	if r.Alive() || r.Running() {
		t.Error("alive after Stop")
	}
	r.WaitLog("bye bye")
	if _, err := r.Redis.Do("PING"); err == nil {
		t.Error("a stopped server answers")
	}
	if err := r.Redis.Start(); err != nil {
		t.Fatal(err)
	}
}

func TestRedisReadsItsConfiguration(t *testing.T) {
	r := harness.NewRedis(t, harness.RedisOptions{Config: []string{"maxmemory 64mb", "save 60 1", `requirepass ""`}})
	for name, want := range map[string]string{
		"maxmemory": "67108864", "save": "60 1", "enable-debug-command": "yes",
		"enable-module-command": "yes", "bind": "127.0.0.1", "port": strconv.Itoa(r.Port()),
	} {
		if got := fmt.Sprint(r.Do("CONFIG", "GET", name)); !strings.Contains(got, want) {
			t.Errorf("CONFIG GET %s says %v, want %s", name, got, want)
		}
	}
	if got := r.Info("server")["tcp_port"]; got != strconv.Itoa(r.Port()) {
		t.Errorf("INFO says port %q", got)
	}
	if _, err := r.Redis.ModuleInfo(); err == nil {
		t.Error("module fields without a module")
	}
	r.Do("CONFIG", "SET", "maxmemory", "32mb")
	r.Do("CONFIG", "REWRITE")
	r.Restart()
	if got := fmt.Sprint(r.Do("CONFIG", "GET", "maxmemory")); !strings.Contains(got, "33554432") {
		t.Errorf("after CONFIG REWRITE and a restart maxmemory is %s", got)
	}
}

func TestRedisThatRefusesToStartSaysWhy(t *testing.T) {
	_, err := harness.TryRedis(t, harness.RedisOptions{Module: "/nonexistent.so", Args: []string{"a b", ""}})
	if err == nil || !strings.Contains(err.Error(), "nonexistent.so") {
		t.Fatalf("error is %v", err)
	}
}

func TestReplicaFollowsItsMaster(t *testing.T) {
	master := harness.NewRedis(t, harness.RedisOptions{Config: []string{"repl-diskless-sync-delay 0"}})
	replica := harness.NewRedis(t, harness.RedisOptions{ReplicaOf: master.Addr()})
	master.Do("SET", "k", "v")
	harness.Eventually(t, 20*time.Second, func() error {
		if got := replica.Do("GET", "k"); got != "v" {
			return fmt.Errorf("GET says %v", got)
		}
		return nil
	}, "replica has the key")
}

func TestClusterNodeHasABusPortOfItsOwn(t *testing.T) {
	r := harness.NewRedis(t, harness.RedisOptions{Config: []string{"cluster-enabled yes"}})
	if got := r.Info("cluster")["cluster_enabled"]; got != "1" {
		t.Fatalf("cluster_enabled is %q", got)
	}
	r.Restart()
}

func TestLogCheckFindsACrash(t *testing.T) {
	r := harness.NewRedis(t, harness.RedisOptions{Config: []string{"crash-log-enabled yes"}})
	r.MayCrash()
	_, _ = r.Redis.Do("DEBUG", "SEGFAULT")
	if err := r.Wait(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.CheckLog(); err == nil {
		t.Fatal("a crash went unnoticed")
	}
}

// publish sends n persistent messages n0, n0+1 ... with confirms.
func publish(t *testing.T, ch *amqp.Channel, key string, n0, n int) {
	t.Helper()
	var last *amqp.DeferredConfirmation
	for i := n0; i < n0+n; i++ {
		var err error
		last, err = ch.PublishWithDeferredConfirm("amq.direct", key, false, false, amqp.Publishing{
			MessageId: fmt.Sprint("id-", i), Body: fmt.Appendf(nil, "0\nset\nkey:%d", i),
			DeliveryMode: amqp.Persistent, ContentType: "text/plain", AppId: "test", Type: "set",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if ok, err := last.WaitContext(ctx); !ok || err != nil {
		t.Fatalf("confirmed: %v, %v", ok, err)
	}
}

func confirming(t *testing.T, b *harness.Broker) *amqp.Channel {
	t.Helper()
	ch := b.Channel()
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

func TestConsumerDropsDuplicatesAndKeepsOrder(t *testing.T) {
	b := harness.SharedBroker(t)
	key := harness.Name(t)
	c := b.Consume("amq.direct", key, harness.ConsumeOptions{})
	ch := confirming(t, b)
	publish(t, ch, key, 0, 1000)
	publish(t, ch, key, 500, 1000)
	got := c.WaitDistinct(1500, 20*time.Second)
	for i, m := range got {
		if m.Key != fmt.Sprint("key:", i) || m.DB != 0 || m.Event != "set" {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	harness.Eventually(t, 10*time.Second, func() error {
		if n := c.Duplicates(); n != 500 {
			return fmt.Errorf("%d", n)
		}
		return nil
	}, "500 duplicates")
	m := c.WaitKey("key:7", time.Second)
	if m.ID != "id-7" || m.Type != "set" || m.AppID != "test" || m.DeliveryMode != 2 || m.RoutingKey != key {
		t.Errorf("message is %+v", m)
	}
	if len(c.All()) != 2000 {
		t.Errorf("%d deliveries", len(c.All()))
	}
	if _, err := c.Consumer.WaitDistinct(1501, 10*time.Millisecond); err == nil {
		t.Error("a message too many")
	}
}

func TestConsumerIsFast(t *testing.T) {
	const n = 100_000
	b := harness.SharedBroker(t)
	key := harness.Name(t)
	c := b.Consume("amq.direct", key, harness.ConsumeOptions{})
	ch := b.Channel()
	began := time.Now()
	for i := range n {
		if err := ch.Publish("amq.direct", key, false, false, amqp.Publishing{MessageId: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitDistinct(n, 60*time.Second)
	t.Logf("%d messages in %v", n, time.Since(began))
}

func TestDefaultExchangeAndDeclaredOnes(t *testing.T) {
	b := harness.SharedBroker(t)
	vhost := b.Vhost()
	q := b.Consume("", "", harness.ConsumeOptions{Queue: harness.Name(t), Vhost: vhost})
	x := b.Consume("keyspace", "__keyevent@*__:set", harness.ConsumeOptions{Vhost: vhost, Declare: "topic", Args: amqp.Table{"x-max-length": 5}})
	conn, err := amqp.Dial(strings.TrimSuffix(b.URI(), "/") + "/" + vhost)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	for exchange, key := range map[string]string{"": q.Queue(), "keyspace": "__keyevent@0__:set"} {
		if err := ch.Publish(exchange, key, true, false, amqp.Publishing{Body: []byte("no newlines")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*harness.Consumer{q, x} {
		if m := c.WaitDistinct(1, 10*time.Second)[0]; m.DB != -1 || string(m.Body) != "no newlines" {
			t.Errorf("message is %+v", m)
		}
	}
}

func TestBrokerKeepsItsMessagesWhenItIsKilled(t *testing.T) {
	b := harness.NewBroker(t, harness.BrokerOptions{})
	key := harness.Name(t)
	c := b.Consume("amq.direct", key, harness.ConsumeOptions{})
	publish(t, confirming(t, b), key, 0, 100)
	c.WaitDistinct(100, 10*time.Second)
	pid, port := b.Pid(), b.Port()

	b.Kill()
	if b.Running() {
		t.Fatal("runs after Kill")
	}
	if _, err := b.Broker.Dial(); err == nil {
		t.Fatal("a dead broker answers")
	}
	b.Start()
	if b.Pid() == pid || b.Port() != port {
		t.Fatalf("pid %d, port %d; before %d, %d", b.Pid(), b.Port(), pid, port)
	}
	// The queue is there, whether or not the consumer is back already.
	publish(t, confirming(t, b), key, 100, 100)
	c.WaitDistinct(200, 20*time.Second)
	if c.Reconnects() == 0 {
		t.Error("the consumer has not connected again")
	}
	if out := b.Ctl("list_queues", "name", "messages"); !strings.Contains(out, c.Queue()) {
		t.Errorf("rabbitmqctl says %s", out)
	}
	if _, err := b.Broker.Ctl("no_such_command"); err == nil {
		t.Error("rabbitmqctl takes any command")
	}
	b.Stop()
	b.Start()
	publish(t, confirming(t, b), key, 200, 100)
	c.WaitDistinct(300, 20*time.Second)
}

func TestStoppedBrokerNeverAnswers(t *testing.T) {
	b := harness.NewBroker(t, harness.BrokerOptions{})
	if err := b.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatalf("the kernel accepts no connection: %v", err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("AMQP\x00\x00\x09\x01"))
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	if err := b.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 10)); err != nil {
		t.Fatalf("after SIGCONT: %v", err)
	}
}

// echo answers every byte with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// hears tells whether text comes within a time.
func hears(c net.Conn, text string, in time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(in))
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	if string(buf) != text {
		return fmt.Errorf("heard %q, want %q", buf, text)
	}
	return nil
}

func TestProxyCut(t *testing.T) {
	p := harness.NewProxy(t, echo(t))
	c := dial(t, p.Addr())
	_, _ = c.Write([]byte("one"))
	if err := hears(c, "one", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	if err := hears(c, "x", 5*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a cut connection says %v", err)
	}
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dialling a cut proxy: %v", err)
	}
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, p.Addr())
	_, _ = c.Write([]byte("two"))
	if err := hears(c, "two", 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestProxyBlackHoleLosesNothing(t *testing.T) {
	p := harness.NewProxy(t, echo(t))
	old := dial(t, p.Addr())
	_, _ = old.Write([]byte("1"))
	if err := hears(old, "1", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	p.BlackHole()
	young := dial(t, p.Addr())
	for _, c := range []net.Conn{old, young} {
		_, _ = c.Write([]byte("held"))
		if err := hears(c, "held", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("through a black hole comes %v", err)
		}
	}
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{old, young} {
		if err := hears(c, "held", 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProxyLatency(t *testing.T) {
	p := harness.NewProxy(t, echo(t))
	p.Latency(100)
	c := dial(t, p.Addr())
	began := time.Now()
	_, _ = c.Write([]byte("slow"))
	if err := hears(c, "slow", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("there and back in %v", took)
	}
	p.Latency(600_000) // the test's end does not wait for it
	_, _ = c.Write([]byte("never"))
}

func TestProxyCutUnderLoad(t *testing.T) {
	p := harness.NewProxy(t, echo(t))
	for range 20 {
		c := dial(t, p.Addr())
		go func() {
			for buf := make([]byte, 64<<10); ; {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		}()
	}
	harness.Eventually(t, 5*time.Second, func() error {
		if n := p.Connections(); n != 20 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	}, "20 connections")
	p.BlackHole()
	p.Cut()
	if n := p.Connections(); n != 0 {
		t.Errorf("%d connections left", n)
	}
}

func TestProxyInFrontOfTheBroker(t *testing.T) {
	b := harness.SharedBroker(t)
	p := harness.NewProxy(t, b.Addr())
	key := harness.Name(t)
	c := b.Consume("amq.direct", key, harness.ConsumeOptions{URI: "amqp://guest:guest@" + p.Addr() + "/"})
	publish(t, confirming(t, b), key, 0, 10)
	c.WaitDistinct(10, 10*time.Second)
	p.Cut()
	publish(t, confirming(t, b), key, 10, 10)
	if err := p.Restore(); err != nil {
		t.Fatal(err)
	}
	c.WaitDistinct(20, 20*time.Second)
}

func TestArguments(t *testing.T) {
	got := strings.Join(harness.Args{Port: 1, Masks: []string{"^a", ""}}.List(), "|")
	if want := "A|127.0.0.1|1|guest|guest|30|amq.direct|redis_keyspace_events|2|10000000|^a|"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// victim starts servers, says their pids, and waits to be killed.
func victim() {
	t := &testing.T{}
	r := harness.NewRedis(t, harness.RedisOptions{Dir: os.Getenv("KEA_TEST_VICTIM")})
	b := harness.NewBroker(t, harness.BrokerOptions{})
	fmt.Println(r.Pid(), b.Pid(), b.Dir())
	select {}
}

func TestNothingSurvivesAKilledTest(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "KEA_TEST_VICTIM="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var redis, broker int
	var dir string
	_, err = fmt.Fscan(out, &redis, &broker, &dir)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	harness.Eventually(t, 10*time.Second, func() error {
		return processesWith(dir)
	}, "processes of the broker are gone")
	for name, pid := range map[string]int{"redis-server": redis, "RabbitMQ": broker} {
		harness.Eventually(t, 10*time.Second, func() error {
			if state := processState(pid); state != "" && state != "Z" {
				return fmt.Errorf("pid %d is in state %s", pid, state)
			}
			return nil
		}, name+" is gone")
	}
}

// processesWith returns an error when a process has dir in its environment.
func processesWith(dir string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && strings.Contains(string(env), dir) {
			cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			return fmt.Errorf("pid %s lives: %.80q", e.Name(), cmd)
		}
	}
	return nil
}

func processState(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}
