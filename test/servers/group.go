// SPDX-License-Identifier: BSD-3-Clause

package servers

import "sync"

// Group is a WaitGroup that starts what it waits for. Go 1.25's own has Go, and
// the tests build with Go 1.24.
type Group struct{ sync.WaitGroup }

// Go runs work in a goroutine that Wait waits for.
func (g *Group) Go(work func()) {
	g.Add(1)
	go func() {
		defer g.Done()
		work()
	}()
}
