package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCounters(t *testing.T) {
	t.Parallel()
	storage := newMemory()
	a, b := open(t, options(t, storage)), open(t, options(t, storage))
	end := time.Now().Add(time.Hour)
	if got := a.Counters().Add("k", 1, 3, end); got != 3 {
		t.Errorf("got %d", got)
	}
	if got := b.Counters().Add("k", 1, 4, end); got != 4 && got != 7 {
		t.Errorf("got %d", got)
	}
	b.Counters().Add("k", 2, 100, end)
	b.Counters().Add("other", 1, 100, end)
	for _, s := range []*Store{a, b} {
		eventually(t, 5*time.Second, "7 on both", func() bool { return s.Counters().Total("k", 1) == 7 })
	}
	b.Counters().Add("k", 1, -1, end)
	eventually(t, 5*time.Second, "6", func() bool { return a.Counters().Total("k", 1) == 6 })
	if a.Counters().Total("none", 1) != 0 || a.Len(counterKind) != 0 {
		t.Error("counters show where they should not")
	}
	for range a.Range(counterKind) {
		t.Error("counters are in Range")
	}
	// They outlive their nodes, in logs and in snapshots.
	closeStore(t, a)
	closeStore(t, b)
	for range 3 {
		c := open(t, quiet(t, newFaulty(storage)))
		if got := c.Counters().Total("k", 1); got != 6 {
			t.Errorf("got %d", got)
		}
		snapshot(t, c)
		closeStore(t, c)
	}
}

// What is counted at the same time on several nodes is all there at the end.
func TestCountersConcurrently(t *testing.T) {
	storage := newMemory()
	const nodes, workers, each, keys = 2, 4, 1000, 10
	var stores []*Store
	for range nodes {
		opt := options(t, storage)
		opt.Interval = 10 * time.Millisecond
		stores = append(stores, open(t, opt))
	}
	end := time.Now().Add(time.Hour)
	var wg sync.WaitGroup
	for _, s := range stores {
		for range workers {
			wg.Go(func() {
				for i := range each {
					s.Counters().Add(fmt.Sprint("k", i%keys), 1, 1, end)
				}
			})
		}
	}
	wg.Wait()
	for _, s := range stores {
		eventually(t, 10*time.Second, "all are counted everywhere", func() bool {
			for k := range keys {
				if s.Counters().Total(fmt.Sprint("k", k), 1) != nodes*workers*each/keys {
					return false
				}
			}
			return true
		})
	}
}

// What could not be written is written later.
func TestCountersSurviveFaults(t *testing.T) {
	for _, part := range []string{"/log/", "/head"} {
		inner := newMemory()
		storage := newFaulty(inner)
		s := open(t, quiet(t, storage))
		end := time.Now().Add(time.Hour)
		s.Counters().Add("k", 1, 1, end)
		storage.set(failing("store", part), nil)
		if err := s.counters.flush(t.Context()); err == nil {
			t.Fatal("no error?")
		}
		s.Counters().Add("k", 1, 1, end)
		if err := s.counters.flush(t.Context()); err == nil {
			t.Fatal("no error?")
		}
		storage.set(nil, nil)
		if err := s.counters.flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := open(t, quiet(t, newFaulty(inner))).Counters().Total("k", 1); got != 2 {
			t.Errorf("got %d", got)
		}
	}
}

// A node that goes on under another id does not count twice.
func TestCountersUnderAnotherID(t *testing.T) {
	inner := newMemory()
	s, other := open(t, quiet(t, newFaulty(inner))), open(t, quiet(t, newFaulty(inner)))
	end := time.Now().Add(time.Hour)
	s.Counters().Add("k", 1, 5, end)
	if err := s.counters.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Counters().Add("k", 1, 2, end)
	old := s.Node()
	s.appender.missing(old)
	if err := s.appender.beat(t.Context()); err != nil || s.Node() == old {
		t.Fatal(err, s.Node())
	}
	s.Counters().Add("k", 1, 1, end)
	if err := s.counters.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, one := range []*Store{s, other, open(t, quiet(t, newFaulty(inner)))} {
		if got := one.Counters().Total("k", 1); got != 8 {
			t.Errorf("got %d", got)
		}
	}
}

// A window that is over is forgotten, in memory and in snapshots.
func TestCountersEnd(t *testing.T) {
	inner := newMemory()
	now := time.Now()
	var mu sync.Mutex
	opt := quiet(t, newFaulty(inner))
	opt.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	opt.tune.deadAfter = 1000 * time.Hour
	s := open(t, opt)
	s.Counters().Add("k", 1, 1, now.Add(time.Minute))
	s.Counters().Add("k", 2, 1, now.Add(time.Hour))
	if err := s.counters.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = now.Add(10 * time.Minute)
	mu.Unlock()
	s.counters.sweep(opt.Now())
	if s.Counters().Total("k", 1) != 0 || s.Counters().Total("k", 2) != 1 || s.counters.n.Load() != 1 {
		t.Error("not forgotten, or too much")
	}
	snapshot(t, s)
	snapshot(t, s)
	if fresh := open(t, opt); fresh.Counters().Total("k", 1) != 0 || fresh.Counters().Total("k", 2) != 1 {
		t.Error("not forgotten, or too much")
	}
}

// Two nodes let in what a quota allows, as fast as they can be asked: what is let in beyond it
// is no more than what comes within an interval.
func TestOvershootOfAQuota(t *testing.T) {
	storage := newMemory()
	const nodes, every = 2, time.Millisecond
	quota, interval := int64(1500), 400*time.Millisecond
	if testing.Short() {
		quota, interval = 600, 200*time.Millisecond
	}
	var stores []*Store
	for range nodes {
		opt := options(t, storage)
		opt.Interval = interval
		stores = append(stores, open(t, opt))
	}
	end := time.Now().Add(time.Hour)
	var wg sync.WaitGroup
	var let atomic.Int64
	started := time.Now()
	for _, s := range stores {
		wg.Go(func() {
			ticker := time.NewTicker(every)
			defer ticker.Stop()
			for s.Counters().Total("q", 1) < quota {
				<-ticker.C
				s.Counters().Add("q", 1, 1, end)
				let.Add(1)
			}
		})
	}
	wg.Wait()
	rate := float64(let.Load()) / nodes / time.Since(started).Seconds()
	allowed := nodes * rate * interval.Seconds()
	t.Logf("%d let in, %d are %d too many; %.0f are allowed at %.0f/s and node", let.Load(), quota, let.Load()-quota, allowed, rate)
	if float64(let.Load()-quota) > allowed {
		t.Error("too many")
	}
}

func TestCountersAreBounded(t *testing.T) {
	s := open(t, quiet(t, newFaulty(newMemory())))
	s.counters.n.Store(maxCounters)
	if got := s.Counters().Add("k", 1, 3, time.Now().Add(time.Hour)); got != 3 {
		t.Errorf("got %d", got)
	}
	if p := s.Problems(); len(p) != 1 || p[0].Key != "counters" {
		t.Errorf("got %+v", p)
	}
	s.counters.n.Store(0)
	s.counters.sweep(time.Now())
	if p := s.Problems(); len(p) != 0 {
		t.Errorf("got %+v", p)
	}
}

func BenchmarkCountersAdd(b *testing.B) {
	s := open(b, quiet(b, newFaulty(newMemory())))
	end := time.Now().Add(time.Hour)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("0190b2f4-9a3e-7c4d-b1a2-%012d", i)
	}
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s.Counters().Add(keys[i%len(keys)], 1, 1, end)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				s.Counters().Add(keys[i%len(keys)], 1, 1, end)
			}
		})
	})
}
