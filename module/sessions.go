package module

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// sessions are all open sessions of the process, whatever configuration they began under.
var sessions = newSessionTable()

// defaultMaxSessions is how many sessions one principal may have at a time where its plan
// says nothing.
const defaultMaxSessions = 16384

// Selector says which sessions are meant. Empty fields mean any; a Selector that is all
// empty means every session.
type Selector struct {
	ID           uint64
	API          string
	Plan         string
	Application  string
	Subscription string
	Credential   string

	unit *unit
	h3   bool
	// subscribed means those that have a subscription, whichever.
	subscribed bool
}

func (sel *Selector) matches(s *session) bool {
	p := &s.principal
	return (sel.ID == 0 || sel.ID == s.id) &&
		(sel.unit == nil || sel.unit == s.unit) &&
		(!sel.h3 || s.proto == 3) &&
		(!sel.subscribed || p.Subscription != "") &&
		(sel.API == "" || sel.API == p.API) &&
		(sel.Plan == "" || sel.Plan == p.Plan) &&
		(sel.Application == "" || sel.Application == p.Application) &&
		(sel.Subscription == "" || sel.Subscription == p.Subscription) &&
		(sel.Credential == "" || sel.Credential == p.Credential)
}

// End ends all sessions that the selector means, and returns how many. Each gets the reason,
// and where coming back makes sense a time to wait that is spread at random.
func End(sel Selector, end entrypoints.End) int { return sessions.end(sel, end) }

type sessionTable struct {
	lastID atomic.Uint64

	mu     sync.Mutex
	byID   map[uint64]*session
	counts map[principalKey]int
	// bySubscription are those that have one.
	bySubscription map[string]map[uint64]*session
}

// principalKey is what the bound on sessions counts by.
type principalKey struct{ api, plan, who string }

func newSessionTable() *sessionTable {
	return &sessionTable{
		byID: make(map[uint64]*session), counts: make(map[principalKey]int), bySubscription: make(map[string]map[uint64]*session),
	}
}

func keyOf(p *plans.Principal, inferred string) principalKey {
	who := p.Subscription
	if who == "" {
		who = inferred
	}
	return principalKey{p.API, p.Plan, who}
}

// add registers a session, unless its principal has too many.
func (t *sessionTable) add(s *session) error {
	limit := s.maxSessions
	if limit == 0 {
		limit = defaultMaxSessions
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[s.key] >= limit {
		return &message.Error{Kind: message.Busy, RetryAfter: 10 * time.Second,
			Detail: fmt.Sprintf("%d sessions are open for this client already, which is its bound", limit)}
	}
	t.counts[s.key]++
	s.id = t.lastID.Add(1)
	t.byID[s.id] = s
	if sub := s.principal.Subscription; sub != "" {
		if t.bySubscription[sub] == nil {
			t.bySubscription[sub] = make(map[uint64]*session)
		}
		t.bySubscription[sub][s.id] = s
	}
	return nil
}

func (t *sessionTable) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byID, s.id)
	if sub := s.principal.Subscription; sub != "" {
		if delete(t.bySubscription[sub], s.id); len(t.bySubscription[sub]) == 0 {
			delete(t.bySubscription, sub)
		}
	}
	if t.counts[s.key]--; t.counts[s.key] <= 0 {
		delete(t.counts, s.key)
	}
}

// selected returns the sessions that are meant, at most limit (0 is all).
func (t *sessionTable) selected(sel Selector, limit int) []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	among := t.byID
	if sel.Subscription != "" { // closing thousands of subscriptions must not look at all sessions for each
		among = t.bySubscription[sel.Subscription]
	}
	var list []*session
	for _, s := range among {
		if sel.matches(s) {
			list = append(list, s)
			if len(list) == limit {
				break
			}
		}
	}
	return list
}

func (t *sessionTable) end(sel Selector, end entrypoints.End) int {
	list := t.selected(sel, 0)
	for _, s := range list {
		own := end
		if own.Retry == 0 && own.Reason.Reconnect() {
			own.Retry = spread(len(list))
		}
		s.finish(own)
	}
	return len(list)
}

// spread picks a time to wait before coming back, wide enough that n clients do not come
// as one: about a thousand a second, between one second and a minute.
func spread(n int) time.Duration {
	width := min(max(time.Duration(n)*time.Millisecond, 2*time.Second), time.Minute)
	return time.Second + rand.N(width)
}

func (t *sessionTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}
