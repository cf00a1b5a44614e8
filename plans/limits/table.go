package limits

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// Key names an account.
type Key struct {
	API, Plan string
	// Who is the subscription, or under a plan without subscriptions the network address.
	Who string
}

// Options of a Table.
type Options struct {
	// Max is about how many accounts are kept. Default: 100,000.
	Max int
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

const (
	defaultMax = 100_000
	maxShards  = 32
	// minShard is how small a shard may get by dividing.
	minShard = 64
	// looks is how many accounts are looked at to forget one: a new client does not pay
	// for a table that is full of open sessions.
	looks = 128
)

// Table holds the accounts of a process. It is safe for concurrent use.
//
// Over Max, an account is forgotten for each new one: one that was not found again since the
// last look at it, and that no open session holds (see Account.Hold). If all are held the table
// grows beyond Max, as there are as many sessions. With an account its rates are forgotten,
// which gives back at most one burst; its quota is not, as that is kept in the Counters.
type Table struct {
	now    func() time.Time
	seed   maphash.Seed
	shards []shard
	len    atomic.Int64
}

// shard is a part of a table. A hand goes round its accounts to find one to forget.
type shard struct {
	table *Table
	max   int

	mu   sync.Mutex
	all  map[Key]*Account
	ring []*Account
	hand int
}

// NewTable makes an empty table.
func NewTable(opt Options) *Table {
	if opt.Max <= 0 {
		opt.Max = defaultMax
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	n := min(max(opt.Max/minShard, 1), maxShards)
	t := &Table{now: opt.Now, seed: maphash.MakeSeed(), shards: make([]shard, n)}
	for i := range t.shards {
		t.shards[i] = shard{table: t, max: (opt.Max + n - 1) / n, all: make(map[Key]*Account)}
	}
	return t
}

// Len is how many accounts there are.
func (t *Table) Len() int { return int(t.len.Load()) }

// Account finds or makes the account of a client. It returns nil when nothing is limited.
// The limits apply from now on, also to those who have the account already; what was used
// stays used. since is when the subscription began, c where its quota is counted: nil counts
// in this process alone, until it ends or the account is forgotten.
func (t *Table) Account(k Key, l plans.Limits, since time.Time, c Counters) *Account {
	free := l.RateLimit == nil && l.Quota == nil && l.PublishRate == nil && l.ReceiveRate == nil
	if free && t.len.Load() == 0 {
		return nil
	}
	s := &t.shards[maphash.String(t.seed, k.Who)%uint64(len(t.shards))]
	s.mu.Lock()
	a := s.all[k]
	switch {
	case a != nil:
		a.used = true
	case !free: // not yet used again, so that those who come once go first
		a = &Account{key: k, shard: s, now: t.now}
		s.insert(a)
	}
	s.mu.Unlock()
	if a == nil {
		return nil
	}
	a.set(l, since, c)
	if free {
		return nil
	}
	return a
}

func (s *shard) insert(a *Account) {
	s.makeRoom()
	s.all[a.key] = a
	s.ring = append(s.ring, a)
	a.gone = false
	s.table.len.Add(1)
}

// makeRoom forgets accounts until there is room for one, as far as a few looks go.
func (s *shard) makeRoom() {
	for range min(looks, 2*len(s.ring)) {
		if len(s.ring) < s.max {
			return
		}
		s.hand %= len(s.ring)
		a := s.ring[s.hand]
		if a.held > 0 || a.used {
			a.used = false
			s.hand++
			continue
		}
		last := len(s.ring) - 1
		s.ring[s.hand] = s.ring[last]
		s.ring = slices.Delete(s.ring, last, last+1)
		s.hand++
		delete(s.all, a.key)
		a.gone = true
		s.table.len.Add(-1)
	}
}

// Hold keeps the account for an open session until Release. It returns the account to go on
// with, which is another one if this was forgotten since it was found.
func (a *Account) Hold() *Account {
	if a == nil {
		return nil
	}
	s := a.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.gone {
		if other := s.all[a.key]; other != nil {
			a = other
		} else {
			s.insert(a)
		}
	}
	a.held++
	return a
}

// Release lets go of an account that was held; of one that is not, it does nothing.
func (a *Account) Release() {
	if a == nil {
		return
	}
	a.shard.mu.Lock()
	defer a.shard.mu.Unlock()
	if a.held > 0 {
		a.held--
		a.used = true
	}
}
