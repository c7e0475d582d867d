// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

// BenchmarkMessage is what a message of an event costs, by how it is shown.
func BenchmarkMessage(b *testing.B) {
	r := &fallback.Record{DB: []byte("0"), Event: []byte("set"), Key: []byte("key:000000012345"), Body: []byte("0\nset\nkey:000000012345")}
	for _, kind := range []struct {
		name, template string
		e              events
	}{
		{"plain", "redis_keyspace_events", events{classes: 8}},
		{"routing key with {key}", "k.{db}.{key}", events{classes: 8}},
		{"as Redis's keyspace channel", "", events{classes: 8, keyspace: true}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			l := newLayout(kind.e, kind.template, formatPlain)
			var m amqp.Message
			b.ReportAllocs()
			for b.Loop() {
				l.message(&m, l.views[0], r, "0123456789abcdef-1")
			}
		})
	}
}
