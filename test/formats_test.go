// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// awkward are keys that a careless format breaks.
var awkward = []string{
	"user:1", "ключ", "50% \"off\" \\", "two\nlines", "nul\x00 tab\t", "\xff\xfe", "\xed\xa0\x80", "\u0085\u2028\uffff", "",
	strings.Repeat("k", 2000), strings.Repeat("\n", 600),
}

var moment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// checkTime checks a message's time in RFC 3339.
func checkTime(t *testing.T, text string, since time.Time) {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || !moment.MatchString(text) || at.Before(since.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("time is %q, error %v", text, err)
	}
}

// checkKey checks key or key_base64 of a body, and takes them out.
func checkKey(t *testing.T, body map[string]any, key string) {
	t.Helper()
	text, isText := body["key"].(string)
	coded, isCoded := body["key_base64"].(string)
	if isCoded {
		bytes, err := base64.StdEncoding.DecodeString(coded)
		if err != nil {
			t.Errorf("key_base64: %v", err)
		}
		text = string(bytes)
	}
	if isText == isCoded || text != key {
		t.Errorf("got %v, want the key %q", body, key)
	}
	delete(body, "key")
	delete(body, "key_base64")
}

func bodyOf(t *testing.T, m lib.Delivery) (body map[string]any) {
	t.Helper()
	if err := json.Unmarshal(m.Body, &body); err != nil || m.ContentType != "application/json" {
		t.Errorf("%s (%s): %v", m.Body, m.ContentType, err)
	}
	return body
}

func TestJSON(t *testing.T) {
	since := time.Now()
	r := start(t, options{events: "$", config: []string{"key_evt_amqp.format json"}})
	for _, key := range awkward {
		r.do("SET", key, "v")
	}
	must(t, r.queue.Wait(len(awkward), patience))
	for i, m := range r.queue.Messages() {
		body := bodyOf(t, m)
		checkKey(t, body, awkward[i])
		at, _ := body["time"].(string)
		checkTime(t, at, since)
		delete(body, "time")
		want := map[string]any{"id": m.MessageId, "db": 0.0, "event": "set"}
		if !reflect.DeepEqual(body, want) || m.Type != "set" || m.AppId != "key_evt_amqp" || len(m.Headers) != 0 {
			t.Errorf("%.40q: got %v, headers %v, want %v", awkward[i], body, m.Headers, want)
		}
	}
	// A change at run time concerns what comes after, and keeps the connection.
	r.fails("format", "CONFIG", "SET", "key_evt_amqp.format", "xml")
	r.do("CONFIG", "SET", "key_evt_amqp.format", "plain")
	r.do("SET", "plain", "v")
	must(t, r.queue.Wait(len(awkward)+1, patience))
	if m := r.queue.Messages()[len(awkward)]; string(m.Body) != "0\nset\nplain" || m.ContentType != "text/plain" {
		t.Errorf("got %q (%s)", m.Body, m.ContentType)
	}
	if n := r.number("connects"); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	r.balanced(0, 0)
}

func TestCloudEvents(t *testing.T) {
	since := time.Now()
	r := start(t, options{events: "$", config: []string{"key_evt_amqp.format cloudevents"}})
	for _, key := range awkward {
		r.do("SET", key, "v")
	}
	must(t, r.queue.Wait(len(awkward), patience))
	for i, m := range r.queue.Messages() {
		key, headers := awkward[i], m.Headers
		body := bodyOf(t, m)
		checkKey(t, body, key)
		if want := map[string]any{"db": 0.0, "event": "set"}; !reflect.DeepEqual(body, want) {
			t.Errorf("%.40q: data is %v, want %v", key, body, want)
		}
		at, _ := headers["cloudEvents_time"].(string)
		checkTime(t, at, since)
		delete(headers, "cloudEvents_time")
		subject, ok := headers["cloudEvents_subject"].(string)
		if decoded, err := url.PathUnescape(subject); ok && (err != nil || decoded != key) {
			t.Errorf("subject %q, error %v, want the key %q", subject, err, key)
		}
		if wanted := key != "" && len(key) < 600; ok != wanted {
			t.Errorf("%.40q: there is a subject: %v, want %v", key, ok, wanted)
		}
		delete(headers, "cloudEvents_subject")
		want := lib.Table{
			"cloudEvents_specversion": "1.0", "cloudEvents_id": m.MessageId,
			"cloudEvents_type": "io.github.key-evt-amqp.set", "cloudEvents_source": "/redis/db/0",
		}
		if !reflect.DeepEqual(headers, want) {
			t.Errorf("%.40q: headers are %v, want %v", key, headers, want)
		}
	}
	r.balanced(0, 0)
}

func TestFormatsThroughAnOutage(t *testing.T) {
	r, p := proxied(t, options{events: "$", config: []string{"key_evt_amqp.format cloudevents"}})
	p.Cut()
	r.sets("k", 1000)
	r.until("fallback_length", is("1000"))
	must(t, p.Mend())
	must(t, r.queue.Wait(1000, patience))
	for i, m := range r.queue.Messages() {
		checkKey(t, bodyOf(t, m), "k"+strconv.Itoa(i))
		if m.Headers["cloudEvents_id"] != m.MessageId {
			t.Fatalf("message %d: id is %v, message_id %s", i, m.Headers["cloudEvents_id"], m.MessageId)
		}
	}
	r.balanced(0, 0)
}

// topic starts a rig that sends to the topic exchange; each key is bound to a
// queue of its own.
func topic(t *testing.T, events string, keys []string, config ...string) (*rig, []*servers.Consumer) {
	t.Helper()
	r := prepare(t, options{events: events, silent: true, config: append([]string{
		"key_evt_amqp.exchange_name amq.topic", "key_evt_amqp.mandatory no"}, config...)})
	consumers := make([]*servers.Consumer, len(keys))
	for i, key := range keys {
		queue := r.name + "-" + strconv.Itoa(i)
		must(t, broker.Bind(queue, "amq.topic", key, nil))
		consumers[i] = broker.Consume(queue)
		t.Cleanup(consumers[i].Close)
	}
	must(t, r.Start())
	must(t, r.Alive())
	return r, consumers
}

func checkMessages(t *testing.T, c *servers.Consumer, want ...[2]string) {
	t.Helper()
	must(t, c.Wait(len(want), patience))
	var got [][2]string
	for _, m := range c.Messages() {
		got = append(got, [2]string{m.RoutingKey, string(m.Body)})
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %q, want %q", c.Queue, got, want)
	}
}

func TestAPubSubListenerMovesOver(t *testing.T) {
	r, queues := topic(t, "Ex", []string{"__keyevent@0__:expired", "__keyevent@3__:expired"})
	r.do("SET", "session:\n1\xff", "v", "PX", "1")
	r.do("SET", "stays", "v")
	pipe := r.Pipeline()
	pipe.Do(ctx, "SELECT", "3")
	pipe.Do(ctx, "SET", "third", "v", "PX", "1")
	pipe.Do(ctx, "SELECT", "0")
	_, err := pipe.Exec(ctx)
	must(t, err)
	checkMessages(t, queues[0], [2]string{"__keyevent@0__:expired", "session:\n1\xff"})
	checkMessages(t, queues[1], [2]string{"__keyevent@3__:expired", "third"})
	r.balanced(0, 0)
}

func TestKeyspaceView(t *testing.T) {
	r, queues := topic(t, "K$g", []string{"__keyspace@0__:user.*", "__keyspace@0__:exact"})
	long := "user." + strings.Repeat("x", 300)
	r.do("SET", "user.1", "v")
	r.do("SET", "exact", "v")
	r.do("SET", "other", "v")
	r.do("DEL", "user.1")
	r.do("SET", long, "v")
	cut := ("__keyspace@0__:" + long)[:255]
	checkMessages(t, queues[0], [2]string{"__keyspace@0__:user.1", "set"}, [2]string{"__keyspace@0__:user.1", "del"}, [2]string{cut, "set"})
	checkMessages(t, queues[1], [2]string{"__keyspace@0__:exact", "set"})
	messages := queues[0].Messages()
	if messages[0].Headers["routing_key_cut"] != nil || messages[2].Headers["routing_key_cut"] != true {
		t.Errorf("headers are %v and %v", messages[0].Headers, messages[2].Headers)
	}
	r.balanced(0, 0)
}

func TestBothViews(t *testing.T) {
	for _, format := range []string{"plain", "json"} {
		t.Run(format, func(t *testing.T) {
			r, queues := topic(t, "KE$", []string{"#"}, "key_evt_amqp.format "+format)
			all := queues[0]
			r.sets("k", 500)
			must(t, all.Wait(1000, patience))
			r.balanced(0, 0)
			ids := map[string]bool{}
			mine := all.Messages()
			for _, m := range mine {
				if ids[m.MessageId] {
					t.Errorf("%s is not unique", m.MessageId)
				}
				ids[m.MessageId] = true
			}
			if len(mine) != 1000 || all.Duplicates() != 0 {
				t.Fatalf("%d messages, %d duplicates", len(mine), all.Duplicates())
			}
			for i := range 500 {
				space, event, key := mine[2*i], mine[2*i+1], "k"+strconv.Itoa(i)
				if space.RoutingKey != "__keyspace@0__:"+key || event.RoutingKey != "__keyevent@0__:set" {
					t.Fatalf("event %d: routing keys are %q and %q", i, space.RoutingKey, event.RoutingKey)
				}
				a, b := strings.TrimSuffix(space.MessageId, "-k"), strings.TrimSuffix(event.MessageId, "-e")
				if a != b || a == space.MessageId {
					t.Fatalf("event %d: ids are %q and %q", i, space.MessageId, event.MessageId)
				}
				if format == "plain" {
					if string(space.Body) != "set" || string(event.Body) != key {
						t.Fatalf("event %d: bodies are %q and %q", i, space.Body, event.Body)
					}
					continue
				}
				for _, m := range []lib.Delivery{space, event} {
					body := bodyOf(t, m)
					checkKey(t, body, key)
					if body["id"] != m.MessageId {
						t.Fatalf("event %d: %s in %s", i, m.Body, m.MessageId)
					}
				}
			}
		})
	}
}

func TestRoutingKeyTemplates(t *testing.T) {
	r, queues := topic(t, "$l", []string{"redis.0.set.#", "redis.0.lpush.#"}, "key_evt_amqp.routing_key redis.{db}.{event}.{key}")
	long := strings.Repeat("x", 300)
	r.do("SET", "a.b", "v")
	r.do("LPUSH", "list", "v")
	r.do("SET", long, "v")
	checkMessages(t, queues[0], [2]string{"redis.0.set.a.b", "0\nset\na.b"}, [2]string{("redis.0.set." + long)[:255], "0\nset\n" + long})
	checkMessages(t, queues[1], [2]string{"redis.0.lpush.list", "0\nlpush\nlist"})
	if h := queues[0].Messages()[1].Headers; h["routing_key_cut"] != true {
		t.Errorf("headers are %v", h)
	}
	r.balanced(0, 0)
}

func TestTopicBindingsByPrefix(t *testing.T) {
	r, queues := topic(t, "$g", []string{"set.session.#", "del.session.*", "*.user"},
		"key_evt_amqp.routing_key {event}.{words}")
	r.do("SET", "session:42:cart", "v")
	r.do("SET", "session:7", "v")
	r.do("SET", "user", "v")
	r.do("SET", "other:session:1", "v")
	r.do("DEL", "session:42:cart")
	r.do("DEL", "session:7")
	checkMessages(t, queues[0], [2]string{"set.session.42.cart", "0\nset\nsession:42:cart"}, [2]string{"set.session.7", "0\nset\nsession:7"})
	checkMessages(t, queues[1], [2]string{"del.session.7", "0\ndel\nsession:7"})
	checkMessages(t, queues[2], [2]string{"set.user", "0\nset\nuser"})
	r.do("CONFIG", "SET", "key_evt_amqp.routing_key", "{prefix}")
	must(t, broker.Bind(queues[1].Queue, "amq.topic", "session", nil))
	r.do("SET", "session:9:x.y", "v")
	checkMessages(t, queues[1], [2]string{"del.session.7", "0\ndel\nsession:7"}, [2]string{"session", "0\nset\nsession:9:x.y"})
	r.balanced(0, 0)
}
