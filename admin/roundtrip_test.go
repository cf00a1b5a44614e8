package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// no fails the test unless err is a problem of this kind.
func (b *bench) no(err error, status int, slug string) {
	b.Helper()
	if p, ok := errors.AsType[*ProblemDetails](err); !ok || p.Status != status || p.Slug() != slug {
		b.Errorf("%v, want %d %s", err, status, slug)
	}
}

// The life of an API, through the client.
func TestClientLifeOfAnAPI(t *testing.T) {
	b := newBench(t)
	c, ctx := b.client, t.Context()
	_, err := c.API(ctx, "orders")
	b.no(err, 404, NotFound)
	_, err = c.SaveAPI(ctx, "orders", json.RawMessage(`{"wrong":[1,2]}`), Save{})
	b.no(err, 400, InvalidValue)
	dry, err := c.CheckAPI(ctx, "orders", json.RawMessage(definition("/orders", "gold")), true)
	if err != nil || !dry.Valid {
		t.Fatal(dry, err)
	}
	api, err := c.SaveAPI(ctx, "orders", json.RawMessage(definition("/orders", "gold")), Save{CreateOnly: true})
	if err != nil || api.State != "saved" || !api.OutOfSync || api.Name != "Orders" || api.Saved.Number != 1 || api.Saved.By != "alice" || api.ETag != `"1"` || len(api.Paths) != 1 {
		t.Errorf("saved: %+v", api)
	}
	_, err = c.SaveAPI(ctx, "orders", json.RawMessage(definition("/orders")), Save{CreateOnly: true})
	b.no(err, 412, Precondition)
	_, err = c.StartAPI(ctx, "orders", Write{})
	b.no(err, 409, Conflict)
	api, err = c.DeployAPI(ctx, "orders", Write{IfMatch: api.ETag})
	if err != nil || api.State != "started" || api.OutOfSync || api.Deployed.Number != 1 || string(api.Deployed.Definition) == "" {
		t.Fatalf("deployed: %+v, %v", api, err)
	}
	_, err = c.StopAPI(ctx, "orders", Write{IfMatch: `"1"`})
	b.no(err, 412, Precondition)
	for i, act := range []func(context.Context, string, Write) (API, error){c.PublishAPI, c.MakeAPIPublic, c.MakeAPIPrivate, c.UnpublishAPI} {
		if a, err := act(ctx, "orders", Write{Reason: "test"}); err != nil || a.Published != (i < 3) || a.Public != (i == 1) {
			t.Errorf("%d: %+v, %v", i, a, err)
		}
	}
	if api, err = c.SetMembers(ctx, "orders", []string{"group:b", "a"}, ""); err != nil || strings.Join(api.Members, " ") != "a group:b" {
		t.Error(api.Members, err)
	}
	b.lifeOfAPlan()
	if api, err = c.DeprecateAPI(ctx, "orders", Write{}); err != nil || !api.Deprecated {
		t.Error(err)
	}
	b.no(c.DeleteAPI(ctx, "orders", Write{}), 409, Conflict)
	if _, err = c.StopAPI(ctx, "orders", Write{}); err != nil {
		t.Error(err)
	}
	b.no(c.DeleteAPI(ctx, "orders", Write{}), 409, Conflict)
	if err = errors.Join(c.DeletePlan(ctx, "orders", "gold", Write{}), c.DeletePlan(ctx, "orders", "silver", Write{}), c.DeleteAPI(ctx, "orders", Write{Reason: "done"})); err != nil {
		t.Error(err)
	}
	_, err = c.API(ctx, "orders")
	b.no(err, 404, NotFound)
}

func (b *bench) lifeOfAPlan() {
	b.Helper()
	c, ctx := b.client, b.Context()
	p, err := c.PutPlan(ctx, "orders", "silver", json.RawMessage(`{"plan":{"type":"api_key"}}`), "")
	if err != nil || p.Stage != "staging" || !p.Saved || p.Deployed || p.Kind != "api_key" || !strings.Contains(string(p.Definition), "api_key") {
		b.Errorf("%+v, %v", p, err)
	}
	if p, err = c.PublishPlan(ctx, "orders", "silver", Write{IfMatch: p.ETag}); err != nil || p.Stage != "published" {
		b.Errorf("%+v, %v", p, err)
	}
	_, err = c.PublishPlan(ctx, "orders", "none", Write{})
	b.no(err, 404, NotFound)
	if p, err = c.DeprecatePlan(ctx, "orders", "silver", Write{}); err != nil || p.Stage != "deprecated" {
		b.Errorf("%+v, %v", p, err)
	}
	if p, err = c.ClosePlan(ctx, "orders", "silver", Write{Reason: "no more"}); err != nil || p.Stage != "closed" {
		b.Errorf("%+v, %v", p, err)
	}
	_, err = c.PublishPlan(ctx, "orders", "silver", Write{})
	b.no(err, 409, Conflict)
	if p, err = c.Plan(ctx, "orders", "silver"); err != nil || p.Stage != "closed" {
		b.Errorf("%+v, %v", p, err)
	}
	n := 0
	for _, err := range c.Plans(ctx, "orders") {
		if err != nil {
			b.Error(err)
		}
		n++
	}
	if n != 2 {
		b.Errorf("%d plans", n)
	}
}

// The life of a subscription and its keys, through the client.
func TestClientLifeOfASubscription(t *testing.T) {
	b := newBench(t)
	deployed(b)
	c, ctx := b.client, t.Context()
	app, err := c.CreateApplication(ctx, NewApplication{Name: "Shop"})
	if err != nil || app.ID == "" || app.ETag != `"1"` {
		t.Errorf("%+v", app)
	}
	app, err = c.UpdateApplication(ctx, app.ID, ApplicationPatch{Owner: Some("bob")}, app.ETag)
	if err != nil || app.Owner != "bob" || app.Name != "Shop" || app.UpdatedBy != "alice" {
		t.Errorf("%+v, %v", app, err)
	}
	s, err := c.Subscribe(ctx, SubscribeRequest{API: "orders", Plan: "manual", Application: app.ID, Message: "please"})
	if err != nil || s.Status != "pending" || s.NewKey != nil || s.Message != "please" {
		t.Fatalf("%+v, %v", s, err)
	}
	s, err = c.Accept(ctx, s.ID, AcceptRequest{Reason: "fine", Ends: time.Now().Add(24 * time.Hour)}, s.ETag)
	if err != nil || s.Status != "accepted" || s.NewKey == nil || s.ProcessedBy != "alice" || s.Reason != "fine" {
		t.Fatalf("%+v, %v", s, err)
	}
	_, standing := b.subscriptions.Directory("orders", "manual").Key(s.NewKey.Secret)
	if standing.String() != "good" {
		t.Errorf("the key is %s", standing)
	}
	b.lifeOfKeys(s)
	if s, err = c.Pause(ctx, s.ID, Write{Reason: "a while"}); err != nil || s.Status != "paused" || s.Reason != "a while" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = c.Resume(ctx, s.ID, Write{}); err != nil || s.Status != "accepted" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = c.UpdateSubscription(ctx, s.ID, SubscriptionPatch{Limits: Some(&Limits{RateLimit: "5/1s"})}, s.ETag); err != nil || s.Limits.RateLimit != "5/1s" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = c.CloseSubscription(ctx, s.ID, Write{}); err != nil || s.Status != "closed" || s.ClosedAt.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = c.Reject(ctx, s.ID, Write{})
	b.no(err, 409, Conflict)
	if app, err = c.ArchiveApplication(ctx, app.ID, Write{}); err != nil || !app.Archived {
		t.Errorf("%+v, %v", app, err)
	}
	if s, err = c.Subscription(ctx, s.ID); err != nil || s.Status != "closed" || s.NewKey != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

func (b *bench) lifeOfKeys(s Subscription) {
	b.Helper()
	c, ctx := b.client, b.Context()
	k, err := c.AddKey(ctx, s.ID, KeyRequest{Expires: time.Now().Add(time.Hour)})
	if err != nil || k.Secret == "" || k.Subscription != s.ID || !strings.HasSuffix(k.Secret, k.Hint) {
		b.Fatalf("%+v, %v", k, err)
	}
	at := time.Now().Add(30 * time.Minute).Truncate(time.Second)
	changed, err := c.ExpireKey(ctx, k.ID, at, k.ETag)
	if err != nil || !changed.Expires.Equal(at) {
		b.Errorf("%+v, %v", changed, err)
	}
	if changed, err = c.ExpireKey(ctx, k.ID, time.Time{}, changed.ETag); err != nil || !changed.Expires.IsZero() {
		b.Errorf("%+v, %v", changed, err)
	}
	renewed, err := c.RenewKey(ctx, k.ID, Write{})
	if err != nil || renewed.Secret == k.Secret {
		b.Errorf("%+v, %v", renewed, err)
	}
	revoked, err := c.RevokeKey(ctx, k.ID, Write{Reason: "leaked"})
	if err != nil || revoked.RevokedAt.IsZero() || revoked.Reason != "leaked" || revoked.RevokedBy != "alice" {
		b.Errorf("%+v, %v", revoked, err)
	}
	if got, err := c.Key(ctx, k.ID); err != nil || got != revoked {
		b.Errorf("%+v, %v", got, err)
	}
	n := 0
	for one, err := range c.Keys(ctx, s.ID) {
		if err != nil || one.ID == "" {
			b.Error(err)
		}
		n++
	}
	if n != 3 {
		b.Errorf("%d keys", n)
	}
	a := b.send(http.MethodGet, "subscriptions/"+s.ID+"/keys", "")
	if text := string(a.body); strings.Contains(text, "hash") || strings.Contains(text, k.Secret) {
		b.Error("the list says more than it may: " + text)
	}
}

// A key is shown in one answer, which nobody on the way may keep.
func TestKeysAreNotCached(t *testing.T) {
	b := newBench(t)
	deployed(b)
	b.application("app")
	var s Subscription
	a := b.must(&s, http.MethodPost, "subscriptions", `{"api":"orders","plan":"gold","application":"app"}`)
	for _, one := range []answer{
		a, b.must(nil, http.MethodPost, "subscriptions/"+s.ID+"/keys", ""), b.must(nil, http.MethodPost, "keys/"+s.NewKey.ID+"/renew", ""),
		b.must(nil, http.MethodGet, "export", ""),
	} {
		if one.header.Get("Cache-Control") != "no-store" {
			t.Errorf("Cache-Control is %q", one.header.Get("Cache-Control"))
		}
	}
}

// What one store exports another one imports, and again without a change.
func TestExportAndImport(t *testing.T) {
	from, to := newBench(t), newBench(t)
	subscribed("gold")(from)
	from.must(nil, http.MethodPost, "apis/orders/deprecate", "")
	var file bytes.Buffer
	if err := from.client.Export(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	report, err := to.client.Import(t.Context(), bytes.NewReader(file.Bytes()))
	if err != nil || report.Added < 4 || report.Updated+report.NotTaken+len(report.Skipped) != 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	to.lastLine("done", "")
	again, err := to.client.Import(t.Context(), bytes.NewReader(file.Bytes()))
	if err != nil || again.Unchanged != report.Added || again.Added != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	to.lastLine("unchanged", "")
	api, err := to.client.API(t.Context(), "orders")
	if err != nil || !api.Deprecated || api.State != "started" {
		t.Errorf("%+v, %v", api, err)
	}
	status, err := to.client.Store(t.Context())
	if err != nil || status.Records["subscription"] != 1 || status.Records["application"] != 1 || status.Records["api"] != 1 || len(status.Nodes) == 0 || status.Node != status.Nodes[0].ID {
		t.Errorf("%+v, %v", status, err)
	}
	for name, body := range map[string]string{
		"cut": file.String()[:file.Len()-20], "with something behind": file.String() + "{}", "of another format": `{"format":"x"}`,
		"of a later version": `{"format":"message_api/export","version":2,"records":[]}`, "none": "[]", "empty": " ",
	} {
		_, err := to.client.Import(t.Context(), strings.NewReader(body))
		t.Log(name, err)
		to.no(err, 400, InvalidBody)
	}
}

// Two nodes on one storage: what one changes the other shows after a sync.
func TestSyncBetweenNodes(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	one, two := newBenchOn(t, storage), newBenchOn(t, storage)
	deployed(one)
	if _, err := two.client.SyncStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	api, err := two.client.API(t.Context(), "orders")
	if err != nil || api.ETag != `"1"` {
		t.Fatalf("%+v, %v", api, err)
	}
	one.must(nil, http.MethodPost, "apis/orders/publish", "")
	_, err = two.client.StopAPI(t.Context(), "orders", Write{IfMatch: api.ETag})
	two.no(err, 412, Precondition) // though it has not heard of the change
	if _, err = two.client.StopAPI(t.Context(), "orders", Write{IfMatch: `"2"`}); err != nil {
		t.Error(err)
	}
	status, err := two.client.SyncStore(t.Context())
	if err != nil || len(status.Nodes) != 2 {
		t.Errorf("%+v, %v", status, err)
	}
}

// broken is a storage that can be made to fail.
type broken struct {
	certmagic.Storage
	on atomic.Bool
}

func (s *broken) Store(ctx context.Context, key string, value []byte) error {
	if s.on.Load() {
		return errBroken
	}
	return s.Storage.Store(ctx, key, value)
}

func (s *broken) Lock(ctx context.Context, name string) error {
	if s.on.Load() {
		return errBroken
	}
	return s.Storage.Lock(ctx, name)
}

func TestStorageFails(t *testing.T) {
	storage := &broken{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
	b := newBenchOn(t, storage)
	deployed(b)
	storage.on.Store(true)
	defer storage.on.Store(false)
	a := b.send(http.MethodPost, "apis/orders/stop", "")
	p := a.problem(t)
	if p.Status != 503 && p.Status != 504 || strings.Contains(p.Detail, "fire") || a.header.Get("Retry-After") == "" && p.Status == 503 {
		t.Errorf("%+v, %v", p, a.header)
	}
	t.Log(p.Error())
	b.lastLine("failed", p.Slug())
	if b.log.FilterMessage("admin request failed").Len() != 1 || !strings.Contains(b.log.All()[0].ContextMap()["error"].(string), "fire") {
		t.Errorf("log: %v", b.log.All())
	}
	b.must(nil, http.MethodGet, "apis/orders", "") // memory goes on
	storage.on.Store(false)
	b.must(nil, http.MethodPost, "apis/orders/stop", "")
}

// An export that fails in the middle is cut, and is in the audit log as failed.
func TestExportFails(t *testing.T) {
	b := newBench(t)
	hooks := b.hooks()
	var begin atomic.Bool
	begin.Store(true)
	hooks.Store.Export = func(_ context.Context, w io.Writer) error {
		if begin.Load() {
			_, _ = io.WriteString(w, `{"records":[`)
			_ = http.NewResponseController(w.(http.ResponseWriter)).Flush()
		}
		return errBroken
	}
	server := httptest.NewServer(New(Deps{Lifecycle: b.lifecycle, Subscriptions: b.subscriptions, Hooks: hooks}))
	defer server.Close()
	client := &Client{Base: server.URL}
	defer client.Close()
	if err := client.Export(t.Context(), io.Discard); err == nil {
		t.Error("half an export is none")
	}
	begin.Store(false)
	b.no(client.Export(t.Context(), io.Discard), 500, Internal)
}

// Caddy's admin endpoint gives a request 10 s. An import or export that goes on may take longer.
func TestTransfersOutliveTheReadTimeout(t *testing.T) {
	const timeout = 100 * time.Millisecond
	b := newBench(t)
	server := httptest.NewUnstartedServer(b.server.Config.Handler)
	server.Config.ReadTimeout, server.Config.WriteTimeout = timeout, timeout
	server.Start()
	defer server.Close()
	client := &Client{Base: server.URL}
	defer client.Close()
	r, w := io.Pipe()
	go func() {
		for part := range strings.SplitSeq(oneRecord, ",") {
			time.Sleep(timeout / 2) // it is slow: that is what is tested
			_, _ = io.WriteString(w, part)
			if !strings.HasSuffix(part, "}]}") {
				_, _ = io.WriteString(w, ",")
			}
		}
		_ = w.Close()
	}()
	if report, err := client.Import(t.Context(), r); err != nil || report.Added != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}
