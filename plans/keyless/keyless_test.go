package keyless_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/keyless"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModule(t *testing.T) {
	info, err := caddy.GetModule("message_api.plans.keyless")
	if err != nil {
		t.Fatal(err)
	}
	p, ok := info.New().(plans.Plan)
	if !ok || p.Kind() != "keyless" || !p.Anonymous() {
		t.Errorf("%+v", p)
	}
}

// Everybody comes in, whatever they carry, and as nobody in particular.
func TestCheck(t *testing.T) {
	for name, headers := range map[string]http.Header{
		"nothing": {}, "a key": {"X-Gravitee-Api-Key": {"k"}}, "a token": {"Authorization": {"Bearer t"}},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = headers
		k := new(keyless.Keyless)
		if v := k.Check(r); !v.Granted || v.Principal != (plans.Principal{}) || k.Presents(r) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"keyless":      `{}`,
		"keyless {\n}": `{}`,
	} {
		k := new(keyless.Keyless)
		if err := k.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(k); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"keyless everybody":     `"everybody" is one too many`,
		"keyless {\n\tkey x\n}": "key",
	} {
		err := new(keyless.Keyless).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Whoever opens an API to everybody finds a warning in the log that says how to prevent it.
func TestProvisionWarns(t *testing.T) {
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	func() {
		stderr := os.Stderr // where a Caddy context without a configuration logs to
		defer func() { os.Stderr = stderr }()
		os.Stderr = log
		err = new(keyless.Keyless).Provision(ctx)
	}()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"WARN", "lets everybody use this API", "plans_forbidden keyless"} {
		if strings.Count(string(raw), want) != 1 {
			t.Errorf("%q does not say %q once", raw, want)
		}
	}
}
