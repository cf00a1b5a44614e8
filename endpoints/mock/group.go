package mock

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// maxGroups bounds what is remembered of identities.
const maxGroups = 10_000

// groups remembers, per identity, how far its members have come. Its clock stands still
// while no member is there.
type groups struct {
	tmpl *template

	mu     sync.Mutex
	byName map[string]*group
	marks  map[string]int64
}

// group is one identity, whose members share one clock.
type group struct {
	mu      sync.Mutex
	grid    grid
	next    int64
	again   []message.Delivery // given back, oldest first
	members []*member
	epoch   uint64
	used    time.Time
}

func newGroups(tmpl *template) *groups {
	return &groups{tmpl: tmpl, byName: make(map[string]*group), marks: make(map[string]int64)}
}

func (gs *groups) bookmark(name string) int64 {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.marks[name]
}

func (gs *groups) setBookmark(name string, next int64) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if _, ok := gs.marks[name]; !ok && len(gs.marks) >= maxGroups {
		for k := range gs.marks { // any one: a mock that forgets begins at 0 again
			delete(gs.marks, k)
			break
		}
	}
	gs.marks[name] = max(gs.marks[name], next)
}

// join makes a member of the identity's group.
func (gs *groups) join(sub message.Subscription) *member {
	gs.mu.Lock()
	g, ok := gs.byName[sub.Name]
	if !ok {
		gs.forgetOldest()
		g = &group{}
		gs.byName[sub.Name] = g
	}
	gs.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.members) == 0 {
		g.grid = grid{tmpl: gs.tmpl, start: time.Now(), first: g.next}
	}
	window := gs.tmpl.room(sub.Window)
	g.epoch++
	m := &member{group: g, window: window, epoch: g.epoch, wake: make(chan struct{}, 1), closed: make(chan struct{}),
		lent: make(map[int64]message.Delivery)}
	g.members = append(g.members, m)
	return m
}

func (gs *groups) forgetOldest() {
	if len(gs.byName) < maxGroups {
		return
	}
	oldest, when := "", time.Now()
	for name, g := range gs.byName {
		g.mu.Lock()
		if len(g.members) == 0 && g.used.Before(when) {
			oldest, when = name, g.used
		}
		g.mu.Unlock()
	}
	delete(gs.byName, oldest)
}

// member is one consumer of an identity. What it was lent and has not settled is bounded by
// its window.
type member struct {
	group  *group
	window int
	epoch  uint64
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once

	lent map[int64]message.Delivery // guarded by group.mu
}

// Receive implements message.Stream.
func (m *member) Receive(ctx context.Context) (message.Batch, error) {
	for {
		batch, wait, ticking := m.take(time.Now())
		if len(batch.Deliveries) > 0 {
			return batch, nil
		}
		if err := sleep(ctx, m.closed, m.wake, wait, ticking); err != nil {
			return message.Batch{}, err
		}
	}
}

func (m *member) take(now time.Time) (batch message.Batch, wait time.Duration, ticking bool) {
	g := m.group
	g.mu.Lock()
	defer g.mu.Unlock()
	room := m.window - len(m.lent)
	for room > 0 && len(g.again) > 0 {
		d := g.again[0]
		g.again = slices.Delete(g.again, 0, 1)
		d.Attempt++
		batch.Deliveries = append(batch.Deliveries, m.lend(d))
		room--
	}
	for due := g.grid.due(now); room > 0 && g.next < due; room-- {
		batch.Deliveries = append(batch.Deliveries, m.lend(message.Delivery{
			Message: g.grid.tmpl.make(g.next, g.grid.at(g.next)), Attempt: 1, Lane: channelName, Handle: g.next,
		}))
		g.next++
	}
	if room <= 0 {
		return batch, 0, false // a settlement wakes us
	}
	wait, ticking = g.grid.wait(g.next, now)
	return batch, wait, ticking
}

func (m *member) lend(d message.Delivery) message.Delivery {
	d.Epoch = m.epoch
	m.lent[d.Handle.(int64)] = d
	return d
}

// Settle implements message.Stream.
func (m *member) Settle(_ context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	g := m.group
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	for _, d := range deliveries {
		n, ok := d.Handle.(int64)
		if _, lent := m.lent[n]; !ok || !lent || d.Epoch != m.epoch {
			err = fmt.Errorf("message %s: %w", d.ID, message.ErrStale)
			continue
		}
		delete(m.lent, n)
		if how == message.Release {
			g.giveBack(d)
		}
	}
	g.rouse()
	return err
}

// giveBack keeps a delivery for whoever receives next, in the order of the channel.
func (g *group) giveBack(d message.Delivery) {
	n := d.Handle.(int64)
	i, _ := slices.BinarySearchFunc(g.again, n, func(d message.Delivery, n int64) int { return int(d.Handle.(int64) - n) })
	g.again = slices.Insert(g.again, i, d)
}

func (g *group) rouse() {
	for _, m := range g.members {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// Close implements message.Stream.
func (m *member) Close(context.Context) error {
	m.once.Do(func() {
		close(m.closed)
		g := m.group
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, d := range m.lent {
			g.giveBack(d)
		}
		clear(m.lent)
		g.members = slices.DeleteFunc(g.members, func(x *member) bool { return x == m })
		g.used = time.Now()
		g.rouse()
	})
	return nil
}
