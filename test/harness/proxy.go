package harness

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/key-evt-amqp/key_evt_amqp/test/harness/server"
)

// Proxy stands between a client and an upstream, and fails on demand.
//
// It is our own and not toxiproxy: that (v2.5.0) leaves goroutines behind when
// a busy connection is cut, and its "timeout" swallows bytes, so a connection
// can't come back to life as TCP's do. What is held up here is delivered, in
// order, once the path is free again.
type Proxy struct {
	port     *server.Port
	upstream string
	tasks    sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond // on mu: closed, held or a link's end
	listener net.Listener
	links    map[*link]struct{}
	held     bool
	latency  time.Duration
}

// link is a client's connection and ours to the upstream.
type link struct {
	client, upstream net.Conn
	dead             bool // under Proxy.mu
}

// NewProxy listens on a port of its own, which it keeps while it is cut.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	port, err := server.ReservePort()
	must(t, "proxy", err)
	p := &Proxy{port: port, upstream: upstream, links: make(map[*link]struct{})}
	p.changed = sync.NewCond(&p.mu)
	must(t, "proxy", p.listen())
	t.Cleanup(func() {
		p.Cut()
		p.tasks.Wait()
		port.Release()
	})
	return p
}

// Addr is host:port, for clients.
func (p *Proxy) Addr() string { return p.port.Addr() }

// Port is the port, for clients.
func (p *Proxy) Port() int { return p.port.Number }

// Cut resets every connection and refuses new ones, as a dead broker does.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.dropLocked()
}

// Drop resets every connection; new ones are welcome.
func (p *Proxy) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked()
}

// BlackHole stops all bytes, both ways, as a firewall that begins to drop
// packets: connections stay, new ones are accepted and hear nothing, and a
// sender finds its socket full after some megabytes.
func (p *Proxy) BlackHole() { p.set(func() { p.held = true }) }

// Latency delays bytes by ms milliseconds each way, 64 KiB at a time.
func (p *Proxy) Latency(ms int) {
	p.set(func() { p.latency = time.Duration(ms) * time.Millisecond })
}

// Restore undoes Cut, BlackHole and Latency. What a black hole held up is
// delivered; connections that were cut stay so.
func (p *Proxy) Restore() error {
	p.set(func() { p.held, p.latency = false, 0 })
	return p.listen()
}

// Connections is how many clients are connected.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	p.changed.Broadcast()
}

func (p *Proxy) listen() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.Addr())
	if err != nil {
		return err
	}
	p.listener = l
	p.tasks.Go(func() { p.accept(l) })
	return nil
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return // closed by Cut
		}
		k := &link{client: client}
		p.mu.Lock()
		current := p.listener == l
		if current {
			p.links[k] = struct{}{}
		}
		p.mu.Unlock()
		if !current {
			reset(client)
			return
		}
		p.tasks.Go(func() { p.serve(k) })
	}
}

// serve connects to the upstream when bytes may flow, and copies both ways.
func (p *Proxy) serve(k *link) {
	defer p.finish(k)
	if !p.passable(k, 0) {
		return
	}
	upstream, err := net.DialTimeout("tcp", p.upstream, 5*time.Second)
	if err != nil {
		return
	}
	p.mu.Lock()
	k.upstream = upstream
	dead := k.dead
	p.mu.Unlock()
	if dead {
		reset(upstream)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(k, upstream, k.client) })
	both.Go(func() { p.copy(k, k.client, upstream) })
	both.Wait()
}

// passable waits until bytes may flow, and at least for delay; false: the link
// is dead.
func (p *Proxy) passable(k *link, delay time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := time.Now().Add(delay)
	if delay > 0 {
		defer time.AfterFunc(delay, func() { p.set(func() {}) }).Stop()
	}
	for !k.dead && (p.held || time.Now().Before(due)) {
		p.changed.Wait()
	}
	return !k.dead
}

// copy moves bytes one way until either side ends, then closes that way.
func (p *Proxy) copy(k *link, to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		// The gate is behind the read: bytes that were on their way when
		// it closed do not slip through.
		if !p.passable(k, p.delay()) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				p.drop(k)
				return
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if half, ok := to.(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			return
		case err != nil:
			p.drop(k)
			return
		}
	}
}

func (p *Proxy) delay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latency
}

// finish closes a link whose both sides have ended, in good order: a reset
// would destroy what the kernel has yet to deliver.
func (p *Proxy) finish(k *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k.dead {
		return
	}
	k.dead = true
	delete(p.links, k)
	_ = k.client.Close()
	if k.upstream != nil {
		_ = k.upstream.Close()
	}
}

func (p *Proxy) drop(k *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLinkLocked(k)
}

func (p *Proxy) dropLocked() {
	for k := range p.links {
		p.dropLinkLocked(k)
	}
}

func (p *Proxy) dropLinkLocked(k *link) {
	if k.dead {
		return
	}
	k.dead = true
	delete(p.links, k)
	reset(k.client)
	reset(k.upstream)
	p.changed.Broadcast()
}

// reset closes a connection with RST, so that its peer learns of it at once and
// no side lingers.
func reset(c net.Conn) {
	if c == nil {
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
