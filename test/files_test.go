// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/key-evt-amqp/key_evt_amqp/test/servers"
)

// TestFilesThatAreNone: what a setting names may be anything that has a name. The
// server takes no harm when it is set, nor when a file becomes something else.
func TestFilesThatAreNone(t *testing.T) {
	authority, err := servers.NewCertificate(servers.Issue{Name: "authority", CA: true})
	must(t, err)
	dir := t.TempDir()
	certificate, _, err := authority.Write(dir, "ca")
	must(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, syscall.Mkfifo(at("fifo"), 0o600))
	must(t, os.Symlink(at("fifo"), at("link")))
	must(t, os.WriteFile(at("large"), make([]byte, 3<<20), 0o600))
	must(t, os.Truncate(at("large"), 100<<30)) // sparse
	must(t, os.WriteFile(at("password"), []byte("guest\n"), 0o600))

	r, p := proxied(t, options{events: "$", config: []string{prefix + "password_file " + at("password"), prefix + "reconnect_delay_max 100"}})
	files := []string{"password_file", "tls_ca_cert_file", "tls_cert_file", "tls_key_file"}
	for _, setting := range files {
		had := r.settings()[setting]
		for name, why := range map[string]string{
			"fifo": "regular", "link": "regular", "large": "more than", ".": "regular", "none": "no such file", "../../../../../../dev/zero": "regular",
			"../../../../../../dev/stdin": "", "../../../../../../proc/self/mem": "",
		} {
			err := r.Do(ctx, configSet(setting, at(name))...).Err()
			if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), setting) {
				t.Errorf("%s = %s: got error %v, want one that names it and says %q", setting, name, err, why)
			}
		}
		r.shows(setting, had)
	}
	must(t, r.Alive())
	r.do("SET", "k0", "v")
	r.arrives(setBodies("k", 1))

	// A file in use becomes a pipe: each connection fails, and says why.
	become := func(name string, make func(path string) error) {
		t.Helper()
		must(t, make(at("new")))
		must(t, os.Rename(at("new"), at(name)))
	}
	fifo := func(path string) error { return syscall.Mkfifo(path, 0o600) }
	become("password", fifo)
	p.Cut()
	must(t, p.Mend())
	r.do("SET", "k1", "v")
	r.trouble("password_file")
	r.trouble("not a regular file")
	become("password", func(path string) error { return os.WriteFile(path, []byte("guest\n"), 0o600) })
	r.arrives(setBodies("k", 2))

	become("ca.pem", func(path string) error {
		text, err := os.ReadFile(certificate)
		must(t, err)
		return os.WriteFile(path, text, 0o600)
	})
	r.do(configSet("tls_ca_cert_file", at("ca.pem"))...)
	become("ca.pem", fifo)
	r.do(configSet("tls", "yes")...)
	r.do("SET", "k2", "v")
	r.trouble("tls_ca_cert_file")
	r.trouble("not a regular file")
	r.do(configSet("tls", "no")...)
	r.arrives(setBodies("k", 3))
	r.balanced(0, 0)
}
