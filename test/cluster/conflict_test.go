package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/admin"
)

// What may be there once is there once, also when two nodes are asked for it in the same
// moment.
func TestOneOfTwoWins(t *testing.T) {
	onEach(t, func(t *testing.T, storage string) {
		a, b := startTwo(t, storage, syncInterval)
		rounds := 5
		if strings.HasPrefix(storage, "file_system") {
			rounds = 1 // who waits for a lock there looks once a second
		}
		for round := range rounds {
			app, err := a.admin.CreateApplication(t.Context(), admin.NewApplication{Name: "both"})
			if err != nil {
				t.Fatal(err)
			}
			request := admin.SubscribeRequest{API: "orders", Plan: "api_key", Application: app.ID}
			onlyOne(t, "a second subscription", http.StatusConflict, func(n *node) error {
				_, err := n.admin.Subscribe(t.Context(), request)
				return err
			}, a, b)
			client := fmt.Sprintf("client-%d", round)
			onlyOne(t, "a second application with the client id", http.StatusConflict, func(n *node) error {
				_, err := n.admin.CreateApplication(t.Context(), admin.NewApplication{Name: n.name, ClientID: client})
				return err
			}, a, b)
			id := fmt.Sprintf("same-%d", round)
			onlyOne(t, "a second API with the id", http.StatusPreconditionFailed, func(n *node) error {
				_, err := n.admin.SaveAPI(t.Context(), id, definition(id, keylessPlan), admin.Save{CreateOnly: true})
				return err
			}, a, b)
			path := fmt.Sprintf("path-%d", round)
			onlyOne(t, "a second API with the path", http.StatusConflict, func(n *node) error {
				id := strings.ToLower(n.name) + "-" + path
				_, err := n.admin.SaveAPI(t.Context(), id, definition(path, keylessPlan), admin.Save{Deploy: true})
				return err
			}, a, b)
		}
	})
}

// onlyOne asks two nodes at once: one must do it, and the other refuse with the status.
func onlyOne(t *testing.T, what string, status int, do func(*node) error, nodes ...*node) {
	t.Helper()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("%s: A says %v, B says %v", what, errs[0], errs[1])
		return
	}
	var problem *admin.ProblemDetails
	if err := errors.Join(errs...); !errors.As(err, &problem) || problem.Status != status {
		t.Errorf("%s: %v, want %d", what, err, status)
	}
}

// A version that was read on one node is stale on the other as soon as it is.
func TestVersionsHoldEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, storage string) {
		a, b := startTwo(t, storage, syncInterval)
		save := func(n *node, etag string, definition json.RawMessage) (admin.API, error) {
			return n.admin.SaveAPI(t.Context(), "versioned", definition, admin.Save{IfMatch: etag})
		}
		first, err := save(a, "", definition("versioned", keylessPlan))
		if err != nil {
			t.Fatal(err)
		}
		second, err := save(b, first.ETag, definition("versioned", quotaPlan)) // B has not looked yet
		if err != nil {
			t.Fatalf("B refuses the version that A gave out: %v", err)
		}
		var problem *admin.ProblemDetails
		if _, err := save(a, first.ETag, definition("versioned", keylessPlan)); !errors.As(err, &problem) || problem.Status != http.StatusPreconditionFailed {
			t.Errorf("A takes a version that B has replaced: %v", err)
		}
		if _, err := save(a, second.ETag, definition("versioned", keylessPlan)); err != nil {
			t.Errorf("A refuses the version that B gave out: %v", err)
		}
	})
}
