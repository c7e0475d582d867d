// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

func certificate(t *testing.T, want servers.Issue) *servers.Certificate {
	t.Helper()
	c, err := servers.NewCertificate(want)
	must(t, err)
	return c
}

// certificateFiles writes a certificate and its key for Redis to read.
func certificateFiles(t *testing.T, c *servers.Certificate) (cert, key string) {
	t.Helper()
	cert, key, err := c.Write(t.TempDir(), "redis")
	must(t, err)
	return cert, key
}

// tlsBroker starts a broker that also listens for TLS.
func tlsBroker(t *testing.T, own, clients *servers.Certificate, config ...func(*servers.Broker)) *servers.Broker {
	t.Helper()
	b, err := servers.NewBroker()
	must(t, err)
	t.Cleanup(b.Close)
	must(t, b.ListenTLS(own, clients))
	for _, f := range config {
		f(b)
	}
	must(t, b.Start())
	return b
}

// prepareAt prepares a rig whose queue is at a broker of the test's own; port
// is where the module connects. startAt starts it.
func prepareAt(t *testing.T, b *servers.Broker, port int, config ...string) *rig {
	t.Helper()
	r := prepare(t, options{events: "$", silent: true, port: port,
		config: append([]string{"key_evt_amqp.reconnect_delay_max 300"}, config...)})
	must(t, b.Bind(r.name, "amq.direct", r.name, nil))
	r.queue = b.Consume(r.name)
	return r
}

func startAt(t *testing.T, b *servers.Broker, port int, config ...string) *rig {
	t.Helper()
	r := prepareAt(t, b, port, config...)
	must(t, r.Start())
	must(t, r.Alive())
	return r
}

func contains(part string) func(string) bool {
	return func(got string) bool { return strings.Contains(got, part) }
}

// refused makes events that wait, for a reason that last_error tells.
func (r *rig) refused(events int, reason string) {
	r.t.Helper()
	r.sets("k", events)
	r.until("last_error", contains(reason))
	r.until("fallback_length", is(fmt.Sprint(events)))
}

func TestTLS(t *testing.T) {
	ca := certificate(t, servers.Issue{Name: "an authority", CA: true})
	caFile, _ := certificateFiles(t, ca)
	good := certificate(t, servers.Issue{Name: "rabbit", Hosts: []string{"127.0.0.1"}, By: ca})
	b := tlsBroker(t, good, nil, func(b *servers.Broker) {
		b.Config = append(b.Config, fmt.Sprintf("listeners.ssl.2 = 127.0.0.2:%d", b.TLSPort))
	})
	show := func(t *testing.T, c *servers.Certificate) {
		t.Helper()
		must(t, b.ShowTLS(c))
		t.Cleanup(func() { must(t, b.ShowTLS(good)) })
	}
	on, own := "key_evt_amqp.tls yes", "key_evt_amqp.tls_ca_cert_file "+caFile

	t.Run("an authority of our own", func(t *testing.T) {
		r := startAt(t, b, b.TLSPort, on, own)
		r.sets("k", 1000)
		r.arrives(setBodies("k", 1000))
		if out, err := b.Ctl("-q", "list_connections", "ssl", "user"); err != nil || !strings.Contains(out, "true\tguest") {
			t.Errorf("the broker's connections: %q, error %v", out, err)
		}
		r.balanced(0, 0)
	})
	t.Run("the authorities of the system", func(t *testing.T) {
		r := prepareAt(t, b, b.TLSPort, on)
		r.Env = []string{"SSL_CERT_FILE=" + caFile, "SSL_CERT_DIR=" + t.TempDir()}
		must(t, r.Start())
		r.sets("k", 10)
		r.arrives(setBodies("k", 10))
		r.balanced(0, 0)
	})
	t.Run("an unknown authority, until it is known", func(t *testing.T) {
		r := startAt(t, b, b.TLSPort, on)
		r.fails("unknown authority", "key_evt_amqp.connect")
		r.refused(10, "unknown authority")
		r.do("CONFIG", "SET", "key_evt_amqp.tls_ca_cert_file", caFile)
		r.arrives(setBodies("k", 10))
		r.balanced(0, 0)
	})
	t.Run("an expired certificate, until it is renewed", func(t *testing.T) {
		show(t, certificate(t, servers.Issue{Name: "rabbit", Hosts: []string{"127.0.0.1"}, By: ca, Expired: true}))
		r := startAt(t, b, b.TLSPort, on, own)
		r.refused(10, "certificate has expired")
		must(t, b.ShowTLS(good))
		r.arrives(setBodies("k", 10))
		r.balanced(0, 0)
	})
	t.Run("a self-signed certificate, until it is trusted", func(t *testing.T) {
		self := certificate(t, servers.Issue{Name: "rabbit", Hosts: []string{"127.0.0.1"}})
		show(t, self)
		r := startAt(t, b, b.TLSPort, on, own)
		r.refused(10, "unknown authority")
		cert, _ := certificateFiles(t, self)
		r.do("CONFIG", "SET", "key_evt_amqp.tls_ca_cert_file", cert)
		r.arrives(setBodies("k", 10))
		r.balanced(0, 0)
	})
	t.Run("the certificate of another host, until its name is given", func(t *testing.T) {
		show(t, certificate(t, servers.Issue{Name: "rabbit", Hosts: []string{"rabbit.test"}, By: ca}))
		r := startAt(t, b, b.TLSPort, on, own)
		r.refused(10, "cannot validate certificate for 127.0.0.1")
		r.do("CONFIG", "SET", "key_evt_amqp.tls_server_name", "rabbit.test")
		r.arrives(setBodies("k", 10))
		// A live connection that would not be made any more is not kept.
		r.do("CONFIG", "SET", "key_evt_amqp.tls_server_name", "other.test")
		r.until("last_error", contains("valid for rabbit.test, not other.test"))
		r.do("CONFIG", "SET", "key_evt_amqp.tls_server_name", "rabbit.test")
		r.until("state", is("connected"))
		r.balanced(0, 0)
	})
	t.Run("each of several hosts by its own name", func(t *testing.T) {
		show(t, certificate(t, servers.Issue{Name: "rabbit", Hosts: []string{"127.0.0.2"}, By: ca}))
		r := startAt(t, b, b.TLSPort, on, own, "key_evt_amqp.hostname 127.0.0.1,127.0.0.2")
		r.sets("k", 10)
		r.arrives(setBodies("k", 10))
		if r.info("broker_host") != "127.0.0.2" || r.number("connect_failures") == 0 {
			t.Errorf("got %s after %s failures", r.info("broker_host"), r.info("connect_failures"))
		}
		r.balanced(0, 0)
	})
	t.Run("verification off", func(t *testing.T) {
		show(t, certificate(t, servers.Issue{Name: "anybody", Hosts: []string{"elsewhere.test"}, Expired: true}))
		warnings := func(r *rig) int { return strings.Count(r.Log(), "tls_verify is no") }
		r := startAt(t, b, b.TLSPort, on, own, "key_evt_amqp.tls_verify no")
		r.sets("k", 10)
		r.arrives(setBodies("k", 10))
		r.do("CONFIG", "SET", "key_evt_amqp.heartbeat", "18")
		if n := warnings(r); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
		r.do("CONFIG", "SET", "key_evt_amqp.tls_verify", "yes")
		r.until("state", is("backoff"))
		r.do("CONFIG", "SET", "key_evt_amqp.tls_verify", "no")
		r.until("state", is("connected"))
		if n := warnings(r); n != 2 {
			t.Errorf("%d warnings after verification was turned off again, want 2", n)
		}
		r.balanced(0, 0)
	})
	t.Run("a plain port, until TLS is off", func(t *testing.T) {
		r := startAt(t, b, b.Port, on, own)
		r.refused(10, "does not look like a TLS handshake")
		r.do("CONFIG", "SET", "key_evt_amqp.tls", "no")
		r.arrives(setBodies("k", 10))
		r.balanced(0, 0)
	})
	t.Run("files that do not parse are refused", func(t *testing.T) {
		r := startAt(t, b, b.TLSPort, on, own)
		bad := t.TempDir() + "/bad.pem"
		must(t, os.WriteFile(bad, []byte("no certificate"), 0o600))
		config := func(name string) string { return r.ConfigGet(ctx, "key_evt_amqp."+name).Val()["key_evt_amqp."+name] }
		r.fails(bad, "CONFIG", "SET", "key_evt_amqp.heartbeat", "18", "key_evt_amqp.tls_ca_cert_file", bad)
		r.fails("/none", "CONFIG", "SET", "key_evt_amqp.tls_cert_file", "/none")
		r.fails(bad, "CONFIG", "SET", "key_evt_amqp.tls_key_file", bad)
		if config("heartbeat") != "20" || config("tls_ca_cert_file") != caFile || config("tls_cert_file") != "" || config("tls_key_file") != "" {
			t.Errorf("a refused CONFIG SET changed something: %q %q", config("heartbeat"), config("tls_ca_cert_file"))
		}
		r.sets("k", 10)
		r.arrives(setBodies("k", 10))
		r.balanced(0, 0)
	})
	t.Run("files are read at each connection", func(t *testing.T) {
		path := t.TempDir() + "/rotated.pem"
		must(t, os.WriteFile(path, ca.PEM, 0o600))
		r := startAt(t, b, b.TLSPort, on, "key_evt_amqp.tls_ca_cert_file "+path)
		r.sets("k", 10)
		r.arrives(setBodies("k", 10))
		must(t, os.Remove(path))
		r.do("CONFIG", "SET", "key_evt_amqp.heartbeat", "18") // renews the connection
		r.until("last_error", contains("tls_ca_cert_file; open "+path))
		// What the server takes back meets a file that is gone.
		r.fails("hostname", "CONFIG", "SET", "key_evt_amqp.tls_ca_cert_file", caFile, "key_evt_amqp.hostname", "")
		r.until("state", is("backoff"))
		must(t, os.WriteFile(path, ca.PEM, 0o600))
		r.until("state", is("connected"))
		r.balanced(0, 0)
	})
	t.Run("cut again and again under load", func(t *testing.T) {
		p, err := servers.NewProxy(fmt.Sprintf("127.0.0.1:%d", b.TLSPort))
		must(t, err)
		t.Cleanup(p.Cut)
		startAt(t, b, p.Port, on, own).throughCuts(p, 20, 5)
	})
}

func TestClientCertificates(t *testing.T) {
	ca := certificate(t, servers.Issue{Name: "an authority", CA: true})
	caFile, _ := certificateFiles(t, ca)
	b := tlsBroker(t, certificate(t, servers.Issue{Name: "rabbit", Hosts: []string{"127.0.0.1"}, By: ca}), ca)
	_, err := b.Ctl("add_user", "redis-1", "nobody knows this word")
	must(t, err)
	_, err = b.Ctl("set_permissions", "redis-1", ".*", ".*", ".*")
	must(t, err)
	client := certificate(t, servers.Issue{Name: "redis-1", By: ca})
	config := []string{"key_evt_amqp.tls yes", "key_evt_amqp.tls_ca_cert_file " + caFile}
	users := func(t *testing.T, want string) {
		t.Helper()
		if out, err := b.Ctl("-q", "list_connections", "auth_mechanism", "user"); err != nil || !strings.Contains(out, want) {
			t.Errorf("the broker's connections: %q, error %v, want %q", out, err, want)
		}
	}

	t.Run("none, then one of a stranger, then a good one", func(t *testing.T) {
		r := startAt(t, b, b.TLSPort, config...)
		r.refused(10, "certificate required")
		set := func(c *servers.Certificate) {
			cert, key := certificateFiles(t, c)
			r.do("CONFIG", "SET", "key_evt_amqp.tls_cert_file", cert, "key_evt_amqp.tls_key_file", key)
		}
		stranger := certificate(t, servers.Issue{Name: "another authority", CA: true})
		set(certificate(t, servers.Issue{Name: "redis-1", By: stranger}))
		r.until("last_error", contains("unknown certificate authority"))
		set(certificate(t, servers.Issue{Name: "redis-1", By: ca, Expired: true}))
		r.until("last_error", contains("expired certificate"))
		set(client)
		r.arrives(setBodies("k", 10))
		users(t, "PLAIN\tguest")
		r.balanced(0, 0)
	})
	t.Run("certificate and key are changed together", func(t *testing.T) {
		cert, key := certificateFiles(t, client)
		_, other := certificateFiles(t, certificate(t, servers.Issue{Name: "redis-1", By: ca}))
		r := startAt(t, b, b.TLSPort, config...)
		r.fails("tls_key_file", "CONFIG", "SET", "key_evt_amqp.tls_cert_file", cert)
		r.fails("does not match", "CONFIG", "SET", "key_evt_amqp.tls_cert_file", cert, "key_evt_amqp.tls_key_file", other)
		if got := r.ConfigGet(ctx, "key_evt_amqp.tls_*_file").Val(); got["key_evt_amqp.tls_cert_file"] != "" || got["key_evt_amqp.tls_key_file"] != "" {
			t.Errorf("a refused CONFIG SET changed something: %v", got)
		}
		r.do("CONFIG", "SET", "key_evt_amqp.tls_cert_file", cert, "key_evt_amqp.tls_key_file", key)
		r.sets("k", 10)
		r.arrives(setBodies("k", 10))
		r.balanced(0, 0)
	})
	t.Run("the certificate stands for the user", func(t *testing.T) {
		cert, key := certificateFiles(t, client)
		// The password's file is not read: there may be none.
		r := startAt(t, b, b.TLSPort, append(config, `key_evt_amqp.username ""`,
			"key_evt_amqp.tls_cert_file "+cert, "key_evt_amqp.tls_key_file "+key)...)
		r.sets("k", 10)
		r.arrives(setBodies("k", 10))
		users(t, "EXTERNAL\tredis-1")

		// A certificate for a user whom the broker does not know, in place of
		// the good one; then that one again.
		stranger := certificate(t, servers.Issue{Name: "redis-2", By: ca})
		must(t, os.WriteFile(cert, stranger.PEM, 0o600))
		must(t, os.WriteFile(key, stranger.KeyPEM, 0o600))
		r.do("CONFIG", "SET", "key_evt_amqp.heartbeat", "18") // renews the connection
		r.until("last_error", contains("the broker refuses the certificate"))
		must(t, os.WriteFile(cert, client.PEM, 0o600))
		r.until("last_error", contains("does not match"))
		must(t, os.WriteFile(key, client.KeyPEM, 0o600))
		r.until("state", is("connected"))
		r.balanced(0, 0)
		if strings.Contains(r.Log(), "PRIVATE KEY") || strings.Contains(r.Log(), strings.Split(string(client.KeyPEM), "\n")[1]) {
			t.Error("the log has a key")
		}
	})
	t.Run("a pair that does not match refuses the load", func(t *testing.T) {
		cert, _ := certificateFiles(t, client)
		_, other := certificateFiles(t, certificate(t, servers.Issue{Name: "redis-1", By: ca}))
		r := prepareAt(t, b, b.TLSPort, append(config, "key_evt_amqp.tls_cert_file "+cert, "key_evt_amqp.tls_key_file "+other)...)
		must(t, r.Start())
		if r.Alive() == nil || !strings.Contains(r.Log(), "does not match") || !strings.Contains(r.Log(), cert) {
			t.Error("the server runs, or its log does not say why not")
		}
	})
}

func TestVhosts(t *testing.T) {
	const vhost = "/events of Redis"
	r := start(t, options{events: "$", silent: true, config: []string{
		"key_evt_amqp.reconnect_delay_max 300", fmt.Sprintf("key_evt_amqp.vhost %q", vhost)}})
	r.refused(100, "vhost")
	_, err := broker.Ctl("add_vhost", vhost)
	must(t, err)
	t.Cleanup(func() { _, _ = broker.Ctl("delete_vhost", vhost) })
	_, err = broker.Ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
	must(t, err)
	there := broker.In(vhost)
	must(t, there.Bind(r.name, "amq.direct", r.name, nil))
	r.queue = there.Consume(r.name)
	r.arrives(setBodies("k", 100))
	// Another, by a change at run time; the queue of the first gets nothing, and
	// the second none of what the first vhost has confirmed.
	r.until("inflight", is("0"))
	r.do("CONFIG", "SET", "key_evt_amqp.vhost", "/")
	first := r.queue
	r.bind()
	r.sets("j", 10)
	r.arrives(setBodies("j", 10))
	if n := len(first.Messages()); n != 100 {
		t.Errorf("the first vhost's queue has got %d messages, want 100", n)
	}
	first.Close()
	r.balanced(0, 0)
}
