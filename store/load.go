package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

// readers is how many files are read at a time.
const readers = 4

// load reads everything, when the store is opened.
func (s *Store) load(ctx context.Context) error {
	m, err := s.readManifest(ctx)
	if err != nil {
		return err
	}
	if m != nil {
		if err := s.readSnapshot(ctx, m); err != nil {
			return err
		}
	}
	if err := s.follow(ctx); err != nil {
		return err
	}
	s.view.mu.Lock()
	s.view.open = true
	s.view.mu.Unlock()
	s.findForeign(ctx)
	return nil
}

// readManifest returns the newest snapshot's manifest, or nil if there is none. That should be
// snapshot/current, but it may be damaged, or older than another: where a lock has failed a
// slow node may have written it late, after logs were removed that only newer snapshots hold.
// A generation that has a manifest is complete.
func (s *Store) readManifest(ctx context.Context) (*manifest, error) {
	key := s.disk.key("snapshot", "current")
	m, err := s.loadManifest(ctx, key)
	damaged := errors.Is(err, errDamaged)
	switch {
	case errors.Is(err, errLater):
		return nil, fmt.Errorf("%s %w; use that version, or another storage prefix", key, err)
	case err != nil && !damaged && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	gens, listErr := s.disk.children(ctx, s.disk.key("snapshot"))
	if listErr != nil && !errors.Is(listErr, fs.ErrNotExist) {
		return nil, listErr
	}
	for _, gen := range slices.Backward(gens) { // they begin with the time
		if !isGen(gen) || m != nil && gen <= m.Gen {
			continue
		}
		if other, err := s.loadManifest(ctx, s.disk.key("snapshot", gen, "manifest")); err == nil {
			m = other
			break
		}
	}
	switch {
	case !damaged:
		s.problems.solved(key)
	case m != nil:
		s.problems.report(key, fmt.Sprintf("%v; the manifest of generation %s is used, and the next snapshot will mend it", err, m.Gen))
	default:
		s.problems.report(key, fmt.Sprintf("%v, and no manifest of a generation can be read; only what is in the logs is served: restore a backup", err))
	}
	return m, nil
}

func (s *Store) loadManifest(ctx context.Context, key string) (*manifest, error) {
	data, err := s.disk.load(ctx, key)
	if err != nil {
		return nil, err
	}
	return decodeManifest(data)
}

// readSnapshot puts a snapshot into memory. Shards that can't be read become holes.
func (s *Store) readSnapshot(ctx context.Context, m *manifest) error {
	const tries = 3 // a snapshot may be replaced while it is read
	for range tries {
		missing, err := s.readShards(ctx, m)
		if err != nil {
			return err
		}
		if !missing {
			break
		}
		newer, err := s.readManifest(ctx)
		if err != nil || newer == nil || newer.Gen == m.Gen {
			break // they are missing for good: reported as holes
		}
		m = newer
	}
	s.view.adopt(m)
	return nil
}

func (s *Store) readShards(ctx context.Context, m *manifest) (missing bool, err error) {
	var mu sync.Mutex
	parallel(m.files(), func(place fileHeader) {
		key := s.disk.key("snapshot", place.Gen, place.Shard)
		records, _, loadErr := s.readFile(ctx, key, place)
		if loadErr == nil {
			s.apply(records)
			s.fill(key)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		missing = missing || errors.Is(loadErr, fs.ErrNotExist)
		s.dig(key, place, loadErr)
	})
	return missing, err
}

// parallel calls f for everything in list, some at a time.
func parallel[T any](list []T, f func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, readers)
	for _, one := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(one)
		})
	}
	wg.Wait()
}

func (s *Store) readFile(ctx context.Context, key string, place fileHeader) (records []*Record, size int, err error) {
	data, err := s.disk.load(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	records, err = decodeFile(data, place)
	return records, len(data), err
}

// reload takes in a snapshot that holds more than memory does: this node was away for so
// long that the logs are gone. What the snapshot does not know any more was deleted so long
// ago that the deletion itself is forgotten.
func (s *Store) reload(ctx context.Context, m *manifest) error {
	s.view.reloading.Lock()
	defer s.view.reloading.Unlock()
	if !s.view.behind(m) {
		return nil
	}
	s.log.Info("store: taking over a snapshot, because the logs it was made of are gone")
	started := s.opt.Now()
	if err := s.readSnapshot(ctx, m); err != nil {
		return err
	}
	if s.holesLeft() {
		return nil // what is missing may be in a shard that can't be read now
	}
	inSnapshot, err := s.refsOf(ctx, m)
	if err != nil {
		return err
	}
	s.view.mu.Lock()
	touched := make(map[uint16]bool)
	for _, tail := range s.view.tails {
		for _, b := range tail {
			for _, slot := range b.slots {
				touched[slot] = true
			}
		}
	}
	s.view.mu.Unlock()
	var gone []*Record
	for r := range s.mem.all() {
		old := started.Sub(r.Time) > s.tune.tombstones
		if old && !r.Deleted && !touched[slotOf(r.Kind, r.ID)] && !inSnapshot[r.Ref] {
			gone = append(gone, &Record{Ref: r.Ref, Version: r.Version + 1, Node: r.Node, Time: r.Time, Deleted: true})
		}
	}
	s.apply(gone)
	return nil
}

// refsOf lists the records that are old enough for reload to ask for them.
func (s *Store) refsOf(ctx context.Context, m *manifest) (map[Ref]bool, error) {
	refs, failed := make(map[Ref]bool), error(nil)
	var mu sync.Mutex
	parallel(m.files()[:len(m.Shards)], func(place fileHeader) {
		records, _, err := s.readFile(ctx, s.disk.key("snapshot", place.Gen, place.Shard), place)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = err
		}
		for _, r := range records {
			refs[r.Ref] = true
		}
	})
	return refs, failed
}

// findForeign reports files below the prefix that are none of ours. That is a courtesy: where
// the storage can't list them, nothing is lost.
func (s *Store) findForeign(ctx context.Context) {
	keys, err := s.disk.list(ctx, s.opt.Prefix, true)
	if err != nil {
		s.log.Debug("store: could not look for foreign files")
		return
	}
	for _, key := range keys {
		if !ours(key) {
			s.problems.report(s.disk.key(key), "this file is not the store's; it is left alone, and can be removed if nothing else needs it")
		}
	}
}

// ours knows the names in the layout, the folders among them, and what file storage leaves
// behind when it is killed: files named by a number.
func ours(key string) bool {
	p := strings.Split(key, "/")
	if last := len(p) - 1; isDigits(p[last]) && len(p[last]) <= 10 {
		return last == 0 || ours(strings.Join(p[:last], "/"))
	}
	switch {
	case len(p) == 1:
		return p[0] == "nodes" || p[0] == "snapshot" || p[0] == "damaged"
	case p[0] == "damaged":
		return len(p) == 2
	case p[0] == "nodes" && isHex(p[1], 16):
		return len(p) == 2 || len(p) == 3 && (p[2] == "head" || p[2] == "log") ||
			len(p) == 4 && p[2] == "log" && isDigits(p[3]) && len(p[3]) == 16
	case p[0] == "snapshot" && p[1] == "current":
		return len(p) == 2
	case p[0] == "snapshot" && isGen(p[1]):
		return len(p) == 2 || len(p) == 3 && (p[2] == "manifest" || isDigits(strings.TrimPrefix(p[2], "c")))
	}
	return false
}
