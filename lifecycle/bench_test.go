package lifecycle_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/store"
)

// BenchmarkRequestPath is what every request asks, with a thousand APIs.
func BenchmarkRequestPath(b *testing.B) {
	r := thousand(b)
	b.ReportAllocs()
	for b.Loop() {
		if s, _ := r.Stage("api-500", "gold"); s != lifecycle.Published || !r.IsStarted("api-500") {
			b.Fatal("not served")
		}
	}
}

// BenchmarkStop is a change among a thousand APIs.
func BenchmarkStop(b *testing.B) {
	r := thousand(b)
	for i := 0; b.Loop(); i++ {
		op := r.Stop
		if i%2 == 1 {
			op = r.Start
		}
		r.must(op(ctx, "ann", "api-500", 0))
	}
}

func BenchmarkList(b *testing.B) {
	r := thousand(b)
	for b.Loop() {
		for _, a := range r.List() {
			if a.OutOfSync() {
				b.Fatal("out of sync")
			}
		}
	}
}

// thousand is an empty registry that has imported a thousand APIs.
func thousand(b *testing.B) *rig {
	b.Helper()
	from := newRig(b)
	from.ops(save("first", true, gold))
	rec, _ := from.store.Get(store.Ref{Kind: "api", ID: "orders"})
	r := newRig(b)
	var refs []store.Ref
	for i := range 1000 {
		refs = append(refs, store.Ref{Kind: "api", ID: fmt.Sprintf("api-%d", i)})
	}
	err := r.store.Update(ctx, refs, func(tx *store.Tx) error {
		for _, ref := range refs {
			if err := tx.Put(ref, json.RawMessage(strings.ReplaceAll(string(rec.Data), "/orders", "/"+ref.ID))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return r
}
