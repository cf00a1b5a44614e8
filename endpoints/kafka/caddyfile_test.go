package kafka

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func adapt(t *testing.T, text string) (string, error) {
	t.Helper()
	var k Kafka
	if err := k.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
		return "", err
	}
	out, err := json.Marshal(&k)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), nil
}

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		`kafka {
			brokers a:9092 b:9092
			brokers c:9092
			tls
			consumer {
				topics one two
			}
		}`: `{"brokers":["a:9092","b:9092","c:9092"],"tls":{},"consumer":{"topics":["one","two"]}}`,
		`kafka {
			brokers {env.KAFKA}
			tls {
				ca_file /ca.pem
				cert /c.pem
				key /k.pem
				server_name kafka.example.com
				insecure_skip_verify
			}
			sasl scram-sha-512 user {env.PASSWORD}
			producer {
				topics orders-{http.request.header.X-Region}
				compression zstd
				key {http.request.header.X-Key}
			}
			consumer {
				topic_pattern "orders-.*"
				auto_offset_reset earliest
			}
			idle 1m
		}`: `{"brokers":["{env.KAFKA}"],"tls":{"ca_file":"/ca.pem","cert":"/c.pem","key":"/k.pem","server_name":"kafka.example.com",` +
			`"insecure_skip_verify":true},"sasl":{"mechanism":"scram-sha-512","user":"user","password":"{env.PASSWORD}"},` +
			`"producer":{"topics":["orders-{http.request.header.X-Region}"],"compression":"zstd","key":"{http.request.header.X-Key}"},` +
			`"consumer":{"topic_pattern":"orders-.*","auto_offset_reset":"earliest"},"idle":60000000000}`,
	} {
		got, err := adapt(t, text)
		if err != nil || got != want {
			t.Errorf("adapts to %s (%v), want %s", got, err, want)
		}
	}
}

func TestCaddyfileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"kafka orders":                                                  "takes no value here",
		"kafka {\n broker a:1\n}":                                       "use brokers, consumer, idle, producer, sasl, tls",
		"kafka {\n tls\n tls\n}":                                        "stands twice, first on line 2",
		"kafka {\n brokers\n}":                                          "needs at least one value",
		"kafka {\n sasl plain user\n}":                                  "needs a mechanism, a user and a password",
		"kafka {\n sasl gssapi u p\n}":                                  "use plain, scram-sha-256, scram-sha-512",
		"kafka {\n tls on\n}":                                           "one too many",
		"kafka {\n tls {\n ca x\n}\n}":                                  "use ca_file, cert, insecure_skip_verify, key, server_name",
		"kafka {\n producer {\n topic x\n}\n}":                          "use compression, key, topics",
		"kafka {\n producer {\n topics x\n compression br\n}\n}":        "use none, gzip, snappy, lz4, zstd",
		"kafka {\n consumer {\n topics x\n auto_offset_reset now\n}\n}": "use latest, earliest",
		"kafka {\n consumer {\n group x\n}\n}":                          "use auto_offset_reset, topic_pattern, topics",
		"kafka {\n idle soon\n}":                                        "is not a duration",
	} {
		if got, err := adapt(t, text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%q adapts to %s, error %v; want one with %q and the line", text, got, err, want)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	topics := []string{"t"}
	brokers := []string{"a:9092"}
	good := &Consumer{Topics: topics}
	for _, c := range []struct {
		k    *Kafka
		want string
	}{
		{&Kafka{Consumer: good}, "brokers is missing"},
		{&Kafka{Brokers: []string{"a"}, Consumer: good}, "host:port"},
		{&Kafka{Brokers: []string{":9092"}, Consumer: good}, "host:port"},
		{&Kafka{Brokers: []string{"a:99999"}, Consumer: good}, "host:port"},
		{&Kafka{Brokers: []string{"{env.NO_SUCH_THING_IS_SET}"}, Consumer: good}, "NO_SUCH_THING_IS_SET"},
		{&Kafka{Brokers: brokers}, "neither producer nor consumer"},
		{&Kafka{Brokers: brokers, Producer: &Producer{}}, "no topics"},
		{&Kafka{Brokers: brokers, Producer: &Producer{Topics: []string{"a b"}}}, "a-z A-Z 0-9"},
		{&Kafka{Brokers: brokers, Producer: &Producer{Topics: []string{".."}}}, "1 to 249"},
		{&Kafka{Brokers: brokers, Producer: &Producer{Topics: topics, Compression: "br"}}, "use none, gzip"},
		{&Kafka{Brokers: brokers, Consumer: &Consumer{}}, "either topics or topic_pattern"},
		{&Kafka{Brokers: brokers, Consumer: &Consumer{Topics: topics, TopicPattern: "x"}}, "either topics or topic_pattern"},
		{&Kafka{Brokers: brokers, Consumer: &Consumer{TopicPattern: "("}}, "topic_pattern"},
		{&Kafka{Brokers: brokers, Consumer: &Consumer{Topics: topics, AutoOffsetReset: "now"}}, "use latest, earliest"},
		{&Kafka{Brokers: brokers, Consumer: good, TLS: &options.TLS{CAFile: "/no/such/file"}}, "ca_file"},
		{&Kafka{Brokers: brokers, Consumer: good, TLS: &options.TLS{CAFile: "caddyfile_test.go"}}, "no certificate"},
		{&Kafka{Brokers: brokers, Consumer: good, TLS: &options.TLS{Cert: "x"}}, "belong together"},
		{&Kafka{Brokers: brokers, Consumer: good, TLS: &options.TLS{Cert: "x", Key: "y"}}, "cert and key"},
		{&Kafka{Brokers: brokers, Consumer: good, SASL: &SASL{"plain", "u", ""}}, "must not be empty"},
		{&Kafka{Brokers: brokers, Consumer: good, SASL: &SASL{"plain", "u", "{env.NO_SUCH_THING_IS_SET}"}}, "password"},
		{&Kafka{Brokers: brokers, Consumer: good, SASL: &SASL{"kerberos", "u", "p"}}, "use plain"},
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		err := c.k.Provision(ctx)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want something with %q", err, c.want)
		}
		if err := c.k.Cleanup(); err != nil {
			t.Errorf("cleanup after half a provision: %v", err)
		}
		cancel()
	}
}

func TestModule(t *testing.T) {
	info, err := caddy.GetModule("message_api.endpoints.kafka")
	if err != nil {
		t.Fatal(err)
	}
	if info.New() == info.New() {
		t.Error("every module must be its own")
	}
}

func TestCapabilities(t *testing.T) {
	reads := (&Kafka{Consumer: &Consumer{}}).Capabilities()
	writes := (&Kafka{Producer: &Producer{}}).Capabilities()
	if reads != (message.Capabilities{
		Subscribe: true, Copy: true, Exclusive: true, ManualSettle: true, Positions: true, Fenced: true,
	}) {
		t.Errorf("a consumer can %+v", reads)
	}
	if writes != (message.Capabilities{Publish: true, Confirm: true}) {
		t.Errorf("a producer can %+v", writes)
	}
}

func TestChannelKeys(t *testing.T) {
	b := &broker{addrs: []string{"a:9092"}}
	key := func(c *Consumer, who values) string {
		channel, err := b.endpoint(t, &Kafka{Consumer: c}).Channel(who)
		if err != nil {
			t.Fatal(err)
		}
		return channel.Key
	}
	if a, b := key(&Consumer{Topics: []string{"b", "a", "b"}}, ""), key(&Consumer{Topics: []string{"a", "b"}}, ""); a != b || a != "a,b" {
		t.Errorf("%q, %q", a, b)
	}
	if a, b := key(&Consumer{Topics: []string{"{who}"}}, "x"), key(&Consumer{Topics: []string{"{who}"}}, "y"); a == b {
		t.Errorf("%q, %q", a, b)
	}
	if a := key(&Consumer{TopicPattern: "a,b"}, ""); a == "a,b" {
		t.Errorf("a pattern has the key of topics: %q", a)
	}
	if _, err := b.endpoint(t, &Kafka{Consumer: &Consumer{Topics: []string{"{who}"}}}).Channel(values("a/b")); err == nil {
		t.Error("a bad name was taken")
	}
}

func TestProvisionTalksToNobody(t *testing.T) {
	line := &line{}
	b := &broker{addrs: []string{"192.0.2.1:9092"}}
	began := time.Now()
	k := b.endpoint(t, &Kafka{dial: line.dial, Consumer: &Consumer{Topics: []string{"t"}}, Producer: &Producer{Topics: []string{"t"}}})
	if n := line.dials.Load(); n > 0 || time.Since(began) > time.Second {
		t.Errorf("%d dials in %v", n, time.Since(began))
	}
	if s := k.Status(); s.State != "idle" || s.Address != "192.0.2.1:9092" {
		t.Errorf("%+v", s)
	}
}
