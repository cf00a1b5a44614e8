//go:build cgo && (linux || darwin)

package smftest

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
	"testing"
	"time"

	"solace.dev/go/messaging"
	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/resource"
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string // with its own certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(a.dir, "ca.pem"), "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue makes a certificate, and files with it and its key.
func (a *authority) issue(t *testing.T, name string) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", secret)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, certFile, keyFile
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	cert, _, _ := a.issue(t, "broker")
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	s := listen(t, Options{Users: map[string]string{"client": "", "user": "secret"}, TLS: &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool,
	}})
	_, certFile, keyFile := a.issue(t, "client")
	_, foreignCert, foreignKey := a.issue(t, "foreign")
	for name, c := range map[string]struct {
		trust, cert, key string
		ok               bool
	}{
		"password":            {a.dir, "", "", true},
		"certificate":         {a.dir, certFile, keyFile, true},
		"unknown certificate": {a.dir, foreignCert, foreignKey, false},
		"untrusted":           {newAuthority(t).dir, "", "", false},
	} {
		b := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(properties(s, nil)).
			WithTransportSecurityStrategy(config.NewTransportSecurityStrategy().WithCertificateValidation(false, true, c.trust, ""))
		if c.cert != "" {
			b = b.WithAuthenticationStrategy(config.ClientCertificateAuthentication(c.cert, c.key, ""))
		}
		service, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if err := service.Connect(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		service.Disconnect()
	}
}

// A user property, and everything else that the client library lets through, comes as it
// was sent, both ways.
func TestProperties(t *testing.T) {
	s := listen(t, Options{})
	s.Queue("q", Queue{Topics: []string{"a"}})
	service := connect(t, s, nil)
	r := newReceiver(t, service, resource.QueueDurableExclusive("q"), nil)
	sent := Message{
		Payload: []byte("hello"), Text: true, ApplicationMessageID: "id", CorrelationID: "correlation", HTTPContentType: "text/plain",
		ApplicationMessageType: "type", SenderID: "sender", SenderTimestamp: time.UnixMilli(1_700_000_000_123),
		Properties: map[string]any{"text": "ä", "bytes": []byte{0, 255}, "n": int64(-5), "yes": true, "f": 1.5},
	}
	if err := s.Publish("a", true, sent); err != nil {
		t.Fatal(err)
	}
	m, _ := r.next(t)
	if payload, _ := m.GetPayloadAsString(); payload != "hello" {
		t.Errorf("payload %q", payload)
	}
	if got := m.GetProperties(); got["text"] != "ä" || got["n"] != int64(-5) || got["yes"] != true || got["f"] != 1.5 ||
		string(got["bytes"].([]byte)) != "\x00\xff" {
		t.Errorf("properties %#v", got)
	}
	id, _ := m.GetApplicationMessageID()
	correlation, _ := m.GetCorrelationID()
	kind, _ := m.GetHTTPContentType()
	at, _ := m.GetSenderTimestamp()
	if id != "id" || correlation != "correlation" || kind != "text/plain" || !at.Equal(sent.SenderTimestamp) {
		t.Errorf("%q, %q, %q, %v", id, correlation, kind, at)
	}

	record := s.Record("b")
	defer record.Close()
	p := newPublisher(t, service)
	out, err := service.MessageBuilder().WithApplicationMessageID("id").WithCorrelationID("correlation").
		WithHTTPContentHeader("text/plain", "gzip").WithPriority(7).WithSequenceNumber(9).WithSenderID("sender").
		WithProperty("text", "ä").WithProperty("bytes", []byte{0, 255}).WithProperty("n", int64(-5)).
		WithProperty(config.MessagePropertyPersistentTimeToLive, 60_000).
		WithProperty(config.MessagePropertyPersistentDMQEligible, true).BuildWithByteArrayPayload([]byte{0, 1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(out, resource.TopicOf("b"), nil, "b"); err != nil {
		t.Fatal(err)
	}
	all, err := record.Take(within(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	got := all[0]
	if got.ApplicationMessageID != "id" || got.CorrelationID != "correlation" || got.HTTPContentType != "text/plain" ||
		got.HTTPContentEncoding != "gzip" || *got.Priority != 7 || *got.SequenceNumber != 9 || got.SenderID != "sender" ||
		got.TTL != time.Minute || !got.DMQEligible || !got.Persistent || string(got.Payload) != "\x00\x01\x02" {
		t.Errorf("%+v", got)
	}
	if p := got.Properties; p["text"] != "ä" || string(p["bytes"].([]byte)) != "\x00\xff" || p["n"] != int64(-5) {
		t.Errorf("properties %#v", p)
	}
}

func TestShare(t *testing.T) {
	s := listen(t, Options{})
	got := make(chan string, 100)
	for _, name := range []string{"one", "two"} {
		r, err := connect(t, s, nil).CreateDirectMessageReceiverBuilder().
			WithSubscriptions(resource.TopicSubscriptionOf("a/>")).BuildWithShareName(resource.ShareNameOf("group"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		defer r.Terminate(0)
		if err := r.ReceiveAsync(func(message.InboundMessage) { got <- name }); err != nil {
			t.Fatal(err)
		}
	}
	if all := s.Subscriptions(); len(all) != 1 || all[0] != "#share/group/a/>" {
		t.Errorf("subscriptions: %v", all)
	}
	for range 20 {
		if err := s.Publish("a/b", false, Message{Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	count := make(map[string]int)
	for range 20 {
		select {
		case name := <-got:
			count[name]++
		case <-time.After(patience):
			t.Fatalf("received %v", count)
		}
	}
	if count["one"] != 10 || count["two"] != 10 {
		t.Errorf("received %v", count)
	}
}

// Direct subscriptions come back with the connection.
func TestDirectAfterDrop(t *testing.T) {
	s := listen(t, Options{})
	service := connect(t, s, nil)
	r, err := service.CreateDirectMessageReceiverBuilder().WithSubscriptions(resource.TopicSubscriptionOf("a")).Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	defer r.Terminate(0)
	if n := s.Drop(); n != 1 {
		t.Errorf("%d connections were cut", n)
	}
	eventually(t, "the subscription is back", func() bool { return len(s.Subscriptions()) == 1 })
	if err := s.Publish("a", false, Message{Payload: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	if m, err := r.ReceiveMessage(patience); err != nil {
		t.Error(err)
	} else if b, _ := m.GetPayloadAsBytes(); string(b) != "hello" {
		t.Errorf("received %q", b)
	}
}

// A direct message that is thrown away is told with the next one.
func TestDiscarded(t *testing.T) {
	s := listen(t, Options{})
	r, err := connect(t, s, nil).CreateDirectMessageReceiverBuilder().WithSubscriptions(resource.TopicSubscriptionOf("a")).Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	defer r.Terminate(0)
	faulty(s, OpDeliver, 1, Fault{Silent: true})
	for range 3 {
		if err := s.Publish("a", false, Message{Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		m, err := r.ReceiveMessage(patience)
		if err != nil {
			t.Fatal(err)
		}
		if told := m.GetMessageDiscardNotification().HasBrokerDiscardIndication(); told != (i == 0) {
			t.Errorf("message %d: told %v", i, told)
		}
	}
}
