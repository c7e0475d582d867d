// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/fallback"
)

func listOf(elements ...string) (b []byte) {
	for _, e := range elements {
		b = fallback.AppendElement(b, e)
	}
	return b
}

func scored(score float64, member string) []byte {
	return fallback.AppendElement(binary.LittleEndian.AppendUint64(nil, math.Float64bits(score)), member)
}

func stringOf(s string) fallback.Content {
	return fallback.Content{Type: fallback.String, Bytes: []byte(s)}
}

// What an event says of values, in each format.
func TestValuesInEachFormat(t *testing.T) {
	entry := append(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 7), 1), listOf("n", "\xff")...)
	long := strings.Repeat("x", maxHeaderValue+1)
	for _, test := range []struct {
		name     string
		now, old fallback.Content
		members  string         // of json's object, behind the key
		headers  map[string]any // plain's
		body     string         // payload's
		jsonBody bool           // payload's is JSON
	}{
		{name: "nothing"},
		{"text", stringOf("a\"é"), fallback.Content{}, `,"type":"string","value":"a\"é"`, map[string]any{"type": "string", "value": "a\"é"}, "a\"é", false},
		{"an empty string", stringOf(""), fallback.Content{}, `,"type":"string","value":""`, map[string]any{"type": "string", "value": ""}, "", false},
		{"bytes", stringOf("\xff\x00"), fallback.Content{}, `,"type":"string","value_base64":"/wA="`, map[string]any{"type": "string", "value": []byte("\xff\x00")}, "\xff\x00", false},
		{"an old one alone", fallback.Content{}, stringOf("was"), `,"old_type":"string","old":"was"`, map[string]any{"old_type": "string", "old": "was"}, "was", false},
		{"both", stringOf("is"), fallback.Content{Type: fallback.List, Bytes: listOf("a")}, `,"type":"string","value":"is","old_type":"list","old":["a"]`,
			map[string]any{"type": "string", "value": "is", "old_type": "list", "old": []byte(`["a"]`)}, "is", false},
		{"too large, its size known", fallback.Content{Type: fallback.String, LeftOut: true, Size: 99}, fallback.Content{}, `,"type":"string","value_size":99`,
			map[string]any{"type": "string", "value_size": int64(99)}, "", false},
		{"too large, its size not known", fallback.Content{Type: fallback.Hash, LeftOut: true}, fallback.Content{}, `,"type":"hash"`, map[string]any{"type": "hash"}, "", false},
		{"of a module's type", fallback.Content{Type: fallback.Module, LeftOut: true}, fallback.Content{}, `,"type":"module"`, map[string]any{"type": "module"}, "", false},
		{"too large for a header", stringOf(long), fallback.Content{}, `,"type":"string","value":"` + long + `"`,
			map[string]any{"type": "string", "value_size": int64(len(long))}, long, false},
		{"an empty list", fallback.Content{Type: fallback.List}, fallback.Content{}, `,"type":"list","value":[]`, map[string]any{"type": "list", "value": "[]"}, "[]", true},
		{"a set", fallback.Content{Type: fallback.Set, Bytes: listOf("a", "", "\xff")}, fallback.Content{}, `,"type":"set","value":["a","",{"base64":"/w=="}]`,
			map[string]any{"type": "set", "value": `["a","",{"base64":"/w=="}]`}, `["a","",{"base64":"/w=="}]`, true},
		{"a hash", fallback.Content{Type: fallback.Hash, Bytes: listOf("f", "v", "", "\xff")}, fallback.Content{}, `,"type":"hash","value":{"f":"v","":{"base64":"/w=="}}`,
			map[string]any{"type": "hash", "value": `{"f":"v","":{"base64":"/w=="}}`}, `{"f":"v","":{"base64":"/w=="}}`, true},
		{"a hash whose field is not a name", fallback.Content{Type: fallback.Hash, Bytes: listOf("f", "v", "\xff", "w")}, fallback.Content{},
			`,"type":"hash","value":[["f","v"],[{"base64":"/w=="},"w"]]`,
			map[string]any{"type": "hash", "value": `[["f","v"],[{"base64":"/w=="},"w"]]`}, `[["f","v"],[{"base64":"/w=="},"w"]]`, true},
		{"a sorted set", fallback.Content{Type: fallback.SortedSet, Bytes: append(append(scored(math.Inf(-1), "a"), scored(1.5, "b")...), scored(math.Inf(1), "c")...)}, fallback.Content{},
			`,"type":"zset","value":[["a","-inf"],["b",1.5],["c","inf"]]`,
			map[string]any{"type": "zset", "value": `[["a","-inf"],["b",1.5],["c","inf"]]`}, `[["a","-inf"],["b",1.5],["c","inf"]]`, true},
		{"a stream", fallback.Content{Type: fallback.Stream, Bytes: entry}, fallback.Content{}, `,"type":"stream","value":{"id":"7-1","fields":[["n",{"base64":"/w=="}]]}`,
			map[string]any{"type": "stream", "value": `{"id":"7-1","fields":[["n",{"base64":"/w=="}]]}`}, `{"id":"7-1","fields":[["n",{"base64":"/w=="}]]}`, true},
		{"a stream without entries", fallback.Content{Type: fallback.Stream}, fallback.Content{}, `,"type":"stream","value":null`, map[string]any{"type": "stream", "value": "null"}, "null", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := record("3", "set", "k")
			r.Now, r.Old = test.now, test.old
			const key = `"db":3,"event":"set","key":"k"`
			if m := shape(formatCloudEvents, events{}, 0, r); string(m.Body) != "{"+key+test.members+"}" || !json.Valid(m.Body) {
				t.Errorf("cloudevents: got %.300s", m.Body)
			}
			if m := shape(formatJSON, events{}, 0, r); !strings.HasSuffix(string(m.Body), key+test.members+"}") || !json.Valid(m.Body) {
				t.Errorf("json: got %.300s", m.Body)
			}
			m := shape(formatPlain, events{}, 0, r)
			if string(m.Body) != "3\nset\nk" || len(m.Headers) != len(test.headers) {
				t.Errorf("plain: body %q, headers %.300v", m.Body, m.Headers)
			}
			for name, want := range test.headers {
				if got := m.Headers[name]; !reflect.DeepEqual(got, want) && !(name == "old" && got == string(want.([]byte))) {
					t.Errorf("plain: header %s is %.300v, want %.300v", name, got, want)
				}
			}
			kind := "application/octet-stream"
			if test.jsonBody {
				kind = contentTypeJSON
			}
			m = shape(formatPayload, events{}, 0, r)
			if string(m.Body) != test.body || m.ContentType != kind {
				t.Errorf("payload: body %.300q of %s", m.Body, m.ContentType)
			}
			if m.Headers["db"] != int64(3) || m.Headers["event"] != "set" || m.Headers["key"] != "k" {
				t.Errorf("payload: headers %v", m.Headers)
			}
		})
	}
}

// A text that escapes make too large is left out; the event is not.
func TestValuesTooLargeAsText(t *testing.T) {
	r := record("0", "set", "k")
	r.Now = stringOf(strings.Repeat("\x00", 16<<20))
	r.Old = stringOf(strings.Repeat("x", 3<<20))
	m := shape(formatJSON, events{}, 0, r)
	if m.Refused != nil || !strings.Contains(string(m.Body[:200]), `"value_size":16777216,"old_type":"string","old":"xxx`) {
		t.Errorf("refused %v, body %.200s", m.Refused, m.Body)
	}
	if m = shape(formatPayload, events{}, 0, r); len(m.Body) != 16<<20 {
		t.Errorf("payload: %d bytes", len(m.Body))
	}
	r.Now = fallback.Content{Type: fallback.List, Bytes: listOf(strings.Repeat("\x00", 3<<20))}
	if m = shape(formatPayload, events{}, 0, r); len(m.Body) != 0 || m.Headers["value_size"] != int64(len(r.Now.Bytes)) {
		t.Errorf("payload: %d bytes, headers %v", len(m.Body), m.Headers)
	}
	key := strings.Repeat("k", maxHeaderValue+1)
	if m = shape(formatPayload, events{}, 0, record("0", "set", key)); m.Headers["key"] != nil || m.Headers["key_size"] != int64(len(key)) {
		t.Errorf("payload: headers %.100v", m.Headers)
	}
}

func TestSettingsOfValues(t *testing.T) {
	s := defaults()
	for text, why := range map[string]string{"": "is none of", "NEW": "is none of", "newest": "is none of"} {
		if err := s.set(find("value"), text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("value %q: %v", text, err)
		}
	}
	hasOldValues = false
	defer func() { hasOldValues = true }()
	for _, text := range []string{"old", "both"} {
		if err := s.set(find("value"), text); err == nil || !strings.Contains(err.Error(), "Redis 7.2 and newer") {
			t.Errorf("value %s: %v", text, err)
		}
	}
	if err := s.set(find("format"), "payload"); err != nil {
		t.Fatal(err)
	}
	if err := s.agree(); err == nil || !strings.Contains(err.Error(), "value is none") {
		t.Errorf("format payload without a value: %v", err)
	}
	if err := s.set(find("value"), "new"); err != nil || s.agree() != nil {
		t.Errorf("format payload, value new: %v, %v", err, s.agree())
	}
}
