// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"os"
	"testing"
)

// The images that test/container.sh has built: the server and the consumer of
// $KEA_REDIS_SERVER and $KEA_CONTAINER_CONSUMER run within them.
func TestContainers(t *testing.T) {
	consumer := os.Getenv("KEA_CONTAINER_CONSUMER")
	if consumer == "" {
		t.Skip("make test-container runs it")
	}
	r := start(t, options{events: "$"})
	e := newExample(t, broker.Port, consumer, "-queue", r.name+"-example", "-routing-key", r.name)
	e.start()
	r.sets("k", 100)
	r.arrives(setBodies("k", 100))
	e.worked(setBodies("k", 100))
	e.terminate()
	r.balanced(0, 0)
}
