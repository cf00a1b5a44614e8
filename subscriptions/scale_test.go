package subscriptions

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/store"
)

// TestManyOnFiles starts with 200,000 subscriptions on files, looks one up and closes them
// all. It says how long each takes.
func TestManyOnFiles(t *testing.T) {
	if os.Getenv("MESSAGE_API_SOAK") == "" {
		t.Skip("set MESSAGE_API_SOAK=1: it takes minutes")
	}
	const n = 200_000
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	m, secrets := crowd(n)
	first := openStore(t, storage)
	var all []store.Record
	for _, kind := range []string{KindApplication, KindSubscription, KindKey} {
		all = slices.AppendSeq(all, m.Range(kind))
	}
	begin := time.Now()
	for some := range slices.Chunk(all, 1000) {
		if err := first.Update(t.Context(), nil, func(tx *store.Tx) error {
			for _, rec := range some {
				if err := tx.Put(rec.Ref, rec.Data); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records written in %s", len(all), time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	second := openStore(t, storage)
	opened := time.Since(begin)
	r, err := New(second, Options{KeySecret: testSecret, Plan: noPlan})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	t.Logf("store opened in %s, index built in %s", opened.Round(time.Millisecond), (time.Since(begin) - opened).Round(time.Millisecond))
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the start took %s", took)
	}
	if _, s := r.Directory("api-0", "plan-0").Key(secrets[0]); s != plans.Good {
		t.Errorf("the key stands %q", s)
	}
	begin = time.Now()
	closed, err := r.ClosePlan(t.Context(), "ann", "api-0", "plan-0", "")
	t.Logf("%d subscriptions to a plan closed in %s", closed, time.Since(begin).Round(time.Millisecond))
	if err != nil || closed != n/50 {
		t.Error(err)
	}
}
