package store

import (
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// With very many records reading one is quick, and so is the start; both from the logs as a
// writer leaves them and from a snapshot.
func TestManyRecords(t *testing.T) {
	n := 200_000
	switch {
	case os.Getenv("MESSAGE_API_SOAK") == "1":
		n = 1_000_000
	case testing.Short():
		n = 2_000
	case raceEnabled:
		n = 20_000
	}
	storage := files(t)
	opt := options(t, storage)
	opt.tune, opt.Interval = defaultTuning, time.Hour
	s := open(t, opt)
	started := time.Now()
	fill(t, s, n)
	t.Logf("%d records written in %v", n, time.Since(started).Round(time.Millisecond))
	openMany(t, opt, n, "logs")
	started = time.Now()
	snapshot(t, s)
	t.Logf("snapshot of %d shards in %v", len(s.view.manifest.Shards), time.Since(started).Round(time.Millisecond))
	snapshot(t, s)
	started = time.Now()
	put(t, s, numbered(n/2), thing{N: 1})
	snapshot(t, s)
	t.Logf("change and snapshot after it in %v", time.Since(started).Round(time.Millisecond))
	openMany(t, opt, n, "the snapshot")
}

func openMany(t *testing.T, opt Options, n int, from string) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	started := time.Now()
	s := open(t, opt)
	took := time.Since(started)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if s.Len("thing") != n || len(s.Problems()) > 0 {
		t.Fatalf("%d records, %v", s.Len("thing"), s.Problems())
	}
	look := time.Hour
	for range 5 { // the best, because the machine has other things to do
		look = min(look, lookUp(t, s, n))
	}
	started = time.Now()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records: opened from %s in %v, %d bytes of memory each, Get %v, Sync without news %v", n, from, took.Round(time.Millisecond),
		(int64(after.HeapAlloc)-int64(before.HeapAlloc))/int64(n), look, time.Since(started).Round(time.Microsecond))
	if !raceEnabled && n <= 200_000 && (look > 2*time.Microsecond || took > 20*time.Second) {
		t.Errorf("too slow: Get %v, Open %v", look, took)
	}
	closeStore(t, s)
}

// lookUp returns how long it takes to find a record that nobody has looked for recently.
func lookUp(t *testing.T, s *Store, n int) time.Duration {
	refs := make([]Ref, min(10_000, n/4))
	for i := range refs {
		refs[i] = numbered(rand.IntN(n))
	}
	started := time.Now()
	for _, ref := range refs {
		if _, ok := s.Get(ref); !ok {
			t.Fatal(ref)
		}
	}
	return time.Since(started) / time.Duration(len(refs))
}

func BenchmarkGet(b *testing.B) {
	s := open(b, quiet(b, newFaulty(newMemory())))
	const n = 200_000
	fill(b, s, n)
	refs := make([]Ref, 4096)
	for i := range refs {
		refs[i] = numbered(rand.IntN(n))
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			s.Get(refs[i%len(refs)])
		}
	})
}

// One change after the other, and many at once, on files.
func BenchmarkUpdate(b *testing.B) {
	for name, parallelism := range map[string]int{"one": 0, "many": 32} {
		b.Run(name, func(b *testing.B) {
			opt := options(b, files(b))
			opt.tune = defaultTuning
			s := open(b, opt)
			var next atomic.Int64
			if parallelism == 0 {
				for b.Loop() {
					put(b, s, numbered(int(next.Add(1))), thing{})
				}
				return
			}
			b.SetParallelism(parallelism / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := tryPut(b.Context(), s, numbered(int(next.Add(1))), thing{}); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/float64(s.Nodes()[0].Seq), "changes/batch")
		})
	}
}
