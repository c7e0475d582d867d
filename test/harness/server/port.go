package server

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
)

// A Port is a TCP port of 127.0.0.1 that is ours until Release, also while
// nothing listens on it: a server that is killed finds it again.
type Port struct {
	Number int
	lock   net.Listener
}

// ReservePort finds a free port and keeps other processes that use this package
// away from it, by a name in Linux's abstract socket namespace, which vanishes
// with us.
//
// It lies outside the range that the kernel takes ports for outgoing
// connections from. Within it, a client that keeps dialling a server that is
// down would sooner or later be given that very port, and connect to itself.
func ReservePort() (*Port, error) {
	low, high := listenRange()
	for range 200 {
		n := low + rand.IntN(high-low)
		p := &Port{Number: n}
		var err error
		p.lock, err = net.Listen("unix", fmt.Sprintf("@key_evt_amqp/test/port/%d", n))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil { // no such namespace here: do without
			p.lock = nil
		}
		if portIsFree(n) {
			return p, nil
		}
		p.Release()
	}
	return nil, fmt.Errorf("no free port in %d..%d", low, high)
}

// Release gives the port back. It may be called more than once.
func (p *Port) Release() {
	if p != nil && p.lock != nil {
		_ = p.lock.Close()
		p.lock = nil
	}
}

func (p *Port) String() string { return strconv.Itoa(p.Number) }

// Addr is host:port.
func (p *Port) Addr() string { return "127.0.0.1:" + p.String() }

func portIsFree(n int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// listenRange is the wider side of the kernel's ephemeral range.
func listenRange() (low, high int) {
	const first, last = 15000, 65000
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	var from, to int
	if err == nil {
		_, err = fmt.Sscan(string(text), &from, &to)
	}
	switch {
	case err != nil:
		return first, 32768
	case from-first >= last-to && from-first > 1000:
		return first, from
	case last-to > 1000:
		return to + 1, last
	default:
		return first, last
	}
}
