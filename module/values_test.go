package module

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// requestValues are the values of a request whose placeholder {v} stands for v.
func requestValues(v any) endpoints.Values {
	repl := caddy.NewReplacer()
	repl.Set("v", v)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	return valuesOf(r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl)))
}

func TestValuesText(t *testing.T) {
	for _, value := range []string{"", "a", "*", "a/b/#", strings.Repeat("x", 1000), "{env.HOME}", "{v}", "\x00\n"} {
		if got, err := requestValues(value).Text("<{v}|{v}>"); err != nil || got != "<"+value+"|"+value+">" {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	if got, err := requestValues(nil).Text("[{nobody.knows.this}]"); err != nil || got != "[]" {
		t.Errorf("an unknown placeholder is %q, %v", got, err)
	}
	if got, err := requestValues(17).Text(`{v} \{v}`); err != nil || got != "17 {v}" {
		t.Errorf("number and escape: %q, %v", got, err)
	}
}

func TestValuesName(t *testing.T) {
	for _, value := range []any{"a", "Orders.v1_~-", strings.Repeat("x", 128), 17} {
		if got, err := requestValues(value).Name("t/{v}/+"); err != nil || got != "t/"+caddy.ToString(value)+"/+" {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	for _, value := range []any{
		"", nil, "*", "#", "+", ">", "a/b", "a b", "a\n", "\x00", "ü", "{v}", "$share", "a,b", "a:b", "a\\b", "%2f", strings.Repeat("x", 129),
	} {
		got, err := requestValues(value).Name("t/{v}")
		if got != "" || message.KindOf(err) != message.BadInput || err == nil || !strings.Contains(err.Error(), "{v}") {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	// One bad value among good ones is enough, and an absent header is an empty value.
	if got, err := requestValues("a").Name("{v}/{nobody.knows.this}"); err == nil {
		t.Errorf("an unknown placeholder gave %q", got)
	}
}

// What is written without placeholders stands as it is: its author may use wildcards.
func TestValuesWithoutPlaceholders(t *testing.T) {
	v := valuesOf(httptest.NewRequest(http.MethodGet, "/", nil))
	for _, s := range []string{"", "a/#", "orders.*", "a}b"} {
		if got, err := v.Name(s); err != nil || got != s {
			t.Errorf("name %q: %q, %v", s, got, err)
		}
		if got, err := v.Text(s); err != nil || got != s {
			t.Errorf("text %q: %q, %v", s, got, err)
		}
	}
	if _, err := v.Name("{http.request.host}"); message.KindOf(err) != message.BadInput {
		t.Errorf("without a replacer: %v", err)
	}
}

// A request never reads the environment or files of the gateway.
func TestValuesNeverReadSecrets(t *testing.T) {
	const secret = "s3cret"
	t.Setenv("MESSAGE_API_TEST_SECRET", secret)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"{env.MESSAGE_API_TEST_SECRET}", "{file." + file + "}", "{v}{env.MESSAGE_API_TEST_SECRET}"} {
		v := requestValues("a")
		for name, expand := range map[string]func(string) (string, error){"Text": v.Text, "Name": v.Name} {
			got, err := expand(s)
			if err == nil || strings.Contains(got+err.Error(), secret) {
				t.Errorf("%s(%s): %q, %v", name, s, got, err)
			}
		}
	}
	// A value that looks like a placeholder is a value.
	if got, err := requestValues("{env.MESSAGE_API_TEST_SECRET}").Text("{v}"); err != nil || strings.Contains(got, secret) {
		t.Errorf("a client's placeholder: %q, %v", got, err)
	}
}
