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

// sweepSnapshots removes files of generations that neither snapshot needs. What may belong to
// a snapshot that another node is making in this moment, because a lock has failed, is left.
func (s *Store) sweepSnapshots(ctx context.Context, before, after *manifest) error {
	needed := map[string]bool{
		after.Gen + "/manifest": true, before.Gen + "/manifest": true,
	}
	for _, m := range []*manifest{before, after} {
		for _, place := range m.files() {
			needed[place.Gen+"/"+place.Shard] = true
		}
	}
	keys, err := s.disk.list(ctx, s.disk.key("snapshot"), true)
	if err != nil {
		return err
	}
	left := make(map[string]int) // files, by generation
	for _, key := range keys {
		gen, name, deep := strings.Cut(key, "/")
		if !isGen(gen) {
			continue
		}
		if !deep { // a folder, which may be empty
			if !s.unfinished(gen, before.Gen) {
				left[gen] += 0
			}
			continue
		}
		left[gen]++
		if needed[key] || !ours("snapshot/"+key) || s.unfinished(gen, before.Gen) {
			continue
		}
		if err := s.disk.delete(ctx, s.disk.key("snapshot", gen, name)); err != nil {
			return err
		}
		left[gen]--
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

// unfinished says that a generation is younger than the snapshot before this one, which it
// can only be if two nodes work at once or one died at it, and not old enough to be litter.
func (s *Store) unfinished(gen, before string) bool {
	return gen > before && s.opt.Now().Sub(genTime(gen)) < s.tune.litter
}
