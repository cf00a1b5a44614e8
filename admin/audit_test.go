package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Whatever is sent, and wherever it is put, no secret and no definition is in the audit log.
func TestNoSecretsInTheAuditLog(t *testing.T) {
	const password, custom = "hunter2-password", "my-own-key-hunter2-0123456789"
	b := newBench(t)
	withPassword := strings.Replace(definition("/orders", "gold", "manual"), `{"type":"mock"}`, `{"type":"kafka","password":"`+password+`"}`, 1)
	b.must(nil, http.MethodPut, "apis/orders?deploy=true", withPassword)
	b.must(nil, http.MethodPut, "apis/orders/plans/silver", `{"plan":{"type":"api_key","x":"`+password+`"}}`)
	b.application("app")
	b.application("other")
	secrets := []string{password, custom, "hunter2"}
	first := b.subscription("orders", "gold", "app")
	secrets = append(secrets, first.NewKey.Secret)
	var s Subscription
	b.must(&s, http.MethodPost, "subscriptions", `{"api":"orders","plan":"manual","application":"app"}`)
	b.must(&s, http.MethodPost, "subscriptions/"+s.ID+"/accept", `{"key":"`+custom+`"}`)
	var renewed, added NewKey
	b.must(&renewed, http.MethodPost, "keys/"+first.NewKey.ID+"/renew", "")
	b.must(&added, http.MethodPost, "subscriptions/"+first.ID+"/keys", `{"key":"`+custom+`2"}`)
	secrets = append(secrets, renewed.Secret)
	for _, k := range b.subscriptions.Keys(first.ID) {
		secrets = append(secrets, k.Hash)
	}
	// In wrong places, and refused.
	for path, body := range map[string]string{
		"apis/orders":                          `{"wrong":["` + password + `"]}`,
		"apis/orders/plans/silver":             `{"name":"` + password + `"}`,
		"apis/orders/members":                  `{"` + password + `":1}`,
		"subscriptions/" + first.ID + "/keys":  `{"key":"` + password + `!"}`,
		"subscriptions/" + first.ID + "/pause": `{"key":"` + password + `"}`,
	} {
		method := http.MethodPut
		if strings.HasPrefix(path, "subscriptions") {
			method = http.MethodPost
		}
		if a := b.send(method, path, body); a.status != 400 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	b.must(nil, http.MethodGet, "export", "")
	log := b.lines()
	for _, e := range b.log.All() {
		log += fmt.Sprintln(e.Message, e.ContextMap())
	}
	for _, secret := range secrets {
		if secret == "" || strings.Contains(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	if n := b.audit.Len(); n < 14 {
		t.Errorf("%d lines", n)
	}
	if t.Failed() {
		t.Log(log)
	}
}

// One line for every change, with what was changed.
func TestAuditLines(t *testing.T) {
	b := newBench(t)
	for i, c := range []struct {
		method, path, body string
		want               string
	}{
		{"PUT", "apis/orders?deploy=true", definition("/orders", "gold"),
			`api.save kind=api id=orders outcome=done changed=[saved deployed] revision=1 version=1`},
		{"PUT", "apis/orders", definition("/orders", "gold", "silver"), `api.save kind=api id=orders outcome=done changed=[saved] revision=2 version=2`},
		{"POST", "apis/orders/start", "", `api.start kind=api id=orders outcome=unchanged changed=[started] version=2`},
		{"POST", "apis/orders/stop", `{"reason":"for the night"}`, `api.stop kind=api id=orders outcome=done changed=[started] version=3 reason=for the night`},
		{"POST", "apis/orders/plans/silver/deprecate", `{"reason":"old"}`, `plan.deprecate kind=plan id=orders/silver outcome=done changed=[stage] version=4 reason=old`},
		{"DELETE", "apis/orders", `{"reason":"gone"}`, `api.delete kind=api id=orders outcome=refused status=409 problem=conflict reason=gone`},
		{"POST", "applications", `{"id":"app","name":"A"}`, `application.create kind=application id=app outcome=done version=1`},
		{"POST", "applications", `{"id":"app","name":"A"}`, `application.create kind=application id=app outcome=refused status=409 problem=conflict`},
		{"PATCH", "applications/app", `{"owner":"o","client_id":"c"}`, `application.update kind=application id=app outcome=done changed=[client_id owner] version=2`},
		{"PATCH", "applications/app", `{"name":null}`, `application.update kind=application id=app outcome=refused status=400 problem=invalid changed=[name]`},
		{"POST", "apis/none/start", "", `api.start kind=api id=none outcome=refused status=404 problem=not-found`},
		{"POST", "subscriptions", `{"api":"orders","plan":"none","application":"app"}`,
			`subscription.create kind=subscription id= outcome=refused status=400 problem=invalid of=orders/none/app`},
		{"POST", "subscriptions/none/keys", "", `key.create kind=key id= outcome=refused status=404 problem=not-found of=none`},
		{"POST", "subscriptions/" + audit + "/retry", `{"reason":"it is back"}`, `subscription.retry kind=subscription id=orders.audit outcome=done changed=[state] reason=it is back`},
		{"POST", "subscriptions/" + audit + "/retry", "", `subscription.retry kind=subscription id=orders.audit outcome=refused status=409 problem=conflict`},
		{"POST", "subscriptions/" + audit + "/test", `{"payload":"hello"}`, `subscription.test kind=subscription id=orders.audit outcome=done changed=[1 sent]`},
		{"POST", "subscriptions/" + audit + "/dead_letters/redeliver", `{"all":true}`,
			`subscription.redeliver kind=subscription id=orders.audit outcome=done changed=[2 delivered 1 failed 2 removed]`},
		{"POST", "subscriptions/" + audit + "/dead_letters/redeliver", `{"ids":["none"]}`,
			`subscription.redeliver kind=subscription id=orders.audit outcome=unchanged changed=[0 delivered 0 failed 0 removed]`},
		{"GET", "export", "", `store.export kind=store id= outcome=done`},
		{"POST", "store/sync", "", ``},
		{"PUT", "apis/orders?dry_run=true", definition("/orders"), ``},
	} {
		before := b.audit.Len()
		b.send(c.method, c.path, c.body)
		var got string
		for _, e := range b.audit.All()[before:] {
			m := e.ContextMap()
			got += fmt.Sprintf("%v kind=%v id=%v outcome=%v", m["action"], m["kind"], m["id"], m["outcome"])
			for _, name := range []string{"status", "problem", "changed", "of", "new_key", "revision", "version", "reason"} {
				if v, ok := m[name]; ok {
					got += fmt.Sprintf(" %s=%v", name, v)
				}
			}
			if m["by"] != "alice" || !strings.HasPrefix(m["remote"].(string), "127.0.0.1:") {
				t.Errorf("%d: %v", i, m)
			}
		}
		if got != c.want {
			t.Errorf("%d: %s\nwant %s", i, got, c.want)
		}
	}
}

// After a reload of the configuration the lines go to its loggers.
func TestSetLoggers(t *testing.T) {
	b := newBench(t)
	core, later := observer.New(zap.InfoLevel)
	server := New(Deps{Lifecycle: b.lifecycle, Subscriptions: b.subscriptions, Hooks: b.hooks()})
	post := func() {
		r := httptest.NewRequest(http.MethodPost, Prefix+"apis/none/start", nil)
		server.ServeHTTP(httptest.NewRecorder(), r)
	}
	post() // to no logger
	server.SetLoggers(zap.New(core), nil)
	post()
	if later.Len() != 1 {
		t.Errorf("%v", later.All())
	}
}
