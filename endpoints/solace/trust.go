//go:build cgo && (linux || darwin)

package solace

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"solace.dev/go/messaging/pkg/solace/config"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
)

// systemTrust is where the authorities are that the system trusts.
const systemTrust = "/etc/ssl/certs"

// trust is how the broker's certificate is checked, and by which the gateway identifies
// itself. The library wants directories and files, no certificates.
type trust struct {
	options.TLS
	cert, key string

	mu        sync.Mutex
	dir       string // made of ca_file
	temporary bool
	removed   bool
}

// newTrust checks the files. No options at all, which is nil, trust what the system does.
func newTrust(t *options.TLS) (*trust, error) {
	out := new(trust)
	if t == nil {
		return out, nil
	}
	if _, err := t.Config(); err != nil {
		return nil, err
	}
	if t.InsecureSkipVerify && t.ServerName != "" {
		return nil, errors.New("with insecure_skip_verify, no server_name is looked at: leave one of them out")
	}
	out.TLS, out.cert, out.key = *t, t.Cert, t.Key
	return out, nil
}

// apply adds what connections need to be encrypted.
func (t *trust) apply(p config.ServicePropertyMap) error {
	p[config.TransportLayerSecurityPropertyMinimumProtocol] = config.TransportSecurityProtocolTLSv1_2
	if t.cert != "" {
		p[config.AuthenticationPropertySchemeSSLClientCertFile] = t.cert
		p[config.AuthenticationPropertySchemeSSLClientPrivateKeyFile] = t.key
	}
	if t.InsecureSkipVerify {
		p[config.TransportLayerSecurityPropertyCertValidated] = false
		return nil
	}
	dir, err := t.directory()
	if err != nil {
		return err
	}
	p[config.TransportLayerSecurityPropertyCertValidated] = true
	p[config.TransportLayerSecurityPropertyCertRejectExpired] = true
	p[config.TransportLayerSecurityPropertyCertValidateServername] = t.ServerName == ""
	p[config.TransportLayerSecurityPropertyTrustStorePath] = dir
	if t.ServerName != "" {
		p[config.TransportLayerSecurityPropertyTrustedCommonNameList] = t.ServerName
	}
	return nil
}

// directory is where the authorities are. It is made when it is first needed, with a file
// for each, which nobody else can change.
func (t *trust) directory() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dir != "" {
		return t.dir, nil
	}
	if t.CAFile == "" {
		if info, err := os.Stat(systemTrust); err != nil || !info.IsDir() {
			return "", fmt.Errorf("this system has no %s with the authorities that it trusts: name a ca_file in tls", systemTrust)
		}
		t.dir = systemTrust
		return t.dir, nil
	}
	if t.removed {
		return "", errors.New("the endpoint was ended")
	}
	dir, err := os.MkdirTemp("", "caddy-message-api-solace-")
	if err == nil {
		err = t.fill(dir)
	}
	if err != nil {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return "", fmt.Errorf("making a directory of ca_file, as Solace's client library wants it: %w", err)
	}
	t.dir, t.temporary = dir, true
	return dir, nil
}

func (t *trust) fill(dir string) error {
	rest, err := os.ReadFile(t.CAFile)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if n == 0 {
				return fmt.Errorf("%s holds no certificate in PEM form", t.CAFile)
			}
			return nil
		}
		if _, err := x509.ParseCertificate(block.Bytes); block.Type != "CERTIFICATE" || err != nil {
			continue // what it was trusted for was checked
		}
		name := filepath.Join(dir, fmt.Sprintf("ca-%d.pem", n))
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), 0o600); err != nil {
			return err
		}
	}
}

// remove takes the directory away.
func (t *trust) remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removed = true
	if !t.temporary {
		return nil
	}
	dir := t.dir
	t.dir, t.temporary = "", false
	return os.RemoveAll(dir)
}
