package servicebus

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

const testKey = "dG9wIHNlY3JldA=="

const testString = "Endpoint=sb://test.servicebus.windows.net/;SharedAccessKeyName=gateway;SharedAccessKey=" + testKey

// configured reads a block, and provisions what it says.
func configured(t *testing.T, block string) (*ServiceBus, error) {
	t.Helper()
	s := new(ServiceBus)
	if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser("azure_service_bus {\n" + block + "\n}")); err != nil {
		return nil, err
	}
	// What is written as JSON is the same.
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	s = new(ServiceBus)
	if err := json.Unmarshal(raw, s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := s.Provision(ctx); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = s.Cleanup() })
	return s, s.Validate()
}

func TestConfigurationErrors(t *testing.T) {
	at := "connection_string " + testString + "\n"
	long := strings.Repeat("x", 300)
	for block, want := range map[string]string{
		"":                   "write connection_string, or namespace",
		at:                   "neither producer nor consumer",
		at + "namespace a.b": "leave out one",
		"namespace orders\n producer {\n queue q\n}":                                                          "<name>.servicebus.windows.net",
		"namespace sb://a.b/\n producer {\n queue q\n}":                                                       "no host name",
		"connection_string {env.NOT_SET_AT_ALL}\n producer {\n queue q\n}":                                    "NOT_SET_AT_ALL",
		"connection_string Endpoint=sb:///;SharedAccessKeyName=a;SharedAccessKey=b\n producer {\n queue q\n}": "Endpoint is no address",
		"connection_string SharedAccessKeyName=a;SharedAccessKey=b\n producer {\n queue q\n}":                 "it has no Endpoint",
		"connection_string Endpoint=sb://a.b/;SharedAccessKeyName=a\n producer {\n queue q\n}":                "SharedAccessKey",
		"connection_string Endpoint=sb://a.b/;UseDevelopmentEmulator=perhaps\n producer {\n queue q\n}":       "true or false",
		at + "transport mqtt\n":                                                       "use amqp, websocket",
		at + "custom_endpoint a:b:c\n producer {\n queue q\n}":                        "write host or host:port",
		at + "tls {\n cert a\n}\n producer {\n queue q\n}":                            "cert and key",
		at + "idle -1s\n":                                                             "not a duration",
		at + "nonsense\n":                                                             "unknown option",
		at + "idle 1s\n idle 2s\n":                                                    "stands twice",
		at + "producer {\n}":                                                          "name a queue or a topic",
		at + "producer {\n queue q\n topic t\n}":                                      "one of them",
		at + "producer {\n queue " + long + "\n}":                                     "up to 260",
		at + "producer {\n queue q\n session_id " + long + "\n}":                      "up to 128",
		at + "producer {\n queue q\n message_id " + long + "\n}":                      "up to 128",
		at + "producer {\n queue q\n session_id a\n partition_key b\n}":               "must be the same",
		at + "producer {\n queue q\n exchange x\n}":                                   "unknown option",
		at + "producer {\n queue q\n time_to_live soon\n}":                            "not a duration",
		at + "consumer {\n shared\n}":                                                 "name a queue, or a topic and its subscription",
		at + "consumer {\n topic t\n shared\n}":                                       "a topic and its subscription",
		at + "consumer {\n queue q\n topic t\n subscription s\n shared\n}":            "not both",
		at + "consumer {\n queue q\n}":                                                "say so with shared",
		at + "consumer {\n queue q\n shared\n concurrent_sessions 3\n}":               "need sessions on",
		at + "consumer {\n queue q\n shared\n session_idle 3s\n}":                     "need sessions on",
		at + "consumer {\n queue q\n shared\n sessions\n concurrent_sessions 1000\n}": "at most 256",
		at + "consumer {\n queue q\n shared\n sessions maybe\n}":                      "use on or off",
		at + "consumer {\n queue q\n shared\n prefetch 0\n}":                          "at least 1",
		at + "consumer {\n queue q\n shared\n prefetch 6000\n}":                       "at most 5000",
		at + "consumer {\n queue q\n shared\n max_hold 1ms\n}":                        "at least 100ms",
		"connection_string Endpoint=sb://localhost;SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true\n" +
			"tls\n producer {\n queue q\n}": "knows no encryption",
	} {
		_, err := configured(t, block)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\ngot  %v\nwant %s", block, err, want)
		}
		if err != nil && strings.Contains(err.Error(), testKey) {
			t.Errorf("%q: the key stands in the error: %v", block, err)
		}
	}
}

func TestAllOptions(t *testing.T) {
	s, err := configured(t, "connection_string "+testString+`
		transport websocket
		custom_endpoint link.example:9443
		tls {
			server_name other.example
		}
		idle 1m
		producer {
			topic t
			subject s
			session_id one
			partition_key one
			message_id id
			time_to_live 1h
			scheduled_delay 30s
		}
		consumer {
			topic t
			subscription u
			shared
			sessions on
			concurrent_sessions 3
			session_idle 7s
			prefetch 9
			max_hold 2m
		}`)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.consumer.cfg
	if cfg.address != "link.example:9443" || cfg.tls.ServerName != "other.example" || !cfg.websocket || cfg.plain || cfg.idle != time.Minute {
		t.Errorf("connects to %+v", cfg)
	}
	want := properties{topic: "t", subject: "s", sessionID: "one", partitionKey: "one", messageID: "id", ttl: time.Hour, delay: 30 * time.Second}
	if s.fixed.props != want {
		t.Errorf("publishes with %+v", s.fixed.props)
	}
	if c := s.consumer; c.sessions != 3 || c.sessionIdle != 7*time.Second || c.maxHold != 2*time.Minute || s.Consumer.prefetch() != 9 {
		t.Errorf("reads with %+v", c)
	}
	if s.spec.path() != "t/Subscriptions/u" || s.spec.String() != "subscription u of topic t" {
		t.Errorf("reads %s", s.spec)
	}
}

// Where to connect to, and whose certificate to expect there.
func TestRoutes(t *testing.T) {
	emulator := ";SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true\n"
	for block, want := range map[string][2]string{
		"connection_string " + testString + "\n":                                         {"test.servicebus.windows.net:5671", "test.servicebus.windows.net"},
		"connection_string " + testString + "\ntransport websocket\n":                    {"test.servicebus.windows.net:443", "test.servicebus.windows.net"},
		"connection_string " + testString + "\ncustom_endpoint 10.0.0.7\n":               {"10.0.0.7:5671", "test.servicebus.windows.net"},
		"namespace n.servicebus.windows.net\n":                                           {"n.servicebus.windows.net:5671", "n.servicebus.windows.net"},
		"connection_string Endpoint=sb://localhost" + emulator:                           {"localhost:5672", ""},
		"connection_string Endpoint=sb://localhost:1234" + emulator:                      {"localhost:1234", ""},
		"connection_string Endpoint=sb://localhost" + emulator + "transport websocket\n": {"localhost:5672", ""},
	} {
		s, err := configured(t, block+"producer {\n queue q\n}")
		if err != nil {
			t.Fatalf("%q: %v", block, err)
		}
		cfg, err := s.connConfig()
		if err != nil {
			t.Fatal(err)
		}
		name := ""
		if cfg.tls != nil {
			name = cfg.tls.ServerName
		}
		if cfg.address != want[0] || name != want[1] {
			t.Errorf("%q: %s %s, want %s", block, cfg.address, name, want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	reading := message.Capabilities{Subscribe: true, Shared: true, ManualSettle: true, DeadLetter: true, Fenced: true, MaxHold: 10 * time.Minute}
	short := reading
	short.MaxHold = time.Minute
	for block, want := range map[string]message.Capabilities{
		"producer {\n queue q\n}":                           {Publish: true, Confirm: true},
		"consumer {\n queue q\n shared\n}":                  reading,
		"consumer {\n queue q\n shared\n sessions\n}":       reading,
		"consumer {\n queue q\n shared\n max_hold 1m\n}":    short,
		"consumer {\n topic t\n subscription s\n shared\n}": reading,
	} {
		s, err := configured(t, "connection_string "+testString+"\n"+block)
		if err != nil {
			t.Fatalf("%q: %v", block, err)
		}
		if got := s.Capabilities(); got != want {
			t.Errorf("%q: %+v, want %+v", block, got, want)
		}
	}
}

// What is secret is resolved late, and told nobody.
func TestSecretsAreNotShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Replace(testString, "test.servicebus.windows.net", "127.0.0.1:1", 1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := configured(t, "connection_string {file."+file+"}\n producer {\n queue q\n}\n consumer {\n queue q\n shared\n}")
	if err != nil {
		t.Fatal(err)
	}
	result := publish(t, s, &message.Message{})[0]
	_, refused := trySubscribe(t, s, message.Subscription{})
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	status, err := json.Marshal(s.Status())
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"publish": result.Err.Error(), "subscribe": refused.Error(), "configuration": string(raw), "status": string(status),
		"probe": s.Probe(t.Context()).Error(),
	} {
		if strings.Contains(text, testKey) || strings.Contains(text, "gateway") {
			t.Errorf("%s shows the secret: %s", what, text)
		}
		if what != "configuration" && !strings.Contains(text, "127.0.0.1:1") {
			t.Errorf("%s does not name the address: %s", what, text)
		}
	}
}

// replace expands placeholders like a request.
type replace map[string]string

func (r replace) Text(s string) (string, error) {
	if v, ok := r[s]; ok {
		return v, nil
	}
	return s, nil
}

func (r replace) Name(s string) (string, error) { return r.Text(s) }

func TestPlaceholders(t *testing.T) {
	t.Setenv("TEST_TOPIC", "orders")
	s, err := configured(t, "connection_string "+testString+`
		producer {
			topic {env.TEST_TOPIC}.{country}
			subject {subject}
			session_id {session}
		}
		consumer {
			queue {queue}
			shared
		}`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Publisher(replace{"orders.{country}": "orders.fi", "{subject}": "new", "{session}": "7"})
	if err != nil {
		t.Fatal(err)
	}
	if props := p.(*publisher).props; props.topic != "orders.fi" || props.subject != "new" || props.sessionID != "7" {
		t.Errorf("publishes with %+v", props)
	}
	one, err := s.Channel(replace{"{queue}": "one"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Channel(replace{"{queue}": "two"})
	if err != nil || one.Key == two.Key {
		t.Errorf("%q and %q: %v", one.Key, two.Key, err)
	}
	long := strings.Repeat("n", 300)
	if _, err := s.Publisher(replace{"{session}": long}); message.KindOf(err) != message.BadInput {
		t.Errorf("a long session id: %v", err)
	}
	if _, err := s.Channel(replace{"{queue}": long}); message.KindOf(err) != message.BadInput {
		t.Errorf("a long queue: %v", err)
	}
}

func TestOneOfTwo(t *testing.T) {
	s, err := configured(t, "connection_string "+testString+"\nproducer {\n queue q\n}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Channel(endpointtest.Verbatim{}); message.KindOf(err) != message.Mismatch {
		t.Errorf("without a consumer: %v", err)
	}
	s, err = configured(t, "connection_string "+testString+"\nconsumer {\n queue q\n shared\n}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publisher(endpointtest.Verbatim{}); message.KindOf(err) != message.Mismatch {
		t.Errorf("without a producer: %v", err)
	}
	channel, err := s.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []message.Mode{message.Broadcast, message.Assigned, message.Member} {
		if _, err := s.Subscribe(t.Context(), channel, message.Subscription{Mode: mode}); message.KindOf(err) != message.Mismatch {
			t.Errorf("%s: %v", mode, err)
		}
	}
}
