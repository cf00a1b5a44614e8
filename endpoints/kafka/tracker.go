package kafka

import (
	"slices"
	"sync"
)

// tracker keeps account of one partition of a group member: which deliveries are owed,
// and up to where everything is settled. Only that is ever committed, so that commits
// run ahead of nothing; and it only grows, so that they never go backwards.
type tracker struct {
	account *account
	owed    []owed // by offset, without the settled ones at the head
	// position is where reading stands: what is behind the last delivery and holds
	// nothing for anyone (compacted records, transaction markers).
	position int64
	// committed is what the broker has.
	committed int64
}

type owed struct {
	offset  int64
	size    int32
	settled bool
}

// account adds up what a stream holds over all its partitions; it guards the trackers.
type account struct {
	mu       sync.Mutex
	messages int
	bytes    int
	// span counts what is noted, settled or not: one message that is never settled must
	// not make the notes behind it grow for ever.
	span int
}

// maxSpan bounds the notes of one stream.
const maxSpan = 1 << 16

func newTracker(a *account, offset int64) *tracker {
	return &tracker{account: a, position: offset, committed: offset}
}

// lend notes a delivery.
func (t *tracker) lend(offset int64, size int) {
	a := t.account
	a.mu.Lock()
	defer a.mu.Unlock()
	t.owed = append(t.owed, owed{offset: offset, size: int32(size)})
	t.position = offset + 1
	a.messages++
	a.bytes += size
	a.span++
}

// passed notes that reading went on to a position without a delivery.
func (t *tracker) passed(position int64) {
	t.account.mu.Lock()
	defer t.account.mu.Unlock()
	t.position = max(t.position, position)
}

// reset starts again at a position: the log is not what it was.
func (t *tracker) reset(position int64) {
	t.account.mu.Lock()
	defer t.account.mu.Unlock()
	t.drop()
	t.position, t.committed = position, -1
}

// settle notes that a delivery is settled. It reports false for one that is not owed.
// The account is locked.
func (t *tracker) settle(offset int64) bool {
	i, ok := slices.BinarySearchFunc(t.owed, offset, func(o owed, at int64) int {
		switch {
		case o.offset < at:
			return -1
		case o.offset > at:
			return 1
		}
		return 0
	})
	if !ok || t.owed[i].settled {
		return false
	}
	t.owed[i].settled = true
	t.account.messages--
	t.account.bytes -= int(t.owed[i].size)
	n := 0
	for n < len(t.owed) && t.owed[n].settled {
		n++
	}
	t.owed = t.owed[n:]
	t.account.span -= n
	return true
}

// owes reports whether a delivery is still to be settled. The account is locked.
func (t *tracker) owes(offset int64) bool {
	return slices.ContainsFunc(t.owed, func(o owed) bool { return o.offset == offset && !o.settled })
}

// due is the offset to commit, and whether that is news. The account is locked.
func (t *tracker) due() (int64, bool) {
	to := t.position
	if len(t.owed) > 0 {
		to = t.owed[0].offset
	}
	return to, to > t.committed
}

// drop forgets what is owed: it will come again, here or elsewhere. The account is locked.
func (t *tracker) drop() {
	for _, o := range t.owed {
		if !o.settled {
			t.account.messages--
			t.account.bytes -= int(o.size)
		}
	}
	t.account.span -= len(t.owed)
	t.owed = nil
}
