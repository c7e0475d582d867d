// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

func TestRoutingKeyTemplates(t *testing.T) {
	long := strings.Repeat("k", 300)
	for _, test := range []struct {
		template, key, want string
		cut                 bool
	}{
		{"fixed", "k", "fixed", false},
		{"", "k", "", false},
		{"{db}.{event}.{key}", "a:b", "3.set.a:b", false},
		{"{event}.{words}", "session:42:cart", "set.session.42.cart", false},
		{"{event}.{words}", "plain", "set.plain", false},
		{"{event}.{words}", ":a::b:", "set..a..b.", false},
		{"{event}.{prefix}", "session:42:cart", "set.session", false},
		{"{event}.{prefix}", "no colon", "set.no colon", false},
		{"{event}.{prefix}", ":42", "set.", false},
		{"{prefix}", "k\x00\n:x", "k\x00\n", false},
		{"{{key}}", "k", "{k}", false},
		{"{x{key", "k", "{x{key", false},
		{"{KEY}{ key }{", "k", "{KEY}{ key }{", false},
		{"a.{key}", long, "a." + long[:253], true},
		{"a.{words}", ":" + long, "a.." + long[:252], true},
		{"a.{prefix}", long + ":x", "a." + long[:253], true},
		{"{key}{key}", strings.Repeat("k", 128), long[:255], true},
		{"{key}", long[:255], long[:255], false},
		{"{prefix}", long[:255] + ":" + long, long[:255], false},
	} {
		r := &fallback.Record{DB: []byte("3"), Event: []byte("set"), Key: []byte(test.key)}
		var m amqp.Message
		newLayout(events{classes: 4}, test.template, formatPlain).message(&m, viewPlain, r, "id")
		if m.RoutingKey != test.want || (m.Headers["routing_key_cut"] == true) != test.cut {
			t.Errorf("%q of %q: got %q, headers %v, want %q, cut %v", test.template, test.key, m.RoutingKey, m.Headers, test.want, test.cut)
		}
	}
}

// A key may have 512 MiB, and a template may name it often.
func TestRoutingKeyOfALargeKeyIsCheap(t *testing.T) {
	r := &fallback.Record{DB: []byte("0"), Event: []byte("set"), Key: bytes.Repeat([]byte(":"), 64<<20)}
	l := newLayout(events{classes: 4}, strings.Repeat("{key}{words}{prefix}", 10), formatPlain)
	var m amqp.Message
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.message(&m, viewPlain, r, "id")
		}
	}).AllocedBytesPerOp()
	if got > 8<<10 {
		t.Errorf("%d bytes are allocated for a routing key", got)
	}
}
