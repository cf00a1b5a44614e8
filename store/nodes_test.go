package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Two stores on one file storage see each other's changes within the interval and a second.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	storage := files(t)
	opt := options(t, storage)
	opt.Interval = time.Second
	a, b := open(t, opt), open(t, opt)
	told := make(chan Change, 100)
	b.Watch(func(changes []Change) {
		for _, c := range changes {
			told <- c
		}
	})
	for i := range 3 {
		put(t, a, Ref{"thing", "a"}, thing{N: i})
		select {
		case c := <-told:
			if c.New.Version != uint64(i+1) || c.New.Node != a.Node() {
				t.Errorf("got %+v", c.New)
			}
		case <-time.After(2 * time.Second):
			t.Fatal("not seen within the interval and a second")
		}
	}
	// A change sees everything that was stored before, at once.
	put(t, b, Ref{"thing", "a"}, thing{N: 10})
	if _, version := get(t, b, Ref{"thing", "a"}); version != 4 {
		t.Errorf("version %d", version)
	}
	put(t, a, Ref{"thing", "a"}, thing{N: 11})
	if _, version := get(t, a, Ref{"thing", "a"}); version != 5 {
		t.Errorf("version %d", version)
	}
	for _, s := range []*Store{a, b} {
		if p := s.Problems(); len(p) > 0 {
			t.Error(p)
		}
	}
}

// Nodes add to the same records at the same time while snapshots are made, and nothing is lost.
func TestManyNodesAddTogether(t *testing.T) {
	storage := newMemory()
	const nodes, each = 3, 60
	stores := make([]*Store, nodes)
	for i := range stores {
		opt := options(t, storage)
		opt.Interval = 20 * time.Millisecond
		stores[i] = open(t, opt)
	}
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() {
			for n := range each {
				ref := Ref{"thing", fmt.Sprint((n + i) % 5)}
				err := s.Update(t.Context(), []Ref{ref}, func(tx *Tx) error {
					var v thing
					if r, ok := tx.Get(ref); ok {
						if err := json.Unmarshal(r.Data, &v); err != nil {
							return err
						}
					}
					return tx.Put(ref, thing{N: v.N + 1})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	fresh := open(t, options(t, storage))
	for _, s := range append(stores, fresh) {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		sum := 0
		for r := range s.Range("thing") {
			v, version := get(t, s, r.Ref)
			if sum += v.N; uint64(v.N) != version {
				t.Errorf("%v: value %d, version %d", r.Ref, v.N, version)
			}
		}
		if sum != nodes*each {
			t.Errorf("%d of %d", sum, nodes*each)
		}
		if p := s.Problems(); len(p) > 0 {
			t.Error(p)
		}
	}
	if len(storage.keys("snapshot/current")) != 1 {
		t.Error("no snapshot was made meanwhile")
	}
}

// Where nothing has changed, only the heads are read, however many records there are.
func TestSyncReadsOnlyHeads(t *testing.T) {
	many := 10_000
	if testing.Short() {
		many = 2000
	}
	for _, records := range []int{10, many} {
		storage := newFaulty(newMemory())
		opt := options(t, storage)
		opt.tune = defaultTuning // no snapshots and heartbeats meanwhile
		opt.Interval = time.Hour
		a, b := open(t, opt), open(t, opt)
		fill(t, a, records)
		put(t, b, Ref{"thing", "own"}, thing{})
		if err := b.Sync(t.Context()); err != nil || b.Len("thing") != records+1 {
			t.Fatal(err, b.Len("thing"))
		}
		storage.counted()
		for range 10 {
			if err := b.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := storage.counted(); !maps.Equal(got, map[string]int{"head": 20}) {
			t.Errorf("%d records: 10 looks at 2 nodes have loaded %v", records, got)
		}
	}
}

// fill makes records without locks, some hundred at a time.
func fill(t testing.TB, s *Store, n int) {
	t.Helper()
	const chunk = 500
	for from := 0; from < n; from += chunk {
		err := s.Update(t.Context(), nil, func(tx *Tx) error {
			for i := from; i < min(from+chunk, n); i++ {
				if err := tx.Put(numbered(i), thing{N: i, Text: strings.Repeat("x", 200)}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(i int) Ref { return Ref{"thing", fmt.Sprintf("0190b2f4-%08d", i)} }

// Should the locks fail, the same one wins everywhere, and it is reported.
func TestOverlap(t *testing.T) {
	storage := newMemory()
	opt := options(t, storage)
	opt.Interval = time.Hour
	a, b := open(t, opt), open(t, opt)
	ref := Ref{"thing", "a"}
	// Both write version 1 without having seen the other: what a failed lock would let happen.
	now := time.Now().UTC().Round(0)
	for i, s := range []*Store{a, b} {
		r := &Record{Ref: ref, Version: 1, Node: s.Node(), Time: now.Add(time.Duration(i) * time.Second), Data: fmt.Appendf(nil, `{"n":%d}`, i)}
		if err := s.appender.submit(t.Context(), &request{records: []*Record{r}}, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*Store{a, b, open(t, opt)} {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, _ := get(t, s, ref); v.N != 1 {
			t.Errorf("got %d, and the later one is 1", v.N)
		}
		if p := s.Problems(); len(p) != 1 || p[0].Key != "thing/a" || !strings.Contains(p[0].Detail, a.Node()) || !strings.Contains(p[0].Detail, b.Node()) {
			t.Errorf("got %+v", p)
		}
	}
	// The next change stands above both.
	put(t, a, ref, thing{N: 5})
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, version := get(t, b, ref); v.N != 5 || version != 2 {
		t.Errorf("got %d, version %d", v.N, version)
	}
}

// The lock of a node that died while it held it ends by itself.
func TestLockOfADeadNode(t *testing.T) {
	t.Parallel()
	storage := files(t)
	s := open(t, options(t, storage))
	ref := Ref{"thing", "a"}
	name := filepath.Join(storage.Path, "locks", strings.ReplaceAll(s.lockName(ref), "/", "")+".lock")
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-9500 * time.Millisecond).Format(time.RFC3339Nano)
	if err := os.WriteFile(name, fmt.Appendf(nil, `{"created":%q,"updated":%q}`, at, at), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, s, ref, thing{N: 1})
	if _, err := os.Stat(name); !os.IsNotExist(err) {
		t.Errorf("the lock is still there: %v", err)
	}
}

// A lock that another node holds is waited for, but not for ever; nothing is stored.
func TestLockHeldElsewhere(t *testing.T) {
	t.Parallel()
	storage := newMemory()
	opt := options(t, storage)
	opt.WriteTimeout = time.Second
	s := open(t, opt)
	ref := Ref{"thing", "a"}
	if err := storage.Lock(t.Context(), s.lockName(ref)); err != nil {
		t.Fatal(err)
	}
	err := tryPut(context.Background(), s, ref, thing{})
	if err == nil || !strings.Contains(err.Error(), "nothing was stored") || !strings.Contains(err.Error(), "another node is changing it") {
		t.Errorf("got %v", err)
	}
	if err := storage.Unlock(t.Context(), s.lockName(ref)); err != nil {
		t.Fatal(err)
	}
	put(t, s, ref, thing{})
}

// Nodes write to files, and make snapshots, at the same time.
func TestNodesOnFiles(t *testing.T) {
	t.Parallel()
	storage := files(t)
	const nodes, each, keys = 3, 40, 8
	var stores []*Store
	for range nodes {
		opt := options(t, storage)
		opt.Interval = 20 * time.Millisecond
		stores = append(stores, open(t, opt))
	}
	var wg sync.WaitGroup
	want := make(map[string]int)
	for n, s := range stores {
		for i := range each {
			want[numbered(n*1000+i%keys).ID] = i
		}
		wg.Go(func() {
			for i := range each {
				if err := tryPut(t.Context(), s, numbered(n*1000+i%keys), thing{N: i}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := filepath.Glob(filepath.Join(storage.Path, DefaultPrefix, "snapshot", "*")); err != nil || len(n) < 2 {
		t.Errorf("no snapshot was made meanwhile: %v %v", n, err)
	}
	for _, s := range append(stores, open(t, options(t, storage))) {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectThings(t, s, want)
		if p := s.Problems(); len(p) > 0 {
			t.Error(p)
		}
	}
}

// A node that slept so long that the others may have taken it for dead goes on under another
// id, and so never writes where somebody removes.
func TestNodeThatSlept(t *testing.T) {
	inner := newMemory()
	var mu sync.Mutex
	now := time.Now()
	opt := quiet(t, newFaulty(inner))
	opt.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	s := open(t, opt)
	put(t, s, numbered(1), thing{N: 1})
	old := s.Node()
	put(t, s, numbered(2), thing{N: 2})
	if s.Node() != old {
		t.Error("another id for nothing")
	}
	mu.Lock()
	now = now.Add(opt.tune.deadAfter)
	mu.Unlock()
	put(t, s, numbered(3), thing{N: 3})
	if s.Node() == old {
		t.Error("the same id")
	}
	for _, one := range []*Store{s, open(t, opt)} {
		if err := one.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectThings(t, one, map[string]int{numbered(1).ID: 1, numbered(2).ID: 2, numbered(3).ID: 3})
		if p := one.Problems(); len(p) > 0 {
			t.Error(p)
		}
	}
}

// A change that may have been stored is written again under the other id.
func TestNodeThatSleptWithAChangePending(t *testing.T) {
	inner := newMemory()
	storage := newFaulty(inner)
	s := open(t, quiet(t, storage))
	put(t, s, numbered(1), thing{N: 1})
	storage.set(failing("store", "/head"), nil)
	if err := tryPut(t.Context(), s, numbered(1), thing{N: 2}); !errors.Is(err, ErrUncertain) {
		t.Fatalf("got %v", err)
	}
	old := s.Node()
	s.appender.missing(old)
	storage.set(failing("store", "/log/"), nil)
	if err := s.appender.beat(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	storage.set(nil, nil)
	if err := s.appender.beat(t.Context()); err != nil || s.Node() == old {
		t.Fatal(err, s.Node())
	}
	for _, one := range []*Store{s, open(t, quiet(t, storage))} {
		if v, version := get(t, one, numbered(1)); v.N != 2 || version != 2 || len(one.Problems()) > 0 {
			t.Errorf("%d, version %d, %v", v.N, version, one.Problems())
		}
	}
}
