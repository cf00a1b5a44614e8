package cluster

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// refusal is how long a write may take to be refused when the storage does not answer.
const refusal = 15 * time.Second

// create makes an application and returns its id.
func (n *node) create(name string) (string, error) {
	app, err := n.admin.CreateApplication(n.t.Context(), admin.NewApplication{Name: name})
	return app.ID, err
}

// A storage that hangs, or is gone, stops no request and no stream. Changes are refused
// meanwhile, in words, and come about afterwards.
func TestStorageFails(t *testing.T) {
	skipShort(t)
	server := brokers.Redis(t)
	a, b := startTwo(t, onRedis(server, "timeout 1s"), syncInterval)
	s := a.subscribe("orders")
	b.sees(time.Now(), "a key", "/orders", s.key, http.StatusOK)
	running := open(b, s.key)
	for _, fault := range []struct {
		what       string
		begin, end func()
	}{
		{"hangs", server.Pause, server.Resume},
		{"is gone", server.Kill, server.Restart},
	} {
		fault.begin()
		a.refuses("making an application while the storage "+fault.what, b, s.key, func() error {
			_, err := a.create("refused")
			return err
		})
		a.refuses("pausing a subscription while the storage "+fault.what, b, s.key, func() error {
			_, err := a.admin.Pause(t.Context(), s.subscription, admin.Write{})
			return err
		})
		if _, err := b.admin.Subscription(t.Context(), s.subscription); err != nil {
			t.Errorf("asking while the storage %s: %v", fault.what, err)
		}
		running.goesOn()
		fault.end()
		a.writesAgain("made an application", func() error {
			_, err := a.create("afterwards")
			return err
		})
		late := a.subscribe("orders")
		b.sees(time.Now(), "a key that was made afterwards", "/orders", late.key, http.StatusOK)
		for app, err := range b.admin.Applications(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if app.Name == "refused" {
				t.Error("a write that was refused has come about")
			}
		}
		running.goesOn()
	}
	a.writesAgain("paused the subscription", func() error { // the lock may have outlived the refusal
		_, err := a.admin.Pause(t.Context(), s.subscription, admin.Write{})
		return err
	})
	running.ends(time.Now(), "revoked")
	server.Pause()
	t.Logf("B ended %s after SIGTERM while the storage hangs", b.Terminate(refusal).Round(time.Millisecond))
}

// refuses makes sure that a write is refused in time and in words, while both nodes serve.
func (n *node) refuses(what string, other *node, key string, write func() error) {
	n.t.Helper()
	began := time.Now()
	refused := make(chan error, 1)
	go func() { refused <- write() }()
	asked := n.servesUntil(refused, other, key)
	err, took := <-refused, time.Since(began)
	n.t.Logf("%s: refused after %s, and %d requests were served meanwhile: %v", what, took.Round(time.Millisecond), asked, err)
	var problem *admin.ProblemDetails
	switch {
	case !errors.As(err, &problem):
		n.t.Errorf("%s: %v", what, err)
	case problem.Status != http.StatusServiceUnavailable || problem.Slug() != admin.Unavailable || problem.Detail == "":
		n.t.Errorf("%s: %d %s %q", what, problem.Status, problem.Type, problem.Detail)
	}
	if took > refusal {
		n.t.Errorf("%s: refused after %s", what, took)
	}
}

// servesUntil asks both nodes until something comes, which it leaves in its channel, and
// counts the requests. None may fail or take long.
func (n *node) servesUntil(done chan error, other *node, key string) (asked int) {
	n.t.Helper()
	for len(done) == 0 {
		for _, n := range []*node{n, other} {
			began := time.Now()
			if got := n.get("/orders", key).Status; got != http.StatusOK {
				n.t.Fatalf("%s: %d while the storage hangs", n.name, got)
			}
			if took := time.Since(began); took > time.Second {
				n.t.Errorf("%s: a request took %s while the storage hangs", n.name, took)
			}
			asked++
		}
	}
	return asked
}

// writesAgain waits until a write succeeds.
func (n *node) writesAgain(what string, write func() error) {
	n.t.Helper()
	began := time.Now()
	gateway.Eventually(n.t, refusal, n.name+" "+what, func() bool {
		err := write()
		if problem := (*admin.ProblemDetails)(nil); err != nil && !errors.As(err, &problem) {
			n.t.Fatal(err)
		}
		return err == nil
	})
	n.t.Logf("%s %s %s after the storage was back", n.name, what, time.Since(began).Round(time.Millisecond))
}

// A gateway whose storage is away starts all the same. It serves nothing that it knows
// nothing of, says so, and needs no hand when the storage comes.
func TestStorageIsAwayAtTheStart(t *testing.T) {
	skipShort(t)
	server := brokers.Redis(t)
	first := start(t, "first", onRedis(server), syncInterval)
	first.opens()
	s := first.subscribe("orders")
	first.deploy("kept", keylessPlan)
	first.Terminate(15 * time.Second)
	server.Kill()

	n := start(t, "late", onRedis(server), syncInterval)
	for _, path := range []string{"/orders", "/kept"} {
		answer := n.get(path, s.key)
		slug, detail := answer.Problem(t)
		retry, err := strconv.Atoi(answer.Header.Get("Retry-After"))
		if answer.Status != http.StatusServiceUnavailable || err != nil || retry < 1 {
			t.Errorf("%s without a storage: %d %s, Retry-After %q", path, answer.Status, slug, answer.Header.Get("Retry-After"))
		}
		t.Logf("%s without a storage: %d %s: %s", path, answer.Status, slug, detail)
	}
	ctx, cancel := context.WithTimeout(t.Context(), refusal)
	defer cancel()
	_, err := n.admin.CreateApplication(ctx, admin.NewApplication{Name: "too early"})
	problem := (*admin.ProblemDetails)(nil)
	if !errors.As(err, &problem) || problem.Status != http.StatusServiceUnavailable {
		t.Errorf("a write without a storage: %v", err)
	}

	server.Restart()
	back := time.Now()
	gateway.Eventually(t, refusal, "the gateway to serve", func() bool { return n.get("/orders", s.key).Status == http.StatusOK })
	t.Logf("it serves %s after the storage has come", time.Since(back).Round(time.Millisecond))
	if got := n.get("/kept", "").Status; got != http.StatusOK {
		t.Errorf("then a managed API answers %d", got)
	}
	if _, err := n.create("in time"); err != nil {
		t.Error(err)
	}
	n.neverReloaded()
}
