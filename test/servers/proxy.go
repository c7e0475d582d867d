package servers

import (
	"net"
	"strconv"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy stands between a client and a server of 127.0.0.1, to be cut.
type Proxy struct {
	Port  int
	proxy *toxiproxy.Proxy
}

// NewProxy starts a proxy to a port of 127.0.0.1.
func NewProxy(upstream string) (*Proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{Port: port}
	p.proxy = toxiproxy.NewProxy(server, "broker", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), upstream)
	return p, p.proxy.Start()
}

// Cut closes all connections and refuses new ones, until Mend.
func (p *Proxy) Cut() { p.proxy.Stop() }

// Mend lets connections through again.
func (p *Proxy) Mend() error { return p.proxy.Start() }
