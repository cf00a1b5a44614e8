package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// dig notes a file that could not be read.
func (s *Store) dig(key string, place fileHeader, why error) {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	if s.view.holes[key] == nil {
		s.view.holes[key] = &hole{key: key, place: place}
		s.problems.report(key, fmt.Sprintf("%v; it is skipped, and tried again", why))
	}
}

// fill forgets a hole: the file was read.
func (s *Store) fill(key string) {
	s.view.mu.Lock()
	_, was := s.view.holes[key]
	delete(s.view.holes, key)
	s.view.mu.Unlock()
	if was {
		s.problems.solved(key)
	}
}

// holesLeft says whether files are still tried again. No snapshot is made meanwhile, because
// it would stand for them without holding what they hold.
func (s *Store) holesLeft() bool {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	for _, h := range s.view.holes {
		if !h.lost {
			return true
		}
	}
	return false
}

// fillHoles tries again. Records may come late and in any order: the newer version stands.
func (s *Store) fillHoles(ctx context.Context) {
	s.view.mu.Lock()
	var open []*hole
	for _, h := range s.view.holes {
		if !h.lost {
			open = append(open, h)
		}
	}
	s.view.mu.Unlock()
	for _, h := range open {
		records, size, err := s.readFile(ctx, h.key, h.place)
		switch {
		case err == nil:
			s.apply(records)
			s.fill(h.key)
			if h.place.Node != "" {
				s.view.advance(h.place.Node, h.place.Seq, records, size)
			}
		case ctx.Err() != nil || errors.Is(err, errSilent):
			return
		case errors.Is(err, fs.ErrNotExist) && s.replaced(ctx, h):
			s.fill(h.key)
		default:
			s.tryLess(ctx, h, err)
		}
	}
}

// replaced says that a file that is missing is not needed: another node, which could read it,
// has put what it held into a newer snapshot. That is read in its place.
func (s *Store) replaced(ctx context.Context, h *hole) bool {
	m, err := s.readManifest(ctx)
	if err != nil || m == nil {
		return false
	}
	if h.place.Node != "" && m.Vector[h.place.Node] < h.place.Seq {
		return false
	}
	for _, place := range m.files() {
		if place == h.place {
			return false
		}
	}
	return s.readSnapshot(ctx, m, nil) == nil
}

// tryLess counts a try that failed. After the last a copy of the file is put where no snapshot
// takes it away. A file of a later version is not given up: it is the snapshots that must wait
// for a node that understands it.
func (s *Store) tryLess(ctx context.Context, h *hole, why error) {
	if errors.Is(why, errLater) {
		return
	}
	h.tries++
	if h.tries < s.tune.retries {
		return
	}
	what := "the records in it are missing unless they were changed since: restore them from an export or a backup"
	if data, err := s.disk.load(ctx, h.key); err == nil {
		name := strings.ReplaceAll(strings.TrimPrefix(h.key, s.opt.Prefix+"/"), "/", "_")
		copied := s.disk.key("damaged", path.Base(name))
		if err := s.disk.store(ctx, copied, data); err != nil {
			return // next time
		}
		what = "a copy is kept as " + copied + "; " + what
	}
	s.view.mu.Lock()
	h.lost = true
	s.view.mu.Unlock()
	s.problems.report(h.key, fmt.Sprintf("%v; it is skipped for good; %s", why, what))
}
