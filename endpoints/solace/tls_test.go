//go:build cgo && (linux || darwin)

package solace

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// authority signs certificates, and keeps what it makes in files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.file = filepath.Join(a.dir, name+".pem")
	a.write(a.file, "CERTIFICATE", a.sign(a.cert, a.key))
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(cert *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) write(file, kind string, der []byte) {
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue makes a certificate for a name, and returns the files.
func (a *authority) issue(name string, ends time.Time, addresses ...net.IP) (cert, key string) {
	a.t.Helper()
	k := a.newKey()
	der := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: addresses,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: ends, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, k)
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	a.write(cert, "CERTIFICATE", der)
	a.write(key, "EC PRIVATE KEY", raw)
	return cert, key
}

// server is how a broker identifies itself.
func (a *authority) server(name string, ends time.Time, addresses ...net.IP) *tls.Config {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue(name, ends, addresses...))
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.root())
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool}
}

func (a *authority) root() *x509.Certificate {
	raw, err := os.ReadFile(a.file)
	if err != nil {
		a.t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

var loopback = net.IPv4(127, 0, 0, 1)

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	both := filepath.Join(t.TempDir(), "both.pem")
	var bundle []byte
	for _, file := range []string{theirs.file, ours.file} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		bundle = append(bundle, raw...)
	}
	if err := os.WriteFile(both, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		server *tls.Config
		tls    *options.TLS
		fails  string
	}{
		"trusted":           {ours.server("broker", later, loopback), &options.TLS{CAFile: ours.file}, ""},
		"in a bundle":       {ours.server("broker", later, loopback), &options.TLS{CAFile: both}, ""},
		"not trusted":       {ours.server("broker", later, loopback), &options.TLS{CAFile: theirs.file}, "certificate"},
		"not by the system": {ours.server("broker", later, loopback), nil, "certificate"},
		"another host":      {ours.server("broker", later, net.IPv4(127, 0, 0, 2)), &options.TLS{CAFile: ours.file}, "ertificate"},
		"expired":           {ours.server("broker", before, loopback), &options.TLS{CAFile: ours.file}, "ertificate"},
		"server_name":       {ours.server("broker", later), &options.TLS{CAFile: ours.file, ServerName: "broker"}, ""},
		"wrong server_name": {ours.server("broker", later, loopback), &options.TLS{CAFile: ours.file, ServerName: "other"}, "common name"},
		"anything goes":     {theirs.server("x", before), &options.TLS{InsecureSkipVerify: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBroker(t, smftest.Options{TLS: c.server})
			s := b.endpoint(t, &Solace{TLS: c.tls, Producer: &Producer{Topics: []string{"t"}}})
			r := publish(t, s, message.Auto, &message.Message{})
			if c.fails == "" {
				if r.Status != message.Stored {
					t.Errorf("%s (%v)", r.Status, r.Err)
				}
				return
			}
			wantFailure(t, r, message.Refused, message.Unavailable)
			if !strings.Contains(r.Err.Error(), c.fails) {
				t.Errorf("%v does not speak of %q", r.Err, c.fails)
			}
		})
	}
}

// The directory that the library wants is made when it is needed, and goes with the
// endpoint.
func TestTrustStore(t *testing.T) {
	a := newAuthority(t, "ca")
	t.Setenv("TMPDIR", t.TempDir())
	stores := func() []string {
		found, err := filepath.Glob(filepath.Join(os.TempDir(), "caddy-message-api-solace-*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	b := startBroker(t, smftest.Options{TLS: a.server("broker", time.Now().Add(time.Hour), loopback)})
	s := b.endpoint(t, &Solace{TLS: &options.TLS{CAFile: a.file}, Producer: &Producer{Topics: []string{"t"}}})
	if found := stores(); len(found) != 0 {
		t.Errorf("provisioning has made %q", found)
	}
	publish(t, s, message.Auto, &message.Message{})
	if found := stores(); len(found) != 1 {
		t.Errorf("there are %q", found)
	} else if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v: others can look into it, or change it", info.Mode(), err)
	}
	if err := s.Cleanup(); err != nil {
		t.Error(err)
	}
	if found := stores(); len(found) != 0 {
		t.Errorf("%q was left behind", found)
	}
}

func TestClientCertificate(t *testing.T) {
	a := newAuthority(t, "ca")
	cert, key := a.issue("gateway", time.Now().Add(time.Hour))
	strange, strangeKey := a.issue("stranger", time.Now().Add(time.Hour))
	server := a.server("broker", time.Now().Add(time.Hour), loopback)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	b := startBroker(t, smftest.Options{TLS: server, Users: map[string]string{"gateway": ""}})
	producer := &Producer{Topics: []string{"t"}}
	good := b.endpoint(t, &Solace{TLS: &options.TLS{CAFile: a.file, Cert: cert, Key: key}, Producer: producer})
	if r := publish(t, good, message.Auto, &message.Message{}); r.Status != message.Stored {
		t.Errorf("by certificate: %s (%v)", r.Status, r.Err)
	}
	for name, files := range map[string]*options.TLS{
		"refused the gateway's certificate": {CAFile: a.file, Cert: strange, Key: strangeKey},
		"can't be reached":                  {CAFile: a.file},
	} {
		bad := b.endpoint(t, &Solace{TLS: files, Producer: producer})
		r := publish(t, bad, message.Auto, &message.Message{})
		wantFailure(t, r, message.Refused, message.Unavailable)
		if !strings.Contains(r.Err.Error(), name) {
			t.Errorf("%v does not say %q", r.Err, name)
		}
	}
}
