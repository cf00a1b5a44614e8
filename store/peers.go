package store

import (
	"cmp"
	"slices"
	"time"
)

// maxStrangers bounds the nodes without files that somebody has asked for.
const maxStrangers = 1024

// Peer is another node that keeps a lease, as it is seen from here.
type Peer struct {
	Node string
	TTL  time.Duration
	// Silent is for how long its head has not changed, as far as was looked. That of a node
	// which is well never comes to a TTL.
	Silent time.Duration
	// Steady: its head has changed since this node first saw it, so that it was alive then.
	Steady bool
}

// Peers are the other nodes that keep a lease and are not gone.
func (s *Store) Peers() []Peer {
	ttl := s.silence()
	var peers []Peer
	s.view.mu.Lock()
	for node, st := range s.view.nodes {
		if p := (Peer{Node: node, TTL: st.ttl(), Silent: st.silent(), Steady: st.steady}); p.TTL > 0 && !st.gone(ttl) {
			peers = append(peers, p)
		}
	}
	s.view.mu.Unlock()
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	return peers
}

// Gone says that what a node did under its lease is free: it has said that it ended or keeps
// no lease any more, its files have vanished, or its head has not changed for twice the TTL
// (its own or ours, whichever is longer) while this node looked, by our monotonic clock. A
// store that was just opened has to look for so long first. Inside an Update it tells what
// is known by the newest heads. It is false for this node itself.
func (s *Store) Gone(node string) bool {
	if node == s.Node() {
		return false
	}
	ttl := s.silence()
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	if st := s.view.nodes[node]; st != nil {
		return st.gone(ttl)
	}
	return s.view.absent(node)
}

// silence is the TTL that this node reckons with.
func (s *Store) silence() time.Duration {
	if ttl := s.leases.ttl(); ttl > 0 {
		return ttl
	}
	return DefaultTTL
}

// absent says whether a node that is not known has no files. A snapshot may tell of a node
// that was not there yet when the nodes were listed: the listing must have begun after the
// first question. v.mu is held.
func (v *view) absent(node string) bool {
	asked, ok := v.strangers[node]
	if !ok {
		if len(v.strangers) >= maxStrangers {
			clear(v.strangers)
		}
		v.strangers[node] = time.Now()
		return false
	}
	return v.listed.After(asked)
}

// looked notes that all nodes were listed, and that this began at started.
func (v *view) looked(started time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listed = started
	for node := range v.strangers {
		if v.nodes[node] != nil {
			delete(v.strangers, node)
		}
	}
}

// lookDue says whether the heads are to be looked at for the sake of leases.
func (v *view) lookDue(now time.Time, ttl time.Duration) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now.Sub(v.listed) >= ttl*3/8 {
		return true
	}
	for _, st := range v.nodes {
		if limit := 2 * max(ttl, st.ttl()); st.ttl() > 0 && st.silent() < limit && now.Sub(st.changed) >= limit {
			return true
		}
	}
	return false
}

// ttl is that of the lease which a node keeps; 0 is none.
func (st *nodeState) ttl() time.Duration {
	if st.head.Closed {
		return 0
	}
	return time.Duration(st.head.Lease) * time.Millisecond
}

// silent is for how long a head has not changed: from when it had been read for the first
// time until it began to be read for the last time.
func (st *nodeState) silent() time.Duration { return max(st.looked.Sub(st.changed), 0) }

func (st *nodeState) gone(ttl time.Duration) bool {
	switch {
	case st.head.Closed:
		return true
	case st.head.Lease == 0 && !st.headless && !st.guessed:
		return true
	}
	return st.silent() >= 2*max(ttl, st.ttl())
}
