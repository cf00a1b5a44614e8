package workers

import (
	"encoding/json"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// task is a work as this node sees it. Everything is under Registry.mu.
type task struct {
	id string
	// work is nil if this node is not to do it. unusable says why its id can't be stored.
	work     *Work
	unusable string
	// anew: its Version was changed here, so that it matters no more what has failed.
	anew bool
	// forgotten: its record was removed while it was wanted. It is over until it is wanted
	// again.
	forgotten bool

	// have: there is a record. version is the store's, of what is known of it.
	have    bool
	rec     record
	version uint64

	run *run
	// claimed is the term in which this node saw, under the record's lock, that it owns it.
	claimed uint64
	// busy: a change of the record is on its way. fails counts those that failed in a row,
	// and the next is not tried before.
	busy   bool
	fails  int
	before time.Time
	failed *failure // to be stored

	// kept is newer than what is in the record, or nil; keeps counts. due: it is to be stored
	// now.
	kept  json.RawMessage
	keeps uint64
	due   bool

	// backoff is the last pause before a new start, again when the next start may be, and
	// ended how the last run did.
	backoff time.Duration
	again   time.Time
	ended   string

	// free is since when nobody owns it, as seen from here.
	free time.Time
	// offered is the node for which this one gives the work away, and released when it did;
	// passed are nodes that have not taken it.
	offered  string
	released time.Time
	passed   map[string]pass

	// shown is what was last told to OnChange, and since when it is so.
	shown shown
	since time.Time
}

// pass is that a node has not taken a work: it is not offered it again before until.
type pass struct {
	until time.Time
	times int
}

// failure is one that is not stored yet.
type failure struct {
	cause, version string
	at             time.Time
}

// shown is what OnChange is about.
type shown struct {
	state        State
	owner, cause string
	here         bool
}

// action is what a task needs of the store, what is most urgent last.
type action uint8

const (
	nothing action = iota
	keep
	claim
	fail
	release
)

// wanted says whether this node is to do the work.
func (t *task) wanted() bool { return t.work != nil && !t.forgotten && t.unusable == "" }

// known is the newest that was kept.
func (t *task) known() json.RawMessage {
	if t.kept != nil {
		return t.kept
	}
	return t.rec.Kept
}

// view is one look at everything.
type view struct {
	now   time.Time
	lease store.Lease
	holds bool
	// peers are the nodes that may be given work.
	peers []peer
	gone  map[string]bool
	store *store.Store
}

func (p *view) isGone(node string) bool {
	gone, known := p.gone[node]
	if !known {
		gone = p.store.Gone(node)
		p.gone[node] = gone
	}
	return gone
}

// unsaved says that there is something to be stored before the node may end.
func (r *Registry) unsaved(t *task) bool {
	return t.have && r.mine(t.rec.Owner) && (t.failed != nil || t.kept != nil)
}

// decide moves a task on, and says what is to be stored for it. r.mu is held.
func (r *Registry) decide(t *task, p *view) action {
	own := t.have && r.mine(t.rec.Owner)
	if t.run != nil {
		r.tend(t, p, own)
		if own && t.due && !t.busy && p.holds && !p.now.Before(t.before) {
			return keep
		}
		return nothing
	}
	if !own {
		t.failed = nil // another node's matter, or stored
	}
	switch {
	case t.busy, p.now.Before(t.before), !p.holds && !r.closing:
		return nothing
	case own && t.failed != nil:
		return fail
	case own && r.closing && t.kept != nil:
		return keep
	case own && !r.closing && (!t.wanted() || t.offered != ""):
		return release
	case r.closing, !t.wanted(), t.rec.refuses(t.work.Version) && !t.anew:
		return nothing
	case own && t.claimed == p.lease.Term:
		if !p.now.Before(t.again) {
			r.start(t, p)
		} else if t.due {
			return keep
		}
		return nothing
	case own || r.mayTake(t, p):
		return claim
	}
	return nothing
}

// tend ends a run whose time has come.
func (r *Registry) tend(t *task, p *view, own bool) {
	if p.now.Sub(t.run.started) >= maxBackoff {
		t.ended = "" // it goes well again
	}
	switch {
	case !p.holds || t.run.term != p.lease.Term, t.have && !own && t.rec.Owner != "":
		r.fence(t)
	case !own, r.closing, !t.wanted(), t.offered != "", t.work.Version != t.run.version:
		t.run.drain()
	}
}
