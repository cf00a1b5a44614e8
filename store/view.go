package store

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// view is what this node knows of the files.
type view struct {
	mu       sync.Mutex
	manifest *manifest // nil: no snapshot yet
	// known is how much of each node's log is in memory.
	known map[string]uint64
	// nodes are those that have files now, without this one.
	nodes map[string]*nodeState
	// tails are the batches in memory that are not in the snapshot yet.
	tails map[string][]batchMeta
	// floor is up to where the tails were cut off, because a snapshot holds what was there.
	floor map[string]uint64
	holes map[string]*hole
	// wiped: files were removed that were in no snapshot; memory is what is left, and the
	// next snapshot is made from all of it.
	wiped bool
	// failed counts how often the storage failed at a file.
	failed map[string]int
	// listed is when the last listing of the nodes began, and strangers are nodes without
	// files that somebody asked for, and when.
	listed    time.Time
	strangers map[string]time.Time
	// open: everything has been read once.
	open bool

	reloading chan struct{} // holds one while somebody does
}

type nodeState struct {
	head head
	// changed is when the head was last seen to be another than before.
	changed time.Time
	// headless: there is a folder, but no head. guessed: the head can't be read.
	headless, guessed bool
	// content is the head as it was read, changed (by the monotonic clock) when that was first
	// seen, and looked the begin of the last look that found it so.
	content string
	looked  time.Time
	// steady: it has changed under our eyes.
	steady bool
}

// batchMeta is what a snapshot must know of a batch: which slots it touched.
type batchMeta struct {
	seq   uint64
	bytes int
	slots []uint16
}

// hole is a file that could not be read, and is tried again.
type hole struct {
	key   string
	place fileHeader
	tries int
	// given up: it is not tried any more.
	lost bool
}

func (v *view) init() {
	v.known, v.nodes = make(map[string]uint64), make(map[string]*nodeState)
	v.tails, v.holes = make(map[string][]batchMeta), make(map[string]*hole)
	v.failed, v.floor = make(map[string]int), make(map[string]uint64)
	v.strangers, v.reloading = make(map[string]time.Time), make(chan struct{}, 1)
}

// again says whether a file that the storage failed to give is to be asked for again before
// the log is read beyond it. At the start nothing is waited for.
func (v *view) again(key string, retries int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed[key]++
	if v.open && v.failed[key] <= retries {
		return true
	}
	delete(v.failed, key)
	return false
}

func (v *view) seq(node string) uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.known[node]
}

// advance notes that a batch is in memory.
func (v *view) advance(node string, seq uint64, records []*Record, size int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known[node] = max(v.known[node], seq)
	v.add(node, seq, records, size)
}

// add notes what a batch touched; v.mu is held.
func (v *view) add(node string, seq uint64, records []*Record, size int) {
	if v.manifest != nil && seq <= v.manifest.Vector[node] {
		return
	}
	meta := batchMeta{seq: seq, bytes: size}
	for _, r := range records {
		if r.Kind != counterKind {
			meta.slots = append(meta.slots, slotOf(r.Kind, r.ID))
		}
	}
	slices.Sort(meta.slots)
	meta.slots = slices.Clip(slices.Compact(meta.slots))
	v.tails[node] = append(v.tails[node], meta)
}

// skip notes that a number of a log holds nothing that can be read.
func (v *view) skip(node string, seq uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known[node] = max(v.known[node], seq)
}

// adopt makes m the snapshot that is known. What it covers is in memory.
func (v *view) adopt(m *manifest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.manifest.newer(m) {
		return
	}
	v.lower(m)
	v.manifest = m
	for node, seq := range m.Vector {
		v.known[node] = max(v.known[node], seq)
		v.floor[node] = max(v.floor[node], seq)
	}
	for node, tail := range v.tails {
		tail = slices.DeleteFunc(tail, func(b batchMeta) bool { return b.seq <= m.Vector[node] })
		if v.tails[node] = tail; len(tail) == 0 {
			delete(v.tails, node)
		}
	}
}

// lower forgets nodes that have been gone for so long that m forgets them too; v.mu is held.
func (v *view) lower(m *manifest) {
	if v.manifest == nil {
		return
	}
	for node, at := range v.manifest.Gone {
		if _, ok := m.Vector[node]; !ok && genTime(m.Gen).Sub(time.Unix(at, 0)) > goneKept-24*time.Hour {
			delete(v.floor, node)
			delete(v.known, node)
		}
	}
}

// beyond says that the tails are not all that was written since m: another snapshot, on which
// m was not built, has cut them off. v.mu is held.
func (v *view) beyond(m *manifest) bool {
	for node, seq := range v.floor {
		if m.Vector[node] < seq {
			return true
		}
	}
	return false
}

// behind says whether m holds something that is not in memory.
func (v *view) behind(m *manifest) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for node, seq := range m.Vector {
		if v.known[node] < seq {
			return true
		}
	}
	return false
}

// look is what was found where a node's head is.
type look struct {
	started           time.Time
	content           string
	headless, guessed bool
}

// saw notes a node's head.
func (v *view) saw(node string, h head, l look) {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := v.nodes[node]
	if st == nil {
		st = &nodeState{changed: time.Now(), content: l.content}
		v.nodes[node] = st
	} else if st.content != l.content {
		st.changed, st.content, st.steady = time.Now(), l.content, true
	}
	if l.guessed && h.Lease == 0 {
		h.Lease = st.head.Lease
	}
	st.head, st.headless, st.guessed, st.looked = h, l.headless, l.guessed, l.started
}

// done says that a node has ended and all of it is known, so that its head need not be read.
func (v *view) done(node string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	st := v.nodes[node]
	return st != nil && st.head.Closed && v.known[node] >= st.head.Seq
}

// vanished are the nodes that had files and are not among those listed now.
func (v *view) vanished(listed []string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var gone []string
	for node := range v.nodes {
		if !slices.Contains(listed, node) {
			gone = append(gone, node)
		}
	}
	return gone
}

func (v *view) forget(node string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.nodes, node)
}

func (v *view) wipe() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wiped = true
}

func (v *view) vector() map[string]uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.known)
}

// dead says that a node has ended: it said so, or its head is old and has not changed while
// we looked. Both are asked of it, because the clocks of nodes may differ.
func (st *nodeState) dead(now time.Time, t tuning) bool {
	if st.headless {
		return time.Since(st.changed) > t.litter
	}
	return st.head.Closed || (now.Sub(st.head.Time) > t.deadAfter && time.Since(st.changed) > t.observe)
}

// dead lists the nodes that have ended and whose files are still there.
func (v *view) dead(now time.Time, t tuning) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var dead []string
	for node, st := range v.nodes {
		if st.dead(now, t) {
			dead = append(dead, node)
		}
	}
	return dead
}

// NodeInfo is a node that has files in the store.
type NodeInfo struct {
	ID   string `json:"id"`
	Host string `json:"host,omitempty"`
	// Self: it is this one.
	Self bool `json:"self,omitempty"`
	// Alive: it has written within the last ten minutes, and has not said that it ended.
	Alive bool `json:"alive"`
	// Seq is how many batches it has written, and Seen when it said so, by its clock.
	Seq  uint64    `json:"seq"`
	Seen time.Time `json:"seen,omitzero"`
}

// Nodes are this one, and those that have files in the store.
func (s *Store) Nodes() []NodeInfo {
	nodes := []NodeInfo{s.appender.info()}
	now := s.opt.Now()
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	for id, st := range s.view.nodes {
		alive := !st.headless && !st.head.Closed && now.Sub(st.head.Time) <= s.tune.deadAfter
		nodes = append(nodes, NodeInfo{ID: id, Host: st.head.Host, Alive: alive, Seq: st.head.Seq, Seen: st.head.Time})
	}
	slices.SortFunc(nodes[1:], func(a, b NodeInfo) int { return cmp.Compare(a.ID, b.ID) })
	return nodes
}
