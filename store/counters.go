package store

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// counterKind is the kind of the store's own records that hold counters.
const counterKind = "counter"

const (
	counterParts = 64
	// maxCounters bounds memory. A counter is gone when its window is over.
	maxCounters = 1 << 20
	// sweepEvery is how often counters whose window is over are looked for, and sweepGrace
	// how long they are kept beyond it, for clocks that differ.
	sweepEvery = time.Minute
	sweepGrace = time.Minute
)

// Counters are numbers that all nodes add to, each within a window of time. Each node writes
// what it has counted itself, once or twice per interval, and adds up what it reads of the others.
// So a total is exact for this node, and at most an interval old for the others. What was
// counted since the last write is lost when a process is killed.
type Counters struct {
	s        *Store
	seed     maphash.Seed
	parts    [counterParts]counterPart
	n        atomic.Int64
	swept    time.Time // by the loop only
	full     atomic.Bool
	flushing sync.Mutex // while dirty counters are written
	version  uint64
}

type counterPart struct {
	mu    sync.RWMutex
	m     map[counterKey]*counter
	dirty []*counter
}

type counterKey struct {
	key    string
	window int64
}

type counter struct {
	counterKey
	own    atomic.Int64
	others atomic.Int64
	end    atomic.Int64 // Unix seconds
	dirty  atomic.Bool
	// The rest is under the lock of the part.
	saved count            // what is written of own
	nodes map[string]count // what other nodes have counted
}

type count struct {
	version uint64
	n       int64
}

func newCounters(s *Store) *Counters { return &Counters{s: s, seed: maphash.MakeSeed()} }

func (c *Counters) part(key string) *counterPart {
	return &c.parts[maphash.String(c.seed, key)%counterParts]
}

// Add counts n more (or less) in a window of a key, and returns the total of all nodes. It
// costs no I/O. end is when the window is over and the counter can be forgotten.
func (c *Counters) Add(key string, window int64, n int64, end time.Time) (total int64) {
	p, k := c.part(key), counterKey{key, window}
	p.mu.RLock()
	one := p.m[k]
	if one == nil {
		p.mu.RUnlock()
		if one = c.make(p, k, end.Unix()); one == nil {
			return n
		}
		p.mu.RLock()
	}
	total = one.own.Add(n) + one.others.Load()
	fresh := !one.dirty.Load() && one.dirty.CompareAndSwap(false, true)
	p.mu.RUnlock()
	if fresh {
		p.mu.Lock()
		p.dirty = append(p.dirty, one)
		p.mu.Unlock()
	}
	return total
}

// Total returns what all nodes have counted in a window of a key.
func (c *Counters) Total(key string, window int64) int64 {
	p := c.part(key)
	p.mu.RLock()
	defer p.mu.RUnlock()
	if one := p.m[counterKey{key, window}]; one != nil {
		return one.own.Load() + one.others.Load()
	}
	return 0
}

func (c *Counters) make(p *counterPart, k counterKey, end int64) *counter {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.makeLocked(p, k, end)
}

func (c *Counters) makeLocked(p *counterPart, k counterKey, end int64) *counter {
	if one := p.m[k]; one != nil {
		return one
	}
	if c.n.Load() >= maxCounters {
		if !c.full.Swap(true) {
			c.s.problems.report("counters", "there are more counters than are kept (1048576); new ones count nothing until windows are over")
		}
		return nil
	}
	if p.m == nil {
		p.m = make(map[counterKey]*counter)
	}
	one := &counter{counterKey: k}
	one.end.Store(end)
	p.m[k] = one
	c.n.Add(1)
	return one
}

// counted is a counter in a record.
type counted struct {
	Window int64 `json:"w"`
	N      int64 `json:"n"`
	End    int64 `json:"e"`
}

// learn takes in what a node has counted.
func (c *Counters) learn(r *Record) {
	var v counted
	if err := json.Unmarshal(r.Data, &v); err != nil {
		c.s.problems.report(r.Ref.String(), "a counter that can't be read: "+err.Error())
		return
	}
	if time.Unix(v.End, 0).Add(sweepGrace).Before(c.s.opt.Now()) {
		return
	}
	p := c.part(r.ID)
	p.mu.Lock()
	defer p.mu.Unlock()
	one := c.makeLocked(p, counterKey{r.ID, v.Window}, v.End)
	switch {
	case one == nil:
	case r.Node == c.s.Node():
		if r.Version >= one.saved.version {
			one.saved = count{r.Version, v.N}
		}
	case r.Version >= one.nodes[r.Node].version:
		one.set(r.Node, count{r.Version, v.N})
	}
}

func (o *counter) set(node string, n count) {
	if o.nodes == nil {
		o.nodes = make(map[string]count)
	}
	o.nodes[node] = n
	sum := int64(0)
	for _, n := range o.nodes {
		sum += n.n
	}
	o.others.Store(sum)
}

// flush writes the counters that have changed.
func (c *Counters) flush(ctx context.Context) error {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	var dirty []*counter
	for i := range c.parts {
		p := &c.parts[i]
		p.mu.Lock()
		dirty, p.dirty = append(dirty, p.dirty...), nil
		p.mu.Unlock()
	}
	for len(dirty) > 0 {
		some := dirty[:min(len(dirty), 1000)]
		dirty = dirty[len(some):]
		if err := c.write(ctx, some); err != nil {
			for _, one := range some {
				if one.dirty.CompareAndSwap(false, true) { // else it is among them again already
					c.queue(one)
				}
			}
			for _, one := range dirty {
				c.queue(one)
			}
			return err
		}
	}
	return nil
}

func (c *Counters) queue(one *counter) {
	p := c.part(one.key)
	p.mu.Lock()
	p.dirty = append(p.dirty, one)
	p.mu.Unlock()
}

func (c *Counters) write(ctx context.Context, some []*counter) error {
	node, now := c.s.Node(), c.s.opt.Now().UTC().Round(0)
	c.version++
	records := make([]*Record, 0, len(some))
	for _, one := range some {
		one.dirty.Store(false) // before its value is read: what comes later is written later
		r, err := one.record(node, count{c.version, one.own.Load()}, now)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.s.opt.WriteTimeout, errSilent)
	defer cancel()
	return c.s.appender.submit(ctx, &request{records: records, counts: node}, func() {})
}

func (o *counter) record(node string, n count, now time.Time) (*Record, error) {
	data, err := json.Marshal(counted{Window: o.window, N: n.n, End: o.end.Load()})
	return &Record{Ref: Ref{counterKind, o.key}, Version: n.version, Node: node, Time: now, Data: data}, err
}

// rename turns what this node has written into what another, its former self, has counted.
func (c *Counters) rename(old string) {
	for i := range c.parts {
		p := &c.parts[i]
		p.mu.Lock()
		for _, one := range p.m {
			if one.saved.version > 0 {
				one.own.Add(-one.saved.n)
				one.set(old, one.saved)
				one.saved = count{}
			}
		}
		p.mu.Unlock()
	}
}

// records are what a snapshot holds: what all nodes have written, as long as it counts.
func (c *Counters) records(node string, now time.Time) ([]*Record, error) {
	var records []*Record
	for i := range c.parts {
		p := &c.parts[i]
		p.mu.RLock()
		for _, one := range p.m {
			if one.end.Load() < now.Add(-sweepGrace).Unix() {
				continue
			}
			for id, n := range one.nodes {
				r, err := one.record(id, n, now)
				if err != nil {
					p.mu.RUnlock()
					return nil, err
				}
				records = append(records, r)
			}
			if one.saved.version > 0 {
				r, err := one.record(node, one.saved, now)
				if err != nil {
					p.mu.RUnlock()
					return nil, err
				}
				records = append(records, r)
			}
		}
		p.mu.RUnlock()
	}
	return records, nil
}

// sweep forgets counters whose window is over.
func (c *Counters) sweep(now time.Time) {
	if now.Sub(c.swept) < sweepEvery {
		return
	}
	c.swept = now
	before := now.Add(-sweepGrace).Unix()
	for i := range c.parts {
		p := &c.parts[i]
		p.mu.Lock()
		for k, one := range p.m {
			if one.end.Load() < before && !one.dirty.Load() {
				delete(p.m, k)
				c.n.Add(-1)
			}
		}
		p.mu.Unlock()
	}
	if c.n.Load() < maxCounters && c.full.Swap(false) {
		c.s.problems.solved("counters")
	}
}
