package endpointtest

import "time"

// SetDown makes the broker unreachable, or reachable again. Going down breaks all
// connections: what was lent is given to somebody again.
func (b *FakeBroker) SetDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if down == !b.down.IsZero() {
		return
	}
	b.down = time.Time{}
	if down {
		b.down = time.Now()
		b.breakConnections()
	}
	b.changed()
}

// Break breaks all connections; they are re-made at once.
func (b *FakeBroker) Break() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.breakConnections()
	b.changed()
}

func (b *FakeBroker) breakConnections() {
	b.epoch++
	for _, ch := range b.channels {
		for _, g := range ch.groups {
			g.giveBack(func(*fakeLoan) bool { return true })
		}
	}
}

// Stall makes the broker take everything and answer nothing: publishing has an unknown
// outcome when its context ends, and nothing is delivered.
func (b *FakeBroker) Stall(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stalled = on
	b.changed()
}

// RefuseNext makes the broker refuse the next n messages that are published; -1 is all
// from now on, and 0 none.
func (b *FakeBroker) RefuseNext(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = n
}

// LoseAnswers makes the broker store the next n messages that are published without its
// answer arriving; -1 is all from now on, and 0 none.
func (b *FakeBroker) LoseAnswers(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lose = n
}

// Revoke takes all that is lent away from all consumers, and tells them so, as when a
// group is divided anew.
func (b *FakeBroker) Revoke() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ch := range b.channels {
		for _, g := range ch.groups {
			g.revoke()
		}
	}
	b.changed()
}

// FailStreams ends every stream with an error that is final; nil lets new ones live.
func (b *FakeBroker) FailStreams(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failure = err
	b.changed()
}

// Truncate deletes the messages that a channel holds now.
func (b *FakeBroker) Truncate(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := b.channels[topic]
	for i := range ch.parts {
		p := &ch.parts[i]
		p.low, p.log = p.end(), nil
	}
	for _, g := range ch.groups {
		g.truncate(ch)
	}
}

// Recreate deletes a channel and makes it anew, empty.
func (b *FakeBroker) Recreate(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.channels[topic]
	anew := b.create(topic, old.born+1)
	anew.groups = old.groups
	for _, g := range anew.groups {
		clear(g.next)
		g.truncate(anew)
	}
	b.changed()
}

// spend takes one from a counter of faults, of which -1 is endless.
func spend(n *int) bool {
	if *n > 0 {
		*n--
		return true
	}
	return *n < 0
}
