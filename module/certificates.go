// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/key-evt-amqp/key_evt_amqp/c"
)

// The files of TLS are read twice: when they are set, so that a slip is refused
// at once, and at each connection, so that they can be rotated.

// maxPEM bounds what is read: the largest bundles of authorities are below it.
const maxPEM = 2 << 20

// systemAuthorities lets Go find the system's authorities where the server's
// environment says that they are.
func systemAuthorities() {
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		value, _ := c.Getenv(name)
		if os.Getenv(name) != value {
			os.Setenv(name, value)
		}
	}
}

// readPEM returns the blocks of a file.
func readPEM(path string) (text []byte, blocks []*pem.Block, err error) {
	if text, err = readFile(path, maxPEM); err != nil {
		return nil, nil, err
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return text, blocks, nil
		}
		blocks = append(blocks, block)
	}
}

func readCertificates(path string) (certificates []*x509.Certificate, text []byte, err error) {
	text, blocks, err := readPEM(path)
	if err != nil {
		return nil, nil, err
	}
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: certificate %d: %w", path, len(certificates)+1, err)
		}
		certificates = append(certificates, certificate)
	}
	if certificates == nil {
		return nil, nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return certificates, text, nil
}

func readKey(path string) (text []byte, err error) {
	text, blocks, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	for _, block := range blocks {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, fmt.Errorf("%s is encrypted; give a key without passphrase, readable by the server alone", path)
		}
		return text, parseKey(path, block.Bytes)
	}
	return nil, fmt.Errorf("%s holds no private key in PEM form", path)
}

// parseKey reports whether a key is sound, in the forms that Go's TLS takes.
func parseKey(path string, der []byte) error {
	_, err := x509.ParsePKCS8PrivateKey(der)
	if err == nil {
		return nil
	}
	if _, e := x509.ParsePKCS1PrivateKey(der); e == nil {
		return nil
	}
	if _, e := x509.ParseECPrivateKey(der); e == nil {
		return nil
	}
	return fmt.Errorf("%s: no private key that can be read: %w", path, err)
}

// ---- checks of the settings' table

func certificatesFile(_ *settings, path string) error {
	if path == "" {
		return nil
	}
	_, _, err := readCertificates(path)
	return err
}

func keyFile(_ *settings, path string) error {
	if path == "" {
		return nil
	}
	_, err := readKey(path)
	return err
}

func serverName(_ *settings, name string) error {
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("%q is no host's name", name)
	}
	return nil
}

// ---- what the publisher gets

// tlsConfig is asked at each connection.
func (s *settings) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{
		ServerName:         s.texts["tls_server_name"],
		InsecureSkipVerify: s.numbers["tls_verify"] == 0,
		MinVersion:         tls.VersionTLS12,
	}
	if path := s.texts["tls_ca_cert_file"]; path != "" && !config.InsecureSkipVerify {
		certificates, _, err := readCertificates(path)
		if err != nil {
			return nil, fmt.Errorf("tls_ca_cert_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		for _, certificate := range certificates {
			config.RootCAs.AddCert(certificate)
		}
	}
	certificate, err := s.clientCertificate()
	if err != nil {
		return nil, err
	}
	if certificate != nil {
		// Not Certificates: Go leaves those out when their issuer is not
		// among those that the broker names, and the broker's word would
		// then be that there is none.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return certificate, nil
		}
	}
	return config, nil
}

// clientCertificate reads the pair; nil: there is none. Without a file for the
// key it is looked for behind the certificate.
func (s *settings) clientCertificate() (*tls.Certificate, error) {
	certPath, keyPath := s.texts["tls_cert_file"], s.texts["tls_key_file"]
	if certPath == "" {
		if keyPath != "" {
			return nil, errors.New("tls_key_file is set and tls_cert_file is not")
		}
		return nil, nil
	}
	if keyPath == "" {
		keyPath = certPath
	}
	_, cert, err := readCertificates(certPath)
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file: %w", err)
	}
	key, err := readKey(keyPath)
	if err != nil {
		return nil, fmt.Errorf("tls_key_file: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file %s with tls_key_file %s: %w", certPath, keyPath, err)
	}
	return &pair, nil
}

// external reports whether the certificate stands for the user: SASL EXTERNAL.
func (s *settings) external() bool {
	return s.numbers["tls"] != 0 && s.texts["tls_cert_file"] != "" && s.texts["username"] == ""
}

// unverified reports whether anybody could pass for the broker though TLS is on.
func (s *settings) unverified() bool {
	return s.numbers["tls"] != 0 && s.numbers["tls_verify"] == 0
}

// samePair reports whether s and t name the same files.
func (s *settings) samePair(t *settings) bool {
	return s.texts["tls_cert_file"] == t.texts["tls_cert_file"] && s.texts["tls_key_file"] == t.texts["tls_key_file"]
}

// identity differs whenever a live connection's credentials or TLS do.
func (s *settings) identity() string {
	words := []string{s.texts["password"], s.texts["password_file"]}
	if s.numbers["tls"] != 0 {
		words = append(words, s.texts["tls_ca_cert_file"], s.texts["tls_cert_file"], s.texts["tls_key_file"],
			s.texts["tls_server_name"], fmt.Sprint(s.numbers["tls_verify"]))
	}
	return joinQuoted(words)
}
