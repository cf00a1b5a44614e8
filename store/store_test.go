package store

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// lockKeeper is certmagic's goroutine for a lock file: it ends some seconds after the lock.
const lockKeeper = "github.com/caddyserver/certmagic.keepLockfileFresh"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	// What is parallel here waits for its time, and not for a processor.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(lockKeeper))
}

// fastTuning makes everything happen within a test.
func fastTuning() tuning {
	return tuning{
		heartbeat: 200 * time.Millisecond, deadAfter: 2 * time.Second, observe: 500 * time.Millisecond,
		compactEvery: 50 * time.Millisecond, compactLog: 16, shardBytes: 4 << 10, litter: 2 * time.Second,
		tombstones: time.Hour, retries: 4,
	}
}

type thing struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func options(t testing.TB, storage certmagic.Storage) Options {
	logger := zap.NewNop()
	if testing.Verbose() {
		logger = zaptest.NewLogger(t)
	}
	return Options{Storage: storage, Interval: 100 * time.Millisecond, Logger: logger, tune: fastTuning()}
}

func open(t testing.TB, opt Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

func files(t testing.TB) *certmagic.FileStorage { return &certmagic.FileStorage{Path: t.TempDir()} }

func put(t testing.TB, s *Store, ref Ref, v any) {
	t.Helper()
	if err := tryPut(t.Context(), s, ref, v); err != nil {
		t.Fatal(err)
	}
}

func tryPut(ctx context.Context, s *Store, ref Ref, v any) error {
	return s.Update(ctx, []Ref{ref}, func(tx *Tx) error { return tx.Put(ref, v) })
}

func get(t testing.TB, s *Store, ref Ref) (thing, uint64) {
	t.Helper()
	r, ok := s.Get(ref)
	if !ok {
		return thing{}, 0
	}
	var v thing
	if err := json.Unmarshal(r.Data, &v); err != nil {
		t.Fatal(err)
	}
	return v, r.Version
}

// eventually polls with a deadline.
func eventually(t testing.TB, within time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestWriteReadDelete(t *testing.T) {
	storage := files(t)
	s := open(t, options(t, storage))
	a := Ref{"thing", "a"}
	put(t, s, a, thing{N: 1})
	put(t, s, a, thing{N: 2})
	if v, version := get(t, s, a); v.N != 2 || version != 2 {
		t.Fatalf("got %+v, version %d", v, version)
	}
	if s.Len("thing") != 1 || s.Len("other") != 0 {
		t.Fatal("wrong length")
	}
	err := s.Update(t.Context(), []Ref{a}, func(tx *Tx) error {
		tx.Delete(a)
		if _, ok := tx.Get(a); ok {
			return errors.New("still there")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Get(a); ok || s.Len("thing") != 0 {
		t.Fatal("still there")
	}
	put(t, s, a, thing{N: 9})
	if _, version := get(t, s, a); version != 4 {
		t.Fatalf("version %d: a new life must go on counting", version)
	}
	closeStore(t, s)
	s = open(t, options(t, storage))
	if v, version := get(t, s, a); v.N != 9 || version != 4 {
		t.Fatalf("after a restart: %+v, version %d", v, version)
	}
	if p := s.Problems(); len(p) != 0 {
		t.Fatal(p)
	}
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	s := open(t, options(t, files(t)))
	a, b := Ref{"thing", "a"}, Ref{"thing", "b"}
	mine := errors.New("mine")
	err := s.Update(t.Context(), []Ref{a, b}, func(tx *Tx) error {
		if err := tx.Put(a, thing{N: 1}); err != nil {
			return err
		}
		return mine
	})
	if err != mine {
		t.Fatalf("got %v", err)
	}
	if s.Len("thing") != 0 {
		t.Fatal("half of it was stored")
	}
}

func TestInvalidWrites(t *testing.T) {
	t.Parallel()
	s := open(t, options(t, files(t)))
	a, b := Ref{"thing", "a"}, Ref{"thing", "b"}
	put(t, s, b, thing{})
	for name, f := range map[string]func(*Tx) error{
		"not locked":     func(tx *Tx) error { return tx.Put(b, thing{}) },
		"no id":          func(tx *Tx) error { return tx.Put(Ref{"thing", ""}, thing{}) },
		"bad utf-8":      func(tx *Tx) error { return tx.Put(Ref{"thing", "\xff"}, thing{}) },
		"counter":        func(tx *Tx) error { return tx.Put(Ref{counterKind, "x"}, thing{}) },
		"too large":      func(tx *Tx) error { return tx.Put(a, make([]byte, maxRecord)) },
		"delete unknown": func(tx *Tx) error { tx.Delete(b); return nil },
	} {
		if err := s.Update(t.Context(), []Ref{a}, f); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := s.Update(t.Context(), []Ref{{}}, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
	// A new record with an id of one's own needs no lock.
	if err := s.Update(t.Context(), []Ref{a}, func(tx *Tx) error { return tx.Put(Ref{"thing", "fresh"}, thing{}) }); err != nil {
		t.Error(err)
	}
}

func TestWatchTellsInOrderBeforeUpdateReturns(t *testing.T) {
	t.Parallel()
	s := open(t, options(t, files(t)))
	var mu sync.Mutex
	var seen []string
	stop := s.Watch(func(changes []Change) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range changes {
			seen = append(seen, fmt.Sprintf("%v %d %v", c.Old != nil, c.New.Version, c.New.Deleted))
		}
	})
	a := Ref{"thing", "a"}
	for _, step := range []struct {
		f    func(*Tx) error
		want string
	}{
		{func(tx *Tx) error { return tx.Put(a, thing{}) }, "false 1 false"},
		{func(tx *Tx) error { return tx.Put(a, thing{N: 1}) }, "true 2 false"},
		{func(tx *Tx) error { tx.Delete(a); return nil }, "true 3 true"},
		{func(tx *Tx) error { return tx.Put(a, thing{}) }, "false 4 false"},
	} {
		if err := s.Update(t.Context(), []Ref{a}, step.f); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if got := seen[len(seen)-1]; got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
		mu.Unlock()
	}
	stop()
	put(t, s, a, thing{})
	if len(seen) != 4 {
		t.Errorf("told after stop: %v", seen)
	}
}

// Many goroutines add to the same few records, and nothing is lost.
func TestConcurrentUpdates(t *testing.T) {
	t.Parallel()
	s := open(t, options(t, files(t)))
	const workers, each = 8, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				ref := Ref{"thing", fmt.Sprint(w % 3)}
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
	sum := 0
	for r := range s.Range("thing") {
		v, version := get(t, s, r.Ref)
		sum += v.N
		if uint64(v.N) != version {
			t.Errorf("%v: value %d, version %d", r.Ref, v.N, version)
		}
	}
	if sum != workers*each {
		t.Errorf("%d of %d", sum, workers*each)
	}
}

// Without a lock for a new record two can make it at once: one of them is told.
func TestFreshRecordsAreMadeOnce(t *testing.T) {
	t.Parallel()
	s := open(t, options(t, files(t)))
	var wg sync.WaitGroup
	made := make(chan error, 8)
	for range cap(made) {
		wg.Go(func() {
			made <- s.Update(t.Context(), nil, func(tx *Tx) error {
				if _, ok := tx.Get(Ref{"thing", "a"}); ok {
					return errors.New("taken")
				}
				return tx.Put(Ref{"thing", "a"}, thing{})
			})
		})
	}
	wg.Wait()
	close(made)
	n := 0
	for err := range made {
		if err == nil {
			n++
		}
	}
	if _, version := get(t, s, Ref{"thing", "a"}); n != 1 || version != 1 {
		t.Errorf("made %d times, version %d", n, version)
	}
}

// Names that storages fold to the same lock don't lock each other out.
func TestNamesThatLookAlike(t *testing.T) {
	t.Parallel()
	s := open(t, options(t, files(t)))
	refs := []Ref{{"thing", "Ab"}, {"thing", "ab"}, {"thing", "a/b"}, {"thing", "a b"}, {"thing", "../ab"}, {"thing", "ä\n"}}
	err := s.Update(t.Context(), append(refs, refs...), func(tx *Tx) error {
		for i, ref := range refs {
			if err := tx.Put(ref, thing{N: i}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, ref := range refs {
		if v, _ := get(t, s, ref); v.N != i {
			t.Errorf("%v: %d", ref, v.N)
		}
	}
}

func TestClosed(t *testing.T) {
	storage := files(t)
	s := open(t, options(t, storage))
	put(t, s, Ref{"thing", "a"}, thing{N: 1})
	closeStore(t, s)
	if err := tryPut(t.Context(), s, Ref{"thing", "a"}, thing{}); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := s.Sync(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
	if v, _ := get(t, s, Ref{"thing", "a"}); v.N != 1 {
		t.Error("reading must go on")
	}
	closeStore(t, s) // once more does no harm
}

// A process that changes nothing and ends at once leaves nothing behind.
func TestNothingIsWrittenForNothing(t *testing.T) {
	storage := files(t)
	opt := options(t, storage)
	opt.Interval = time.Hour
	closeStore(t, open(t, opt))
	entries, err := filepath.Glob(filepath.Join(storage.Path, "*"))
	if err != nil || len(entries) != 0 {
		t.Errorf("%v %v", entries, err)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	storage := files(t)
	a, b := open(t, options(t, storage)), open(t, options(t, storage))
	put(t, a, Ref{"thing", "a"}, thing{})
	put(t, b, Ref{"thing", "b"}, thing{})
	eventually(t, 5*time.Second, "a sees b", func() bool {
		nodes := a.Nodes()
		return len(nodes) == 2 && nodes[0].Self && nodes[0].ID == a.Node() && nodes[1].ID == b.Node() && nodes[1].Alive && nodes[1].Seq == 1
	})
	closeStore(t, b)
	eventually(t, 5*time.Second, "b ended", func() bool {
		return !slices.ContainsFunc(a.Nodes()[1:], func(n NodeInfo) bool { return n.Alive })
	})
}
