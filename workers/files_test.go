package workers

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// The same on files and by a real clock: two nodes share, and one hands over.
func TestOnFiles(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	r := &rig{t: t}
	const works = 20
	for _, name := range []string{"a", "b"} {
		s, err := store.Open(t.Context(), store.Options{Storage: storage, Interval: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		n := &node{rig: r, name: name, store: s, dead: make(chan struct{})}
		n.keep = func(k Keeper) { k.Keep([]byte(`{"by":"` + name + `"}`)) }
		n.reg = New(Options{Store: s, TTL: 2 * time.Second})
		r.nodes = append(r.nodes, n)
		t.Cleanup(n.close)
		n.reg.Want(n.works(works, "1"))
	}
	eventually(t, "all run", func() bool { return r.each(works) })
	a, b := r.nodes[0], r.nodes[1]
	a.close()
	eventually(t, "the other has them all", func() bool { _, nodes := r.owners(); return nodes[b] == works && r.each(works) })
	eventually(t, "it is kept", func() bool {
		for _, s := range b.reg.List() {
			if s.State != Running || !s.Here || string(s.Kept) != `{"by":"b"}` {
				return false
			}
		}
		return true
	})
	r.noOverlap()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 30s: " + what)
		}
	}
}

// A lease that ends while a work drains is told too.
func TestLeaseEndsWhileDraining(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a := r.node()
		a.drain = time.Hour
		a.reg.Want(a.works(1, "1"))
		r.within(slack, "it runs", func() bool { return r.each(1) })
		a.reg.Want(a.works(1, "2"))
		time.Sleep(10 * ttl)
		if !r.each(1) || r.count() != 1 {
			t.Fatal("it should still be draining")
		}
		a.disk.fail(errDisk)
		r.within(ttl, "it lets go", func() bool { return r.each(0) })
		if !r.span(0).fenced {
			t.Error("it was not told why")
		}
		a.drain = 0
		a.disk.fail(nil)
		r.within(ttl, "the new one runs", func() bool { return r.each(1) && r.span(1).version == "2" })
		if ctx := context.Background(); LeaseContext(ctx) != ctx || errors.Is(context.Cause(ctx), ErrFenced) {
			t.Error("a context that is not of a Run is its own lease")
		}
	})
}
