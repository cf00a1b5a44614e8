package rabbitmq

// ledger keeps account of what a channel delivered and what was settled of it. A channel
// counts its deliveries from 1, so that what is missing in between is known to be on its
// way. An acknowledgement of "all up to here" is right only when none is missing.
type ledger struct {
	base  uint64 // the first tag that is not settled
	slots []slot // from base on
}

// slot is the state of one delivery.
type slot uint8

const (
	absent slot = iota // not handed out yet
	held
	acked // but the broker was not told yet
	over
)

func newLedger() ledger { return ledger{base: 1} }

// lend notes that a delivery was handed out.
func (l *ledger) lend(tag uint64) {
	for uint64(len(l.slots)) <= tag-l.base {
		l.slots = append(l.slots, absent)
	}
	l.slots[tag-l.base] = held
}

// holds reports whether a delivery was handed out and is not settled.
func (l *ledger) holds(tag uint64) bool {
	return tag >= l.base && tag-l.base < uint64(len(l.slots)) && l.slots[tag-l.base] == held
}

func (l *ledger) set(tag uint64, s slot) { l.slots[tag-l.base] = s }

// advance forgets the settled beginning. It returns the last tag up to which everything
// can be acknowledged at once, or 0 when there is none.
func (l *ledger) advance() (upTo uint64) {
	n := 0
	for ; n < len(l.slots) && l.slots[n] >= acked; n++ {
		if l.slots[n] == acked {
			upTo = l.base + uint64(n)
		}
	}
	l.base += uint64(n)
	l.slots = l.slots[:copy(l.slots, l.slots[n:])]
	return upTo
}
