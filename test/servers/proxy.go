package servers

import (
	"io"
	"net"
	"strconv"
	"sync"
)

// Proxy stands between a client and a server of 127.0.0.1, to be cut. (Not
// toxiproxy: v2.5.0 leaves goroutines behind when busy connections are cut, and
// its black hole discards bytes.)
type Proxy struct {
	Port     int
	upstream string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	work     sync.WaitGroup
}

// NewProxy starts a proxy to an address.
func NewProxy(upstream string) (*Proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &Proxy{Port: port, upstream: upstream, conns: map[net.Conn]bool{}}
	return p, p.Mend()
}

// Mend lets connections through, again after Cut.
func (p *Proxy) Mend() error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)))
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	p.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(c, l) })
		}
	})
	return nil
}

// Cut closes all connections and refuses new ones, until Mend. Twice is once.
func (p *Proxy) Cut() {
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
	}
	p.listener = nil
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}

// hold remembers a connection for Cut; false: it was cut meanwhile.
func (p *Proxy) hold(c net.Conn, l net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != l {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

func (p *Proxy) serve(client net.Conn, l net.Listener) {
	defer p.drop(client)
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.hold(client, l) || !p.hold(server, l) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	_, _ = io.Copy(client, server)
	client.Close()
	<-done
}
