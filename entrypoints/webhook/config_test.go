package webhook

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/webhook/worker"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// provision has Caddy load an entrypoint from its JSON.
func provision(t testing.TB, config string) (*Entrypoint, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	val, err := ctx.LoadModuleByID("message_api.entrypoints.webhook", json.RawMessage(config))
	if err != nil {
		return nil, err
	}
	return val.(*Entrypoint), nil
}

func mustProvision(t testing.TB, config string) *Entrypoint {
	t.Helper()
	e, err := provision(t, config)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestDefaults(t *testing.T) {
	e := mustProvision(t, `{}`)
	want := settings{
		timeout: 10 * time.Second, concurrency: 1, order: "key", onClientError: "stop", onExhausted: "stop",
		retry: worker.Retry{Strategy: worker.Exponential, Attempts: 5, Delay: time.Second, MaxDelay: time.Minute, Jitter: 0.2},
	}
	if e.defaults != want || e.dialTimeout != 3*time.Second || e.connections != 64 || e.maxResponse != 64<<10 {
		t.Errorf("%+v, %s, %d, %d", e.defaults, e.dialTimeout, e.connections, e.maxResponse)
	}
	needs := e.Needs()
	if hold := 5*10*time.Second + (1+2+4+8)*time.Second; needs.Hold != hold || !needs.Acks || !needs.Subscribe || needs.Publish || needs.Resume {
		t.Errorf("%+v", needs)
	}
	if len(needs.Levels) != 3 || needs.Type != "webhook" || needs.DeadLetter != "" {
		t.Errorf("%+v", needs)
	}
	raw, err := json.Marshal(e)
	if err != nil || string(raw) != "{}" {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestDerived(t *testing.T) {
	e := mustProvision(t, `{"dead_letter":"dead","timeout":"1s","via":"q","qos":"at_least_once","retry":{"attempts":-1,"delay":"2m"}}`)
	if d := &e.defaults; d.onClientError != "dead_letter" || d.onExhausted != "dead_letter" || d.retry.MaxDelay != 2*time.Minute {
		t.Errorf("%+v", d)
	}
	if e.dialTimeout != time.Second {
		t.Errorf("connects for %s, of %s", e.dialTimeout, e.defaults.timeout)
	}
	needs := e.Needs()
	if needs.Hold != math.MaxInt64 || needs.DeadLetter != "dead" || needs.Via != "q" || needs.QoS != message.AtLeastOnce {
		t.Errorf("%+v", needs)
	}
	if e = mustProvision(t, `{"retry":{"strategy":"none"}}`); e.Needs().Hold != 10*time.Second {
		t.Errorf("%+v", e.Needs())
	}
}

func TestImpossibleOptions(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.pem")
	if err := os.WriteFile(bad, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for config, wants := range map[string][]string{
		`{"qos":"none"}`:                                {"qos none: use auto"},
		`{"timeout":"1h"}`:                              {"timeout 1h0m0s: use 1ms to 10m0s"},
		`{"timeout":-1}`:                                {"timeout -1ns"},
		`{"timeout":"2s","connect_timeout":"3s"}`:       {"connect_timeout 3s: use 1ms to 2s"},
		`{"concurrency":1025,"connections":-1}`:         {"concurrency 1025: use 1 to 1024", "connections -1: use 1 to 10000"},
		`{"max_response":99999999}`:                     {"max_response 99999999: use 1 to 16777216"},
		`{"order":"topic"}`:                             {`order "topic": use key, lane or none`},
		`{"on_client_error":"dead_letter"}`:             {"on_client_error dead_letter needs an endpoint"},
		`{"on_exhausted":"dead_letter"}`:                {"on_exhausted dead_letter needs an endpoint"},
		`{"on_exhausted":"skip"}`:                       {`on_exhausted "skip": use dead_letter or stop`},
		`{"on_client_error":"retry"}`:                   {"use dead_letter, stop or skip"},
		`{"retry":{"strategy":"fast"}}`:                 {`retry: strategy "fast": use exponential, linear or none`},
		`{"retry":{"attempts":101}}`:                    {"retry: attempts 101: use 1 to 100, or -1"},
		`{"retry":{"attempts":-2}}`:                     {"attempts -2"},
		`{"retry":{"strategy":"none","attempts":3}}`:    {"strategy none has one attempt"},
		`{"retry":{"delay":"48h"}}`:                     {"delay 48h0m0s: use up to 24h0m0s"},
		`{"retry":{"delay":"1m","max_delay":"1s"}}`:     {"max_delay 1s is shorter than the delay"},
		`{"retry":{"jitter":1.5}}`:                      {"jitter 1.5: use a share"},
		`{"message_headers":["Authorization"]}`:         {"message_headers", "Authorization"},
		`{"message_headers":["a b"]}`:                   {"message_headers"},
		`{"cloudevents":{"source":"/a"}}`:               {"cloudevents: type: required"},
		`{"cloudevents":{"type":"a"}}`:                  {"cloudevents: source: required"},
		`{"cloudevents":{"source":"a b","type":"a"}}`:   {"no URI reference"},
		`{"allow_hosts":["https://a.com/"]}`:            {"allow_hosts", "https://a.com/"},
		`{"allow_networks":["intranet"]}`:               {"allow_networks", "intranet"},
		`{"proxy":"ftp://user:geheim@proxy"}`:           {"proxy: "},
		`{"proxy":"{env.NO_SUCH_PROXY_IN_TESTS}"}`:      {"proxy: ", "NO_SUCH_PROXY_IN_TESTS"},
		`{"tls":{"ca":["/no/such/file"]}}`:              {"tls: ca: ", "no such file"},
		`{"tls":{"ca":["` + bad + `"]}}`:                {"tls: ", bad, "no certificate"},
		`{"tls":{"client_certificate":{"key":"/x"}}}`:   {"tls: client_certificate"},
		`{"tls":{"server_name":"not a name"}}`:          {"server_name"},
		`{"callback":"https://example.com"}`:            {"callback"},
		`{"timeout":"1h","order":"x","connections":-2}`: {"timeout", "order", "connections"}, // all at once
	} {
		_, err := provision(t, config)
		if err == nil {
			t.Errorf("%s is accepted", config)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", config, err, want)
			}
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s tells a password: %v", config, err)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	t.Setenv("WEBHOOK_TEST_PROXY", "http://user:secret@proxy.example.com:3128")
	t.Setenv("WEBHOOK_TEST_SOURCE", "/shop")
	e := mustProvision(t, `{"proxy":"{env.WEBHOOK_TEST_PROXY}","cloudevents":{"source":"{env.WEBHOOK_TEST_SOURCE}","type":"t"}}`)
	if e.proxy == nil || e.proxy.Host != "proxy.example.com:3128" || e.defaults.cloudEvents.Source != "/shop" {
		t.Errorf("%v, %+v", e.proxy, e.defaults.cloudEvents)
	}
	raw, err := json.Marshal(e)
	if err != nil || strings.Contains(string(raw), "secret") || !strings.Contains(string(raw), "{env.WEBHOOK_TEST_PROXY}") {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestCaddyfile(t *testing.T) {
	full := `webhook {
	qos at_least_once
	timeout 10s
	connect_timeout 3s
	concurrency 8
	order lane
	retry linear {
		attempts unlimited
		delay 1s
		max_delay 1m
		jitter 0
	}
	on_client_error skip
	on_exhausted dead_letter
	dead_letter dead
	message_headers trace x-order-*
	message_headers tenant
	cloudevents {
		source /shop
		type com.example.order
	}
	allow_http
	allow_networks 10.0.0.0/8 loopback
	allow_hosts example.com *.example.org
	connections 16
	max_response 1KiB
	proxy http://proxy:3128
	tls {
		ca a.pem b.pem
		client_certificate c.pem k.pem
		server_name hooks
		insecure_skip_verify
	}
	via queue
}`
	for text, want := range map[string]string{
		"webhook":                        `{}`,
		"webhook {\n\tretry none\n}":     `{"retry":{"strategy":"none"}}`,
		"webhook {\n\tretry {\n\t}\n}":   `{"retry":{}}`,
		"webhook {\n\tqos auto\n}":       `{}`,
		"webhook {\n\tallow_http off\n}": `{}`,
		full: `{"qos":"at_least_once","timeout":10000000000,"connect_timeout":3000000000,"concurrency":8,"order":"lane",` +
			`"retry":{"strategy":"linear","attempts":-1,"delay":1000000000,"max_delay":60000000000,"jitter":0},` +
			`"on_client_error":"skip","on_exhausted":"dead_letter","dead_letter":"dead","message_headers":["trace","x-order-*","tenant"],` +
			`"cloudevents":{"source":"/shop","type":"com.example.order"},"allow_http":true,"allow_networks":["10.0.0.0/8","loopback"],` +
			`"allow_hosts":["example.com","*.example.org"],"connections":16,"max_response":1024,"proxy":"http://proxy:3128",` +
			`"tls":{"ca":["a.pem","b.pem"],"client_certificate":{"certificate":"c.pem","key":"k.pem"},"server_name":"hooks","insecure_skip_verify":true},"via":"queue"}`,
	} {
		e := new(Entrypoint)
		if err := e.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(e); err != nil || string(got) != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", text, got, err, want)
		}
	}
}

func TestCaddyfileErrors(t *testing.T) {
	for line, want := range map[string]string{
		"callback https://a":                         `unknown option "callback" in entrypoint webhook: use allow_hosts, allow_http`,
		"qos none":                                   `qos "none": use auto, at_most_once, at_least_once`,
		"timeout 0s":                                 "timeout must be longer than 0",
		"timeout soon":                               `timeout "soon" is not a duration`,
		"concurrency 0":                              "whole number of at least 1",
		"order random":                               `order "random": use key, lane, none`,
		"retry often":                                `retry "often": use exponential, linear or none`,
		"retry linear none":                          `"none" is one too many`,
		"retry {\n\tattempts 0\n}":                   `attempts "0": use a whole number of 1 to 100, or unlimited`,
		"retry {\n\tattempts forever\n}":             "or unlimited",
		"retry {\n\tjitter 2\n}":                     `jitter "2": use a share of 0 to 1`,
		"retry {\n\tjitter NaN\n}":                   "use a share of 0 to 1",
		"retry {\n\tdelay 0\n}":                      "delay must be longer than 0",
		"retry {\n\ttimes 3\n}":                      `unknown option "times" in retry: use attempts, delay, jitter, max_delay`,
		"on_client_error retry":                      "use dead_letter, stop, skip",
		"on_exhausted skip":                          "use dead_letter, stop",
		"dead_letter":                                `"dead_letter" needs a value`,
		"message_headers":                            "needs at least one value",
		"cloudevents on":                             `"on" is one too many`,
		"cloudevents {\n\tid x\n}":                   "use source, type",
		"allow_http yes":                             "use on or off",
		"max_response none":                          "is not a size",
		"tls {\n\tca_file x\n}":                      "use ca, client_certificate, insecure_skip_verify, server_name",
		"tls {\n\tclient_certificate x\n}":           "the certificate's file and its key's",
		"via a b":                                    "one too many",
		"via a\n\tvia b":                             "stands twice",
		"fallback x":                                 `unknown option "fallback"`,
		"retry none\n\tretry exponential {\n\t}\n\t": "stands twice",
	} {
		err := new(Entrypoint).UnmarshalCaddyfile(caddyfile.NewTestDispenser("webhook {\n\t" + line + "\n}"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	if err := new(Entrypoint).UnmarshalCaddyfile(caddyfile.NewTestDispenser("webhook hooks")); err == nil {
		t.Error("a name is accepted")
	}
}

func TestModules(t *testing.T) {
	for _, id := range []string{"message_api.entrypoints.webhook", "message_api.consumers.webhook"} {
		info, err := caddy.GetModule(id)
		if err != nil {
			t.Fatal(err)
		}
		_, pushing := info.New().(entrypoints.Pushing)
		if pushing != strings.HasPrefix(id, "message_api.entrypoints") {
			t.Errorf("%s pushes: %t", id, pushing)
		}
	}
}
