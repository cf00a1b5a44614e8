package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

const compactingFails = "storage: snapshot"

// compactWait bounds the wait for the lock. Whoever holds it does the same work.
const compactWait = 2 * time.Second

// goneKept is how long the vector remembers nodes whose files were removed.
const goneKept = 30 * 24 * time.Hour

// compaction is what is known of the last one.
type compaction struct {
	mu      sync.Mutex
	running bool
	last    time.Time
}

// maybeCompact folds the logs into the snapshot, beside everything else, when they have grown
// or when files of nodes that have ended are there.
func (s *Store) maybeCompact() {
	s.compaction.mu.Lock()
	defer s.compaction.mu.Unlock()
	if s.compaction.running || time.Since(s.compaction.last) < s.tune.compactEvery || s.closing.Load() || s.holesLeft() || !s.due() {
		return
	}
	s.compaction.running = true
	s.wg.Go(func() {
		err := s.compact(s.ctx, false)
		switch {
		case err == nil:
			s.problems.solved(compactingFails)
		case s.ctx.Err() == nil && !errors.Is(err, errBusy):
			s.problems.report(compactingFails, fmt.Sprintf("no snapshot could be made; the logs grow until one can: %v", err))
		}
		s.compaction.mu.Lock()
		defer s.compaction.mu.Unlock()
		s.compaction.running, s.compaction.last = false, time.Now()
	})
}

// due says whether the logs are long, or hold half as much as the records themselves.
func (s *Store) due() bool {
	dead := len(s.view.dead(s.opt.Now(), s.tune)) > 0
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	batches, size := 0, int64(0)
	for _, tail := range s.view.tails {
		batches += len(tail)
		for _, b := range tail {
			size += int64(b.bytes)
		}
	}
	return dead || s.view.wiped || batches >= s.tune.compactLog || size > int64(8*s.tune.shardBytes)+s.mem.bytes.Load()/2
}

var errBusy = errors.New("another node is making a snapshot")

// compact makes a snapshot of everything, of which only shards that have changed are written,
// and removes what the snapshot before it has made needless. So a node that is a snapshot
// behind still finds its logs. always does it also when it is not due.
func (s *Store) compact(ctx context.Context, always bool) error {
	unlock, err := s.lockCompaction(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	before, err := s.readManifest(ctx)
	if err != nil {
		return err
	}
	if before != nil {
		if err := s.catchUp(ctx, before); err != nil {
			return err
		}
	}
	if err := s.Sync(ctx); err != nil {
		return err
	}
	if s.holesLeft() || !always && !s.due() { // another node has just done it
		return nil
	}
	after, removable, err := s.writeSnapshot(ctx, before)
	if err != nil {
		return err
	}
	s.view.adopt(after)
	if before == nil {
		return nil
	}
	return errors.Join(s.removeLogs(ctx, before, removable), s.sweepSnapshots(ctx, before, after))
}

// catchUp takes in what another node's snapshot holds.
func (s *Store) catchUp(ctx context.Context, m *manifest) error {
	if err := s.Sync(ctx); err != nil {
		return err
	}
	if s.view.behind(m) {
		return s.reload(ctx, m)
	}
	s.view.adopt(m)
	return nil
}

func (s *Store) lockCompaction(ctx context.Context) (unlock func(), err error) {
	waiting, cancel := context.WithTimeoutCause(ctx, compactWait, errBusy)
	defer cancel()
	name := s.disk.key("lock", "snapshot")
	return s.lockBy(waiting, name, func(ctx context.Context, storage certmagic.Storage) error {
		try, ok := storage.(certmagic.TryLocker)
		if !ok {
			return storage.Lock(ctx, name)
		}
		locked, err := try.TryLock(ctx, name)
		if err == nil && !locked {
			err = errBusy
		}
		return err
	})
}

// writeSnapshot writes the shards that have changed since before, which may be nil, then the
// manifest, and then makes it the current one.
func (s *Store) writeSnapshot(ctx context.Context, before *manifest) (after *manifest, removable []string, err error) {
	now := s.opt.Now()
	// What memory gets after this is in batches beyond the vector, and does no harm.
	after = &manifest{Vector: s.view.vector(), Gone: make(map[string]int64), Gen: genName(now, s.Node())}
	if before != nil {
		after.Depth = before.Depth + 1
		if after.Gen <= before.Gen { // a clock went back
			after.Gen = genName(genTime(before.Gen).Add(1), s.Node())
		}
	}
	removable = s.settleVector(before, after, now)
	count := s.shardCount(before)
	dirty := s.dirtyShards(before, count)
	after.Gens, after.Shards = []string{after.Gen}, make([]int, count)
	for i := range after.Shards {
		if !dirty[i] {
			after.Shards[i] = after.gen(before.Gens[before.Shards[i]])
		}
	}
	if err := s.writeShards(ctx, after, dirty, now); err != nil {
		return nil, nil, err
	}
	if err := s.writeCounters(ctx, after, now); err != nil {
		return nil, nil, err
	}
	data, err := after.encode()
	if err != nil {
		return nil, nil, err
	}
	if now, err := s.readManifest(ctx); err != nil || now.gen0() != before.gen0() {
		return nil, nil, errors.Join(err, errBusy) // the lock did not last: another was faster
	}
	if took := s.opt.Now().Round(0).Sub(now.Round(0)); took > s.tune.litter/2 { // others may sweep it up
		return nil, nil, fmt.Errorf("writing it took %v, which is too long: is the storage too slow, or was the machine asleep?", took)
	}
	for _, key := range []string{s.disk.key("snapshot", after.Gen, "manifest"), s.disk.key("snapshot", "current")} {
		if err := s.disk.store(ctx, key, data); err != nil {
			return nil, nil, err
		}
	}
	s.view.mu.Lock()
	s.view.wiped = false
	s.view.mu.Unlock()
	return after, removable, nil
}

// gen0 is the generation, or "" if there is no snapshot.
func (m *manifest) gen0() string {
	if m == nil {
		return ""
	}
	return m.Gen
}

// gen finds or adds a generation.
func (m *manifest) gen(name string) int {
	if i := slices.Index(m.Gens, name); i >= 0 {
		return i
	}
	m.Gens = append(m.Gens, name)
	return len(m.Gens) - 1
}

// settleVector decides which nodes' files can go: those of nodes that have ended, whose whole
// log is in the snapshot before. Their place in the vector stays for a while, for the case
// that one comes to life again.
func (s *Store) settleVector(before, after *manifest, now time.Time) (removable []string) {
	covered := map[string]uint64{}
	if before != nil {
		covered = before.Vector
		maps.Copy(after.Gone, before.Gone)
	}
	for _, node := range s.view.dead(now, s.tune) {
		s.view.mu.Lock()
		st := s.view.nodes[node]
		folded := st != nil && covered[node] >= st.head.Seq && covered[node] == after.Vector[node]
		s.view.mu.Unlock()
		if folded && before != nil {
			removable = append(removable, node)
			after.Gone[node] = now.Unix()
		}
	}
	maps.DeleteFunc(after.Gone, func(node string, at int64) bool {
		old := now.Sub(time.Unix(at, 0)) > goneKept
		if old {
			delete(after.Vector, node)
		}
		return old
	})
	return removable
}

// shardCount keeps the number of shards unless they have become much too large or small.
func (s *Store) shardCount(before *manifest) int {
	want := int(s.mem.bytes.Load()) / s.tune.shardBytes
	want = min(1<<bits.Len(uint(max(want-1, 0))), slots)
	if before == nil {
		return want
	}
	if n := len(before.Shards); want <= 2*n && n <= 8*want {
		return n
	}
	return want
}

// dirtyShards are those with records that batches beyond the snapshot before have touched.
func (s *Store) dirtyShards(before *manifest, count int) []bool {
	dirty := make([]bool, count)
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	if before == nil || len(before.Shards) != count || s.view.wiped || s.view.beyond(before) {
		for i := range dirty {
			dirty[i] = true
		}
		return dirty
	}
	for node, tail := range s.view.tails {
		for _, b := range tail {
			if b.seq <= before.Vector[node] {
				continue
			}
			for _, slot := range b.slots {
				dirty[int(slot)&(count-1)] = true
			}
		}
	}
	return dirty
}

func (s *Store) writeShards(ctx context.Context, m *manifest, dirty []bool, now time.Time) error {
	shards := make(map[int][]*Record)
	for i, is := range dirty {
		if is {
			shards[i] = nil
		}
	}
	for r := range s.mem.all() {
		i := int(slotOf(r.Kind, r.ID)) & (len(dirty) - 1)
		switch {
		case !dirty[i]:
		case r.Deleted && now.Sub(r.Time) > s.tune.tombstones:
			s.mem.drop(r)
		default:
			shards[i] = append(shards[i], r)
		}
	}
	var mu sync.Mutex
	var failed error
	parallel(slices.Collect(maps.Keys(shards)), func(i int) {
		records := shards[i]
		slices.SortFunc(records, func(a, b *Record) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
		err := ctx.Err()
		if err == nil {
			err = s.writeFile(ctx, fileHeader{Gen: m.Gen, Shard: shardName(i), Time: now.UTC()}, records)
		}
		if err != nil {
			mu.Lock()
			failed = err
			mu.Unlock()
		}
	})
	return failed
}

func (s *Store) writeFile(ctx context.Context, place fileHeader, records []*Record) error {
	var body bytes.Buffer
	for _, r := range records {
		if err := appendLine(&body, r); err != nil {
			return err
		}
	}
	data, err := encodeFile(place, len(records), body.Bytes())
	if err != nil {
		return err
	}
	return s.disk.store(ctx, s.disk.key("snapshot", place.Gen, place.Shard), data)
}

// writeCounters writes the counters, all of them: they change all the time.
func (s *Store) writeCounters(ctx context.Context, m *manifest, now time.Time) error {
	const perFile = 4096
	records, err := s.counters.records(s.Node(), now.UTC())
	if err != nil {
		return err
	}
	for some := range slices.Chunk(records, perFile) {
		if err := s.writeFile(ctx, fileHeader{Gen: m.Gen, Shard: counterShardName(m.Counters), Time: now.UTC()}, some); err != nil {
			return err
		}
		m.Counters++
	}
	return nil
}
