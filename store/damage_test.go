package store

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// damages are what may have become of a file.
var damages = map[string]func([]byte) []byte{
	"empty":     func([]byte) []byte { return nil },
	"half":      func(b []byte) []byte { return b[:len(b)/2] },
	"one bit":   func(b []byte) []byte { b = slices.Clone(b); b[len(b)/2] ^= 4; return b },
	"no header": func(b []byte) []byte { return b[bytes.IndexByte(b, '\n')+1:] },
	"binary":    func([]byte) []byte { return []byte("\x00\x01\xff") },
	"longer":    func(b []byte) []byte { return append(slices.Clone(b), `{"k":"thing","i":"z","v":1}`...) },
	"later":     func(b []byte) []byte { return bytes.Replace(b, []byte(`"v":1`), []byte(`"v":99`), 1) },
}

// A damaged batch is skipped and reported, and the rest is served.
func TestDamagedBatch(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			inner := newMemory()
			s := open(t, quiet(t, newFaulty(inner)))
			for i := range 3 {
				put(t, s, numbered(i), thing{N: i})
			}
			key := inner.keys("/log/")[1]
			inner.change(key, damage)
			fresh := open(t, quiet(t, newFaulty(inner)))
			expectThings(t, fresh, map[string]int{numbered(0).ID: 0, numbered(2).ID: 2})
			if p := fresh.Problems(); len(p) != 1 || p[0].Key != key || !strings.Contains(p[0].Detail, "skipped") {
				t.Errorf("got %+v", p)
			}
			if name == "later" {
				for range 2 * fresh.tune.retries {
					fresh.fillHoles(t.Context())
				}
				if !fresh.holesLeft() {
					t.Error("it was given up")
				}
				return
			}
			for i := range fresh.tune.retries { // until it is given up
				fresh.fillHoles(t.Context())
				if i == 0 {
					if err := fresh.compact(t.Context(), true); err != nil || len(inner.keys("/snapshot/")) > 0 {
						t.Errorf("a snapshot was made in the meantime: %v", err)
					}
				}
			}
			if p := fresh.Problems(); len(p) != 1 || !strings.Contains(p[0].Detail, "for good; a copy is kept") {
				t.Errorf("got %+v", p)
			}
			if len(inner.keys("/damaged/")) != 1 {
				t.Error("no copy was kept")
			}
			// It is written again, and everything is well.
			put(t, fresh, numbered(1), thing{N: 11})
			snapshot(t, fresh)
			snapshot(t, fresh)
			last := open(t, quiet(t, newFaulty(inner)))
			expectThings(t, last, map[string]int{numbered(0).ID: 0, numbered(1).ID: 11, numbered(2).ID: 2})
			if p := last.Problems(); len(p) > 0 {
				t.Error(p)
			}
		})
	}
}

// A batch that comes late, as from a storage that shows new files with delay, is taken in.
func TestBatchComesLate(t *testing.T) {
	inner := newMemory()
	s, other := open(t, quiet(t, newFaulty(inner))), open(t, quiet(t, newFaulty(inner)))
	put(t, s, numbered(0), thing{N: 0})
	key := inner.keys("/log/")[0]
	data, _ := inner.Load(t.Context(), key)
	if err := inner.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	put(t, s, numbered(1), thing{N: 1})
	if err := other.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectThings(t, other, map[string]int{numbered(1).ID: 1})
	inner.change(key, func([]byte) []byte { return data })
	other.fillHoles(t.Context())
	expectThings(t, other, map[string]int{numbered(0).ID: 0, numbered(1).ID: 1})
	if p := other.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

func TestDamagedHead(t *testing.T) {
	inner := newMemory()
	s := open(t, quiet(t, newFaulty(inner)))
	for i := range 3 {
		put(t, s, numbered(i), thing{N: i})
	}
	key := inner.keys("/head")[0]
	inner.change(key, damages["half"])
	fresh := open(t, quiet(t, newFaulty(inner)))
	expectThings(t, fresh, map[string]int{numbered(0).ID: 0, numbered(1).ID: 1, numbered(2).ID: 2})
	if p := fresh.Problems(); len(p) != 1 || p[0].Key != key {
		t.Errorf("got %+v", p)
	}
	// Its node writes it again.
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.appender.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Sync(t.Context()); err != nil || len(fresh.Problems()) != 0 {
		t.Errorf("%v %+v", err, fresh.Problems())
	}
}

// A damaged shard is skipped and reported, and the rest is served. What is written to it
// later is kept, and so is a copy.
func TestDamagedShard(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 100
	}
	for name, damage := range damages {
		if name == "later" {
			continue // as with a batch
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := newMemory()
			s := open(t, quiet(t, newFaulty(inner)))
			for i := range n {
				put(t, s, numbered(i), thing{N: i, Text: strings.Repeat("x", 100)})
			}
			snapshot(t, s)
			snapshot(t, s)
			key := inner.keys("/0001")[0]
			inner.change(key, damage)
			fresh := open(t, quiet(t, newFaulty(inner)))
			if got := fresh.Len("thing"); got == 0 || got >= n || got < n/2 {
				t.Errorf("%d records of %d", got, n)
			}
			if p := fresh.Problems(); len(p) != 1 || p[0].Key != key {
				t.Errorf("got %+v", p)
			}
			for range fresh.tune.retries {
				fresh.fillHoles(t.Context())
			}
			served := fresh.Len("thing")
			for i := range n { // all are written again
				put(t, fresh, numbered(i), thing{N: i + 1})
			}
			snapshot(t, fresh)
			snapshot(t, fresh)
			last := open(t, quiet(t, newFaulty(inner)))
			if last.Len("thing") != n || len(last.Problems()) > 0 || len(inner.keys("/damaged/")) != 1 {
				t.Errorf("%d, then %d records; %+v", served, last.Len("thing"), last.Problems())
			}
		})
	}
}

// Where snapshot/current is damaged, the manifest of the generation stands in for it.
func TestDamagedCurrent(t *testing.T) {
	for name, damage := range damages {
		if name == "no header" || name == "longer" { // it has none, and it may be
			continue
		}
		t.Run(name, func(t *testing.T) {
			inner := newMemory()
			s := open(t, quiet(t, newFaulty(inner)))
			put(t, s, numbered(1), thing{N: 1})
			snapshot(t, s)
			snapshot(t, s)
			key := inner.keys("/current")[0]
			inner.change(key, damage)
			fresh, err := Open(t.Context(), quiet(t, newFaulty(inner)))
			if name == "later" {
				if err == nil || !strings.Contains(err.Error(), "later version") {
					t.Fatalf("got %v", err)
				}
				inner.change(key, damages["empty"])
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer closeStore(t, fresh)
			expectThings(t, fresh, map[string]int{numbered(1).ID: 1})
			if p := fresh.Problems(); len(p) != 1 || p[0].Key != key || !strings.Contains(p[0].Detail, "manifest") {
				t.Errorf("got %+v", p)
			}
			snapshot(t, fresh)
			if last := open(t, quiet(t, newFaulty(inner))); len(last.Problems()) != 0 || last.Len("thing") != 1 {
				t.Errorf("got %+v", last.Problems())
			}
		})
	}
}

// Foreign files are reported and left alone; what a killed file storage leaves is not
// reported.
func TestForeignFiles(t *testing.T) {
	inner := newMemory()
	s := open(t, quiet(t, newFaulty(inner)))
	put(t, s, numbered(1), thing{N: 1})
	snapshot(t, s)
	foreign := []string{"README", "nodes/other/head", "nodes/" + s.Node() + "/notes", "snapshot/notes/0000", "snapshot/" + s.view.manifest.Gen + "/x"}
	litter := []string{"nodes/" + s.Node() + "/log/123456789", "snapshot/4294967295"}
	for _, key := range append(foreign, litter...) {
		inner.change(DefaultPrefix+"/"+key, func([]byte) []byte { return []byte("hello") })
	}
	fresh := open(t, quiet(t, newFaulty(inner)))
	var reported []string
	for _, p := range fresh.Problems() {
		reported = append(reported, strings.TrimPrefix(p.Key, DefaultPrefix+"/"))
	}
	slices.Sort(reported)
	slices.Sort(foreign)
	if !slices.Equal(reported, foreign) {
		t.Errorf("reported %v", reported)
	}
	snapshot(t, fresh)
	snapshot(t, fresh)
	for _, key := range foreign {
		if len(inner.keys(key)) != 1 {
			t.Errorf("%s was removed", key)
		}
	}
	expectThings(t, fresh, map[string]int{numbered(1).ID: 1})
}

func TestProblemsAreBounded(t *testing.T) {
	s := open(t, quiet(t, newFaulty(newMemory())))
	for i := range maxProblems + 10 {
		s.problems.report(numbered(i).ID, "x")
		s.problems.report(numbered(i).ID, "x")
	}
	p := s.Problems()
	if len(p) != maxProblems || p[len(p)-1].Key != numbered(maxProblems+9).ID || p[0].Since.After(time.Now()) {
		t.Errorf("%d, the last is %+v", len(p), p[len(p)-1])
	}
}

// Whatever is in a file, reading it ends with records or with an error.
func FuzzDecode(f *testing.F) {
	place := fileHeader{Node: "0123456789abcdef", Seq: 1}
	body := []byte(`{"k":"thing","i":"a","v":1,"n":"0123456789abcdef","t":"2026-01-01T00:00:00Z","data":{}}` + "\n")
	good, err := encodeFile(place, 1, body)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, damage := range damages {
		f.Add(damage(good))
	}
	f.Add([]byte(`{"v":1,"gen":"g","vector":{},"gens":["g"],"shards":[0],"crc":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := decodeFile(data, place)
		if err == nil {
			for _, r := range records {
				if r.Ref.validate() != nil || r.Version == 0 {
					t.Errorf("%+v", r)
				}
			}
		}
		if m, err := decodeManifest(data); err == nil {
			m.files()
		}
		_, _ = decodeHead(data)
	})
}
