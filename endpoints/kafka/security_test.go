package kafka

import (
	"context"
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

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// certificate makes a self-signed certificate for 127.0.0.1 and writes it to a file.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kafka"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
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

// roundTrip publishes, reads by assignment and reads as a member.
func roundTrip(t *testing.T, k *Kafka) {
	t.Helper()
	copied := subscribe(t, k, message.Subscription{Mode: message.Broadcast})
	member := subscribe(t, k, message.Subscription{Mode: message.Member, Name: "api.client"})
	wantStored(t, publish(t, k, &message.Message{Payload: []byte("1")}))
	for _, s := range []message.Stream{copied, member} {
		if all, _ := receive(t, s, 1); number(t, all[0]) != 1 {
			t.Error("something else came")
		}
	}
	if err := k.Probe(context.Background()); err != nil {
		t.Errorf("probe: %v", err)
	}
}

func TestTLS(t *testing.T) {
	cert, ca := certificate(t)
	b := fakeBroker(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
	b.kgo = []kgo.Opt{kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true})} //nolint:gosec // a test
	topic := b.topic(t, 1)
	with := func(c *options.TLS) *Kafka {
		return b.endpoint(t, &Kafka{
			TLS: c, Producer: &Producer{Topics: []string{topic}}, Consumer: &Consumer{Topics: []string{topic}},
		})
	}
	t.Run("trusted", func(t *testing.T) { roundTrip(t, with(&options.TLS{CAFile: ca})) })
	t.Run("unchecked", func(t *testing.T) { roundTrip(t, with(&options.TLS{InsecureSkipVerify: true})) })
	for name, c := range map[string]struct {
		tls  *options.TLS
		text string
	}{
		"unknown authority": {&options.TLS{}, "unknown authority"},
		"wrong name":        {&options.TLS{CAFile: ca, ServerName: "kafka.example.com"}, "kafka.example.com"},
		"plaintext":         {nil, "TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trySubscribe(with(c.tls), fromStart)
			if message.KindOf(err) != message.Unavailable || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want something with %q", err, c.text)
			}
		})
	}
}

// The first publish after a restart, over TLS: a dead connection has a last record to
// read, and is dead all the same.
func TestTLSAfterRestart(t *testing.T) {
	cert, ca := certificate(t)
	b := durableBroker(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}))
	b.kgo = []kgo.Opt{kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true})} //nolint:gosec // a test
	topic := b.topic(t, 1)
	line := &line{}
	k := b.endpoint(t, &Kafka{dial: line.dial, TLS: &options.TLS{CAFile: ca}, Producer: &Producer{Topics: []string{topic}}})
	for range 4 {
		wantStored(t, publish(t, k, &message.Message{Payload: []byte("x")}))
		before := line.held()
		b.restart(t)
		eventually(t, "the broker has closed its connections", func() bool { return dead(before) })
	}
}

func TestSASL(t *testing.T) {
	b := fakeBroker(t, kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "admin", "admin"), kfake.Superuser("PLAIN", "user", "s3cret-plain"),
		kfake.Superuser("SCRAM-SHA-256", "user256", "s3cret-256"), kfake.Superuser("SCRAM-SHA-512", "user512", "s3cret-512"))
	b.kgo = []kgo.Opt{kgo.SASL(plain.Auth{User: "admin", Pass: "admin"}.AsMechanism())}
	topic := b.topic(t, 1)
	t.Setenv("KAFKA_TEST_PASSWORD", "s3cret-plain")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("s3cret-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(t *testing.T, s *SASL) *Kafka {
		return b.endpoint(t, &Kafka{
			SASL: s, Producer: &Producer{Topics: []string{topic}}, Consumer: &Consumer{Topics: []string{topic}},
		})
	}
	for _, s := range []*SASL{
		{"plain", "user", "{env.KAFKA_TEST_PASSWORD}"},
		{"scram-sha-256", "user256", "{file." + file + "}"},
		{"scram-sha-512", "user512", "s3cret-512"},
	} {
		t.Run(s.Mechanism, func(t *testing.T) {
			k := with(t, s)
			roundTrip(t, k)
			if strings.Contains(k.SASL.Password, "s3cret-plain") || strings.Contains(k.SASL.Password, "s3cret-256") {
				t.Error("the secret stands in the configuration")
			}
		})
		t.Run(s.Mechanism+" with a wrong password", func(t *testing.T) {
			k := with(t, &SASL{s.Mechanism, s.User, "wr0ng"})
			began := time.Now()
			_, err := trySubscribe(k, fromStart)
			results := publish(t, k, &message.Message{Payload: []byte("x")})
			for _, err := range []error{err, results[0].Err, k.Probe(context.Background())} {
				if message.KindOf(err) != message.Unavailable || !strings.Contains(err.Error(), "refused the gateway's "+strings.ToUpper(s.Mechanism)) {
					t.Errorf("%v", err)
				}
				if err != nil && (strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), b.addrs[0])) {
					t.Errorf("%q tells the secret, or not the address", err)
				}
			}
			if results[0].Status != message.Refused {
				t.Errorf("published: %s", results[0].Status)
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
			if s := k.Status(); s.Error == "" || strings.Contains(s.Error, "wr0ng") {
				t.Errorf("status %+v", s)
			}
		})
	}
	t.Run("without", func(t *testing.T) {
		_, err := trySubscribe(with(t, nil), fromStart)
		if message.KindOf(err) != message.Unavailable || !strings.Contains(err.Error(), "SASL") {
			t.Errorf("%v", err)
		}
	})
}
