// SPDX-License-Identifier: BSD-3-Clause

package amqp_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	lib "github.com/rabbitmq/amqp091-go"

	"github.com/key-evt-amqp/key_evt_amqp/amqp"
	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// recorder is a connection that may keep what is written, and send it nowhere.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	keep bool
	kept bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keep {
		return r.kept.Write(b)
	}
	return r.Conn.Write(b)
}

func (r *recorder) record() {
	r.mu.Lock()
	r.keep = true
	r.mu.Unlock()
}

func (r *recorder) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.kept.Reset()
	return bytes.Clone(r.kept.Bytes())
}

// randomMessage makes any message that AMQP allows, with one header at most:
// the order of more is random, the library's too.
func randomMessage(r *rand.Rand) *amqp.Message {
	text := func(n int) string {
		b := make([]byte, r.IntN(n+1))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	m := &amqp.Message{ID: text(255), Type: text(255), RoutingKey: text(255), ContentType: text(20)}
	switch r.IntN(4) {
	case 0: // empty
	case 1:
		m.Body = []byte(text(300_000))
	default:
		m.Body = []byte(text(300))
	}
	if r.IntN(4) > 0 {
		m.Time = time.Unix(r.Int64N(1<<40), 0)
	}
	values := []any{nil, true, false, int8(-7), uint8(200), int16(-2000), uint16(60000), int32(r.Uint32()), r.Uint32(), int64(r.Uint64()),
		r.Float32(), r.Float64(), text(1000), []byte(text(1000)), time.Unix(r.Int64N(1<<40), 0), []any{text(9), int32(3), []any{true, nil}}}
	if r.IntN(2) == 0 {
		m.Headers = map[string]any{text(255): values[r.IntN(len(values))]}
	}
	return m
}

// What the library would write for a message is what we write.
func TestTheLibraryWritesTheSameBytes(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, seed))
	for _, frameMax := range []int{4096, 8192, 131072} {
		raw, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", broker.Port))
		if err != nil {
			t.Fatal(err)
		}
		theirs := &recorder{Conn: raw}
		conn, err := lib.Open(theirs, lib.Config{SASL: []lib.Authentication{&lib.PlainAuth{Username: "guest", Password: "guest"}},
			Vhost: "/", FrameSize: frameMax, Locale: "en_US", Heartbeat: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if err := ch.Confirm(false); err != nil {
			t.Fatal(err)
		}
		theirs.record()
		for i := range 1000 {
			m := randomMessage(r)
			cfg := amqp.Config{Exchange: strings.Repeat("x", r.IntN(256)), DeliveryMode: uint8(r.IntN(3)), Mandatory: r.IntN(2) == 0, AppID: "test"}
			ours := &recorder{keep: true}
			if err := amqp.Encode(ours, frameMax, &cfg, m); err != nil {
				t.Fatalf("message %d of seed %d: %v", i, seed, err)
			}
			contentType := m.ContentType
			if contentType == "" {
				contentType = "text/plain"
			}
			if err := ch.Publish(cfg.Exchange, m.RoutingKey, cfg.Mandatory, false, lib.Publishing{
				Headers: lib.Table(m.Headers), ContentType: contentType, DeliveryMode: cfg.DeliveryMode, MessageId: m.ID,
				Timestamp: m.Time, Type: m.Type, AppId: cfg.AppID, Body: m.Body,
			}); err != nil {
				t.Fatalf("message %d of seed %d: %v", i, seed, err)
			}
			if got, want := ours.take(), theirs.take(); !bytes.Equal(got, want) {
				t.Fatalf("message %d of seed %d, frames of %d: %d bytes\n%.400q\nwant %d\n%.400q", i, seed, frameMax, len(got), got, len(want), want)
			}
		}
		raw.Close()
		conn.Close()
	}
}

// What can't be sent leaves nothing in the buffer: the next message is whole.
func TestAMessageThatCannotBeWrittenLeavesNothing(t *testing.T) {
	cfg := amqp.Config{Exchange: "amq.direct"}
	for name, m := range map[string]*amqp.Message{
		"a header without a type in AMQP":       {Headers: map[string]any{"good": true, "bad": struct{}{}}},
		"a header's name of 256 bytes":          {Headers: map[string]any{strings.Repeat("h", 256): true}},
		"headers that are larger than a frame":  {Headers: map[string]any{"h": make([]byte, 5000)}},
		"a routing key of 256 bytes":            {RoutingKey: strings.Repeat("r", 256)},
		"an array with something that can't be": {Headers: map[string]any{"a": []any{1.5, func() {}}}},
	} {
		out := &recorder{keep: true}
		if err := amqp.Encode(out, 4096, &cfg, m); err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := out.take(); len(got) != 0 {
			t.Errorf("%s: wrote %q", name, got)
		}
	}
}

// Over TLS, in small frames, and logging in by certificate.
func TestOverTLS(t *testing.T) {
	issue := func(want servers.Issue) *servers.Certificate {
		c, err := servers.NewCertificate(want)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	authority := issue(servers.Issue{Name: "authority", CA: true})
	own := issue(servers.Issue{Name: "broker", Hosts: []string{"127.0.0.1"}, By: authority})
	client := issue(servers.Issue{Name: "guest", By: authority})
	stranger := issue(servers.Issue{Name: "guest"})
	b, err := servers.NewBroker("frame_max = 8192")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.ListenTLS(own, authority); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	if err := b.Bind(t.Name(), "amq.direct", t.Name(), nil); err != nil {
		t.Fatal(err)
	}
	c := b.Consume(t.Name())
	defer c.Close()
	cfg := config(b.TLSPort)
	cfg.TLS, cfg.External, cfg.Username, cfg.Password = tlsConfig(t, authority, client), true, "", nil
	src := newMemory(t)
	run(t, shaped{src, func(n int, m *amqp.Message) {
		if n%100 == 0 {
			m.Body = append(make([]byte, 8192*n/100), m.Body...)
		}
	}}, &states{}, cfg)
	src.add(3000)
	if err := c.Wait(3000, time.Minute); err != nil {
		t.Fatal(err)
	}
	for i, m := range c.Messages() {
		if got := strings.TrimLeft(string(m.Body), "\x00"); got != fmt.Sprint(i+1) {
			t.Fatalf("message %d is %.20q", i+1, got)
		}
	}
	for _, test := range []struct {
		name, want string
		change     func(*amqp.Config)
	}{
		{"a certificate that the broker does not trust", "tls: ",
			func(cfg *amqp.Config) { cfg.TLS = tlsConfig(t, authority, stranger) }},
		{"a broker that we do not trust", "certificate signed by unknown authority",
			func(cfg *amqp.Config) { cfg.TLS = tlsConfig(t, stranger, client) }},
	} {
		cfg := cfg
		cfg.ConnectTimeout = 30 * time.Second
		test.change(&cfg)
		p := run(t, newMemory(t), &states{}, cfg)
		answer := make(chan error, 1)
		p.Connect(func(err error) { answer <- err })
		if err := <-answer; err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", test.name, err)
		} else {
			t.Logf("%s: %v", test.name, err)
		}
	}
}

func tlsConfig(t *testing.T, authority, own *servers.Certificate) amqp.TLSFunc {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM)
	pair, err := tls.X509KeyPair(own.PEM, own.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return func() (*tls.Config, error) {
		return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
	}
}
