// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"net"
	"strconv"
	"sync"
)

// Proxy stands between a client and a server of 127.0.0.1, to be cut, or to
// become a black hole. (Not toxiproxy: v2.5.0 leaves goroutines behind when busy
// connections are cut, and its black hole discards bytes.)
type Proxy struct {
	Port     int
	upstream string

	mu       sync.Mutex
	changed  *sync.Cond // held or listener
	held     [directions]bool
	listener net.Listener
	conns    map[net.Conn]bool
	work     Group
}

// Direction is one way through a proxy.
type Direction int

const (
	ToServer Direction = iota
	ToClient
	directions
)

// NewProxy starts a proxy to an address.
func NewProxy(upstream string) (*Proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &Proxy{Port: port, upstream: upstream, conns: map[net.Conn]bool{}}
	p.changed = sync.NewCond(&p.mu)
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
	p.changed.Broadcast()
	p.mu.Unlock()
	p.work.Wait()
}

// Hold makes the proxy a black hole in some directions, in all when none is
// given: connections stay, new ones are accepted, and nothing comes through, not
// even the news that one end has closed. Bytes are held until Release; a sender
// soon finds its buffers full, as when nobody acknowledges.
func (p *Proxy) Hold(ways ...Direction) {
	if len(ways) == 0 {
		ways = []Direction{ToServer, ToClient}
	}
	p.mu.Lock()
	for _, way := range ways {
		p.held[way] = true
	}
	p.mu.Unlock()
}

// Release lets through what was held, and all that follows.
func (p *Proxy) Release() {
	p.mu.Lock()
	p.held = [directions]bool{}
	p.changed.Broadcast()
	p.mu.Unlock()
}

// pass waits until a direction is open; false: the proxy was cut.
func (p *Proxy) pass(way Direction, l net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held[way] && p.listener == l {
		p.changed.Wait()
	}
	return p.listener == l
}

// copy forwards one direction, its end too.
func (p *Proxy) copy(to, from net.Conn, way Direction, l net.Listener) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !p.pass(way, l) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// track remembers a connection for Cut; false: it was cut meanwhile.
func (p *Proxy) track(c net.Conn, l net.Listener) bool {
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
	if !p.track(client, l) || !p.track(server, l) {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.copy(server, client, ToServer, l)
	}()
	p.copy(client, server, ToClient, l)
	<-done
}
