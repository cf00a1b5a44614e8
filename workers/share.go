package workers

import (
	"maps"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// A node that has not taken a work is not offered it again for so many TTLs, and each time
// twice as many. It stops for a TTL each time.
const (
	minPass = 100
	maxPass = 10000
)

// peer is another node that takes part.
type peer struct {
	node string
	hash uint64
	// well: it was seen alive, and not long ago.
	well bool
}

// look takes in how things stand. r.mu is held.
func (r *Registry) look() *view {
	p := &view{now: time.Now(), lease: r.store.Lease(), gone: make(map[string]bool), store: r.store}
	if node := r.store.Node(); node != r.node {
		r.former[r.node] = true
		r.node, r.nodeHash = node, hash(node)
	}
	p.holds = p.lease.Node == r.node && p.lease.Holds(p.now)
	if p.holds {
		r.held = p.now
	}
	for _, one := range r.store.Peers() {
		if one.Silent < max(r.ttl, one.TTL) && !r.mine(one.Node) {
			well := one.Steady && one.Silent < max(r.ttl, one.TTL)/2
			p.peers = append(p.peers, peer{one.Node, hash(one.Node), well})
		}
	}
	return p
}

// mine says whether a node is this one, under whatever id.
func (r *Registry) mine(node string) bool { return node != "" && (node == r.node || r.former[node]) }

// mayTake says whether a work that this node does not own is to be claimed now. r.mu is held.
func (r *Registry) mayTake(t *task, p *view) bool {
	if t.have && t.rec.Owner != "" && !p.isGone(t.rec.Owner) {
		t.free = time.Time{}
		return false
	}
	if t.free.IsZero() {
		t.free = p.now
	}
	switch {
	case t.offered == "":
	case !slices.ContainsFunc(p.peers, func(one peer) bool { return one.node == t.offered }):
		t.offered = "" // it won't take it any more
	default:
		if p.now.Sub(t.released) < r.ttl {
			return false
		}
		r.passOver(t, p)
		return true
	}
	// Who comes first claims at once, the others when nobody has for a TTL, one after another.
	rank, id := 0, hash(t.id)
	for _, one := range p.peers {
		if one.node != t.rec.From && wins(one.hash, r.nodeHash, id) {
			rank++
		}
	}
	if rank == 0 {
		return true
	}
	return p.now.Sub(t.free) >= min(r.ttl+time.Duration(rank-1)*r.ttl/4, 2*r.ttl)
}

// passOver notes that a node has not taken what it was offered.
func (r *Registry) passOver(t *task, p *view) {
	if t.passed == nil {
		t.passed = make(map[string]pass)
	}
	times := t.passed[t.offered].times
	t.passed[t.offered] = pass{p.now.Add(time.Duration(min(minPass<<min(times, 8), maxPass)) * r.ttl), times + 1}
	r.declined[t.offered] = true
	t.offered = ""
}

// share gives work away to nodes that have come, a tenth of what runs here in each TTL. A
// node that has not taken what it was offered is offered one at a time. r.mu is held.
func (r *Registry) share(p *view) {
	if !p.holds || r.closing || p.now.Sub(r.shared) < r.ttl || len(p.peers) == 0 {
		return
	}
	r.shared = p.now
	r.forgetPeers(p)
	running, offers := 0, 0
	offered := make(map[string]int)
	for _, t := range r.tasks {
		if t.run != nil {
			running++
		}
		if t.offered != "" {
			offers++
			offered[t.offered]++
		}
	}
	for _, t := range r.tasks {
		if offers >= max(1, running/10) {
			return
		}
		if t.run == nil || t.run.drains || t.run.fenced {
			continue
		}
		node := r.winner(t, p)
		if node == "" || r.declined[node] && offered[node] > 0 {
			continue
		}
		t.offered, t.released = node, p.now
		offers++
		offered[node]++
	}
}

// forgetPeers forgets nodes that are no more. r.mu is held.
func (r *Registry) forgetPeers(p *view) {
	maps.DeleteFunc(r.declined, func(node string, _ bool) bool { return p.isGone(node) })
	for _, t := range r.tasks {
		maps.DeleteFunc(t.passed, func(node string, _ pass) bool { return p.isGone(node) })
	}
}

// winner is the node to which a work that runs here belongs, or "" if that is this one.
func (r *Registry) winner(t *task, p *view) (node string) {
	best, id := r.nodeHash, hash(t.id)
	for _, one := range p.peers {
		if one.well && wins(one.hash, best, id) && !p.now.Before(t.passed[one.node].until) {
			best, node = one.hash, one.node
		}
	}
	return node
}

// wins says which of two nodes a work belongs to, by the highest hash of both.
func wins(a, b, id uint64) bool {
	x, y := mix(a^id), mix(b^id)
	return x > y || x == y && a > b
}

// hash is FNV-1a, mixed: it is the same on every node and at all times.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of SplitMix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// learn takes in a record, as the store tells of it. r.mu is held.
func (r *Registry) learn(rec store.Record) {
	if rec.Kind != Kind {
		return
	}
	t := r.tasks[rec.ID]
	if t == nil {
		if rec.Deleted {
			return
		}
		t = r.add(rec.ID)
	}
	if rec.Version <= t.version {
		return
	}
	had := t.have
	t.version, t.have, t.rec = rec.Version, !rec.Deleted, record{}
	if rec.Deleted {
		t.forgotten = t.forgotten || had && t.work != nil
		t.kept, t.offered = nil, ""
		return
	}
	var err error
	if t.rec, err = decode(rec); err != nil {
		r.log.Error("workers: " + err.Error())
	}
	if owner := t.rec.Owner; owner != "" && !r.mine(owner) {
		if owner == t.offered {
			delete(r.declined, owner)
		}
		t.offered, t.free = "", time.Time{}
	}
}
