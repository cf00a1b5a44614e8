//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// configured reads a block, and provisions what it says.
func configured(t *testing.T, block string) (*Solace, error) {
	t.Helper()
	s := new(Solace)
	if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser("solace {\n" + block + "\n}")); err != nil {
		return nil, err
	}
	// What is written as JSON is the same.
	written, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	s = new(Solace)
	if err := json.Unmarshal(written, s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := s.Provision(ctx); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = s.Cleanup() }) // which can't fail without files
	return s, s.Validate()
}

func TestCaddyfile(t *testing.T) {
	text := `solace {
		url tcp://a:1 tcps://b
		url {env.SOLACE}
		vpn shop
		auth gateway {file./run/secrets/solace}
		tls {
			ca_file /ca.pem
			server_name broker
		}
		idle 1m
		producer {
			topics orders/{http.request.header.X-Region} audit
			delivery direct
			key {http.request.header.X-Key}
			message_id {http.request.uuid}
			correlation_id c
			priority 0
			time_to_live 1500ms
			dead_letter off
		}
		consumer {
			topics orders/> audit
			prefetch 20
			provision off
			payload raw
			dead_letter
		}
	}`
	want := `{"url":["tcp://a:1","tcps://b","{env.SOLACE}"],"vpn":"shop","tls":{"ca_file":"/ca.pem","server_name":"broker"},` +
		`"auth":{"user":"gateway","password":"{file./run/secrets/solace}"},"idle":60000000000,` +
		`"producer":{"topics":["orders/{http.request.header.X-Region}","audit"],"delivery":"direct","key":"{http.request.header.X-Key}",` +
		`"message_id":"{http.request.uuid}","correlation_id":"c","priority":0,"time_to_live":1500000000,"dead_letter":false},` +
		`"consumer":{"topics":["orders/\u003e","audit"],"prefetch":20,"provision":false,"payload":"raw","dead_letter":true}}`
	s := new(Solace)
	if err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("made\n%s\nwant\n%s", got, want)
	}
}

func TestConfigurationErrors(t *testing.T) {
	url := "url tcp://localhost\n"
	out, in := "producer {\n topics t\n}\n", "consumer {\n topics t\n}\n"
	long := strings.Repeat("t", 251)
	for block, want := range map[string]string{
		"":                    "url is missing",
		url:                   "neither producer nor consumer",
		url + "nonsense":      "unknown option",
		url + "vpn a\n vpn b": "stands twice",
		url + "vpn {env.NOT_SET_ANYWHERE}\n" + out:                                      "vpn:",
		url + "auth guest\n":                                                            "user and a password",
		url + "auth \"\" x\n" + out:                                                     "must not be empty",
		url + "tls {\n}\n" + out:                                                        "no address is a tcps://",
		"url localhost:55555\n" + out:                                                   "neither tcp:// nor tcps://",
		"url amqp://localhost\n" + out:                                                  "neither tcp:// nor tcps://",
		"url tcp://u:hidden@localhost\n" + out:                                          "login does not belong",
		"url tcp://local\x01host\n" + out:                                               "can't be read",
		"url tcp://localhost/vpn\n" + out:                                               "more or less than a host",
		"url tcp://a,\n" + out:                                                          "is empty",
		url + "idle x\n":                                                                "is not a duration",
		url + "producer {\n}\n":                                                         "it has no topics",
		url + "producer {\n topics t t\n}":                                              "stands twice",
		url + "producer {\n topics a/>\n}":                                              "wildcards",
		url + "producer {\n topics a/b*/c\n}":                                           "wildcards",
		url + "producer {\n topics a//b\n}":                                             "levels must not be empty",
		url + "producer {\n topics /a\n}":                                               "levels must not be empty",
		url + "producer {\n topics " + long + "\n}":                                     "1 to 250 bytes",
		url + "producer {\n topics t\n delivery x\n}":                                   "use direct, persistent",
		url + "producer {\n topics t\n priority 256\n}":                                 "from 0 to 255",
		url + "producer {\n topics t\n priority -1\n}":                                  "at least 0",
		url + "producer {\n topics t\n time_to_live 1us\n}":                             "whole milliseconds",
		url + "producer {\n topics t\n dead_letter maybe\n}":                            "on or off",
		url + "consumer {\n}":                                                           "name topics",
		url + "consumer {\n topics t\n queue q\n shared\n}":                             "either topics or a queue",
		url + "consumer {\n queue q\n}":                                                 "say so with shared",
		url + "consumer {\n topics t\n shared\n}":                                       "shared is for a queue",
		url + "consumer {\n topics \"#share/g/t\"\n}":                                   "begins with #",
		url + "consumer {\n topics t/\n}":                                               "levels must not be empty",
		url + "consumer {\n queue q?\n shared\n}":                                       "can't hold any of",
		url + "consumer {\n queue " + long + "\n shared\n}":                             "1 to 200 bytes",
		url + "consumer {\n queue q\n shared\n provision on\n}":                         "must exist",
		url + "consumer {\n queue q\n shared\n max_redeliveries 3\n}":                   "must exist",
		url + "consumer {\n topics t\n prefetch 0\n}":                                   "at least 1",
		url + "consumer {\n topics t\n prefetch 10001\n}":                               "from 1 to 10000",
		url + "consumer {\n topics t\n max_redeliveries 256\n}":                         "from 1 to 255",
		url + "consumer {\n topics t\n quota many\n}":                                   "is not a size",
		url + "consumer {\n topics t\n provision off\n quota 1GB\n}":                    "provision is off",
		url + "consumer {\n topics t\n payload json\n}":                                 "use typed, raw",
		"url tcps://localhost\n tls {\n ca_file /no/such/file\n}\n" + in:                "ca_file",
		"url tcps://localhost\n tls {\n cert a\n}\n" + in:                               "belong together",
		"url tcps://localhost\n tls {\n server_name a\n insecure_skip_verify\n}\n" + in: "leave one of them out",
	} {
		_, err := configured(t, block)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q yields %v, want an error that says %q", block, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%v tells a secret", err)
		}
	}
}

func TestCertificatesAndAuth(t *testing.T) {
	a := newAuthority(t, "ca")
	cert, key := a.issue("gateway", time.Now().Add(time.Hour))
	files := "tls {\n cert " + cert + "\n key " + key + "\n}\nproducer {\n topics t\n}\n"
	for block, want := range map[string]string{
		"url tcps://localhost\n" + files:                     "",
		"url tcps://localhost\nauth user password\n" + files: "either by certificate or by password",
		"url tcps://localhost tcp://localhost\n" + files:     "at tcps:// addresses only",
	} {
		_, err := configured(t, block)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	url := "url tcp://localhost\n"
	for block, want := range map[string]message.Capabilities{
		"producer {\n topics t\n}":                       {Publish: true, Confirm: true},
		"producer {\n topics t\n delivery direct\n}":     {Publish: true},
		"consumer {\n topics t\n}":                       {Subscribe: true, Copy: true, Exclusive: true, ManualSettle: true},
		"consumer {\n queue q\n shared\n}":               {Subscribe: true, Shared: true, ManualSettle: true},
		"consumer {\n queue q\n shared\n dead_letter\n}": {Subscribe: true, Shared: true, ManualSettle: true, DeadLetter: true},
		"producer {\n topics t\n}\nconsumer {\n topics t\n dead_letter\n}": {
			Publish: true, Confirm: true, Subscribe: true, Copy: true, Exclusive: true, ManualSettle: true, DeadLetter: true,
		},
	} {
		s, err := configured(t, url+block)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Capabilities(); got != want {
			t.Errorf("%q: %+v, want %+v", block, got, want)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOLACE_TEST_URL", "tcp://a:1,tcps://b")
	t.Setenv("SOLACE_TEST_TOPIC", "fixed")
	s, err := configured(t, `
		url {env.SOLACE_TEST_URL} tcp://[::1]
		auth user {file.`+password+`}
		tls
		producer {
			topics {env.SOLACE_TEST_TOPIC}/{x}
			key {x}
		}
		consumer {
			topics {env.SOLACE_TEST_TOPIC}/>
		}`)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"tcp://a:1", "tcps://b:55443", "tcp://[::1]:55555"}; !slices.Equal(s.conn.addresses, want) {
		t.Errorf("addresses are %q, want %q", s.conn.addresses, want)
	}
	if s.conn.password != "secret" || s.conn.vpn != "default" {
		t.Errorf("password is %q, VPN %q", s.conn.password, s.conn.vpn)
	}
	p, err := s.Publisher(values{"x": "7"})
	if err != nil {
		t.Fatal(err)
	}
	if p := p.(*publisher); p.topics[0] != "fixed/7" || p.draft.key != "7" {
		t.Errorf("publishes to %q with key %q", p.topics, p.draft.key)
	}
	for _, bad := range []string{"", ">", "a*", "a//b", strings.Repeat("x", 300)} {
		if _, err := s.Publisher(values{"x": bad}); message.KindOf(err) != message.BadInput {
			t.Errorf("publishing with %.20q: %v", bad, err)
		}
	}
	if _, err := s.Channel(endpointtest.Verbatim{}); err != nil || s.spec == nil {
		t.Errorf("the channel without placeholders: %v", err)
	}
}

func TestNamesOfQueues(t *testing.T) {
	one, other := newSpec([]string{"a", "b"}, ""), newSpec([]string{"a"}, "")
	if newSpec([]string{"b", "a", "b"}, "").key != one.key {
		t.Error("the order of topics makes another channel")
	}
	seen := map[string]bool{}
	for _, name := range []string{
		"api.client", "api.client*", "api.client?", "api.cli ent", "api.#x", "api.ü", "api." + strings.Repeat("x", 195), "api." + strings.Repeat("x", 196), strings.Repeat("y", 300),
	} {
		for _, s := range []*spec{one, other} {
			queue := identityQueue(name, s)
			if err := checkQueueName(queue); err != nil || seen[queue] || strings.HasPrefix(queue, "#") {
				t.Errorf("%.40q makes %q: %v", name, queue, err)
			}
			seen[queue] = true
		}
	}
	if queue := identityQueue("api.client", one); !strings.HasPrefix(queue, "api.client.") {
		t.Errorf("queue is %q", queue)
	}
}

func TestWhatIsNotThere(t *testing.T) {
	s, err := configured(t, "url tcp://localhost\nproducer {\n topics t\n}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Channel(endpointtest.Verbatim{}); message.KindOf(err) != message.Mismatch {
		t.Errorf("a channel without a consumer: %v", err)
	}
	s, err = configured(t, "url tcp://localhost\nconsumer {\n queue q\n shared\n}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publisher(endpointtest.Verbatim{}); message.KindOf(err) != message.Mismatch {
		t.Errorf("a publisher without a producer: %v", err)
	}
	channel, err := s.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []message.Mode{message.Broadcast, message.Assigned, message.Member} {
		if _, err := s.Subscribe(t.Context(), channel, message.Subscription{Mode: mode, Name: "x"}); message.KindOf(err) != message.Mismatch {
			t.Errorf("%s: %v", mode, err)
		}
	}
}
