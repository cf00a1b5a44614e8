package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// newer is the order of snapshots, in which the newest counts: what was built on another comes
// after it. The time in the name decides only between snapshots of one depth. nil comes first.
//
// That order, and not the time alone, is what makes snapshots safe when locks fail and clocks
// differ. Let D be built on P, and remove logs that P holds. A snapshot M that comes after D
// was built on some Q, which is as deep as P at least. Either M began after P had gathered
// what it holds, and so holds it too; or Q was there before P looked, as every snapshot does
// before its manifest is written, whether a newer one than that it was built on has come up:
// then P was given up. So no node can hide with a snapshot what others have removed from the
// logs because of theirs, however slow it is.
func (m *manifest) newer(other *manifest) bool {
	if m == nil || other == nil {
		return m != nil
	}
	return cmp.Or(cmp.Compare(m.Depth, other.Depth), cmp.Compare(m.Gen, other.Gen)) > 0
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
	found, _, listErr := s.manifests(ctx)
	if listErr != nil {
		return nil, listErr
	}
	for _, other := range found {
		if other.newer(m) {
			m = other
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

// manifests reads those of all generations, and lists all files below snapshot/. Damaged ones
// are left out.
func (s *Store) manifests(ctx context.Context) (found []*manifest, keys []string, err error) {
	for range listTries {
		if keys, err = s.disk.list(ctx, s.disk.key("snapshot"), true); err != nil {
			return nil, nil, err
		}
		found = found[:0]
		for _, key := range keys {
			gen, ok := strings.CutSuffix(key, "/manifest")
			if !ok || !isGen(gen) {
				continue
			}
			var m *manifest
			m, err = s.loadManifest(ctx, s.disk.key("snapshot", key))
			switch {
			case errors.Is(err, errDamaged):
				err = nil
			case errors.Is(err, errLater):
				return nil, nil, fmt.Errorf("%s %w; use that version, or another storage prefix", s.disk.key("snapshot", key), err)
			case err == nil && m.Gen == gen:
				found = append(found, m)
			}
			if err != nil {
				break
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// It was swept up after the listing: there is a newer one that the listing lacks.
	}
	if err != nil {
		return nil, nil, err
	}
	return found, keys, nil
}

func (s *Store) loadManifest(ctx context.Context, key string) (*manifest, error) {
	data, err := s.disk.load(ctx, key)
	if err != nil {
		return nil, err
	}
	return decodeManifest(data)
}
