package servicebus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// certified makes a certificate for a name, and a file by which to trust it.
func certified(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestTransports(t *testing.T) {
	t.Parallel()
	const name = "bus.example"
	cert, ca := certified(t, name)
	for label, encrypted := range map[string]bool{"plain": false, "tls": true} {
		for _, transport := range []string{overAMQP, overWebSocket} {
			t.Run(label+" "+transport, func(t *testing.T) {
				o := servicebustest.Options{}
				if encrypted {
					o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
				}
				n := namespace(t, o)
				n.Queue("q", servicebustest.Entity{})
				s := &ServiceBus{
					ConnectionString: n.ConnectionString(), Transport: transport,
					Producer: &Producer{Queue: "q"}, Consumer: &Consumer{Queue: "q", Shared: true},
				}
				if encrypted {
					// The namespace's name is not where it is, as with a private link.
					s.ConnectionString = strings.Replace(s.ConnectionString, n.Addr(), name, 1)
					s.CustomEndpoint, s.TLS = n.Addr(), &options.TLS{CAFile: ca}
				}
				roundTrip(t, provision(t, s))
			})
		}
	}
}

// roundTrip publishes some messages, a large one among them, and reads them again.
func roundTrip(t *testing.T, e *ServiceBus) {
	t.Helper()
	in := subscribe(t, e, message.Subscription{})
	messages := []*message.Message{{Payload: []byte("small")}, {Payload: make([]byte, 200<<10)}, {Payload: make([]byte, 60<<10)}}
	for _, r := range publish(t, e, messages...) {
		wantResult(t, r, message.Stored, 0)
	}
	all := receiveAll(t, in, len(messages))
	total := 0
	for _, d := range all {
		total += len(d.Payload)
	}
	if want := 5 + 260<<10; total != want {
		t.Errorf("%d bytes came, want %d", total, want)
	}
	if err := settle(t, in, message.Ack, all...); err != nil {
		t.Error(err)
	}
	if status := e.Status(); status.State != endpoints.Up {
		t.Errorf("status %+v", status)
	}
	if err := e.Probe(t.Context()); err != nil {
		t.Errorf("probe: %v", err)
	}
}

// Who does not have the right certificate is not spoken to, and the error says why.
func TestWrongCertificates(t *testing.T) {
	cert, ca := certified(t, "bus.example")
	n := namespace(t, servicebustest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	for want, o := range map[string]*options.TLS{
		"unknown authority":                {ServerName: "bus.example"},
		"not 127.0.0.1":                    {CAFile: ca},
		"valid for bus.example, not other": {CAFile: ca, ServerName: "other"},
	} {
		for _, transport := range []string{overAMQP, overWebSocket} {
			e := provision(t, &ServiceBus{ConnectionString: n.ConnectionString(), Transport: transport, TLS: o, Producer: &Producer{Queue: "q"}})
			r := publish(t, e, &message.Message{})[0]
			if r.Status != message.Refused || message.KindOf(r.Err) != message.Unavailable {
				t.Errorf("%s: %s (%v)", want, r.Status, r.Err)
			}
			if text := r.Err.Error(); !strings.Contains(text, n.Addr()) || !strings.Contains(text, "certificate") {
				t.Errorf("%s: %s", want, text)
			}
		}
	}
}

// A WebSocket that is none, and a port that speaks something else.
func TestNoServiceBusThere(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	e := provision(t, &ServiceBus{
		ConnectionString: strings.Replace(n.ConnectionString(), n.Addr(), "127.0.0.1:1", 1), Transport: overWebSocket, Producer: &Producer{Queue: "q"},
	})
	if r := publish(t, e, &message.Message{})[0]; message.KindOf(r.Err) != message.Unavailable || !strings.Contains(r.Err.Error(), socketPath) {
		t.Errorf("%s (%v)", r.Status, r.Err)
	}
	// Azure's credentials are not there, and are looked for when they are needed only.
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"} {
		t.Setenv(name, "")
	}
	e = provision(t, &ServiceBus{Namespace: "bus.example", CustomEndpoint: n.Addr(), TLS: &options.TLS{InsecureSkipVerify: true}, Producer: &Producer{Queue: "q"}})
	if r := publish(t, e, &message.Message{})[0]; r.Status != message.Refused || message.KindOf(r.Err) != message.Unavailable {
		t.Errorf("%s (%v)", r.Status, r.Err)
	}
}

// The default credential chain is asked by the library for each link.
func TestNoCredentials(t *testing.T) {
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	for _, name := range []string{"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"} {
		t.Setenv(name, "")
	}
	cert, ca := certified(t, "bus.example")
	n := namespace(t, servicebustest.Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	n.Queue("q", servicebustest.Entity{})
	e := provision(t, &ServiceBus{Namespace: "bus.example", CustomEndpoint: n.Addr(), TLS: &options.TLS{CAFile: ca}, Producer: &Producer{Queue: "q"}})
	r := publish(t, e, &message.Message{})[0]
	if r.Status != message.Refused || message.KindOf(r.Err) != message.Unavailable || !strings.Contains(r.Err.Error(), "default credential chain") {
		t.Errorf("%s (%v)", r.Status, r.Err)
	}
}
