// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair makes a key and a certificate for it, both in PEM form.
func pair(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

func write(t *testing.T, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFilesThatDoNotParseAreRefusedAndNamed(t *testing.T) {
	certificate, key := pair(t)
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	brokenKey := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x")})
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	for _, test := range []struct {
		setting, path, want string
	}{
		{"tls_ca_cert_file", "/does/not/exist", "/does/not/exist"},
		{"tls_ca_cert_file", t.TempDir(), "is not a regular file"},
		{"tls_ca_cert_file", write(t, nil), "holds no certificate"},
		{"tls_ca_cert_file", write(t, key), "holds no certificate"},
		{"tls_ca_cert_file", write(t, append(certificate[:len(certificate):len(certificate)], broken...)), "certificate 2"},
		{"tls_cert_file", write(t, []byte("text")), "holds no certificate"},
		{"tls_key_file", write(t, certificate), "holds no private key"},
		{"tls_key_file", write(t, brokenKey), "can be read"},
		{"tls_key_file", write(t, encrypted), "is encrypted"},
		{"tls_server_name", "a b", "no host's name"},
	} {
		s := defaults()
		err := s.setText(find(test.setting), test.path)
		if err == nil || !strings.HasPrefix(err.Error(), test.setting+": ") ||
			!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.path) {
			t.Errorf("%s = %s: got error %v, want one that says %q", test.setting, test.path, err, test.want)
		}
		if s.texts[test.setting] != "" {
			t.Errorf("%s: a value that was refused is kept", test.setting)
		}
	}
}

func TestCertificateAndKeyMustBelongTogether(t *testing.T) {
	certificate, key := pair(t)
	_, other := pair(t)
	both := write(t, append(certificate[:len(certificate):len(certificate)], key...))
	for _, test := range []struct {
		what, cert, key string
		want            string // of the error; empty: none
	}{
		{"none", "", "", ""},
		{"a pair", write(t, certificate), write(t, key), ""},
		{"both in one file", both, "", ""},
		{"another's key", write(t, certificate), write(t, other), "does not match"},
		{"no key", write(t, certificate), "", "holds no private key"},
		{"no certificate", "", write(t, key), "tls_cert_file is not"},
	} {
		s := defaults()
		s.texts["tls_cert_file"], s.texts["tls_key_file"] = test.cert, test.key
		got, err := s.clientCertificate()
		if test.want == "" && (err != nil || (got != nil) != (test.cert != "")) {
			t.Errorf("%s: got %v, error %v", test.what, got != nil, err)
		}
		if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got error %v, want one that says %q", test.what, err, test.want)
		}
	}
}

func TestFilesAreReadAtEachConnection(t *testing.T) {
	certificate, key := pair(t)
	s := defaults()
	path := write(t, certificate)
	if err := s.setText(find("tls_ca_cert_file"), path); err != nil {
		t.Fatal(err)
	}
	config, err := s.tlsConfig()
	if err != nil || config.RootCAs == nil || config.InsecureSkipVerify {
		t.Fatalf("got %+v, error %v", config, err)
	}
	if err := os.WriteFile(path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.tlsConfig(); err == nil || !strings.Contains(err.Error(), "tls_ca_cert_file: "+path) {
		t.Errorf("got error %v, want one that names setting and file", err)
	}
	s.numbers["tls_verify"] = 0
	if config, err = s.tlsConfig(); err != nil || !config.InsecureSkipVerify {
		t.Errorf("nothing is to be checked: got %+v, error %v", config, err)
	}
}

func TestExternalNeedsTLSACertificateAndNoUser(t *testing.T) {
	s := defaults()
	step := func(want bool) {
		t.Helper()
		if got := s.external(); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	s.numbers["tls"] = 1
	step(false)
	s.texts["username"] = ""
	step(false)
	s.texts["tls_cert_file"] = "x"
	step(true)
	s.numbers["tls"] = 0
	step(false)
}

func TestALinkIsRenewedForItsOwnSettings(t *testing.T) {
	for _, test := range []struct {
		name string
		want bool
	}{
		{"password", true}, {"password_file", true}, {"tls_server_name", true}, {"tls_ca_cert_file", true},
		{"tls_key_file", true}, {"format", false}, {"routing_key", false},
	} {
		a, b := defaults(), defaults()
		a.numbers["tls"], b.numbers["tls"] = 1, 1
		b.texts[test.name] += "x"
		if got := a.identity() != b.identity(); got != test.want {
			t.Errorf("%s: renewed %v, want %v", test.name, got, test.want)
		}
	}
}
