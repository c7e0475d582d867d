// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"net"
	"testing"
)

// silence listens, accepts, and never says a word.
func silence(t *testing.T) (port int, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			open = append(open, c)
		}
		for _, c := range open {
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, func() { l.Close(); <-done }
}
