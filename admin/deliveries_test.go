package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestListOfDeliveries(t *testing.T) {
	b := newBench(t)
	for i := range 130 {
		d := Delivery{Subscription: fmt.Sprintf("s%03d", 129-i), API: "shop", State: DeliveryRunning, Parked: []Parked{{ID: "m"}, {ID: "n"}}}
		if i%2 == 0 {
			d.State = DeliveryTrouble
		}
		b.pushed.deliveries = append(b.pushed.deliveries, d)
	}
	for want, q := range map[int]DeliveryQuery{
		131: {},
		130: {API: "shop"},
		65:  {State: DeliveryTrouble},
		1:   {API: "orders", State: DeliveryFailed},
		0:   {API: "none"},
	} {
		q.Limit = 50
		last, n := "", 0
		for d, err := range b.client.Deliveries(t.Context(), q) {
			if err != nil || d.Subscription <= last {
				t.Fatalf("%s after %s: %v", d.Subscription, last, err)
			}
			if d.Parked != nil || d.Recent != nil || d.API == "shop" && d.ParkedMessages != 2 {
				t.Errorf("%+v", d)
			}
			last = d.Subscription
			n++
		}
		if n != want {
			t.Errorf("%+v: %d, want %d", q, n, want)
		}
	}
	if p := b.refused(400, BadRequest, http.MethodGet, "deliveries?state=broken", ""); !strings.Contains(p.Detail, "waiting, running, trouble, failed, stopped") {
		t.Error(p.Detail)
	}
}

func TestDelivery(t *testing.T) {
	b := newBench(t)
	d, err := b.client.Delivery(t.Context(), audit)
	if err != nil || d.State != DeliveryFailed || !d.Static || *d.Backlog != 7 || d.ParkedMessages != 1 || d.Parked[0].ID != "msg_p" ||
		d.Recent[0].Duration != Duration(1500*time.Millisecond) {
		t.Errorf("%+v, %v", d, err)
	}
	d, err = b.client.RetryDelivery(t.Context(), audit, Write{Reason: "it is back"})
	if err != nil || d.State != DeliveryRunning || strings.Join(b.pushed.retried, ";") != "alice "+audit {
		t.Errorf("%+v, %v, %v", d, err, b.pushed.retried)
	}
	if n := b.audit.Len(); n != 1 || !strings.Contains(b.lines(), `"reason":"it is back"`) {
		t.Errorf("%d lines: %s", n, b.lines())
	}
	_, err = b.client.RetryDelivery(t.Context(), audit, Write{})
	b.no(err, 409, Conflict)
}

func TestTestMessages(t *testing.T) {
	b := newBench(t)
	for body, want := range map[string]string{
		``:                                 `application/json {"subscription":"orders.audit","type":"test"}`,
		`{}`:                               `application/json {"subscription":"orders.audit","type":"test"}`,
		`{"payload":null}`:                 `application/json {"subscription":"orders.audit","type":"test"}`,
		`{"payload":"h\u00e4llo"}`:         `text/plain; charset=utf-8 hällo`,
		`{"payload":""}`:                   `text/plain; charset=utf-8 `,
		`{"payload": {"a": [1, 2.50]} }`:   `application/json {"a": [1, 2.50]}`,
		`{"payload":12345678901234567890}`: `application/json 12345678901234567890`,
		`{"payload":"<a/>","content_type":"text/xml"}`: `text/xml <a/>`,
	} {
		var a Attempt
		b.pushed.tested = nil
		b.must(&a, http.MethodPost, "subscriptions/"+audit+"/test", body)
		m := b.pushed.tested[0]
		if got := m.ContentType + " " + string(m.Payload); got != want || a.Status != 503 {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
	long := strings.Repeat("x", maxTest)
	if _, err := b.client.TestDelivery(t.Context(), audit, TestRequest{Payload: json.RawMessage(`"` + long + `"`)}); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ body, path string }{
		{`{"payload":"` + long + `x"}`, "payload"},
		{`{"payload":["` + long + `"]}`, "payload"},
		{`{"payload":{"a":1,"a":2}}`, "payload.a"},
		{`{"content_type":"text/plain\r\nX: y"}`, "content_type"},
		{`{"content_type":"text/` + strings.Repeat("x", maxContentType) + `"}`, "content_type"},
		{`{"content_type":"text"}`, "content_type"},
	} {
		b.pushed.tested = nil
		p := b.refused(400, InvalidBody, http.MethodPost, "subscriptions/"+audit+"/test", c.body)
		if len(p.Problems) != 1 || p.Problems[0].Path != c.path || b.pushed.tested != nil {
			t.Errorf("%.60s: %+v", c.body, p.Problems)
		}
	}
	b.pushed.fails = NewProblem(http.StatusConflict, Conflict, "the API orders is stopped")
	_, err := b.client.TestDelivery(t.Context(), audit, TestRequest{})
	b.no(err, 409, Conflict)
}

// Where nothing is wired, nothing is said to be done.
func TestNoWebhooks(t *testing.T) {
	b := newBench(t)
	hooks := b.hooks()
	hooks.Push = PushHooks{}
	server := httptest.NewServer(New(Deps{Lifecycle: b.lifecycle, Subscriptions: b.subscriptions, Hooks: hooks}))
	defer server.Close()
	b.server.URL = server.URL
	for _, o := range operations {
		if strings.HasPrefix(o.path, "deliveries") || o.ready != nil && strings.Contains(o.path, "%s") && strings.Contains(fmt.Sprint(o.missing), "none/") && isDelivery(o.path) {
			b.refused(503, NoWebhooks, o.method, o.at([]any{audit}), o.body)
		}
	}
	b.refused(404, NotFound, http.MethodGet, "subscriptions/"+audit, "")
}

func isDelivery(path string) bool {
	for _, end := range []string{"/delivery", "/retry", "/test", "/dead_letters?limit=2", "/redeliver"} {
		if strings.HasSuffix(path, end) {
			return true
		}
	}
	return false
}

// What is written in the Caddyfile can be looked at, and not changed.
func TestSubscriptionsOfTheCaddyfile(t *testing.T) {
	b := newBench(t)
	for path, method := range map[string]string{
		"": "GET", "/keys": "GET", "/accept": "POST", "/reject": "POST", "/pause": "POST", "/resume": "POST", "/close": "POST",
	} {
		p := b.refused(404, NotFound, method, "subscriptions/"+audit+path, "")
		if !strings.Contains(p.Detail, "written in the Caddyfile") {
			t.Errorf("%s: %s", path, p.Detail)
		}
		if p := b.refused(404, NotFound, method, "subscriptions/orders.none"+path, ""); strings.Contains(p.Detail, "Caddyfile") {
			t.Errorf("%s: %s", path, p.Detail)
		}
	}
	for _, path := range []string{"", "/keys"} {
		method := map[string]string{"": "PATCH", "/keys": "POST"}[path]
		if p := b.refused(404, NotFound, method, "subscriptions/"+audit+path, "{}"); !strings.Contains(p.Detail, "written in the Caddyfile") {
			t.Errorf("%s: %s", path, p.Detail)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]string{`{"duration":"1.5s"}`: `{"id":"","outcome":"","duration":"1.5s"}`, `{"duration":"2m"}`: `{"id":"","outcome":"","duration":"2m0s"}`} {
		var a Attempt
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(a); err != nil || string(got) != want {
			t.Errorf("%s, %v", got, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"duration":"fast"}`), new(Attempt)); err == nil {
		t.Error("fast is no duration")
	}
}
