package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// removeLogs removes the batches that the snapshot before holds, and all files of nodes that
// have ended and are in it entirely.
func (s *Store) removeLogs(ctx context.Context, before *manifest, nodes []string) error {
	var failed error
	for _, node := range nodes {
		failed = errors.Join(failed, s.removeNode(ctx, node, before.Vector[node]))
	}
	for node, seq := range before.Vector {
		if !slices.Contains(nodes, node) && s.has(node) {
			failed = errors.Join(failed, s.removeBatches(ctx, node, seq))
		}
	}
	return failed
}

// has says whether a node has files.
func (s *Store) has(node string) bool {
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	return node == s.Node() || s.view.nodes[node] != nil
}

// removeNode looks once more whether the node has really ended. One that only slept takes
// another id when it wakes up.
func (s *Store) removeNode(ctx context.Context, node string, seq uint64) error {
	data, err := s.disk.load(ctx, s.disk.key("nodes", node, "head"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if h, err := decodeHead(data); err == nil && h.Seq > seq {
			return nil
		}
	}
	if err := s.disk.delete(ctx, s.disk.key("nodes", node)); err != nil {
		return err
	}
	s.view.forget(node)
	return nil
}

func (s *Store) removeBatches(ctx context.Context, node string, seq uint64) error {
	names, err := s.disk.children(ctx, s.disk.key("nodes", node, "log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its node is writing all the time: the next snapshot sees to it
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if len(name) == len(batchName(0)) && isDigits(name) && name <= batchName(seq) {
			if err := s.disk.delete(ctx, s.disk.key("nodes", node, "log", name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepSnapshots removes manifests of snapshots below the one before, and the shards that no
// manifest left needs. It keeps all others of the depth of before, not before alone: where a
// lock has failed, a node may be building on one of those (see newer).
func (s *Store) sweepSnapshots(ctx context.Context, before, after *manifest) error {
	found, keys, err := s.manifests(ctx)
	if err != nil {
		return err
	}
	needed, finished := make(map[string]bool), make(map[string]bool)
	keep := func(m *manifest) {
		needed[m.Gen+"/manifest"] = true
		for _, place := range m.files() {
			needed[place.Gen+"/"+place.Shard] = true
		}
	}
	keep(before)
	keep(after)
	for _, m := range found {
		if m.Depth >= before.Depth {
			keep(m)
		}
		finished[m.Gen] = true
		for _, gen := range m.Gens {
			finished[gen] = true
		}
	}
	left := make(map[string]int) // files, by generation
	var unneeded, shards []string
	for _, key := range keys {
		gen, name, deep := strings.Cut(key, "/")
		switch {
		case !isGen(gen):
		case !deep: // a folder, which may be empty
			if !s.unfinished(gen, finished) {
				left[gen] += 0
			}
		case needed[key] || !ours("snapshot/"+key) || s.unfinished(gen, finished):
			left[gen]++
		case name == "manifest":
			unneeded = append(unneeded, key)
		default:
			shards = append(shards, key)
		}
	}
	// The manifests first: whoever finds one finds all of its shards.
	for _, key := range append(unneeded, shards...) {
		if err := s.disk.delete(ctx, s.disk.key("snapshot", key)); err != nil {
			return err
		}
		gen, _, _ := strings.Cut(key, "/")
		left[gen] += 0
	}
	for gen, n := range left {
		if n == 0 {
			if err := s.disk.delete(ctx, s.disk.key("snapshot", gen)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unfinished says that no manifest knows a generation and that it is not old enough to be
// litter: another node may be writing it in this moment, because a lock has failed.
func (s *Store) unfinished(gen string, finished map[string]bool) bool {
	return !finished[gen] && s.opt.Now().Sub(genTime(gen)) < s.tune.litter
}
