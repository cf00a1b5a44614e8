package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const testTTL = 5 * time.Second

// bubble runs a test by a clock that jumps, with the times of a real gateway.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// nodeOn opens a store with the times of a real gateway, and keeps its lease. Its storage can
// be made to fail and hang.
func nodeOn(t *testing.T, shared *memory, keep bool) (*Store, *faulty, func()) {
	t.Helper()
	storage := newFaulty(shared)
	s := open(t, Options{Storage: storage})
	stop := func() {}
	if keep {
		stop = s.KeepAlive(testTTL)
		synctest.Wait()
	}
	return s, storage, stop
}

func all(string, string) bool { return true }

// within waits until f is true, and returns how long that took.
func within(t *testing.T, d time.Duration, what string, f func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > d {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

// A node that keeps a lease writes its head every third of the TTL, and its lease never ends.
func TestLeaseIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := newMemory()
		a, _, stop := nodeOn(t, shared, true)
		b, _, _ := nodeOn(t, shared, true)
		first := a.Lease()
		if first.Node != a.Node() || first.Term != 1 || !first.Holds(time.Now()) {
			t.Fatalf("got %+v", first)
		}
		last, written := first.Until, time.Now()
		for range 6000 {
			time.Sleep(10 * time.Millisecond)
			lease := a.Lease()
			if lease.Term != 1 || !a.LeaseUntil().Equal(lease.Until) || a.Gone(b.Node()) && time.Since(written) > testTTL {
				t.Fatalf("got %+v", lease)
			}
			if !lease.Until.Equal(last) {
				last, written = lease.Until, time.Now()
			}
			if time.Since(written) > testTTL/3 {
				t.Fatalf("no head for %v", time.Since(written))
			}
		}
		peers := a.Peers()
		if len(peers) != 1 || peers[0].Node != b.Node() || peers[0].TTL != testTTL || !peers[0].Steady || peers[0].Silent >= testTTL {
			t.Errorf("got %+v", peers)
		}
		stop()
		stop()
		if a.Lease().Holds(time.Now()) {
			t.Error("still a lease")
		}
		within(t, 3*time.Second, "the other node knows that there is no lease any more", func() bool { return b.Gone(a.Node()) && len(b.Peers()) == 0 })
		a.KeepAlive(testTTL)
		synctest.Wait()
		if lease := a.Lease(); lease.Term != 2 || !lease.Holds(time.Now()) {
			t.Errorf("got %+v: it is another term", lease)
		}
	})
}

// Who does not answer any more is gone after 2 TTL of silence, and stopped before; a store that
// was just opened has to see the silence itself.
func TestSilentNodeIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := newMemory()
		a, disk, _ := nodeOn(t, shared, true)
		b, _, _ := nodeOn(t, shared, true)
		time.Sleep(7 * testTTL)
		if b.Gone(a.Node()) || len(b.Peers()) != 1 {
			t.Fatal("it is alive")
		}
		release := disk.hang(all)
		died := time.Now()
		took := within(t, 3*testTTL, "gone", func() bool {
			if gone := b.Gone(a.Node()); gone && a.Lease().Holds(time.Now()) {
				t.Fatal("it is taken for gone while it holds its lease")
			}
			return b.Gone(a.Node())
		})
		t.Logf("gone after %v", took)
		if took < testTTL {
			t.Errorf("gone after %v", took)
		}
		late, _, _ := nodeOn(t, shared, true)
		opened := time.Now()
		within(t, 3*testTTL, "gone for a store that was just opened", func() bool { return late.Gone(a.Node()) })
		if took := time.Since(opened); took < 2*testTTL {
			t.Errorf("gone after %v, which is too early to tell", took)
		}
		if until := a.LeaseUntil(); until.After(died.Add(testTTL)) {
			t.Errorf("its lease lasted until %v after it died", until.Sub(died))
		}
		release()
		within(t, testTTL, "back", func() bool { return a.Lease().Holds(time.Now()) && !b.Gone(a.Node()) })
		if a.Lease().Term < 2 {
			t.Errorf("got %+v: it is another term", a.Lease())
		}
	})
}

// A write that hangs does not lengthen the lease, and if it comes late it counts from when it
// was begun.
func TestLateHead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, disk, _ := nodeOn(t, newMemory(), true)
		time.Sleep(testTTL)
		until := a.LeaseUntil()
		release := disk.hang(func(op, key string) bool { return op == "store" && strings.HasSuffix(key, "/head") })
		time.Sleep(2 * testTTL)
		if !a.LeaseUntil().Equal(until) {
			t.Error("the lease was renewed by a write that hangs")
		}
		release()
		within(t, testTTL, "a lease again", func() bool { return a.Lease().Holds(time.Now()) })
		if lease := a.Lease(); lease.Term < 2 || lease.Until.After(time.Now().Add(testTTL)) {
			t.Errorf("got %+v", lease)
		}
	})
}

// Who does not look can't tell that another is gone.
func TestNotLookingIsNotSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := newMemory()
		a, _, _ := nodeOn(t, shared, true)
		b, disk, _ := nodeOn(t, shared, true)
		time.Sleep(testTTL)
		for _, fault := range []func() func(){
			func() func() { disk.set(failing("load", "/head"), nil); return func() { disk.set(nil, nil) } },
			func() func() { disk.set(failing("list", "/nodes"), nil); return func() { disk.set(nil, nil) } },
			func() func() { return disk.hang(func(op, _ string) bool { return op == "load" }) },
		} {
			repair := fault()
			for range 400 {
				time.Sleep(10 * testTTL / 400)
				if b.Gone(a.Node()) {
					t.Fatal("gone while nobody looked")
				}
			}
			repair()
			for range 100 {
				time.Sleep(testTTL / 100)
				if b.Gone(a.Node()) {
					t.Fatal("gone after a time when nobody looked")
				}
			}
		}
	})
}

// Who says that it ends is gone at once, and so is who never kept a lease. Whose files have
// vanished is gone after the next look.
func TestGoneAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := newMemory()
		a, _, _ := nodeOn(t, shared, true)
		b, _, _ := nodeOn(t, shared, true)
		c, _, _ := nodeOn(t, shared, false)
		put(t, c, Ref{"thing", "c"}, thing{})
		if err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if b.Gone(a.Node()) || !b.Gone(c.Node()) || b.Gone(b.Node()) {
			t.Errorf("a %v, c %v, itself %v", b.Gone(a.Node()), b.Gone(c.Node()), b.Gone(b.Node()))
		}
		closeStore(t, a)
		if err := b.Sync(t.Context()); err != nil || !b.Gone(a.Node()) {
			t.Error("a has ended", err)
		}
		const stranger = "00000000000000ff"
		if b.Gone(stranger) {
			t.Error("gone before anybody looked")
		}
		within(t, testTTL/2, "a node without files is gone", func() bool { return b.Gone(stranger) })
	})
}

// When somebody removes the files of a node the others take it for gone, and it notices and
// goes on under another id, in another term.
func TestVanishedNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := newMemory()
		a, disk, _ := nodeOn(t, shared, true)
		b, _, _ := nodeOn(t, shared, true)
		time.Sleep(testTTL)
		old := a.Lease()
		disk.set(failing("store", "/head"), nil) // or it may be back before anybody looks
		if err := shared.Delete(t.Context(), DefaultPrefix+"/nodes/"+old.Node); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		within(t, testTTL, "gone", func() bool { return b.Gone(old.Node) })
		disk.set(nil, nil)
		within(t, 2*testTTL, "another id", func() bool { return a.Node() != old.Node })
		within(t, testTTL, "a lease under it", func() bool { l := a.Lease(); return l.Node == a.Node() && l.Holds(time.Now()) && l.Term != old.Term })
		within(t, 3*testTTL, "the old id is gone for others", func() bool { return b.Gone(old.Node) && !b.Gone(a.Node()) })
	})
}

// Clocks that differ by an hour, and that jump, make no difference.
func TestLeasesWithWrongClocks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := newMemory()
		slow := newFaulty(shared)
		a := open(t, Options{Storage: slow, Now: func() time.Time { return time.Now().Add(-time.Hour) }})
		b := open(t, Options{Storage: shared, Now: func() time.Time { return time.Now().Add(time.Hour) }})
		c := open(t, Options{Storage: shared, Now: func() time.Time { return time.Unix(1e9, 0) }}) // it stands still
		stores := []*Store{a, b, c}
		for _, s := range stores {
			s.KeepAlive(testTTL)
		}
		time.Sleep(testTTL)
		for range 1000 {
			time.Sleep(100 * time.Millisecond)
			for _, one := range stores {
				for _, other := range stores {
					if one.Gone(other.Node()) || !one.Lease().Holds(time.Now()) || one.Lease().Term != 1 {
						t.Fatalf("%s takes %s for gone, or has no lease: %+v", one.Node(), other.Node(), one.Lease())
					}
				}
			}
		}
		release := slow.hang(all)
		within(t, 3*testTTL, "a is gone", func() bool { return b.Gone(a.Node()) && c.Gone(a.Node()) })
		release()
	})
}

// A damaged head does not end a lease; if it stays the node is gone like a silent one.
func TestDamagedHeadKeepsTheLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		shared := newMemory()
		a, disk, _ := nodeOn(t, shared, true)
		b, _, _ := nodeOn(t, shared, true)
		time.Sleep(testTTL)
		release := disk.hang(all)
		if err := shared.Store(context.Background(), DefaultPrefix+"/nodes/"+a.Node()+"/head", []byte("{")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(testTTL)
		if b.Gone(a.Node()) {
			t.Error("gone too early")
		}
		within(t, 3*testTTL, "gone", func() bool { return b.Gone(a.Node()) })
		release()
		within(t, testTTL, "back", func() bool { return !b.Gone(a.Node()) })
	})
}
