// SPDX-License-Identifier: BSD-3-Clause

package amqp_test

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
)

// endless is a source that holds b.N messages at no cost of its own.
type endless struct {
	amqp.Message
	left    int // to hand out
	settled int
	done    chan struct{}
	want    int
}

func (s *endless) Next(m *amqp.Message) bool {
	if s.left == 0 {
		return false
	}
	s.left--
	*m = s.Message
	return true
}

func (s *endless) Settle(n int) {
	if s.settled += n; s.settled == s.want {
		close(s.done)
	}
}

func (s *endless) Rewind()               {}
func (s *endless) Sleep() bool           { return s.left == 0 }
func (s *endless) Wake() <-chan struct{} { return nil }

// BenchmarkPublish is a message's way from the source to its confirm, over a
// connection to a real broker: its time, its allocations, and the CPU time of
// the whole process.
func BenchmarkPublish(b *testing.B) {
	for _, kind := range []struct {
		name string
		mode uint8
		args lib.Table
	}{
		{"persistent, classic queue", 2, nil},
		{"transient, classic queue", 1, nil},
		{"quorum queue", 2, lib.Table{"x-queue-type": "quorum"}},
	} {
		b.Run(kind.name, func(b *testing.B) { publish(b, kind.mode, kind.args) })
	}
}

func publish(b *testing.B, mode uint8, args lib.Table) {
	// As the module has it.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if err := broker.Bind(b.Name(), "amq.direct", b.Name(), args); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := broker.Delete(b.Name()); err != nil {
			b.Error(err)
		}
	}()
	s := &endless{left: b.N, want: b.N, done: make(chan struct{}), Message: amqp.Message{
		ID: "0123456789abcdef-1", Time: time.Now(), Type: "set", RoutingKey: b.Name(), Body: []byte("0\nset\nkey:000000012345"),
	}}
	cfg := config(broker.Port)
	cfg.DeliveryMode, cfg.MaxInflight = mode, 2048
	p := amqp.New(s, &states{}, cfg)
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	p.Start()
	<-s.done
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N)/1e3, "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	p.Stop()
}

// cpu is the process's, of all threads.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
