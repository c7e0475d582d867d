// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

func TestArgumentsLeftOutKeepTheirDefaults(t *testing.T) {
	s := defaults()
	if got, want := s.brokers(), []amqp.Host{{Name: "127.0.0.1", Port: 5672}}; !reflect.DeepEqual(got, want) {
		t.Errorf("brokers: got %v, want %v", got, want)
	}
	if s.numbers["heartbeat"] != 30 || s.numbers["fallback_storage_size"] != 10000000 || s.texts["exchange_name"] != "amq.direct" {
		t.Errorf("defaults: got %v %v", s.texts, s.numbers)
	}
	if program, n, err := s.compiled(); program != nil || n != 0 || err != nil {
		t.Errorf("without masks nothing is forwarded; got a program of %d bytes for %d masks, error %v", len(program), n, err)
	}
}

func TestAllElevenArguments(t *testing.T) {
	s := defaults()
	_, err := s.setArguments(0, []string{"Ex", "r1,r2:5673,[::1],[::2]:7", "9", "u", "p", "0", "", "k.{db}", "2", "-9223372036854775808", "^a", "b c"})
	if err != nil {
		t.Fatal(err)
	}
	want := []amqp.Host{{Name: "r1", Port: 9}, {Name: "r2", Port: 5673}, {Name: "::1", Port: 9}, {Name: "::2", Port: 7}}
	if got := s.brokers(); !reflect.DeepEqual(got, want) {
		t.Errorf("brokers: got %v, want %v", got, want)
	}
	if s.numbers["fallback_storage_size"] != math.MinInt64 || s.texts["key_mask"] != `^a "b c"` || !s.events.keyevent {
		t.Errorf("got %v %v %+v", s.texts, s.numbers, s.events)
	}
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	good := []string{"xe", "h", "1", "u", "p", "1", "e", "r", "1", "0"}
	long := strings.Repeat("x", 256)
	for _, test := range []struct {
		at    int
		value string
		want  string
	}{
		{0, "", "events"}, {0, "KE", "events"}, {0, "q", "events"}, {0, "x x", "events"},
		{1, "", "hostname"}, {1, "a,,b", "hostname"}, {1, "a:b", "hostname"}, {1, "a:0", "hostname"},
		{1, "::1", "hostname"}, {1, "[::1]x", "hostname"}, {1, "a b", "hostname"}, {1, "a:65536", "hostname"},
		{2, "0", "port"}, {2, "65536", "port"}, {2, "x", "port"}, {2, "", "port"}, {2, "1e3", "port"},
		{3, long, "username"}, {5, "-1", "heartbeat"}, {5, "65536", "heartbeat"},
		{6, long, "exchange_name"}, {7, long, "routing_key"},
		{8, "0", "delivery_mode"}, {8, "3", "delivery_mode"},
		{9, "9223372036854775808", "fallback_storage_size"}, {9, "many", "fallback_storage_size"},
	} {
		args := append([]string(nil), good...)
		args[test.at] = test.value
		_, err := defaults().setArguments(0, args)
		if err == nil || !strings.HasPrefix(err.Error(), test.want+": ") {
			t.Errorf("argument %d = %q: got error %v, want one that begins with %q", test.at+1, test.value, err, test.want)
		}
	}
}

func TestMasksAreReplacedAddedAndCleaned(t *testing.T) {
	s := defaults()
	step := func(err error, want string) {
		t.Helper()
		if err != nil || s.texts["key_mask"] != want {
			t.Fatalf("got %q, error %v, want %q", s.texts["key_mask"], err, want)
		}
	}
	step(s.setMasks([]string{"^a", ""}), `^a ""`)
	step(s.addMasks([]string{"b\x00"}), `^a "" "b\x00"`)
	step(s.addMasks([]string{"ALL"}), "ALL")
	step(s.setMaskLine(`one "two words" 'it\'s'`), `one "two words" "it's"`)
	step(s.setMasks(nil), "")
}

func TestQuotingGoesBothWays(t *testing.T) {
	for _, words := range [][]string{nil, {"a"}, {"", " "}, {`"`, `\`, `'`}, {"\x00\xff\n", "ü"}, {"^a.*$", "two words"}} {
		got, err := splitQuoted(joinQuoted(words), len(words))
		if err != nil || !reflect.DeepEqual(got, words) {
			t.Errorf("%q: got %q, error %v", words, got, err)
		}
	}
	for _, bad := range []string{`"a`, `'a`, `"a"b`, `'a'b`, `"\`} {
		if got, err := splitQuoted(bad, 9); err == nil {
			t.Errorf("%s: got %q, want an error", bad, got)
		}
	}
}

func FuzzQuoting(f *testing.F) {
	f.Add("a", "b c")
	f.Add("", "\\x")
	f.Fuzz(func(t *testing.T, a, b string) {
		got, err := splitQuoted(joinQuoted([]string{a, b}), 2)
		if err != nil || len(got) != 2 || got[0] != a || got[1] != b {
			t.Errorf("%q %q: got %q, error %v", a, b, got, err)
		}
		_, _ = splitQuoted(a, 9) // must not panic
	})
}

func TestEventClasses(t *testing.T) {
	for _, test := range []struct {
		text string
		want events
	}{
		{"x", events{classes: 1 << 8}},
		{"xe", events{classes: 1<<8 | 1<<9}},
		{"A", events{classes: 0x27fc}},
		{"AmnKE", events{classes: 0x27fc | 1<<11 | 1<<14, keyspace: true, keyevent: true}},
	} {
		if got, err := parseEvents(test.text, 0x7fff); err != nil || got != test.want {
			t.Errorf("%q: got %+v, error %v, want %+v", test.text, got, err, test.want)
		}
	}
	if _, err := parseEvents("o", 0x7fff); err == nil {
		t.Error("a class that the server lacks must be refused")
	}
}

func TestMessageViews(t *testing.T) {
	r := &fallback.Record{DB: []byte("3"), Event: []byte("set"), Key: []byte("k\n1"), Body: []byte("3\nset\nk\n1")}
	plain, both := events{classes: 4}, events{classes: 4, keyspace: true, keyevent: true}
	for _, test := range []struct {
		e                  events
		template           string
		view               int
		routingKey, wanted string
	}{
		{plain, "fixed", 0, "fixed", "3\nset\nk\n1"},
		{plain, "{db}.{event}.{key}.{x", 0, "3.set.k\n1.{x", "3\nset\nk\n1"},
		{both, "", 0, "__keyspace@3__:k\n1", "set"},
		{both, "", 1, "__keyevent@3__:set", "k\n1"},
	} {
		l := newLayout(test.e, test.template, formatPlain)
		var m amqp.Message
		l.message(&m, l.views[test.view], r, "id")
		if m.RoutingKey != test.routingKey || string(m.Body) != test.wanted || m.Type != "set" || m.Headers != nil {
			t.Errorf("%+v: got %q %q %q %v", test, m.RoutingKey, m.Body, m.Type, m.Headers)
		}
	}
}
