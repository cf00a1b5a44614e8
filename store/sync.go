package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"
)

// rounds are looks at the heads. Whoever asks while one is on its way waits for the next,
// which begins later than the question, together with everybody else who does.
type rounds struct {
	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done chan struct{}
	err  error
}

// Sync takes in what the other nodes have written until now.
func (s *Store) Sync(ctx context.Context) error {
	s.sync.mu.Lock()
	if s.ctx.Err() != nil {
		s.sync.mu.Unlock()
		return ErrClosed
	}
	r := s.sync.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		s.sync.next = r
	}
	if !s.sync.running {
		s.sync.running = true
		s.wg.Go(s.runRounds)
	}
	s.sync.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("store: reading the other nodes' changes: %w", context.Cause(ctx))
	}
}

func (s *Store) runRounds() {
	for {
		s.sync.mu.Lock()
		r := s.sync.next
		s.sync.next = nil
		s.sync.running = r != nil
		s.sync.mu.Unlock()
		if r == nil {
			return
		}
		if r.err = s.follow(s.ctx); r.err != nil {
			r.err = fmt.Errorf("store: %w", r.err)
		}
		close(r.done)
	}
}

const readingFails = "storage: reading"

// follow looks at all heads, and reads what is new. It runs once at a time.
func (s *Store) follow(ctx context.Context) error {
	started := time.Now()
	self, written := s.appender.written() // before the listing, which must show it then
	listed, err := s.disk.children(ctx, s.disk.key("nodes"))
	if err == nil {
		if written > 0 && !slices.Contains(listed, self) {
			s.appender.missing(self)
		}
		err = s.followAll(ctx, listed, self)
	}
	switch {
	case err == nil:
		s.view.looked(started)
		s.problems.solved(readingFails)
	case ctx.Err() == nil:
		s.problems.report(readingFails, fmt.Sprintf("the storage can't be read, so what is in memory is served: %v", err))
	}
	return err
}

func (s *Store) followAll(ctx context.Context, listed []string, self string) error {
	var mu sync.Mutex
	var failed error
	parallel(listed, func(node string) {
		var err error
		switch {
		case node == self:
			err = s.appender.checkHead(ctx)
		case isHex(node, 16) && !s.view.done(node):
			err = s.followNode(ctx, node)
		}
		if err != nil {
			mu.Lock()
			failed = err
			mu.Unlock()
		}
	})
	for _, node := range s.view.vanished(listed) {
		if err := s.followGone(ctx, node); err != nil {
			failed = err
		}
	}
	return failed
}

// followNode reads one node's head, and what is new in its log.
func (s *Store) followNode(ctx context.Context, node string) error {
	key := s.disk.key("nodes", node, "head")
	seen := look{started: time.Now()}
	data, err := s.disk.load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		seen.headless = true
		s.view.saw(node, head{}, seen) // its first batch is on the way, or it died there
		return nil
	}
	if err != nil {
		return err
	}
	seen.content = string(data)
	h, err := decodeHead(data)
	if err != nil {
		seen.guessed = true
		if h, err = s.guessHead(ctx, node, key, err); err != nil {
			return err
		}
	} else {
		s.problems.solved(key)
	}
	s.view.saw(node, h, seen)
	for seq := s.view.seq(node) + 1; seq <= h.Seq; seq = max(seq, s.view.seq(node)) + 1 {
		if h.void(seq) {
			s.view.skip(node, seq)
			continue
		}
		if err := s.followBatch(ctx, node, seq); err != nil {
			return err
		}
	}
	return nil
}

// guessHead takes what stands in the log for what a damaged head would have said. That may be
// a batch too many, which nobody was told is stored, but is none too few.
func (s *Store) guessHead(ctx context.Context, node, key string, why error) (head, error) {
	s.problems.report(key, fmt.Sprintf("%v; the node's log is read as far as it goes", why))
	names, err := s.disk.children(ctx, s.disk.key("nodes", node, "log"))
	if err != nil {
		return head{}, err
	}
	h := head{Format: formatVersion}
	for _, name := range names {
		if len(name) == len(batchName(0)) && isDigits(name) {
			var seq uint64
			if _, err := fmt.Sscanf(name, "%d", &seq); err == nil {
				h.Seq = max(h.Seq, seq)
			}
		}
	}
	return h, nil
}

// followBatch reads a batch. A storage that fails stops the reading of that log; a batch that
// is missing or damaged does not.
func (s *Store) followBatch(ctx context.Context, node string, seq uint64) error {
	key, place := s.disk.key("nodes", node, "log", batchName(seq)), fileHeader{Node: node, Seq: seq}
	records, size, err := s.readFile(ctx, key, place)
	switch {
	case err == nil:
		s.apply(records)
		s.view.advance(node, seq, records, size)
		return nil
	case errors.Is(err, fs.ErrNotExist):
		m, manifestErr := s.readManifest(ctx)
		if manifestErr != nil {
			return manifestErr
		}
		if m != nil && m.Vector[node] >= seq {
			return s.reload(ctx, m)
		}
	case !errors.Is(err, errDamaged) && !errors.Is(err, errLater) && s.view.again(key, s.tune.retries):
		return err
	}
	s.dig(key, place, err)
	s.view.skip(node, seq)
	return nil
}

// followGone finds out whether everything is known of a node whose files were removed.
func (s *Store) followGone(ctx context.Context, node string) error {
	m, err := s.readManifest(ctx)
	if err != nil {
		return err
	}
	known := s.view.seq(node)
	switch {
	case m != nil && m.Vector[node] > known:
		if err := s.reload(ctx, m); err != nil {
			return err
		}
	case known > 0 && (m == nil || m.Vector[node] < known):
		s.problems.report(s.disk.key("nodes", node), "somebody removed the files of this node before they were in a snapshot; "+
			"they are written again, from the memory of this node")
		s.view.wipe()
	}
	s.view.forget(node)
	return nil
}

// read looks at the other nodes every now and then: twice per interval. Counters are written
// as often: so what a node has counted is known to all within one interval.
func (s *Store) read() {
	s.every(s.retuneRead, func() {
		// An error is among the problems already, and there is a next time.
		if s.Sync(s.ctx) == nil {
			s.fillHoles(s.ctx)
		}
		s.counters.sweep(s.opt.Now())
		s.maybeCompact()
	})
}

// write does what is to be written every now and then.
func (s *Store) write() {
	s.every(s.retuneWrite, func() {
		s.debts.pay(s.ctx, s)
		// Errors of these are among the problems already, and there is a next time.
		_ = s.counters.flush(s.ctx)
		_ = s.appender.beat(s.ctx)
	})
}

func (s *Store) every(retune <-chan struct{}, f func()) {
	half := func() time.Duration { return max(time.Duration(s.interval.Load())/2, time.Millisecond) }
	ticker := time.NewTicker(half())
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-retune:
			ticker.Reset(half())
		case <-ticker.C:
			f()
		}
	}
}
