package store

import (
	"context"
	"errors"
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
		if err := s.readSnapshot(ctx, m, nil); err != nil {
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

// readTries is how often the reading of a snapshot is begun again because others have made two
// more meanwhile, and have removed what only the first consisted of. With locks that work
// there is most of a minute for it.
const readTries = 16

// readSnapshot puts a snapshot into memory, or a newer one if files of it are gone. Unless it
// is nil, refs is filled with the records that are in it. Shards that can't be read become
// holes.
func (s *Store) readSnapshot(ctx context.Context, m *manifest, refs map[Ref]bool) error {
	for try := 1; ; try++ {
		unread, err := s.readShards(ctx, m, refs)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(unread, func(u unreadFile) bool { return errors.Is(u.why, fs.ErrNotExist) }) && try < readTries {
			newer, err := s.readManifest(ctx)
			if err != nil {
				return err
			}
			if newer.newer(m) {
				m = newer
				clear(refs)
				continue
			}
		}
		for _, u := range unread { // also what is missing from the newest: it is so for good
			s.dig(s.disk.key("snapshot", u.place.Gen, u.place.Shard), u.place, u.why)
		}
		s.view.adopt(m)
		return nil
	}
}

// unreadFile is a file that could not be read.
type unreadFile struct {
	place fileHeader
	why   error
}

func (s *Store) readShards(ctx context.Context, m *manifest, refs map[Ref]bool) (unread []unreadFile, err error) {
	var mu sync.Mutex
	parallel(m.files(), func(place fileHeader) {
		key := s.disk.key("snapshot", place.Gen, place.Shard)
		records, _, loadErr := s.readFile(ctx, key, place)
		if loadErr == nil {
			s.apply(records)
			s.fill(key)
		}
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if loadErr != nil {
			unread = append(unread, unreadFile{place, loadErr})
		}
		if refs == nil {
			return
		}
		for _, r := range records {
			refs[r.Ref] = true
		}
	})
	return unread, err
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
	select {
	case s.view.reloading <- struct{}{}:
		defer func() { <-s.view.reloading }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !s.view.behind(m) {
		return nil
	}
	s.log.Info("store: taking over a snapshot, because the logs it was made of are gone")
	started := s.opt.Now()
	inSnapshot := make(map[Ref]bool)
	if err := s.readSnapshot(ctx, m, inSnapshot); err != nil {
		return err
	}
	if s.holesLeft() {
		return nil // what is missing may be in a shard that can't be read now
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
