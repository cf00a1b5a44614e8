package push_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/push"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModule(t *testing.T) {
	info, err := caddy.GetModule("message_api.plans.push")
	if err != nil {
		t.Fatal(err)
	}
	p, ok := info.New().(plans.Plan)
	if !ok || p.Kind() != "push" || p.Anonymous() {
		t.Errorf("%+v", p)
	}
}

// Nobody comes in, whatever they carry, and whoever tries is told why.
func TestCheck(t *testing.T) {
	for name, headers := range map[string]http.Header{
		"nothing": {}, "a key": {"X-Gravitee-Api-Key": {"k"}}, "a token": {"Authorization": {"Bearer t"}}, "an id": {"Webhook-Id": {"msg_1"}},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = headers
		p := new(push.Push)
		v := p.Check(r)
		if v.Granted || v.Principal != (plans.Principal{}) || v.Status != http.StatusUnauthorized || p.Presents(r) {
			t.Errorf("%s: %+v", name, v)
		}
		if !strings.Contains(v.Detail, "webhook subscriptions only") || v.Cause == "" {
			t.Errorf("%s is told %q, and the log %q", name, v.Detail, v.Cause)
		}
	}
}

func TestCaddyfile(t *testing.T) {
	for _, text := range []string{"push", "push {\n}"} {
		p := new(push.Push)
		if err := p.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := json.Marshal(p); err != nil || string(got) != "{}" {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"push hooks":                          `"hooks" is one too many`,
		"push {\n\tcallback https://a.com\n}": `unknown option "callback" in plan push: use no options`,
	} {
		err := new(push.Push).UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
