package egress

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// maxPEM bounds each PEM text, in bytes.
const maxPEM = 64 << 10

// TLSOptions are how TLS is spoken with what is called.
type TLSOptions struct {
	// CA are certificates in PEM form that take the place of the system's authorities.
	CA []string
	// Certificate and Key, in PEM form, are shown to servers that ask for them.
	Certificate, Key string
	// ServerName is what the server's certificate has to be for, instead of the URL's host.
	ServerName string
	// Insecure takes any certificate: whoever is on the way can read and change all.
	Insecure bool
}

// NewTLS makes a configuration of TLS 1.2 or later.
func NewTLS(opt TLSOptions) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: opt.Insecure}
	if len(opt.CA) > 0 {
		config.RootCAs = x509.NewCertPool()
		for _, text := range opt.CA {
			if err := addCertificates(config.RootCAs, text); err != nil {
				return nil, fmt.Errorf("ca: %w", err)
			}
		}
	}
	if (opt.Certificate == "") != (opt.Key == "") {
		return nil, errors.New("client_certificate: a certificate and its key come together")
	}
	if opt.Certificate != "" {
		if len(opt.Certificate) > maxPEM || len(opt.Key) > maxPEM {
			return nil, fmt.Errorf("client_certificate: more than %d bytes", maxPEM)
		}
		pair, err := tls.X509KeyPair([]byte(opt.Certificate), []byte(opt.Key))
		if err != nil {
			return nil, fmt.Errorf("client_certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if opt.ServerName != "" {
		name, ok := asciiName(opt.ServerName)
		if !ok || !validName(name) || endsInNumber(name) {
			return nil, fmt.Errorf("server_name: %.128q is no name of a host", opt.ServerName)
		}
		config.ServerName = name
	}
	return config, nil
}

// addCertificates takes all of a PEM text, or says what is wrong with it: an authority that
// is silently left out is missed on a day when nobody knows why.
func addCertificates(pool *x509.CertPool, text string) error {
	if len(text) > maxPEM {
		return fmt.Errorf("it has %d bytes: %d are allowed", len(text), maxPEM)
	}
	rest, found := []byte(text), false
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("it holds a %.64q: only certificates in PEM form belong there", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("it holds a certificate that is not understood: %w", err)
		}
		pool.AddCert(certificate)
		found = true
	}
	switch {
	case !found:
		return errors.New("it holds no certificate in PEM form")
	case strings.Contains(string(rest), "-----BEGIN"):
		return errors.New("it ends within a certificate, or one is damaged")
	}
	return nil
}
