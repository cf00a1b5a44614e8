package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// madeSecret is what consumer makes where no secret is given.
const madeSecret = "whsec_bWFkZSBieSB0aGUgZ2F0ZXdheQ=="

// consumer stands in for the entrypoint's check: it patches members, and knows callback,
// secrets and timeout.
func consumer(old, asked json.RawMessage) (whole, shown json.RawMessage, problems []subscriptions.Problem, err error) {
	merged := map[string]any{"secrets": []any{madeSecret}}
	var patch map[string]any
	if old != nil {
		if err := json.Unmarshal(old, &merged); err != nil {
			return nil, nil, nil, err
		}
	}
	if err := json.Unmarshal(asked, &patch); err != nil {
		return nil, nil, nil, err
	}
	maps.Copy(merged, patch)
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		if !slices.Contains([]string{"callback", "secrets", "timeout"}, name) {
			problems = append(problems, subscriptions.Problem{Path: name, Detail: "unknown: use callback, secrets or timeout"})
		}
	}
	if text, _ := merged["callback"].(string); !strings.HasPrefix(text, "https://") {
		problems = append(problems, subscriptions.Problem{Path: "callback", Detail: "it must begin with https://"})
	}
	if len(problems) > 0 {
		return nil, nil, problems, nil
	}
	whole, _ = json.Marshal(merged)
	var hints []map[string]string
	for _, secret := range merged["secrets"].([]any) {
		text := secret.(string)
		hints = append(hints, map[string]string{"hint": "…" + text[len(text)-4:]})
	}
	merged["secrets"] = hints
	shown, _ = json.Marshal(merged)
	return whole, shown, nil, nil
}

// pushable has an application and plans that push.
func pushable(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.must(nil, http.MethodPut, "apis/orders?deploy=true", definition("/orders", "push", "manual-push", "gold"))
	b.application("app")
	return b
}

const hinted = `"secrets":[{"hint":"…eQ=="}]`

// The secrets of a consumer are in the answer that makes the subscription, and in no other.
func TestConsumersAreShownOnce(t *testing.T) {
	b := pushable(t)
	var s Subscription
	a := b.must(&s, http.MethodPost, "subscriptions", `{"api":"orders","plan":"push","application":"app","consumer":{"callback":"https://example.com/a"}}`)
	if want := `{"callback":"https://example.com/a","secrets":["` + madeSecret + `"]}`; string(s.Consumer) != want {
		t.Errorf("%s, want %s", s.Consumer, want)
	}
	if cc := a.header.Get("Cache-Control"); a.status != 201 || cc != "no-store" || s.Status != "accepted" {
		t.Errorf("%d, %s, %+v", a.status, cc, s)
	}
	one := "subscriptions/" + s.ID
	for _, c := range []struct{ method, path, body string }{
		{"GET", one, ""},
		{"GET", "subscriptions?plan=push", ""},
		{"POST", one + "/pause", ""},
		{"PATCH", one, `{"metadata":{"a":"b"}}`},
		{"PATCH", one, `{"consumer":{"timeout":"5s"}}`},
		{"POST", one + "/resume", ""},
	} {
		text := string(b.must(nil, c.method, c.path, c.body).body)
		if strings.Contains(text, "whsec_") || !strings.Contains(text, hinted) {
			t.Errorf("%s %s: %s", c.method, c.path, text)
		}
	}
	b.must(&s, http.MethodGet, one, "")
	if want := `{"callback":"https://example.com/a",` + hinted + `,"timeout":"5s"}`; string(s.Consumer) != want {
		t.Errorf("%s, want %s", s.Consumer, want)
	}
	if log := b.lines(); strings.Contains(log, "whsec_") || strings.Contains(log, "example.com") || !strings.Contains(log, `"changed":["consumer"]`) {
		t.Error(log)
	}
	if text := string(b.must(nil, http.MethodGet, "export", "").body); strings.Contains(text, madeSecret) {
		t.Error("a secret is in the export")
	}
}

// Under manual validation what is in force stays so until somebody accepts the other one.
func TestProposals(t *testing.T) {
	b := pushable(t)
	c, ctx := b.client, t.Context()
	s, err := c.Subscribe(ctx, SubscribeRequest{API: "orders", Plan: "manual-push", Application: "app", Consumer: json.RawMessage(`{"callback":"https://example.com/a"}`)})
	if err != nil || s.Status != "pending" {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err = c.Accept(ctx, s.ID, AcceptRequest{}, s.ETag); err != nil || s.Proposed != nil {
		t.Fatalf("%+v, %v", s, err)
	}
	propose := func(host string) {
		t.Helper()
		patch := SubscriptionPatch{Consumer: Some(json.RawMessage(`{"callback":"https://` + host + `"}`))}
		if s, err = c.UpdateSubscription(ctx, s.ID, patch, s.ETag); err != nil || s.Proposed == nil || s.Proposed.By != "alice" || s.Proposed.At.IsZero() {
			t.Fatalf("%+v, %v", s, err)
		}
		if got := string(s.Proposed.Consumer); !strings.Contains(got, host) || !strings.Contains(got, hinted) || strings.Contains(string(s.Consumer), host) {
			t.Errorf("%s is proposed instead of %s", got, s.Consumer)
		}
	}
	propose("one.example.com")
	if s, err = c.Reject(ctx, s.ID, Write{Reason: "no"}); err != nil || s.Proposed != nil || s.Status != "accepted" || !strings.Contains(string(s.Consumer), "//example.com/a") {
		t.Errorf("%+v, %v", s, err)
	}
	propose("two.example.com")
	_, err = c.Accept(ctx, s.ID, AcceptRequest{Key: "my-own-key-0123456789-0123456789"}, "")
	b.no(err, 400, InvalidValue)
	if s, err = c.Accept(ctx, s.ID, AcceptRequest{Reason: "fine"}, s.ETag); err != nil || s.Proposed != nil || !strings.Contains(string(s.Consumer), "two.example.com") {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = c.Accept(ctx, s.ID, AcceptRequest{}, "")
	b.no(err, 409, Conflict)
}

func TestBadConsumers(t *testing.T) {
	b := pushable(t)
	var s Subscription
	b.must(&s, http.MethodPost, "subscriptions", `{"api":"orders","plan":"push","application":"app","consumer":{"callback":"https://example.com/a"}}`)
	for _, c := range []struct{ plan, consumer, path string }{
		{"push", `{"callback":"http://example.com","hunter":2}`, "consumer.hunter consumer.callback"},
		{"push", `["https://example.com"]`, "consumer"},
		{"push", `{"callback":"https://a","callback":"https://b"}`, "consumer.callback"},
		{"push", `null`, "consumer"},
		{"gold", `{"callback":"https://example.com"}`, "consumer"},
	} {
		for i, send := range []func() answer{
			func() answer {
				return b.send(http.MethodPost, "subscriptions", fmt.Sprintf(`{"api":"orders","plan":%q,"application":"app","consumer":%s}`, c.plan, c.consumer))
			},
			func() answer { return b.send(http.MethodPatch, "subscriptions/"+s.ID, `{"consumer":`+c.consumer+`}`) },
		} {
			if i == 1 && c.plan == "gold" {
				continue
			}
			a := send()
			var paths []string
			for _, p := range a.problem(t).Problems {
				paths = append(paths, p.Path)
			}
			if got := strings.Join(paths, " "); a.status != 400 || got != c.path {
				t.Errorf("%s: %d %s", c.consumer, a.status, a.body)
			}
		}
	}
	if log := b.lines(); strings.Contains(log, "hunter") || strings.Contains(log, "example.com") {
		t.Error(log)
	}
}
