// SPDX-License-Identifier: BSD-3-Clause

package main

//go:generate go test -run TestConfigurationReference -update .

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/c"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

func TestConfigurationReference(t *testing.T) {
	const page = "../docs/configuration.md"
	file := filepath.Join(t.TempDir(), "file")
	certificate, key := pair(t)
	if err := os.WriteFile(file, append(certificate, key...), 0o600); err != nil {
		t.Fatal(err)
	}
	want := reference(t, file)
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || string(got) != want {
		t.Errorf("docs/configuration.md is not what the table says (error %v): run go generate ./module", err)
	}
}

// meanings say what each setting is for, in docs/configuration.md; the rest of
// that page is made of the table.
var meanings = map[string]string{
	"events": "Classes of event, at least one: `g` generic, `$` string, `l` list, `s` set, `h` hash, `z` sorted set, `t` stream, `d` module types, " +
		"`x` expired, `e` evicted, `m` key miss, `n` new key; `A` is `g$lshzxetd`; letters of newer servers where the server knows them. " +
		"`K` and `E` choose Redis's own two channel views: [migrating.md](migrating.md).",
	"hostname":      "Broker, or several in order of preference, separated by commas: `rabbit1,rabbit2:5673,[::1]`.",
	"port":          "For every host that names none.",
	"username":      "The broker's user.",
	"password":      "Readable with CONFIG GET and in the load arguments: prefer password_file, see [security.md](security.md).",
	"heartbeat":     "Seconds; 0 leaves it to the broker.",
	"exchange_name": "Exchange to publish to; it must exist. Empty: the broker's default exchange, whose routing keys are names of queues.",
	"routing_key":   "May hold `{db}`, `{event}`, `{key}`, `{words}` (the key with each `:` turned into `.`) and `{prefix}` (the key up to its first `:`): [routing keys](reference.md#routing-keys). What a key pushes beyond AMQP's 255 bytes is cut, and the header routing_key_cut is set.",
	"delivery_mode": "1: transient, 2: persistent. RabbitMQ writes transient messages to disk only when it must.",
	"fallback_storage_size": "Events kept in the fallback list: above 0 the most that are kept, the oldest being dropped and counted; 0 unlimited; " +
		"below 0 none are stored, and events wait in memory within buffer_limit.",
	"key_mask": "Masks, of which one must match; `ALL` makes the others void; with none nothing is forwarded. Words in redis.conf's own quoting, " +
		"so in redis.conf the whole list needs quotes of its own as soon as one mask has a blank or a quote: `'^a.*$ \"two words\"'`.",
	"vhost": "The broker's virtual host.",
	"password_file": "A file whose first line is the password, read at each connection so that it can be rotated; wins over password. " +
		"The server's user must be able to read it.",
	"connect_timeout":     "Milliseconds for TCP, TLS and AMQP handshakes together.",
	"reconnect_delay_max": "Milliseconds; delays between attempts grow from 100, with jitter, up to this.",
	"max_inflight":        "Events sent and not yet confirmed.",
	"buffer_limit":        "Bytes of undelivered events in memory before they go to the fallback list. They do not count towards maxmemory.",
	"outbox": "`yes`: every event is in the fallback list before the client has its reply, until the broker confirms it. What Redis's persistence " +
		"keeps of a write, it then keeps of its event.",
	"expire_on_time": "`yes`: keys that the masks match expire when they are due, not when the server happens on them; needs class `x`. " +
		"See [reference.md](reference.md#expired-events-on-time).",
	"expire_watch_limit": "Bytes of memory for the keys that expire_on_time watches, about 64 and the key's own for each; they do not count towards " +
		"maxmemory. What does not fit expires at the server's own pace.",
	"shutdown_timeout": "Milliseconds that SHUTDOWN may wait for confirms; what is left goes into a spool file in the server's dir, taken in at the next load.",
	"mandatory":        "`yes`: a message that no queue takes counts as undelivered, and is sent again. `no`: the broker discards it.",
	"dataset_events":   "`yes`: FLUSHDB, FLUSHALL and SWAPDB are events: [reference.md](reference.md#events-of-whole-databases).",
	"format":           "`plain`, `json`, `cloudevents`, or `payload`, which needs a `value`: [reference.md](reference.md#formats-of-messages).",
	"value": "What an event carries of the key's value: `none`, `new` (what it holds after the change), `old` (what it held when it went), `both`: " +
		"[reference.md](reference.md#values). Redis 7.0 refuses `old` and `both`.",
	"value_limit":      "Bytes; a larger value is left out.",
	"tls":              "`yes`: amqps. The port stays the one that is set; RabbitMQ usually has 5671 for it.",
	"tls_ca_cert_file": "PEM file of the certificate authorities to trust, read at each connection. Empty: the system's.",
	"tls_cert_file":    "PEM file of the client's certificate and those between it and its authority, read at each connection. With one and an empty username: SASL EXTERNAL.",
	"tls_key_file":     "PEM file of the client's key, without passphrase, read at each connection. Empty: it is in tls_cert_file, too.",
	"tls_server_name":  "Name that the broker's certificate must bear. Empty: the host in use.",
	"tls_verify":       "`no`: the broker's certificate is not checked, and the log warns.",
}

const referenceHead = `# Configuration

Generated from the table that registers the settings (module/settings.go) and its tests:
` + "`go generate ./module`" + ` writes this page, and a test compares.

Every setting is a Redis configuration ` + "`key_evt_amqp.<name>`" + `: in redis.conf, with CONFIG GET, CONFIG SET, CONFIG REWRITE and
MODULE LOADEX … CONFIG. All can be changed at run time. CONFIG SET of several is all or nothing; it concerns this node only. The first %d are
also arguments of loadmodule and MODULE LOAD, in this order, and those from hostname on of ` + "`key_evt_amqp.config_set`" + ` and
` + "`key_evt_amqp.connect`" + `. A line in redis.conf wins over an argument.

CONFIG REWRITE writes what differs from the load arguments, and the loadmodule line itself without any quotes: the server does so for every
module. An argument that is empty or has a blank or a quote therefore does not survive CONFIG REWRITE; give it as a
configuration instead. Valkey 8.1.0 and 8.1.1 do not escape quotes and backslashes in any value that CONFIG REWRITE writes, and then cannot
read their own redis.conf; 8.1.2 does. There, write masks that need quotes as ` + "`" + `'two words'` + "`" + `, and have no others.

| argument | name | type | default | accepted | meaning |
|---|---|---|---|---|---|
`

// reference is docs/configuration.md. A file that exists tells settings that
// want one from others.
func reference(t *testing.T, file string) string {
	var b strings.Builder
	fmt.Fprintf(&b, referenceHead, maskPosition+1)
	for i := range table {
		row, position := &table[i], ""
		if meanings[row.name] == "" {
			t.Errorf("%s has no meaning: say it in meanings", row.name)
		}
		if row.positional != (i <= maskPosition) {
			t.Errorf("%s stands in the wrong part of the table", row.name)
		}
		if row.positional {
			position = fmt.Sprint(i + 1)
		}
		if i == maskPosition {
			position += "…"
		}
		kind, fallback, accepted := row.described(file)
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %s |\n", position, row.name, kind, fallback, accepted, meanings[row.name])
	}
	return b.String()
}

// described are a setting's type, default, and what it accepts.
func (row *setting) described(file string) (kind, fallback, accepted string) {
	switch row.kind {
	case c.Bool:
		fallback = "no"
		if row.number != 0 {
			fallback = "yes"
		}
		return "yes or no", fallback, "yes, no"
	case c.Number:
		accepted = fmt.Sprintf("%d to %d", row.min, row.max)
		if row.min == math.MinInt64 && row.max == math.MaxInt64 {
			accepted = "any 64-bit integer"
		}
		return "integer", fmt.Sprint(row.number), accepted
	}
	fallback = "(empty)"
	if row.text != "" {
		fallback = "`" + row.text + "`"
	}
	return "text", fallback, row.accepts(file)
}

// accepts tries what the check of a text takes.
func (row *setting) accepts(file string) string {
	takes := func(text string) bool { return defaults().setText(row, text) == nil }
	switch {
	case !takes("x") && takes(file):
		return "a file that the server can read, or empty"
	case !takes("x"):
		return "those named"
	case !takes(""):
		return "not empty"
	case !takes(`"`):
		return "words, quotes balanced"
	}
	return fmt.Sprintf("at most %d bytes", row.longest)
}
