package mock

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]*Mock{
		"mock": {},
		"mock {\nmessage_interval 100us\nmessage_content \"a b {\\\"c\\\": 1}\"\nmessage_count 12\n}": {
			MessageInterval: new(caddy.Duration(100 * time.Microsecond)),
			MessageContent:  new(`a b {"c": 1}`), MessageCount: new(int64(12)),
		},
		"mock {\nmessage_content \"\"\n}": {MessageContent: new("")},
		"mock {\nheader a 1\nheader b \"2 3\"\nheader a 4\nmetadata region eu\nmetadata zone 7\n}": {
			Header: []Pair{{"a", "1"}, {"b", "2 3"}, {"a", "4"}}, Metadata: []Pair{{"region", "eu"}, {"zone", "7"}},
		},
		"mock {\nloopback\n}":     {Loopback: true},
		"mock {\nloopback off\n}": {},
	} {
		var got Mock
		if err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if g, w := asJSON(t, &got), asJSON(t, want); g != w {
			t.Errorf("%s\nyields %s\nwant   %s", text, g, w)
		}
	}
}

func asJSON(t *testing.T, m *Mock) string {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCaddyfileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"mock fast":              `mock takes no value here: "fast" is one too many`,
		"mock {\ninterval 1s\n}": `unknown option "interval" in endpoint mock: use header, loopback, message_content, message_count, message_interval, metadata`,
		"mock {\nmessage_interval 1s\nmessage_interval 2s\n}":                  `option "message_interval" in endpoint mock stands twice, first on line 2`,
		"mock {\nmessage_content a\nmessage_content b\n}":                      `stands twice`,
		"mock {\nloopback\nloopback\n}":                                        `stands twice`,
		"mock {\nmessage_interval\n}":                                          `option "message_interval" needs a value`,
		"mock {\nmessage_interval fast\n}":                                     `is not a duration`,
		"mock {\nmessage_interval -1s\n}":                                      `is not a duration`,
		"mock {\nmessage_interval 0\n}":                                        `use at least 10µs`,
		"mock {\nmessage_interval 1us\n}":                                      `message_interval "1us": use at least 10µs`,
		"mock {\nmessage_interval 1s 2s\n}":                                    `is one too many`,
		"mock {\nmessage_content a b\n}":                                       `is one too many`,
		"mock {\nmessage_content " + strings.Repeat("x", MaxContent+1) + "\n}": `use at most 1048576`,
		"mock {\nmessage_count 0\n}":                                           `is not a whole number of at least 1`,
		"mock {\nmessage_count many\n}":                                        `is not a whole number of at least 1`,
		"mock {\nheader a\n}":                                                  `option "header" needs a name and a value`,
		"mock {\nmetadata a b c\n}":                                            `option "metadata" needs a name and a value`,
		"mock {\nloopback maybe\n}":                                            `loopback "maybe": use on or off`,
	} {
		err := new(Mock).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s\nyields %v\nwant   %s", text, err, want)
		} else if !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%.80s: %v does not name the line", text, err)
		}
	}
}

func TestConfigBounds(t *testing.T) {
	for config, want := range map[string]string{
		`{"message_interval": 0}`:                                                        "message_interval 0s: use at least 10µs",
		`{"message_interval": "9us"}`:                                                    "message_interval 9µs: use at least 10µs",
		`{"message_interval": -5}`:                                                       "use at least 10µs",
		`{"loopback": true, "message_interval": 1}`:                                      "use at least 10µs",
		`{"message_count": 0}`:                                                           "message_count 0: use at least 1",
		`{"message_count": -3}`:                                                          "message_count -3: use at least 1",
		`{"header": [{"name": "", "value": "v"}]}`:                                       "header needs a name",
		`{"metadata": [{"name": "a"}, {"name": "a"}]}`:                                   `metadata "a" stands twice`,
		`{"message_content": "` + strings.Repeat("x", MaxContent+1) + `"}`:               "use at most 1048576",
		`{"header": [` + strings.Repeat(`{"name":"a"},`, maxPairs) + `{"name":"a"}]}`:    "101 of header: use at most 100",
		`{"header": [{"name":"a","value":"` + strings.Repeat("x", maxPairBytes) + `"}]}`: "header has 65537 bytes",
	} {
		if err := load(t, config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s yields %v, want %s", config, err, want)
		}
	}
	for _, config := range []string{
		`{}`, `{"message_interval": "10us"}`, `{"message_interval": 1000000000, "message_count": 1, "message_content": ""}`,
		`{"loopback": true}`, `{"header": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}`,
		`{"message_content": "` + strings.Repeat("x", MaxContent) + `"}`,
	} {
		if err := load(t, config); err != nil {
			t.Errorf("%.80s: %v", config, err)
		}
	}
}

// load loads the module as Caddy does, which refuses unknown names.
func load(t *testing.T, config string) error {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	val, err := ctx.LoadModuleByID("message_api.endpoints.mock", json.RawMessage(config))
	if err == nil && reflect.TypeOf(val) != reflect.TypeFor[*Mock]() {
		t.Fatalf("loaded %T", val)
	}
	return err
}
