package module

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func definition(paths ...string) *Definition {
	return &Definition{
		Paths: paths, EntrypointsRaw: []json.RawMessage{json.RawMessage(`{"type":"sse"}`)},
		Endpoints: []*EndpointConfig{{EndpointRaw: json.RawMessage(`{"type":"mock"}`)}},
		Plans:     []*PlanConfig{{PlanRaw: json.RawMessage(`{"type":"keyless"}`)}},
	}
}

func TestNormalize(t *testing.T) {
	d := definition("/QS-Message-API/", "//b/./c")
	d.Origins = []string{"https://App.example.com/", "*"}
	if err := d.normalize(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.Paths, []string{"/qs-message-api", "/b/c"}) || d.ID != "qs-message-api" {
		t.Errorf("paths %q, id %q", d.Paths, d.ID)
	}
	if !slices.Equal(d.Origins, []string{"https://app.example.com", "*"}) || d.SlowClient != "gap" || d.LogSize != defaultLogSize {
		t.Errorf("%+v", d)
	}
	// Caddy may provision a handler again: nothing changes.
	before, err := hashOf(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.normalize(); err != nil {
		t.Fatal(err)
	}
	if after, err := hashOf(d); err != nil || after != before {
		t.Errorf("normalizing twice changes the definition, %v", err)
	}
}

func TestNormalizeRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Definition)
		want   string
	}{
		"no path":             {func(d *Definition) { d.Paths = nil }, "at least one context path"},
		"relative path":       {func(d *Definition) { d.Paths = []string{"a"} }, `"a" must begin with /`},
		"second path":         {func(d *Definition) { d.Paths = []string{"/a", "/b*"} }, "plain path"},
		"id of other letters": {func(d *Definition) { d.ID = "a.b" }, "use 1 to 64"},
		"id with a slash":     {func(d *Definition) { d.ID = "a/b" }, "use 1 to 64"},
		"long id":             {func(d *Definition) { d.ID = strings.Repeat("a", 65) }, "use 1 to 64"},
		"long path":           {func(d *Definition) { d.Paths = []string{"/" + strings.Repeat("a", 65)} }, "use 1 to 64"},
		"origin":              {func(d *Definition) { d.Origins = []string{"app.example.com"} }, "scheme://host"},
		"origin with path":    {func(d *Definition) { d.Origins = []string{"https://a/b"} }, "scheme://host"},
		"slow_client":         {func(d *Definition) { d.SlowClient = "drop" }, "use gap or close"},
		"errors":              {func(d *Definition) { d.Errors = "json" }, "use caddy"},
		"log_size":            {func(d *Definition) { d.LogSize = minLogSize - 1 }, "log_size"},
		"negative log_size":   {func(d *Definition) { d.LogSize = -1 }, "log_size"},
		"no entrypoint":       {func(d *Definition) { d.EntrypointsRaw = nil }, "at least one entrypoint"},
		"no endpoint":         {func(d *Definition) { d.Endpoints = nil }, "at least one endpoint"},
		"no plan":             {func(d *Definition) { d.Plans = nil }, "plan keyless"},
	} {
		t.Run(name, func(t *testing.T) {
			d := definition("/a")
			tc.change(d)
			if err := d.normalize(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestKebab(t *testing.T) {
	for path, want := range map[string]string{
		"/": "root", "": "root", "/a": "a", "/a/b": "a-b", "/A_b.c": "a-b-c", "/--a--": "a", "/über": "ber", "/€": "root", "/v1/orders": "v1-orders",
	} {
		if got := kebab(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestContextPath(t *testing.T) {
	for path, want := range map[string]string{
		"/": "", "//": "", "/a": "/a", "/a/": "/a", "/A/B": "/a/b", "/a//b": "/a/b", "/a/./b": "/a/b", "/a/../b": "/b", "/../a": "/a",
	} {
		if got, err := contextPath(path); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"", "a", "*", "/a*", "/a?b", "/a#b", "/{http.request.host}", "/a b", "/a%20b", "/a\tb"} {
		if got, err := contextPath(path); err == nil {
			t.Errorf("%q became %q", path, got)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		context, path string
		want          bool
	}{
		{"/b", "/b", true}, {"/b", "/b/", true}, {"/b", "/b/c/d", true}, {"/b", "/bzz", false}, {"/b", "/", false}, {"/b", "/a/b", false},
		{"/b/c", "/b", false}, {"/b/c", "/b/c", true}, {"/b/c", "/b/cc", false},
		{"", "/", true}, {"", "/anything", true}, {"", "", true},
	} {
		if got := covers(tc.context, tc.path); got != tc.want {
			t.Errorf("%q covers %q: %v", tc.context, tc.path, got)
		}
	}
	h := &Handler{Definition: Definition{Paths: []string{"/b", "/second"}}}
	for path, want := range map[string]bool{
		"/B": true, "//b//": true, "/x/../b": true, "/b/../x": false, "/SECOND/x": true, "/secondary": false, "": false,
	} {
		if got := h.covers(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

func hashJSON(t *testing.T, raw string) string {
	t.Helper()
	h, err := hashOf(json.RawMessage(raw))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHash(t *testing.T) {
	base := hashJSON(t, `{"a":1,"b":{"c":[1,2],"d":"x"},"e":12345678901234567890}`)
	if got := hashJSON(t, ` {"e":12345678901234567890, "b":{"d":"x","c":[1,2]}, "a":1}`); got != base {
		t.Error("the order of keys counts")
	}
	for name, other := range map[string]string{
		"a value":        `{"a":2,"b":{"c":[1,2],"d":"x"},"e":12345678901234567890}`,
		"order in lists": `{"a":1,"b":{"c":[2,1],"d":"x"},"e":12345678901234567890}`,
		"a big number":   `{"a":1,"b":{"c":[1,2],"d":"x"},"e":12345678901234567891}`,
		"a type":         `{"a":"1","b":{"c":[1,2],"d":"x"},"e":12345678901234567890}`,
		"an empty one":   `{"a":1,"b":{"c":[1,2],"d":"x"},"e":12345678901234567890,"f":""}`,
	} {
		if hashJSON(t, other) == base {
			t.Errorf("%s does not count", name)
		}
	}
	if _, err := hashOf(json.RawMessage(`{`)); err == nil {
		t.Error("broken JSON has a hash")
	}
}

// A secret that changed is a definition that changed, though it is written as before.
func TestHashFollowsSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const byEnv = `{"sasl":{"password":["x{env.MESSAGE_API_TEST}"]}}`
	byFile := `{"password":"{file.` + file + `}"}`
	t.Setenv("MESSAGE_API_TEST", "one")
	write("one")
	env, fromFile := hashJSON(t, byEnv), hashJSON(t, byFile)
	if hashJSON(t, byEnv) != env || hashJSON(t, byFile) != fromFile {
		t.Error("an unchanged secret changes the hash")
	}
	t.Setenv("MESSAGE_API_TEST", "two")
	write("two")
	if hashJSON(t, byEnv) == env || hashJSON(t, byFile) == fromFile {
		t.Error("a changed secret does not change the hash")
	}
}

// Placeholders of the request and of the moment stand for nothing yet.
func TestHashDoesNotFollowTheClock(t *testing.T) {
	const raw = `{"key":"{time.now.unix_ms} {time.now} {http.request.host}"}`
	before := hashJSON(t, raw)
	eventually(t, "the clock to go on", func() bool { return time.Now().UnixNano()%2e6 > 1e6 })
	eventually(t, "the clock to go on", func() bool { return time.Now().UnixNano()%2e6 < 1e6 })
	if hashJSON(t, raw) != before {
		t.Error("the same definition is another one a moment later")
	}
	// What is written differently is different, whatever it would be expanded to.
	if hashJSON(t, `{"key":"{http.request.host}"}`) == hashJSON(t, `{"key":"\\{http.request.host}"}`) {
		t.Error("an escaped placeholder is taken for the placeholder")
	}
	unclosed := strings.Repeat("{", 200)
	if hashJSON(t, `"`+unclosed+`a"`) == hashJSON(t, `"`+unclosed+`b"`) {
		t.Error("texts with many braces are all the same")
	}
}

func TestCloneIsIndependent(t *testing.T) {
	d := definition("/a")
	c, err := d.clone()
	if err != nil {
		t.Fatal(err)
	}
	c.Endpoints[0].EndpointRaw, c.Paths[0], c.EntrypointsRaw[0] = nil, "/b", nil
	if string(d.Endpoints[0].EndpointRaw) != `{"type":"mock"}` || d.Paths[0] != "/a" || string(d.EntrypointsRaw[0]) != `{"type":"sse"}` {
		t.Errorf("%+v", d)
	}
}

func TestTypeOf(t *testing.T) {
	for raw, want := range map[string]string{`{"type":"mock","x":1}`: "mock", `{}`: "", `{"type":1}`: "", `[]`: "", ``: ""} {
		if got := typeOf(json.RawMessage(raw)); got != want {
			t.Errorf("%s: %q", raw, got)
		}
	}
}
