// SPDX-License-Identifier: BSD-3-Clause

package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificate is a certificate with its key, to be written into files.
type Certificate struct {
	PEM, KeyPEM []byte

	x509 *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Issue is what a certificate is to be.
type Issue struct {
	Name    string       // common name
	Hosts   []string     // names and addresses it is for
	By      *Certificate // who signs; nil: itself
	CA      bool         // may sign others
	Expired bool         // an hour ago
}

// NewCertificate makes a certificate with a key of its own.
func NewCertificate(want Issue) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: want.Name},
		NotBefore:    now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if want.CA {
		template.IsCA, template.ExtKeyUsage = true, nil
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	if want.Expired {
		template.NotAfter = now.Add(-time.Hour)
	}
	for _, host := range want.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	c := &Certificate{key: key}
	parent, signer := template, key
	if want.By != nil {
		parent, signer = want.By.x509, want.By.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	if c.x509, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
	return c, nil
}

// Write writes name.pem and name.key into a folder, and returns their paths.
// Files that are there are replaced.
func (c *Certificate) Write(dir, name string) (certificate, key string, err error) {
	certificate, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	if err = os.WriteFile(certificate, c.PEM, 0o600); err == nil {
		err = os.WriteFile(key, c.KeyPEM, 0o600)
	}
	return certificate, key, err
}
