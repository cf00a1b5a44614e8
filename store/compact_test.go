package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// snapshot makes one now.
func snapshot(t testing.TB, s *Store) {
	t.Helper()
	if err := s.compact(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}

// expect compares a store with what must be in it.
func expectThings(t testing.TB, s *Store, want map[string]int) {
	t.Helper()
	n := 0
	for r := range s.Range("thing") {
		n++
		if v, _ := get(t, s, r.Ref); want[r.ID] != v.N {
			t.Errorf("%v is %d and should be %d", r.Ref, v.N, want[r.ID])
		}
	}
	if n != len(want) || s.Len("thing") != len(want) {
		t.Errorf("%d records (it says %d) of %d", n, s.Len("thing"), len(want))
	}
}

// The logs are folded into the snapshot, deletions too, and what is folded is removed with the
// snapshot after it. Of the shards only those that have changed are written.
func TestSnapshot(t *testing.T) {
	inner := newMemory()
	storage := newFaulty(inner)
	s := open(t, quiet(t, storage))
	want := make(map[string]int)
	for i := range 200 {
		put(t, s, numbered(i), thing{N: i, Text: strings.Repeat("x", 100)})
		want[numbered(i).ID] = i
	}
	gone := numbered(7)
	if err := s.Update(t.Context(), []Ref{gone}, func(tx *Tx) error { tx.Delete(gone); return nil }); err != nil {
		t.Fatal(err)
	}
	delete(want, gone.ID)
	snapshot(t, s)
	if n := len(inner.keys("/log/")); n != 201 {
		t.Errorf("%d batches", n)
	}
	snapshot(t, s) // nothing has changed since
	if n := len(inner.keys("/log/")); n != 0 {
		t.Errorf("%d batches are left", n)
	}
	shards := len(s.view.manifest.Shards)
	if n := len(inner.keys("snapshot/" + s.view.manifest.Gen)); shards < 4 || n != 1 {
		t.Errorf("%d shards; the second snapshot wrote %d files and not its manifest alone", shards, n)
	}
	put(t, s, numbered(3), thing{N: 33})
	want[numbered(3).ID] = 33
	snapshot(t, s)
	if n := len(inner.keys("snapshot/" + s.view.manifest.Gen)); n != 2 {
		t.Errorf("it wrote %v", inner.keys("snapshot/"+s.view.manifest.Gen))
	}
	snapshot(t, s)
	snapshot(t, s)
	if n := len(inner.keys("/manifest")); n > 3 {
		t.Errorf("old generations are left: %v", inner.keys("/snapshot/"))
	}
	fresh := open(t, quiet(t, storage))
	expectThings(t, fresh, want)
	put(t, fresh, gone, thing{N: 77})
	if _, version := get(t, fresh, gone); version != 3 {
		t.Errorf("version %d: the deletion was forgotten", version)
	}
	if p := fresh.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

// Snapshots by several nodes at once, with locks that don't work, while others write.
func TestSnapshotsWithoutLocks(t *testing.T) {
	inner := newMemory()
	var stores []*Store
	for range 3 {
		stores = append(stores, open(t, quiet(t, newFaulty(lockless{inner}))))
	}
	var wg sync.WaitGroup
	want := make(map[string]int)
	for n, s := range stores {
		for i := range 40 {
			want[numbered(n*1000+i%20).ID] = i
		}
		wg.Go(func() {
			for i := range 40 {
				if err := tryPut(t.Context(), s, numbered(n*1000+i%20), thing{N: i}); err != nil {
					t.Error(err)
				}
				if i%4 == n {
					if err := s.compact(t.Context(), true); err != nil && !errors.Is(err, errBusy) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, s := range append(stores, open(t, quiet(t, newFaulty(inner)))) {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectThings(t, s, want)
		if p := s.Problems(); len(p) > 0 {
			t.Error(p)
		}
	}
}

// The worst case without locks: a node whose clock is ahead is about to publish a snapshot
// when others make two more and remove logs and shards. Its own comes last and bears the
// latest time, and must hide nothing.
func TestLateSnapshotOfAClockAhead(t *testing.T) {
	inner := newMemory()
	s := open(t, quiet(t, newFaulty(lockless{inner})))
	want := make(map[string]int)
	write := func(i, n int) {
		t.Helper()
		if err := tryPut(t.Context(), s, numbered(i), thing{N: n, Text: strings.Repeat("x", 200)}); err != nil {
			t.Error(err)
		}
		want[numbered(i).ID] = n
	}
	for i := range 50 {
		write(i, i)
	}
	snapshot(t, s)
	storage := newFaulty(lockless{inner})
	opt := quiet(t, storage)
	opt.Now = func() time.Time { return time.Now().Add(10 * time.Minute) }
	late := open(t, opt)
	reached := 0
	storage.set(func(op, key string) error {
		if op == "store" && strings.HasSuffix(key, "/manifest") {
			reached++
			for i := range 50 {
				write(i, 1000+i)
				if i%20 > 0 {
					continue
				}
				if err := s.compact(t.Context(), true); err != nil {
					t.Error(err)
				}
			}
		}
		return nil
	}, nil)
	snapshot(t, late)
	if reached != 1 {
		t.Fatalf("%d manifests", reached)
	}
	storage.set(nil, nil)
	check := func(stores ...*Store) {
		t.Helper()
		for _, one := range stores {
			expectThings(t, one, want)
			if p := one.Problems(); len(p) > 0 {
				t.Error(p)
			}
		}
	}
	fresh := open(t, quiet(t, newFaulty(inner)))
	check(fresh)
	if m, err := s.readManifest(t.Context()); err != nil || m.Gen != s.view.manifest.Gen {
		t.Errorf("the newest is %v (%v), not %s", m, err, s.view.manifest.Gen)
	}
	for _, one := range []*Store{late, fresh, s, late, fresh} {
		snapshot(t, one)
		check(one, open(t, quiet(t, newFaulty(inner))))
	}
}

// A node takes over a snapshot so slowly that others make more meanwhile, and remove what it
// is reading.
func TestSnapshotIsOvertaken(t *testing.T) {
	inner := newMemory()
	s := open(t, quiet(t, newFaulty(inner)))
	storage := newFaulty(inner)
	away := open(t, quiet(t, storage))
	want := make(map[string]int)
	write := func(n int) {
		for i := range 20 {
			if err := tryPut(t.Context(), s, numbered(i), thing{N: n, Text: strings.Repeat("x", 200)}); err != nil {
				t.Error(err)
			}
			want[numbered(i).ID] = n
		}
		if err := s.compact(t.Context(), true); err != nil {
			t.Error(err)
		}
	}
	write(1)
	write(2)
	left := 5
	storage.set(func(op, key string) error {
		if op == "load" && strings.Contains(key, "/snapshot/") && strings.HasSuffix(key, "/0000") && left > 0 {
			left--
			write(10 + left)
			write(20 + left)
		}
		return nil
	}, nil)
	if err := away.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left > 0 {
		t.Error("it read no snapshot: this test shows nothing")
	}
	expectThings(t, away, want)
	if p := away.Problems(); len(p) > 0 {
		t.Error(p)
	}
	snapshot(t, away)
}

// lockless is a storage whose locks lock nothing.
type lockless struct{ *memory }

func (lockless) Lock(context.Context, string) error   { return nil }
func (lockless) Unlock(context.Context, string) error { return nil }

// A node that was away for long finds the logs gone, and takes over the snapshot; its watchers
// are told what changed.
func TestAwayForLong(t *testing.T) {
	inner := newMemory()
	storage := newFaulty(inner)
	writer, away := open(t, quiet(t, storage)), open(t, quiet(t, storage))
	put(t, writer, numbered(1), thing{N: 1})
	put(t, writer, numbered(2), thing{N: 2})
	if err := away.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, away, numbered(9), thing{N: 9})
	told := make(map[string]int)
	away.Watch(func(changes []Change) {
		for _, c := range changes {
			told[c.New.ID]++
		}
	})
	put(t, writer, numbered(1), thing{N: 10})
	put(t, writer, numbered(3), thing{N: 3})
	if err := writer.Update(t.Context(), []Ref{numbered(2)}, func(tx *Tx) error { tx.Delete(numbered(2)); return nil }); err != nil {
		t.Fatal(err)
	}
	snapshot(t, writer)
	snapshot(t, writer)
	put(t, writer, numbered(4), thing{N: 4})
	if err := away.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectThings(t, away, map[string]int{numbered(1).ID: 10, numbered(3).ID: 3, numbered(4).ID: 4, numbered(9).ID: 9})
	for _, i := range []int{1, 2, 3, 4} {
		if told[numbered(i).ID] != 1 {
			t.Errorf("told %v", told)
		}
	}
	if p := away.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

// A deletion that is so old that it is forgotten is still one for a node that was away.
func TestAwayForLongerThanDeletionsAreRemembered(t *testing.T) {
	storage := newFaulty(newMemory())
	now := time.Now().Add(-48 * time.Hour)
	var mu sync.Mutex
	opt := quiet(t, storage)
	opt.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	opt.tune.deadAfter, opt.tune.tombstones = 1000*time.Hour, time.Hour
	writer, away := open(t, opt), open(t, opt)
	put(t, writer, numbered(1), thing{N: 1})
	put(t, writer, numbered(2), thing{N: 2})
	if err := away.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := writer.Update(t.Context(), []Ref{numbered(2)}, func(tx *Tx) error { tx.Delete(numbered(2)); return nil }); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = now.Add(24 * time.Hour)
	mu.Unlock()
	put(t, writer, numbered(3), thing{N: 3})
	snapshot(t, writer)
	snapshot(t, writer)
	if writer.mem.get(numbered(2)) != nil {
		t.Error("the deletion is still remembered: this test shows nothing")
	}
	if err := away.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectThings(t, away, map[string]int{numbered(1).ID: 1, numbered(3).ID: 3})
}

// The files of nodes that have ended, with and without saying so, are taken over and removed.
func TestDeadNodesAreTakenOver(t *testing.T) {
	t.Parallel()
	inner := newMemory()
	want := make(map[string]int)
	for i := range 6 {
		s, err := Open(t.Context(), quiet(t, newFaulty(inner)))
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, numbered(i), thing{N: i})
		want[numbered(i).ID] = i
		if i%2 == 0 { // as if killed: its head stays as it is
			s.appender.mu.Lock()
			s.appender.head.Closed = true
			s.appender.stored = 0
			s.appender.mu.Unlock()
		}
		closeStore(t, s)
	}
	opt := options(t, inner)
	opt.Interval, opt.tune.deadAfter, opt.tune.observe = 20*time.Millisecond, 300*time.Millisecond, 100*time.Millisecond
	s := open(t, opt)
	eventually(t, 10*time.Second, "only this node's files are left", func() bool {
		return !slices.ContainsFunc(inner.keys("/nodes/"), func(key string) bool { return !strings.Contains(key, s.Node()) })
	})
	eventually(t, 5*time.Second, "they are not listed", func() bool { return len(s.Nodes()) == 1 })
	expectThings(t, s, want)
	expectThings(t, open(t, options(t, inner)), want)
	if p := s.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

// A node whose own files were removed, by mistake or because it slept too long, goes on under
// another id, and what was in no snapshot is written again from memory.
func TestFilesAreRemoved(t *testing.T) {
	t.Parallel()
	inner := newMemory()
	opt := options(t, inner)
	opt.Interval, opt.tune.litter = 20*time.Millisecond, time.Hour
	s := open(t, opt)
	want := make(map[string]int)
	for i := range 5 {
		put(t, s, numbered(i), thing{N: i})
		want[numbered(i).ID] = i
	}
	old := s.Node()
	if err := inner.Delete(t.Context(), DefaultPrefix); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "another id", func() bool { return s.Node() != old })
	put(t, s, numbered(5), thing{N: 5})
	want[numbered(5).ID] = 5
	eventually(t, 5*time.Second, "everything is stored again", func() bool {
		fresh, err := Open(t.Context(), quiet(t, newFaulty(inner)))
		if err != nil {
			t.Fatal(err)
		}
		defer closeStore(t, fresh)
		return fresh.Len("thing") == len(want)
	})
	expectThings(t, s, want)
}

func TestShardCount(t *testing.T) {
	s := open(t, quiet(t, newFaulty(newMemory())))
	for _, c := range []struct{ bytes, before, want int }{
		{0, 0, 1}, {1, 0, 1}, {100, 0, 1}, {4 << 20, 0, 1024}, {1 << 40, 0, slots}, {4 << 20, 512, 512}, {4 << 20, 256, 1024}, {1 << 12, 64, 1}, {1 << 15, 64, 64},
	} {
		s.mem.bytes.Store(int64(c.bytes))
		var before *manifest
		if c.before > 0 {
			before = &manifest{Shards: make([]int, c.before)}
		}
		if got := s.shardCount(before); got != c.want {
			t.Errorf("%d bytes after %d shards: %d, not %d", c.bytes, c.before, got, c.want)
		}
	}
}

func TestGenerationNames(t *testing.T) {
	now := time.Now()
	a, b := genName(now, newNodeID()), genName(now.Add(1), newNodeID())
	if a >= b || !isGen(a) || !genTime(a).Equal(now) || !isGen(genName(time.Unix(-5, 0), newNodeID())) || isGen("current") {
		t.Errorf("%s %s", a, b)
	}
}

// A slow node whose lock did not last puts an old snapshot/current back, after newer ones have
// removed logs. Nothing is lost: not for a node that starts then, and not by its snapshots.
func TestOldCurrentIsPutBack(t *testing.T) {
	inner := newMemory()
	s := open(t, quiet(t, newFaulty(inner)))
	want := make(map[string]int)
	write := func(i, n int) {
		put(t, s, numbered(i), thing{N: n, Text: strings.Repeat("x", 200)})
		want[numbered(i).ID] = n
	}
	for i := range 100 {
		write(i, i)
	}
	snapshot(t, s)
	key := DefaultPrefix + "/snapshot/current"
	old, err := inner.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		write(round, 1000+round)
		write(50, round)
		snapshot(t, s)
	}
	inner.change(key, func([]byte) []byte { return old })
	fresh := open(t, quiet(t, newFaulty(inner)))
	expectThings(t, fresh, want)
	snapshot(t, fresh)
	inner.change(key, func([]byte) []byte { return old })
	snapshot(t, s)
	snapshot(t, fresh)
	for _, one := range []*Store{s, fresh, open(t, quiet(t, newFaulty(inner)))} {
		expectThings(t, one, want)
		if p := one.Problems(); len(p) > 0 {
			t.Error(p)
		}
	}
}
