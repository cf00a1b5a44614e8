package kafka

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	kafkatest "github.com/caddy-message-api/caddy-message-api/test/brokers/kafka"
)

// TestRealSecurity logs in at a real broker, on all its listeners.
func TestRealSecurity(t *testing.T) {
	l := brokers.SharedKafka(t)
	secured := map[string]string{"sasl": l.SASL, "tls": l.TLS, "sasl and tls": l.SASLTLS}
	for name, addr := range secured {
		if addr == "" {
			t.Fatalf("the environment names no listener for %s: export all that `make brokers-up` prints", name)
		}
	}
	certs := filepath.Dir(l.Certificates.CA)
	b := realBroker(l.Plain)
	topic := b.topic(t, 2)
	with := func(addr string, c *options.TLS, s *SASL) *Kafka {
		return b.endpoint(t, &Kafka{
			Brokers: []string{addr}, TLS: c, SASL: s,
			Producer: &Producer{Topics: []string{topic}}, Consumer: &Consumer{Topics: []string{topic}},
		})
	}
	ca := &options.TLS{CAFile: filepath.Join(certs, "ca.pem")}
	withCert := &options.TLS{
		CAFile: ca.CAFile, Cert: filepath.Join(certs, "client.pem"), Key: filepath.Join(certs, "client-key.pem"),
	}
	t.Run("tls", func(t *testing.T) { roundTrip(t, with(l.TLS, withCert, nil)) })
	t.Run("tls, unknown authority", func(t *testing.T) {
		refusedBy(t, with(l.TLS, &options.TLS{}, nil), message.Unavailable, "unknown authority")
	})
	t.Run("tls, spoken plainly", func(t *testing.T) { refusedBy(t, with(l.TLS, nil, nil), message.Unavailable, "TLS") })
	for name, c := range map[string]*options.TLS{"sasl": nil, "sasl and tls": ca} {
		addr := secured[name]
		for _, mechanism := range mechanisms {
			t.Run(name+", "+mechanism, func(t *testing.T) {
				roundTrip(t, with(addr, c, &SASL{mechanism, kafkatest.User, kafkatest.Password}))
			})
			t.Run(name+", "+mechanism+", wrong password", func(t *testing.T) {
				refusedBy(t, with(addr, c, &SASL{mechanism, kafkatest.User, "wr0ng"}), message.Unavailable, strings.ToUpper(mechanism))
			})
			t.Run(name+", "+mechanism+", no rights", func(t *testing.T) {
				refusedBy(t, with(addr, c, &SASL{mechanism, kafkatest.Stranger, kafkatest.Password}), message.Denied, topic)
			})
		}
	}
}

// refusedBy checks that reading and writing fail, in each way, with a kind and a word.
func refusedBy(t *testing.T, k *Kafka, kind message.Kind, word string) {
	t.Helper()
	_, assigned := trySubscribe(k, fromStart)
	_, member := trySubscribe(k, message.Subscription{Mode: message.Member, Name: "api.client"})
	result := publish(t, k, &message.Message{Payload: []byte("x")})[0]
	if result.Status != message.Refused {
		t.Errorf("published: %s", result.Status)
	}
	for what, err := range map[string]error{"assigned": assigned, "member": member, "publish": result.Err} {
		if err == nil || message.KindOf(err) != kind || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v; want %s with %q", what, err, kind, word)
		}
	}
}
