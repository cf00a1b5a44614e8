package mqtt5

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/options"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func adapt(t *testing.T, text string) (string, error) {
	t.Helper()
	var m MQTT5
	if err := m.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
		return "", err
	}
	out, err := json.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), nil
}

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		`mqtt5 {
			server a b:1884
			server wss://c/mqtt
			tls
			consumer {
				topic one two/#
				topic three/+
			}
		}`: `{"server":["a","b:1884","wss://c/mqtt"],"tls":{},"consumer":{"topic":["one","two/#","three/+"]}}`,
		`mqtt5 {
			server {env.MQTT}
			tls {
				ca_file /ca.pem
				cert /c.pem
				key /k.pem
				server_name mqtt.example.com
				insecure_skip_verify
			}
			auth user {env.PASSWORD}
			client_id gateway
			keep_alive 20s
			session_expiry 2d
			idle 1m
			will {
				topic gateway/state
				payload gone
				qos 1
				retained
				delay 10s
			}
			producer {
				topic orders/{http.request.header.X-Region}
				qos 2
				retained
				message_expiry 1h
				response_topic replies/{http.request.header.X-Client}
				correlation_data {http.request.uuid}
				content_type application/json
			}
			consumer {
				topic orders/#
				qos 0
				share always
				receive_maximum 20
			}
		}`: `{"server":["{env.MQTT}"],"tls":{"ca_file":"/ca.pem","cert":"/c.pem","key":"/k.pem","server_name":"mqtt.example.com",` +
			`"insecure_skip_verify":true},"auth":{"user":"user","password":"{env.PASSWORD}"},"client_id":"gateway",` +
			`"keep_alive":20000000000,"session_expiry":172800000000000,"idle":60000000000,` +
			`"will":{"topic":"gateway/state","payload":"gone","qos":1,"retained":true,"delay":10000000000},` +
			`"producer":{"topic":"orders/{http.request.header.X-Region}","qos":2,"retained":true,"message_expiry":3600000000000,` +
			`"response_topic":"replies/{http.request.header.X-Client}","correlation_data":"{http.request.uuid}","content_type":"application/json"},` +
			`"consumer":{"topic":["orders/#"],"qos":0,"share":"always","receive_maximum":20}}`,
	} {
		got, err := adapt(t, text)
		if err != nil || got != want {
			t.Errorf("got %s, %v\nwant %s", got, err, want)
		}
	}
	for text, want := range map[string]string{
		"mqtt5 x":                                  `"x" is one too many`,
		"mqtt5 {\n brokers a\n}":                   `unknown option "brokers" in endpoint mqtt5: use auth, client_id, consumer, idle, keep_alive, producer, server`,
		"mqtt5 {\n server\n}":                      `option "server" needs at least one value`,
		"mqtt5 {\n auth x\n}":                      `option "auth" needs a user and a password`,
		"mqtt5 {\n producer {\n qos 3\n }\n}":      `qos "3": use 0, 1, 2`,
		"mqtt5 {\n consumer {\n topics a\n }\n}":   `unknown option "topics" in consumer: use qos, receive_maximum, share, topic`,
		"mqtt5 {\n will {\n delay soon\n }\n}":     `delay "soon" is not a duration`,
		"mqtt5 {\n producer {\n topic a b\n }\n}":  `"b" is one too many`,
		"mqtt5 {\n keep_alive 5s\n keep_alive 5\n": `option "keep_alive" in endpoint mqtt5 stands twice`,
	} {
		if got, err := adapt(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}

func tryProvision(m *MQTT5) error {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	if err := m.Provision(ctx); err != nil {
		return err
	}
	return m.Cleanup()
}

// What can't work is refused when the configuration is loaded, with what to do.
func TestProvisionRefuses(t *testing.T) {
	three := 3
	out, in := &Producer{Topic: "a"}, &Consumer{Topics: []string{"a"}}
	for name, c := range map[string]struct {
		m    MQTT5
		want string
	}{
		"no server":        {MQTT5{Producer: out}, "server is missing"},
		"nothing to do":    {MQTT5{Servers: []string{"a"}}, "neither producer nor consumer"},
		"scheme":           {MQTT5{Servers: []string{"http://a"}, Producer: out}, `unknown scheme "http"`},
		"no host":          {MQTT5{Servers: []string{"mqtt://"}, Producer: out}, "write it as host:port"},
		"empty address":    {MQTT5{Servers: []string{"a,,b"}, Producer: out}, "empty"},
		"login in address": {MQTT5{Servers: []string{"mqtt://u:p4ss@a"}, Producer: out}, "use `auth <user> <password>`"},
		"path":             {MQTT5{Servers: []string{"mqtt://a/b"}, Producer: out}, "only WebSockets have a path"},
		"plain with tls":   {MQTT5{Servers: []string{"mqtt://a"}, TLS: &options.TLS{}, Producer: out}, "use mqtts or wss"},
		"no such file":     {MQTT5{Servers: []string{"a"}, TLS: &options.TLS{CAFile: "/no/such"}, Producer: out}, "ca_file"},
		"empty password":   {MQTT5{Servers: []string{"a"}, Auth: &options.Auth{User: "u"}, Producer: out}, "must not be empty"},
		"client id":        {MQTT5{Servers: []string{"a"}, ClientID: "a/b", Producer: out}, "client_id"},
		"keep alive":       {MQTT5{Servers: []string{"a"}, KeepAlive: caddy.Duration(20 * time.Hour), Producer: out}, "keep_alive"},
		"session expiry":   {MQTT5{Servers: []string{"a"}, SessionExpiry: caddy.Duration(200 * 365 * 24 * time.Hour), Producer: out}, "session_expiry"},
		"will alone":       {MQTT5{Servers: []string{"a"}, Will: &Will{Topic: "w"}, Consumer: in}, "no producer"},
		"will topic":       {MQTT5{Servers: []string{"a"}, Will: &Will{}, Producer: out}, "will: the topic is empty"},
		"will qos":         {MQTT5{Servers: []string{"a"}, Will: &Will{Topic: "w", QoS: 3}, Producer: out}, "qos 3"},
		"topic":            {MQTT5{Servers: []string{"a"}, Producer: &Producer{}}, "topic is missing"},
		"wildcard":         {MQTT5{Servers: []string{"a"}, Producer: &Producer{Topic: "a/+"}}, "a message goes to one"},
		"producer qos":     {MQTT5{Servers: []string{"a"}, Producer: &Producer{Topic: "a", QoS: &three}}, "use 0, 1 or 2"},
		"response topic":   {MQTT5{Servers: []string{"a"}, Producer: &Producer{Topic: "a", ResponseTopic: "#"}}, "response_topic"},
		"filters":          {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{}}, "topic is missing"},
		"shared filter":    {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{Topics: []string{"$share/x/y"}}}, "leave out $share"},
		"hash inside":      {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{Topics: []string{"a/#/b"}}}, "at the end"},
		"hash in level":    {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{Topics: []string{"a#"}}}, "# stands alone"},
		"plus in level":    {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{Topics: []string{"a+/b"}}}, "+ stands alone"},
		"receive maximum":  {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{Topics: []string{"a"}, ReceiveMaximum: 70_000}}, "receive_maximum"},
		"share":            {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{Topics: []string{"a"}, Share: "x"}}, "use auto, always"},
		"consumer qos":     {MQTT5{Servers: []string{"a"}, Consumer: &Consumer{Topics: []string{"a"}, QoS: &three}}, "use 0, 1 or 2"},
	} {
		err := tryProvision(&c.m)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "mqtt5: ") || strings.Contains(err.Error(), "p4ss") {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// What is unusual and right is taken, placeholders of the environment are replaced, and
// nobody is asked.
func TestProvision(t *testing.T) {
	t.Setenv("SERVERS", "a:1, ws://b/x")
	t.Setenv("PLACE", "eu")
	m := &MQTT5{
		Servers: []string{"{env.SERVERS}", "mqtt://[::1]"}, ClientID: "gw-{env.PLACE}",
		Producer: &Producer{Topic: "orders/{env.PLACE}/{http.request.header.X}"},
		Consumer: &Consumer{Topics: []string{"$SYS/{env.PLACE}/#", "+/+/#", "/", "#"}},
		Will:     &Will{Topic: "w/{env.PLACE}"},
	}
	if err := tryProvision(m); err != nil {
		t.Fatal(err)
	}
	if m.Producer.Topic != "orders/eu/{http.request.header.X}" || m.Will.Topic != "w/eu" || m.client.prefix != "gw-eu" ||
		m.spec.filters[0] != "$SYS/eu/#" || strings.Join(m.client.addresses(), " ") != "a:1 ws://b/x mqtt://[::1]" ||
		m.client.servers[2].host != "[::1]:1883" {
		t.Errorf("it became %+v, %+v", m.Producer, m.client)
	}
	if status := m.Status(); status.State != endpoints.Idle {
		t.Errorf("the status is %+v", status)
	}
}

// What an endpoint can do follows from what is configured.
func TestCapabilities(t *testing.T) {
	zero := 0
	for _, c := range []struct {
		m    MQTT5
		want message.Capabilities
	}{
		{MQTT5{Producer: &Producer{}}, message.Capabilities{Publish: true, Confirm: true}},
		{MQTT5{Producer: &Producer{QoS: &zero}}, message.Capabilities{Publish: true}},
		{MQTT5{Consumer: &Consumer{}}, message.Capabilities{Subscribe: true, Copy: true, Exclusive: true, ManualSettle: true, Fenced: true, HoldsBehind: true}},
		{MQTT5{Consumer: &Consumer{QoS: &zero}}, message.Capabilities{Subscribe: true, Copy: true}},
	} {
		if got := c.m.Capabilities(); got != c.want {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
}

// Names of identities become client identifiers and shares that are told apart, and that no
// broker objects to.
func TestNames(t *testing.T) {
	seen := make(map[string]string)
	for _, name := range []string{
		"a.b", "a/b", "a+b", "a#b", "a b", "a=b", "a=2Fb", "a~b", "a~1", "a$b", strings.Repeat("x", 80), strings.Repeat("x", 81),
		strings.Repeat("x", 200), strings.Repeat("x", 199) + "y", strings.Repeat("/", 100),
	} {
		got := escapeName(name)
		if other, again := seen[got]; again || len(got) > maxName || strings.ContainsAny(got, "/+# ~$") {
			t.Errorf("%q became %q, as did %q", name, got, other)
		}
		seen[got] = name
	}
}
