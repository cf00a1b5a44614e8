package store

import (
	"iter"
	"sync"
	"sync/atomic"
)

// slots is into how many pieces records are divided by hash: the finest that a snapshot can
// be divided into shards.
const slots = 4096

// parts is how many locks the records of a kind are under.
const parts = 64

// slotOf is the same on every node and at all times: FNV-1a, folded.
func slotOf(kind, id string) uint16 {
	h := uint64(14695981039346656037)
	for i := range len(kind) {
		h = (h ^ uint64(kind[i])) * 1099511628211
	}
	h = (h ^ '/') * 1099511628211
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h ^= h >> 29
	return uint16((h ^ h>>32) & (slots - 1))
}

// index holds the newest record, or what is left of it after its deletion, under every ref.
// Records in it never change: they are replaced.
type index struct {
	mu    sync.Mutex // for new kinds
	kinds atomic.Pointer[map[string]*kindIndex]
	bytes atomic.Int64 // about, as a snapshot
}

type kindIndex struct {
	name  string
	live  atomic.Int64
	parts [parts]part
}

type part struct {
	mu sync.RWMutex
	m  map[string]*Record
}

func newIndex() *index {
	x := &index{}
	x.kinds.Store(&map[string]*kindIndex{})
	return x
}

func (x *index) get(ref Ref) *Record {
	k := (*x.kinds.Load())[ref.Kind]
	if k == nil {
		return nil
	}
	p := &k.parts[slotOf(ref.Kind, ref.ID)%parts]
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m[ref.ID]
}

// of finds the index of a kind, or makes it.
func (x *index) of(kind string) *kindIndex {
	if k := (*x.kinds.Load())[kind]; k != nil {
		return k
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	old := *x.kinds.Load()
	if k := old[kind]; k != nil {
		return k
	}
	k, kinds := &kindIndex{name: kind}, make(map[string]*kindIndex, len(old)+1)
	for name, other := range old {
		kinds[name] = other
	}
	kinds[kind] = k
	x.kinds.Store(&kinds)
	return k
}

// put takes a record in if it is newer than what is there. overlap is the record that has
// the same version from another node, whichever of them has won.
func (x *index) put(r *Record) (old, overlap *Record, changed bool) {
	k := x.of(r.Kind)
	r.Kind = k.name // one string for all
	p := &k.parts[slotOf(r.Kind, r.ID)%parts]
	p.mu.Lock()
	defer p.mu.Unlock()
	old = p.m[r.ID]
	if old != nil && overlaps(old, r) {
		overlap = old
	}
	if old != nil && !newer(r, old) {
		return old, overlap, false
	}
	if p.m == nil {
		p.m = make(map[string]*Record)
	}
	p.m[r.ID] = r
	x.bytes.Add(weight(r) - weight(old))
	k.live.Add(alive(r) - alive(old))
	return old, overlap, true
}

// drop forgets what is left of a deleted record.
func (x *index) drop(r *Record) {
	p := &x.of(r.Kind).parts[slotOf(r.Kind, r.ID)%parts]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m[r.ID] == r && r.Deleted {
		delete(p.m, r.ID)
		x.bytes.Add(-weight(r))
	}
}

func weight(r *Record) int64 {
	if r == nil {
		return 0
	}
	return int64(len(r.Data) + len(r.ID) + len(r.Kind) + 96)
}

func alive(r *Record) int64 {
	if r == nil || r.Deleted {
		return 0
	}
	return 1
}

func (x *index) live(kind string) int {
	if k := (*x.kinds.Load())[kind]; k != nil {
		return int(k.live.Load())
	}
	return 0
}

// kind goes over the records of one kind, deleted ones too, and holds no lock meanwhile.
func (x *index) kind(kind string) iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		k := (*x.kinds.Load())[kind]
		if k == nil {
			return
		}
		for i := range k.parts {
			for _, r := range k.parts[i].copy() {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// all goes over all records.
func (x *index) all() iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		for kind := range *x.kinds.Load() {
			for r := range x.kind(kind) {
				if !yield(r) {
					return
				}
			}
		}
	}
}

func (p *part) copy() []*Record {
	p.mu.RLock()
	defer p.mu.RUnlock()
	records := make([]*Record, 0, len(p.m))
	for _, r := range p.m {
		records = append(records, r)
	}
	return records
}

// newer says which of two records under one ref stands. It is a total order, so that all
// nodes agree, in whatever order they learn of them.
func newer(a, b *Record) bool {
	if a.Version != b.Version {
		return a.Version > b.Version
	}
	if !a.Time.Equal(b.Time) {
		return a.Time.After(b.Time)
	}
	return a.Node > b.Node
}

// overlaps says that two nodes have written the same version of a record.
func overlaps(a, b *Record) bool {
	return a.Version == b.Version && a.Node != b.Node
}
