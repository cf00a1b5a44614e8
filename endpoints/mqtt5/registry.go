package mqtt5

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// identities is who has which session of which identity in this process. It outlives
// configurations, so that an old one and a new one never fight over a client identifier.
//
// The sessions of an identity are numbered from 0. Number 0 is what a client finds again
// when it comes back, on any node; the others exist as long as streams run beside each
// other. They are kept without holes as far as one process can tell, so that a process
// that knows nothing finds them by looking at 1, 2, 3 and so on.
var identities = newRegistry()

const (
	maxProbed  = 100_000
	sweepEvery = time.Minute
)

// registry guards all its groups with one lock, which is taken after a stream's and never
// before it.
type registry struct {
	mu     sync.Mutex
	groups map[string]*group
	// probed are the identities that were looked after since the process began.
	probed map[string]struct{}
	late   map[place]lateness
	swept  time.Time
}

func newRegistry() *registry {
	return &registry{groups: make(map[string]*group), probed: make(map[string]struct{}), late: make(map[place]lateness)}
}

// group are the sessions of one identity on one channel of one broker.
type group struct {
	key   string
	slots map[int]*slot
	homes map[*stream]int
	// foreign tells that another process has taken a session over: there are more that
	// share than this process knows of.
	foreign bool
	// probing is closed when the search for sessions of an earlier process is over, and
	// nil while there is none.
	probing chan struct{}
}

// slot is one session. Without an owner it is dormant: the server keeps it, and the next
// stream of the identity looks after it.
type slot struct {
	owner *stream
	since time.Time
}

// membership is what a stream gets when it joins.
type membership struct {
	group *group
	slot  int
	// inherited are dormant slots to look after.
	inherited []int
	// probe tells that nobody has looked for sessions of an earlier process yet.
	probe bool
}

// join gives a stream the lowest free slot. It waits for another that is looking for
// sessions of an earlier process, so as not to leave holes between these.
func (r *registry) join(ctx context.Context, key string, s *stream, expiry time.Duration) (membership, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(expiry)
	for {
		g := r.groups[key]
		if g == nil || g.probing == nil {
			return r.enter(key, s), nil
		}
		probing := g.probing
		r.mu.Unlock()
		select {
		case <-probing:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if err := ctx.Err(); err != nil {
			return membership{}, fmt.Errorf("waiting for another subscription of the same client: %w", err)
		}
	}
}

func (r *registry) enter(key string, s *stream) (m membership) {
	g := r.groups[key]
	if g == nil {
		g = &group{key: key, slots: make(map[int]*slot), homes: make(map[*stream]int)}
		r.groups[key] = g
	}
	m.group, m.slot = g, g.free(0)
	g.own(m.slot, s)
	g.homes[s] = m.slot
	for n, sl := range g.slots {
		if sl.owner == nil {
			g.own(n, s)
			m.inherited = append(m.inherited, n)
		}
	}
	if _, done := r.probed[key]; !done {
		if len(r.probed) >= maxProbed {
			clear(r.probed)
		}
		r.probed[key] = struct{}{}
		m.probe, g.probing = true, make(chan struct{})
	}
	return m
}

// free is the lowest slot from n on that is nobody's here. Of the dormant ones only the
// first is good to begin with; the others are there to be emptied.
func (g *group) free(n int) int {
	for {
		if sl := g.slots[n]; sl == nil || sl.owner == nil && n == 0 {
			return n
		}
		n++
	}
}

func (g *group) own(n int, s *stream) { g.slots[n] = &slot{owner: s, since: time.Now()} }

// endProbe lets others in again. If looking failed, one of them looks again.
func (r *registry) endProbe(g *group, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed {
		delete(r.probed, g.key)
	}
	close(g.probing)
	g.probing = nil
	r.tidy(g)
}

// claim gives s a slot that was found at the server, unless it is somebody's here.
func (r *registry) claim(g *group, s *stream, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if sl := g.slots[n]; sl != nil && sl.owner != nil {
		return false
	}
	g.own(n, s)
	return true
}

// displace moves s on from a slot that another process has taken.
func (r *registry) displace(g *group, s *stream, n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(g.slots, n)
	g.foreign = true
	m := g.free(n + 1)
	g.own(m, s)
	g.homes[s] = m
	return m
}

// shares reports whether a session in slot n has to share its subscriptions with others.
func (r *registry) shares(g *group, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return n > 0 || g.foreign || len(g.homes) > 1
}

// changed has all streams of a group look at whether they share now.
func (r *registry) changed(g *group) {
	if g == nil {
		return
	}
	r.mu.Lock()
	streams := slices.Collect(maps.Keys(g.homes))
	r.mu.Unlock()
	for _, s := range streams {
		s.adjust()
	}
}

// stay is when a stream does not move into a slot after all, because another process has
// it.
func (r *registry) stay(g *group, s *stream, n, where int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(g.slots, n)
	if _, lives := g.homes[s]; lives {
		g.homes[s] = where
	}
}

// moveDown gives s a lower slot to move into, unless it is somebody's here.
func (r *registry) moveDown(g *group, s *stream, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if sl := g.slots[n]; sl != nil && sl.owner != nil {
		return false
	}
	if now, lives := g.homes[s]; !lives || now <= n {
		return false
	}
	g.own(n, s)
	g.homes[s] = n
	return true
}

// abandon forgets a slot: its session has ended, or is another process's.
func (r *registry) abandon(g *group, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(g.slots, n)
	r.tidy(g)
}

// retire begins the end of s: it is given nothing any more. keep tells whether its home
// stays subscribed, for the client's return or for another stream to move into.
func (r *registry) retire(g *group, s *stream) (homeSlot int, keep bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	homeSlot = g.homes[s]
	delete(g.homes, s)
	if homeSlot == 0 {
		return 0, true
	}
	for _, other := range g.homes {
		keep = keep || other > homeSlot
	}
	return homeSlot, keep
}

// heir finds who takes over slot n. With home it is the stream with the highest number,
// which moves down; else the one with the lowest, which empties it. Without anybody the
// slot is dormant from now on.
func (r *registry) heir(g *group, n int, home bool) (s *stream, asHome bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lowest, highest := -1, -1
	var low, high *stream
	for other, m := range g.homes {
		if m > highest {
			high, highest = other, m
		}
		if low == nil || m < lowest {
			low, lowest = other, m
		}
	}
	switch {
	case home && highest > n:
		g.own(n, high)
		g.homes[high] = n
		return high, true
	case low != nil:
		g.own(n, low)
		return low, false
	}
	g.own(n, nil)
	r.tidy(g)
	return nil, false
}

// mayEnd reports whether the session of slot n can end without making a hole. Until it has
// ended the slot is not given to anybody.
func (r *registry) mayEnd(g *group, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m := range g.slots {
		if m > n {
			return false
		}
	}
	return true
}

// tidy drops a group of which there is nothing to remember. r.mu is held.
func (r *registry) tidy(g *group) {
	if len(g.homes) > 0 || g.probing != nil {
		return
	}
	for n, sl := range g.slots {
		if n > 0 || sl.owner != nil {
			return
		}
	}
	if r.groups[g.key] == g {
		delete(r.groups, g.key)
	}
}

// sweep forgets dormant sessions that the server has forgotten too. r.mu is held.
func (r *registry) sweep(expiry time.Duration) {
	if time.Since(r.swept) < sweepEvery {
		return
	}
	r.swept = time.Now()
	r.forgetLate()
	for _, g := range r.groups {
		for n, sl := range g.slots {
			if sl.owner == nil && time.Since(sl.since) > expiry {
				delete(g.slots, n)
			}
		}
		r.tidy(g)
	}
}
