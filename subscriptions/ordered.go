package subscriptions

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// ordered are subscriptions in the order in which they were created. New ones come at the
// end, so inserting one moves next to nothing.
type ordered struct{ items []*subEntry }

func (a *subEntry) compare(created time.Time, id string) int {
	return cmp.Or(a.created.Compare(created), strings.Compare(a.id, id))
}

func (o *ordered) find(created time.Time, id string) (int, bool) {
	if n := len(o.items); n > 0 && o.items[n-1].compare(created, id) < 0 {
		return n, false
	}
	return slices.BinarySearchFunc(o.items, id, func(e *subEntry, id string) int { return e.compare(created, id) })
}

func (o *ordered) insert(e *subEntry) {
	if i, there := o.find(e.created, e.id); !there {
		o.items = slices.Insert(o.items, i, e)
	}
}

func (o *ordered) remove(e *subEntry) {
	if i, there := o.find(e.created, e.id); there {
		o.items = slices.Delete(o.items, i, i+1)
	}
}

// append is insert for many: sort has to follow.
func (o *ordered) append(e *subEntry) { o.items = append(o.items, e) }

func (o *ordered) sort() {
	slices.SortFunc(o.items, func(a, b *subEntry) int { return a.compare(b.created, b.id) })
}

// shards is how many locks a table has, so that requests seldom meet at one.
const shards = 32

// table is a map that many requests read at a time.
type table[K comparable, V any] struct {
	choose func(K) uint64
	shards *[shards]shard[K, V]
}

type shard[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
	_  [64]byte // keeps the locks off each other's cache line
}

// newTable makes a table whose keys are spread over the locks by choose.
func newTable[K comparable, V any](choose func(K) uint64) table[K, V] {
	t := table[K, V]{choose: choose, shards: new([shards]shard[K, V])}
	for i := range t.shards {
		t.shards[i].m = map[K]V{}
	}
	return t
}

func (t *table[K, V]) shard(k K) *shard[K, V] {
	return &t.shards[t.choose(k)%shards]
}

func (t *table[K, V]) get(k K) (V, bool) {
	s := t.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, there := s.m[k]
	return v, there
}

func (t *table[K, V]) set(k K, v V) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[k] = v
}

func (t *table[K, V]) delete(k K) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, k)
}
