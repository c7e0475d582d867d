// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/json"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

func record(db, event, key string) *fallback.Record {
	return &fallback.Record{
		DB: []byte(db), Event: []byte(event), Key: []byte(key), Body: []byte(db + "\n" + event + "\n" + key),
		TimeMillis: 1767323045006, // 2026-01-02T03:04:05.006Z
	}
}

func shape(f format, e events, view int, r *fallback.Record) (m amqp.Message) {
	l := newLayout(e, "fixed", f)
	l.message(&m, l.views[view], r, "00000000000000ea-7")
	return m
}

func TestJSONBodies(t *testing.T) {
	const head = `{"id":"00000000000000ea-7","time":"2026-01-02T03:04:05.006Z",`
	for _, test := range []struct{ db, event, key, want string }{
		{"0", "set", "k", `"db":0,"event":"set","key":"k"}`},
		{"15", "expired", "", `"db":15,"event":"expired","key":""}`},
		{"3", "set", "a\n\"b\\\r\t\x00\x1f\u2028ü", `"db":3,"event":"set","key":"a\n\"b\\\r\t\u0000\u001F` + "\u2028ü" + `"}`},
		{"0", "set", "\xff\x00", `"db":0,"event":"set","key_base64":"/wA="}`},
		{"0", "set", "\xed\xa0\x80", `"db":0,"event":"set","key_base64":"7aCA"}`},
		{"007", "\xffx", "k", `"db":"007","event":"` + "\uFFFD" + `x","key":"k"}`},
	} {
		m := shape(formatJSON, events{}, 0, record(test.db, test.event, test.key))
		if string(m.Body) != head+test.want || !json.Valid(m.Body) || m.ContentType != "application/json" {
			t.Errorf("%+v: got %s (%s)", test, m.Body, m.ContentType)
		}
	}
}

func TestCloudEvents(t *testing.T) {
	attributes := func(subject string) map[string]any {
		all := map[string]any{
			"cloudEvents_specversion": "1.0", "cloudEvents_id": "00000000000000ea-7",
			"cloudEvents_type": "io.github.key-evt-amqp.set", "cloudEvents_source": "/redis/db/3",
			"cloudEvents_time": "2026-01-02T03:04:05.006Z",
		}
		if subject != "" {
			all["cloudEvents_subject"] = subject
		}
		return all
	}
	for _, test := range []struct{ key, subject, body string }{
		{"user:1 ü", "user:1 ü", `{"db":3,"event":"set","key":"user:1 ü"}`},
		{"a\nb", "a%0Ab", `{"db":3,"event":"set","key":"a\nb"}`},
		{"50%", "50%25", `{"db":3,"event":"set","key":"50%"}`},
		{"\xffa", "%FFa", `{"db":3,"event":"set","key_base64":"/2E="}`},
		{"\u0085\uffff", "%C2%85%EF%BF%BF", `{"db":3,"event":"set","key":"` + "\u0085\uffff" + `"}`},
		{"", "", `{"db":3,"event":"set","key":""}`},
		{strings.Repeat("k", 1025), "", `{"db":3,"event":"set","key":"` + strings.Repeat("k", 1025) + `"}`},
		{strings.Repeat("%", 342), "", `{"db":3,"event":"set","key":"` + strings.Repeat("%", 342) + `"}`},
	} {
		m := shape(formatCloudEvents, events{}, 0, record("3", "set", test.key))
		if want := attributes(test.subject); !reflect.DeepEqual(m.Headers, want) {
			t.Errorf("%.40q: got headers %v, want %v", test.key, m.Headers, want)
		}
		if string(m.Body) != test.body || m.ContentType != "application/json" {
			t.Errorf("%.40q: got %s (%s), want %s", test.key, m.Body, m.ContentType, test.body)
		}
	}
}

func TestFormatsKeepTheViewsRoutingKeys(t *testing.T) {
	long := record("0", "set", strings.Repeat("k", 300))
	both := events{keyspace: true, keyevent: true}
	for _, f := range []format{formatJSON, formatCloudEvents} {
		m := shape(f, both, 0, long)
		if !strings.HasPrefix(m.RoutingKey, "__keyspace@0__:kkk") || m.Headers["routing_key_cut"] != true {
			t.Errorf("keyspace: got %q, headers %v", m.RoutingKey, m.Headers)
		}
		if !json.Valid(m.Body) || !bytes.Contains(m.Body, long.Key) {
			t.Errorf("keyspace: got body %s", m.Body)
		}
		if m = shape(f, both, 1, long); m.RoutingKey != "__keyevent@0__:set" || !json.Valid(m.Body) {
			t.Errorf("keyevent: got %q %s", m.RoutingKey, m.Body)
		}
	}
}

func TestPlainMessagesCostNoGarbage(t *testing.T) {
	r, l := record("0", "set", "k"), newLayout(events{}, "fixed", formatPlain)
	var m amqp.Message
	if n := testing.AllocsPerRun(100, func() { l.message(&m, viewPlain, r, "id") }); n != 0 {
		t.Errorf("got %v allocations a message, want none", n)
	}
}

func FuzzFormats(f *testing.F) {
	f.Add("set", "k%\n\xff")
	f.Add("", "\u0085\ufffe")
	f.Fuzz(func(t *testing.T, event, key string) {
		r := record("0", event, key)
		var got struct {
			Event string
			Key   *string
			Bytes []byte `json:"key_base64"`
		}
		m := shape(formatJSON, events{}, 0, r)
		if err := json.Unmarshal(m.Body, &got); err != nil {
			t.Fatalf("%q %q: %v: %s", event, key, err, m.Body)
		}
		if utf8.ValidString(event) && got.Event != event {
			t.Errorf("event: got %q, want %q", got.Event, event)
		}
		if got.Key != nil && *got.Key != key || got.Key == nil && string(got.Bytes) != key {
			t.Errorf("key: got %s, want %q", m.Body, key)
		}
		m = shape(formatCloudEvents, events{}, 0, r)
		if !json.Valid(m.Body) {
			t.Errorf("CloudEvents: got %s", m.Body)
		}
		subject, ok := m.Headers["cloudEvents_subject"].(string)
		if !ok {
			return
		}
		if decoded, err := url.PathUnescape(subject); err != nil || decoded != key {
			t.Errorf("subject %q decodes to %q, error %v, want %q", subject, decoded, err, key)
		}
		for _, c := range subject {
			if !allowedInText(c) || !utf8.ValidString(subject) {
				t.Errorf("subject %q is not text that CloudEvents allows", subject)
			}
		}
	})
}

func TestBodiesThatAreMadeHaveTheRoomThatWasCounted(t *testing.T) {
	for _, key := range []string{"", "plain", "\x00\x01\x1f", "a\nb\r\t\"\\", "\xff\xfe", "é\u2028", strings.Repeat("\x07", 1000)} {
		r := &fallback.Record{DB: []byte("0"), Event: []byte("set"), Key: []byte(key), Body: []byte("0\nset\n" + key)}
		for _, f := range []format{formatJSON, formatCloudEvents} {
			var m amqp.Message
			newLayout(events{classes: 8}, "k", f).message(&m, viewPlain, r, "0123456789abcdef-18446744073709551615")
			if m.Refused != nil || len(m.Body) > bodyRoom(r) || cap(m.Body) > bodyRoom(r)+bodyRoom(r)/4+64 {
				t.Errorf("%q, format %d: %d bytes of %d, counted %d, refused %v", key, f, len(m.Body), cap(m.Body), bodyRoom(r), m.Refused)
			}
		}
	}
}

func TestBodiesThatAreTooLargeAreNotMade(t *testing.T) {
	control, text := bytes.Repeat([]byte{7}, 64<<20), bytes.Repeat([]byte{'k'}, maxMade-1000)
	for _, test := range []struct {
		key  []byte
		made bool
	}{
		{control, false}, {control[:maxMade/6], false}, {control[:maxMade/6-1000], true},
		{bytes.Repeat([]byte{0xff}, maxMade*3/4), false}, {text, true}, {append(text, text...), false},
	} {
		for _, f := range []format{formatJSON, formatCloudEvents} {
			r := &fallback.Record{DB: []byte("0"), Event: []byte("set"), Key: test.key}
			l := newLayout(events{classes: 8}, "{key}", f)
			var m amqp.Message
			l.message(&m, viewPlain, r, "id")
			if (m.Refused == nil) != test.made || (m.Body != nil) != test.made {
				t.Errorf("a key of %d bytes, format %d: made %v, refused %v", len(test.key), f, m.Body != nil, m.Refused)
			}
			if test.made {
				continue
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			l.message(&m, viewPlain, r, "id")
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
				t.Errorf("a key of %d bytes, format %d: %d bytes are allocated for nothing", len(test.key), f, n)
			}
		}
	}
}
