package store

import (
	"slices"
	"sync"
	"sync/atomic"
)

// watchers are told of changes. They are told under Store.applying, and added to it too.
type watchers struct {
	mu   sync.Mutex
	list []*watcher
}

type watcher struct {
	f       func([]Change)
	stopped atomic.Bool
}

func (w *watchers) add(f func([]Change)) (stop func()) {
	one := &watcher{f: f}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(slices.Clip(w.list), one)
	return func() {
		one.stopped.Store(true)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.list = slices.DeleteFunc(slices.Clone(w.list), func(other *watcher) bool { return other == one })
	}
}

func (w *watchers) tell(changes []Change) {
	if len(changes) == 0 {
		return
	}
	w.mu.Lock()
	list := w.list
	w.mu.Unlock()
	for _, one := range list {
		if !one.stopped.Load() {
			one.f(changes)
		}
	}
}

// apply puts records into memory and tells what has changed.
func (s *Store) apply(records []*Record) {
	if len(records) == 0 {
		return
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	changes := make([]Change, 0, len(records))
	for _, r := range records {
		if r.Kind == counterKind {
			s.counters.learn(r)
			continue
		}
		if c, ok := s.take(r); ok {
			changes = append(changes, c)
		}
	}
	s.watchers.tell(changes)
}

// take puts one record into memory.
func (s *Store) take(r *Record) (Change, bool) {
	old, overlap, changed := s.mem.put(r)
	if overlap != nil {
		s.problems.overlap(overlap, r)
	}
	if !changed {
		return Change{}, false
	}
	if old != nil && old.Deleted {
		old = nil
	}
	return Change{Old: old, New: r}, old != nil || !r.Deleted
}
