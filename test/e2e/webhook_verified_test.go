package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
	"github.com/caddy-message-api/caddy-message-api/test/receivers"
)

// What arrives is what was published, and the official libraries of Standard Webhooks say that
// it was signed with the secret: also while there are two, of which a receiver knows one.
func TestWebhookVerified(t *testing.T) {
	const current, former = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", "whsec_d2VhcmVyb3RhdGluZ291cnNlY3JldHNldmVyeXllYXI="
	all := map[string]*receivers.Receiver{"go": receivers.StartGo(t, current), "go_former": receivers.StartGo(t, former)}
	if !testing.Short() {
		all["python"], all["node"] = receivers.StartPython(t, current), receivers.StartNode(t, current)
	}
	var subscriptions strings.Builder
	for name, r := range all {
		fmt.Fprintf(&subscriptions, "subscription %s {\n callback %s\n secret %s %s\n}\n", name, r.URL, current, former)
	}
	g := gateway.Start(t, "", site(hookAPI("message_headers X-*", hookTopics(t), "plan keyless\n"+subscriptions.String())))

	for _, p := range []struct{ name, body, kind string }{
		{"text", "hello", "text/plain; charset=utf-8"},
		{"json", `{"n":1,"text":"ü"}`, "application/json"},
		{"bom", "\uFEFF<a/>", "application/xml"},
		{"binary", "\x00\xff\x00\xfe\r\n\x80", "application/octet-stream"},
		{"gzip", zipped(t, `{"n":1}`), "application/json"},
		{"large", strings.Repeat("0123456789abcdef", 32<<10), "text/plain"},
		{"form", "a=1&b=2", "application/x-www-form-urlencoded"},
		{"lines", "a\r\nb\n\n", "text/plain"},
	} {
		if a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/hooks"), p.body, "X-Kind", p.name, "Content-Type", p.kind); a.Status != 202 {
			t.Fatalf("%s: %d %s", p.name, a.Status, a.Body)
		}
		for name, r := range all {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			got, err := r.Next(ctx)
			cancel()
			if err != nil {
				t.Fatalf("%s, %s: %v", p.name, name, err)
			}
			if !got.Verified || got.Helped && (name == "go" || name == "go_former") {
				t.Errorf("%s: the library for %s says: %s", p.name, name, got.Error)
			}
			if !bytes.Equal(got.Body, []byte(p.body)) || got.Headers.Get("X-Kind") != p.name {
				t.Errorf("%s: to %s came %.40q, %v", p.name, name, got.Body, got.Headers)
			}
			if want := p.kind; want != "" && got.Headers.Get("Content-Type") != want {
				t.Errorf("%s: to %s as %q", p.name, name, got.Headers.Get("Content-Type"))
			}
		}
	}
}

func zipped(t *testing.T, text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
