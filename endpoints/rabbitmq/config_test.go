package rabbitmq

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

	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// configured reads a block, and provisions what it says.
func configured(t *testing.T, block string) (*RabbitMQ, error) {
	t.Helper()
	r := new(RabbitMQ)
	if err := r.UnmarshalCaddyfile(caddyfile.NewTestDispenser("rabbitmq {\n" + block + "\n}")); err != nil {
		return nil, err
	}
	// What is written as JSON is the same.
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	r = new(RabbitMQ)
	if err := json.Unmarshal(raw, r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := r.Provision(ctx); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = r.Cleanup() })
	return r, r.Validate()
}

func TestConfigurationErrors(t *testing.T) {
	server := "server localhost:5672\n"
	for block, want := range map[string]string{
		"":     "server is missing",
		server: "neither producer nor consumer",
		"server localhost\n producer { \n routing_key q \n}":             "host:port",
		server + "heartbeat 100ms\n producer { \n routing_key q \n}":     "at least 1s",
		server + "auth guest\n":                                          "user and a password",
		server + "nonsense":                                              "unknown option",
		server + "producer {\n}":                                         "default exchange needs a routing_key",
		server + "producer {\n exchange \"\" direct\n routing_key q \n}": "can't be declared",
		server + "producer {\n exchange a b c\n}":                        "may have a type",
		server + "producer {\n exchange a {\n declare on\n}\n}":          "without a type",
		server + "producer {\n exchange a topic {\n argument x 1\n argument y 1.5\n}\n routing_key " + strings.Repeat("k", 300) + "\n}": "255 bytes",
		server + "consumer {\n}":                                                       "name an exchange",
		server + "consumer {\n exchange \"\"\n}":                                       "needs a name",
		server + "consumer {\n routing_key k\n queue q {\n}\n shared\n}":               "there is no exchange",
		server + "consumer {\n exchange x\n shared\n}":                                 "shared is for a queue",
		server + "consumer {\n exchange x\n queue_type stream\n}":                      "use classic, quorum",
		server + "consumer {\n exchange x\n queue_type classic\n delivery_limit 3\n}":  "needs quorum",
		server + "consumer {\n exchange x\n argument x-queue-type classic\n}":          "queue_type",
		server + "consumer {\n queue q\n}":                                             "say so with shared",
		server + "consumer {\n queue q {\n type stream\n}\n shared\n}":                 "is a stream",
		server + "consumer {\n queue q {\n type lazy\n}\n shared\n}":                   "use classic, quorum, stream",
		server + "consumer {\n queue q {\n declare on\n}\n shared\n}":                  "without a type",
		server + "consumer {\n queue q {\n type quorum\n auto_delete\n}\n shared\n}":   "only classic",
		server + "consumer {\n queue q\n shared\n queue_type quorum\n}":                "for identities",
		server + "consumer {\n queue q\n shared\n delivery_limit 2\n}":                 "delivery_limit",
		server + "consumer {\n queue q {\n type stream\n}\n dead_letter_exchange d\n}": "no dead letters",
		server + "consumer {\n queue q\n shared\n prefetch 70000\n}":                   "65535",
		server + "tls {\n cert a\n}\n producer {\n routing_key q\n}":                   "cert and key",
		server + "auth {env.NOT_SET_AT_ALL} x\n producer {\n routing_key q\n}":         "NOT_SET_AT_ALL",
	} {
		if _, err := configured(t, block); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\ngot  %v\nwant %s", block, err, want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	server := "server localhost:5672\n"
	settled := message.Capabilities{Subscribe: true, ManualSettle: true, Fenced: true}
	own, shared, dead := settled, settled, settled
	own.Copy, own.Exclusive = true, true
	shared.Shared = true
	dead.Shared, dead.DeadLetter = true, true
	for block, want := range map[string]message.Capabilities{
		"producer {\n routing_key q\n}":                             {Publish: true, Confirm: true},
		"consumer {\n exchange x\n}":                                own,
		"consumer {\n queue q\n shared\n}":                          shared,
		"consumer {\n queue q\n shared\n dead_letter_exchange d\n}": dead,
		"consumer {\n queue q {\n type stream\n}\n}":                {Subscribe: true, Copy: true, Positions: true},
	} {
		r, err := configured(t, server+block)
		if err != nil {
			t.Fatalf("%q: %v", block, err)
		}
		if got := r.Capabilities(); got != want {
			t.Errorf("%q: %+v, want %+v", block, got, want)
		}
	}
}

func TestDefaultsAndSecrets(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("p4ss\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("RABBIT_NODES", "one:5672,two:5672")
	t.Setenv("RABBIT_QUEUE", "orders")
	r, err := configured(t, "server {env.RABBIT_NODES} three:5672\n auth alice {file."+secret+"}\n producer {\n routing_key {env.RABBIT_QUEUE}.{http.request.host}\n}")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := r.connConfig()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(cfg.addresses, " ") != "one:5672 two:5672 three:5672" || cfg.user != "alice" || cfg.password != "p4ss" || cfg.vhost != "/" ||
		cfg.heartbeat != 10*time.Second || cfg.idle != 5*time.Minute || cfg.external {
		t.Errorf("%+v", cfg)
	}
	if r.Producer.RoutingKey != "orders.{http.request.host}" {
		t.Errorf("the routing key is %q", r.Producer.RoutingKey)
	}
	if strings.Contains(r.Auth.Password, "p4ss") {
		t.Error("the secret stands in the configuration")
	}
	guest, err := (&RabbitMQ{Server: []string{"a:1"}}).connConfig()
	if err != nil || guest.user != "guest" || guest.password != "guest" {
		t.Errorf("%+v %v", guest, err)
	}
}

func TestArguments(t *testing.T) {
	r, err := configured(t, "server a:1\n consumer {\n exchange x topic {\n durable off\n auto_delete\n argument alternate-exchange spill\n}\n"+
		"routing_key a b\n argument x-max-length 1000\n argument x-single-active-consumer true\n expires 1h\n dead_letter_exchange dead\n delivery_limit 5\n}")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"x-queue-type": "quorum", "x-expires": int64(3_600_000), "x-max-length": int64(1000), "x-single-active-consumer": true,
		"x-dead-letter-exchange": "dead", "x-delivery-limit": int64(5),
	}
	got := r.consumer.own.arguments
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %v (%T), want %v (%T)", name, got[name], got[name], value, value)
		}
	}
	if x := r.consumer.exchange; x.kind != "topic" || x.durable || !x.autoDelete || !x.declare || x.arguments["alternate-exchange"] != "spill" {
		t.Errorf("the exchange is %+v", x)
	}
}

// Names that come from a request are checked piece by piece, and bounded as a whole.
func TestNamesFromRequests(t *testing.T) {
	r, err := configured(t, "server a:1\n producer {\n exchange {x}\n routing_key {k}\n}\n consumer {\n exchange x\n routing_key {k}\n}")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", 300)
	if _, err := r.Publisher(replace{"{x}": "x", "{k}": long}); message.KindOf(err) != message.BadInput {
		t.Errorf("got %v", err)
	}
	if _, err := r.Channel(replace{"{k}": long}); message.KindOf(err) != message.BadInput {
		t.Errorf("got %v", err)
	}
	one, err := r.Channel(replace{"{k}": "one"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := r.Channel(replace{"{k}": "two"})
	if err != nil || one.Key == two.Key {
		t.Errorf("%q and %q: %v", one.Key, two.Key, err)
	}
	name := strings.Repeat("i", 400)
	if got := r.consumer.identityQueue(name, one.Spec.(*spec)); len(got) > maxShort {
		t.Errorf("a queue's name has %d bytes", len(got))
	}
	if r.consumer.identityQueue("a.b", one.Spec.(*spec)) == r.consumer.identityQueue("a.b", two.Spec.(*spec)) {
		t.Error("two routing keys have one queue")
	}
}

func TestExternalLogin(t *testing.T) {
	for _, tc := range []struct {
		auth *options.Auth
		want bool
	}{{nil, true}, {&options.Auth{User: "a", Password: "b"}, false}} {
		certs := selfSigned(t)
		r := &RabbitMQ{Server: []string{"a:1"}, TLS: &options.TLS{Cert: certs + "/cert.pem", Key: certs + "/key.pem"}, Auth: tc.auth}
		cfg, err := r.connConfig()
		if err != nil {
			t.Fatal(err)
		}
		if cfg.external != tc.want {
			t.Errorf("with auth %v: external is %t", tc.auth, cfg.external)
		}
	}
}
