package store

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTTL is what the silence of a node is measured by where nobody has said otherwise.
const DefaultTTL = 5 * time.Second

// Lease is for how long this node may go on with work that only one node may do. It lives by
// the node's head: the others take over when they have not seen it change for twice the TTL,
// each by its own monotonic clock. So no clocks are compared.
type Lease struct {
	// Node is the id under which it is held.
	Node string
	// Until is one TTL after the last head was begun that the storage has taken. It has a
	// monotonic part. Zero is no lease.
	Until time.Time
	// Term is another one after each interruption: then the others may have taken over, and
	// whatever was owned has to be looked at again, by Update.
	Term uint64
}

// Holds says whether the lease is good now.
func (l Lease) Holds(now time.Time) bool { return now.Before(l.Until) }

// leases is what this node promises by its heads.
type leases struct {
	shortest atomic.Int64 // of keepers; 0: there are none
	retune   chan struct{}

	started bool // under rounds.mu

	mu      sync.Mutex
	keepers map[*time.Duration]struct{}
	// spell is another one each time that the first keeper comes and that the last one goes:
	// what was begun in an earlier one does not count.
	spell uint64
	lease Lease
}

func (l *leases) init() {
	l.retune, l.keepers = make(chan struct{}, 1), make(map[*time.Duration]struct{})
}

func (l *leases) ttl() time.Duration { return time.Duration(l.shortest.Load()) }

// promise is what a head that is written now says, and the spell it belongs to.
func (l *leases) promise() (ttl time.Duration, spell uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ttl(), l.spell
}

// renewed notes that a head with a promise is stored, whose writing began at started.
func (l *leases) renewed(node string, started time.Time, ttl time.Duration, spell uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ttl == 0 || spell != l.spell {
		return
	}
	// A process that was stopped may come here long after it lost the lease.
	if node != l.lease.Node || !l.lease.Holds(time.Now()) {
		l.lease.Term++
	}
	l.lease.Node, l.lease.Until = node, started.Add(ttl)
}

// lost notes that this node goes on under another id.
func (l *leases) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease.Until = time.Time{}
}

// add and remove are for keepers.
func (l *leases) add(k *time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keepers[k] = struct{}{}
	l.changed(len(l.keepers) == 1)
}

func (l *leases) remove(k *time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keepers, k)
	l.changed(len(l.keepers) == 0)
}

// changed brings the TTL to what the keepers want; l.mu is held.
func (l *leases) changed(other bool) {
	shortest := time.Duration(0)
	for k := range l.keepers {
		if shortest == 0 || *k < shortest {
			shortest = *k
		}
	}
	l.shortest.Store(int64(shortest))
	if other {
		l.spell++
		l.lease.Until = time.Time{}
	}
	select {
	case l.retune <- struct{}{}:
	default:
	}
}

// KeepAlive has this node keep a lease until stop is called: its head says so, and is stored
// at least every third of the TTL. Who does work under the lease must have ended it before
// stop. Of several TTLs the shortest counts; one that is 0 or less is DefaultTTL.
func (s *Store) KeepAlive(ttl time.Duration) (stop func()) {
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	s.leases.add(&ttl)
	s.sync.mu.Lock() // so that a store that is being closed begins nothing
	defer s.sync.mu.Unlock()
	if s.ctx.Err() == nil && !s.leases.started {
		s.leases.started = true
		s.wg.Go(s.keepLease)
		s.wg.Go(s.keepLooking)
	}
	return sync.OnceFunc(func() { s.leases.remove(&ttl) })
}

// Lease is what this node holds now. Until is zero if it keeps none, or has just begun to.
func (s *Store) Lease() Lease {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	return s.leases.lease
}

// LeaseUntil is Lease().Until: what this node does under its lease must have stopped then.
func (s *Store) LeaseUntil() time.Time { return s.Lease().Until }

// leaseDue says whether the head is to be stored for the sake of the lease, which at says
// when it was stored last.
func (s *Store) leaseDue(h head, stored uint64, at time.Time) bool {
	ttl := s.leases.ttl()
	if ttl == 0 {
		return stored > 0 && h.Lease != 0
	}
	return stored == 0 || h.Lease != milliseconds(ttl) || time.Since(at) >= ttl/4
}

func milliseconds(ttl time.Duration) int64 {
	return int64((ttl + time.Millisecond - 1) / time.Millisecond)
}

// keepLease stores the head when it is due, and again soon if that fails. A storage that hangs
// is waited for, and the lease ends meanwhile.
func (s *Store) keepLease() {
	for {
		// Errors are among the problems already.
		_ = s.appender.beat(s.ctx)
		ttl := s.leases.ttl()
		wait := max(ttl*3/10-time.Since(s.appender.begun()), ttl/20)
		if ttl == 0 {
			wait = time.Hour // until somebody wants a lease
		}
		if !s.pause(wait, s.leases.retune) {
			return
		}
	}
}

// pause waits for d or for early, and says whether the store is still open.
func (s *Store) pause(d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.ctx.Done():
		return false
	case <-early:
	case <-timer.C:
	}
	return true
}

// keepLooking sees to it that the others' heads are looked at every half TTL, and at once
// where a look may tell that a node is gone.
func (s *Store) keepLooking() {
	for {
		ttl := s.leases.ttl()
		if ttl > 0 && s.view.lookDue(time.Now(), ttl) {
			ctx, cancel := context.WithTimeoutCause(s.ctx, s.opt.WriteTimeout, errSilent)
			_ = s.Sync(ctx) // an error is among the problems
			cancel()
		}
		if ttl == 0 {
			ttl = DefaultTTL
		}
		if !s.pause(max(ttl/8, time.Millisecond), nil) {
			return
		}
	}
}
