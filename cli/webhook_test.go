package cli_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// hooks serves an API that pushes, with a subscription of its own.
const hooks = `
http://localhost:PORT {
	message_api /hooks {
		entrypoint http_post
		entrypoint webhook {
			allow_http
			allow_networks loopback
		}
		endpoint mock {
			loopback
		}
		plan keyless
		plan push {
			validation auto
		}
		subscription audit {
			callback RECEIVER/audit
		}
	}
}
`

// receiver is a consumer that takes everything while it is well.
type receiver struct {
	*httptest.Server
	ill  atomic.Bool
	seen buffer
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := new(receiver)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		if r.ill.Load() {
			http.Error(w, "ill", http.StatusUnprocessableEntity)
			return
		}
		signed := "unsigned"
		if n := len(strings.Fields(q.Header.Get("webhook-signature"))); n > 0 {
			signed = strings.Repeat("signed", n)
		}
		_, _ = io.WriteString(&r.seen, q.URL.Path+" "+signed+" "+q.Header.Get("X-Team")+" "+string(body)+"\n")
	}))
	t.Cleanup(r.Close)
	return r
}

// A consumer subscribes, is called, rotates its secret, falls ill, and gets well again.
func TestWebhooksByCommands(t *testing.T) {
	r := newReceiver(t)
	s := &shell{t, gateway.Start(t, "", strings.ReplaceAll(hooks, "RECEIVER", r.URL)), t.TempDir()}
	app := strings.TrimSpace(s.do("applications", "create", "Web shop", "--quiet"))
	made := s.do("subscriptions", "create", "--api", "hooks", "--plan", "push", "--application", app, "--callback", r.URL+"/shop", "--header", "X-Team: web", "--quiet")
	s.expect(made, "whsec_")
	var list struct{ Items []struct{ ID string } }
	s.get(&list, "subscriptions", "list", "--plan", "push")
	id := list.Items[0].ID
	s.expect(s.do("subscriptions", "get", id), "callback="+r.URL+"/shop", `secrets=[{"hint":"…`)

	s.expect(s.do("subscriptions", "test", id, "-m", "to the shop"), "delivered", "200")
	s.expect(s.do("subscriptions", "test", "hooks.audit", "-m", "to audit"), "delivered", "200")
	s.expect(r.seen.String(), "/shop signed web to the shop\n", "/audit unsigned  to audit\n")
	gateway.Eventually(t, 20*time.Second, "both deliveries", func() bool {
		return strings.Count(s.do("deliveries", "--api", "hooks", "--state", "running"), "hooks") >= 2
	})
	gateway.Eventually(t, 20*time.Second, "a message", func() bool {
		ok(t, "publish", s.URL("/hooks"), "-q", "-m", "hello")
		return strings.Contains(r.seen.String(), "/shop signed web hello") && strings.Contains(r.seen.String(), "/audit unsigned  hello")
	})

	s.do("subscriptions", "update", id, "--rotate-secret", "--header", "X-Team:")
	s.expect(s.do("subscriptions", "test", id, "-m", "rotated"), "delivered")
	s.expect(r.seen.String(), "/shop signedsigned  rotated\n")
	gateway.Eventually(t, 20*time.Second, "a message with both signatures", func() bool {
		ok(t, "publish", s.URL("/hooks"), "-q", "-m", "turned")
		return strings.Contains(r.seen.String(), "/shop signedsigned  turned")
	})
	s.expect(s.refused("subscriptions", "update", id, "--callback", "http://192.0.2.1/"), "Bad Request", "consumer.callback")

	r.ill.Store(true)
	s.expect(s.refused("subscriptions", "test", id, "-m", "x"), "client_error")
	s.expect(s.refused("subscriptions", "retry", id), "Conflict")
	gateway.Eventually(t, 20*time.Second, "the failure", func() bool {
		ok(t, "publish", s.URL("/hooks"), "-q", "-m", "again")
		return strings.Contains(s.do("deliveries", "--state", "failed"), id)
	})
	r.ill.Store(false)
	// That it has failed shows a little before it is stored, and so before it can be retried.
	gateway.Eventually(t, 20*time.Second, "the retry", func() bool {
		return call{args: s.args([]string{"subscriptions", "retry", id, "--reason", "it is well"})}.run(t).failed == nil
	})
	gateway.Eventually(t, 20*time.Second, "another message", func() bool {
		ok(t, "publish", s.URL("/hooks"), "-q", "-m", "well")
		return strings.Contains(r.seen.String(), "/shop signedsigned  well")
	})
	s.expect(s.refused("subscriptions", "pause", "hooks.audit"), "written in the Caddyfile")
	s.expect(s.refused("dead-letters", "list", id), "Conflict")
	s.expect(s.do("subscriptions", "close", id), "closed")
}
