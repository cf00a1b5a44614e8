package store

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

var errDisk = errors.New("no space left on device")

func failing(op, part string) func(string, string) error {
	return func(o, key string) error {
		if o == op && strings.Contains(key, part) {
			return errDisk
		}
		return nil
	}
}

func none(string, string) error { return nil }

// quiet are options under which nothing happens by itself.
func quiet(t testing.TB, storage *faulty) Options {
	opt := options(t, storage)
	opt.Interval, opt.tune.compactEvery = time.Hour, time.Hour
	opt.tune.deadAfter, opt.tune.heartbeat = time.Hour, time.Hour
	opt.WriteTimeout = 5 * time.Second
	return opt
}

// Where the batch can't be written the change has not happened, for nobody and for ever, not
// even if the write arrives after all.
func TestBatchFails(t *testing.T) {
	for name, fault := range map[string]func(*faulty){
		"before": func(f *faulty) { f.set(failing("store", "/log/"), nil) },
		"after":  func(f *faulty) { f.set(nil, failing("store", "/log/")) }, // it was written all the same
	} {
		t.Run(name, func(t *testing.T) {
			storage := newFaulty(newMemory())
			s := open(t, quiet(t, storage))
			a, b := Ref{"thing", "a"}, Ref{"thing", "b"}
			put(t, s, a, thing{N: 1})
			fault(storage)
			for range 2 {
				err := tryPut(t.Context(), s, a, thing{N: 2})
				if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errDisk) || errors.Is(err, ErrUncertain) {
					t.Fatalf("got %v", err)
				}
			}
			if v, _ := get(t, s, a); v.N != 1 {
				t.Errorf("memory has %d", v.N)
			}
			if p := s.Problems(); len(p) != 1 || p[0].Key != writingFails {
				t.Errorf("got %+v", p)
			}
			storage.set(nil, nil)
			put(t, s, b, thing{N: 3})
			if p := s.Problems(); len(p) != 0 {
				t.Errorf("got %+v", p)
			}
			for _, one := range []*Store{s, open(t, quiet(t, storage))} {
				va, version := get(t, one, a)
				if vb, _ := get(t, one, b); va.N != 1 || version != 1 || vb.N != 3 {
					t.Errorf("got %d (version %d), %d", va.N, version, vb.N)
				}
				if p := one.Problems(); len(p) != 0 {
					t.Errorf("got %+v", p)
				}
			}
		})
	}
}

// Where the head can't be written it is open whether the change has happened; it is said so,
// and when the storage is back memory, storage and the other nodes agree.
func TestHeadFails(t *testing.T) {
	for name, fault := range map[string]func(*faulty){
		"before": func(f *faulty) { f.set(failing("store", "/head"), nil) },
		"after":  func(f *faulty) { f.set(nil, failing("store", "/head")) },
	} {
		t.Run(name, func(t *testing.T) {
			storage := newFaulty(newMemory())
			s, other := open(t, quiet(t, storage)), open(t, quiet(t, storage))
			a, b := Ref{"thing", "a"}, Ref{"thing", "b"}
			put(t, s, a, thing{N: 1})
			fault(storage)
			if err := tryPut(t.Context(), s, a, thing{N: 2}); !errors.Is(err, ErrUncertain) || !errors.Is(err, errDisk) {
				t.Fatalf("got %v", err)
			}
			if v, _ := get(t, s, a); v.N != 1 {
				t.Errorf("memory has %d", v.N)
			}
			// What comes after it is refused for certain.
			if err := tryPut(t.Context(), s, b, thing{N: 9}); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
			storage.set(nil, nil)
			if err := s.appender.beat(t.Context()); err != nil { // as the store does it by itself
				t.Fatal(err)
			}
			if err := other.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, one := range []*Store{s, other, open(t, quiet(t, storage))} {
				va, version := get(t, one, a)
				if _, ok := one.Get(b); va.N != 2 || version != 2 || ok {
					t.Errorf("got %d (version %d), b %v", va.N, version, ok)
				}
				if p := one.Problems(); len(p) != 0 {
					t.Errorf("got %+v", p)
				}
			}
			put(t, s, a, thing{N: 3})
		})
	}
}

// A storage that hangs, and does not heed its context, costs nobody more than the write
// timeout; reading goes on.
func TestStorageHangs(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"lock ", "load /head", "list ", "store /log/", "store /head"} {
		t.Run(strings.ReplaceAll(part, "/", ""), func(t *testing.T) {
			t.Parallel()
			storage := newFaulty(newMemory())
			opt := quiet(t, storage)
			opt.WriteTimeout = 1500 * time.Millisecond // a busy machine must manage the calls that do not hang
			s := open(t, opt)
			a, b := Ref{"thing", "a"}, Ref{"thing", "b"}
			put(t, s, a, thing{N: 1})
			op, in, _ := strings.Cut(part, " ")
			release := storage.hang(func(o, key string) bool { return o == op && strings.Contains(key, in) })
			defer release()
			started := time.Now()
			err := tryPut(context.Background(), s, a, thing{N: 2})
			if took := time.Since(started); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}
			uncertain := part == "store /head"
			if err == nil || !errors.Is(err, errSilent) || errors.Is(err, ErrUncertain) != uncertain && op != "store" {
				t.Errorf("got %v", err)
			}
			if v, _ := get(t, s, a); v.N != 1 {
				t.Errorf("memory has %d", v.N)
			}
			if err := tryPut(context.Background(), s, b, thing{}); err == nil {
				t.Error("stored?")
			}
			release()
			eventually(t, 5*time.Second, "writing goes on", func() bool { return tryPut(context.Background(), s, b, thing{N: 1}) == nil })
			mine, version := get(t, s, a)
			theirs, _ := get(t, open(t, quiet(t, storage)), a)
			if mine != theirs || uncertain && version != 2 || !uncertain && op != "store" && version != 1 {
				t.Errorf("memory has %+v, version %d, and the storage %+v", mine, version, theirs)
			}
		})
	}
}

// An old head that arrives late is replaced.
func TestHeadIsPutBack(t *testing.T) {
	inner := newMemory()
	storage := newFaulty(inner)
	s := open(t, quiet(t, storage))
	put(t, s, Ref{"thing", "a"}, thing{N: 1})
	key := inner.keys("/head")[0]
	old, _ := inner.Load(t.Context(), key)
	put(t, s, Ref{"thing", "a"}, thing{N: 2})
	inner.change(key, func([]byte) []byte { return old })
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.appender.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, _ := get(t, open(t, quiet(t, storage)), Ref{"thing", "a"}); v.N != 2 {
		t.Errorf("got %d", v.N)
	}
}

// A node whose storage fails goes on reading from memory, says what is wrong, and catches up.
func TestReadingFails(t *testing.T) {
	t.Parallel()
	storage := newMemory()
	mine := newFaulty(storage)
	opt := options(t, mine)
	a, b := open(t, opt), open(t, options(t, storage))
	put(t, a, Ref{"thing", "a"}, thing{N: 1})
	mine.set(func(string, string) error { return errDisk }, nil)
	eventually(t, 5*time.Second, "it is reported", func() bool {
		for _, p := range a.Problems() {
			if p.Key == readingFails && strings.Contains(p.Detail, errDisk.Error()) {
				return true
			}
		}
		return false
	})
	put(t, b, Ref{"thing", "a"}, thing{N: 2})
	if v, _ := get(t, a, Ref{"thing", "a"}); v.N != 1 {
		t.Errorf("got %d", v.N)
	}
	mine.set(nil, nil)
	eventually(t, 5*time.Second, "it catches up", func() bool {
		v, _ := get(t, a, Ref{"thing", "a"})
		return v.N == 2 && len(a.Problems()) == 0
	})
}

func TestOpenFails(t *testing.T) {
	for _, op := range []string{"list", "load"} {
		storage := newFaulty(newMemory())
		storage.set(func(o, _ string) error {
			if o == op {
				return errDisk
			}
			return nil
		}, nil)
		if _, err := Open(t.Context(), options(t, storage)); !errors.Is(err, errDisk) {
			t.Errorf("%s: got %v", op, err)
		}
	}
	if _, err := Open(t.Context(), Options{}); err == nil {
		t.Error("without a storage?")
	}
}

// After a reload there is another handle on the storage, and the old one may be gone.
func TestUse(t *testing.T) {
	inner := newMemory()
	first := newFaulty(inner)
	s := open(t, options(t, first))
	put(t, s, Ref{"thing", "a"}, thing{N: 1})
	s.Use(newFaulty(inner))
	first.set(func(string, string) error { return fs.ErrClosed }, nil)
	put(t, s, Ref{"thing", "a"}, thing{N: 2})
	s.SetInterval(20 * time.Millisecond)
	put(t, s, Ref{"thing", "a"}, thing{N: 3})
	eventually(t, 5*time.Second, "a beat", func() bool { return s.Sync(t.Context()) == nil })
}

// A lock that could not be released is released later.
func TestUnlockFails(t *testing.T) {
	inner := newMemory()
	storage := newFaulty(inner)
	opt := options(t, storage)
	opt.Interval = 50 * time.Millisecond
	s := open(t, opt)
	storage.set(failing("unlock", ""), nil)
	put(t, s, Ref{"thing", "a"}, thing{N: 1})
	storage.set(none, nil)
	other := open(t, options(t, inner))
	put(t, other, Ref{"thing", "a"}, thing{N: 2})
}

// A batch that the storage fails to give holds up changes, which could be made without having
// seen it; but not for ever, and not the start.
func TestOneFileCannotBeRead(t *testing.T) {
	inner := newMemory()
	storage := newFaulty(inner)
	s, other := open(t, quiet(t, newFaulty(inner))), open(t, quiet(t, storage))
	put(t, s, numbered(1), thing{N: 1})
	put(t, s, numbered(2), thing{N: 2})
	bad := inner.keys("/log/")[0]
	storage.set(failing("load", bad), nil)
	if err := tryPut(t.Context(), other, numbered(3), thing{N: 3}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errDisk) {
		t.Fatalf("got %v", err)
	}
	fresh := open(t, quiet(t, storage))
	expectThings(t, fresh, map[string]int{numbered(2).ID: 2})
	for range other.tune.retries {
		_ = other.Sync(t.Context())
	}
	put(t, other, numbered(3), thing{N: 3})
	expectThings(t, other, map[string]int{numbered(2).ID: 2, numbered(3).ID: 3})
	if p := other.Problems(); len(p) != 1 || p[0].Key != bad {
		t.Errorf("got %+v", p)
	}
	storage.set(nil, nil)
	other.fillHoles(t.Context())
	expectThings(t, other, map[string]int{numbered(1).ID: 1, numbered(2).ID: 2, numbered(3).ID: 3})
	if p := other.Problems(); len(p) != 0 {
		t.Errorf("got %+v", p)
	}
}

// Closing takes no longer than it is given, whatever the storage does.
func TestCloseWhileTheStorageHangs(t *testing.T) {
	t.Parallel()
	storage := newFaulty(newMemory())
	opt := options(t, storage)
	opt.WriteTimeout = time.Second
	s, err := Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, Ref{"thing", "a"}, thing{N: 1})
	s.Counters().Add("k", 1, 1, time.Now().Add(time.Hour))
	release := storage.hang(func(string, string) bool { return true })
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	started := time.Now()
	if err := s.Close(ctx); err == nil {
		t.Error("no error?")
	}
	if took := time.Since(started); took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	if v, _ := get(t, s, Ref{"thing", "a"}); v.N != 1 {
		t.Error("reading must go on")
	}
}

// However many wait for a storage that hangs, the goroutines are bounded.
func TestHangingCallsAreBounded(t *testing.T) {
	t.Parallel()
	d := newDisk(newFaulty(newMemory()), "x", 20*time.Millisecond)
	f, _ := d.storage().(*faulty)
	release := f.hang(func(string, string) bool { return true })
	defer release()
	for range maxHanging + 5 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := d.load(ctx, "x/y"); err == nil {
			t.Error("no error?")
		}
		cancel()
	}
	if n := len(d.calls); n != maxHanging {
		t.Errorf("%d calls", n)
	}
}
