package history

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// ledger knows of each message, which is a number, what its publisher was told and how
// often each reader got it.
type ledger struct {
	mu        sync.Mutex
	confirmed []time.Time // the zero time if it was not
	told      int         // how many were
	kills     []time.Time // of the broker
	unknown   int
	refused   int // answers, not messages: those are sent again
	strange   []string
	readers   []*account
}

// account is what one reader got.
type account struct {
	name    string // empty for a reader that there is not in this run
	seen    []uint16
	got     int
	changed time.Time
}

func newLedger(readers ...string) *ledger {
	l := new(ledger)
	for _, name := range readers {
		l.readers = append(l.readers, &account{name: name, changed: time.Now()})
	}
	return l
}

func (l *ledger) confirm(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.confirmed) <= n {
		l.confirmed = append(l.confirmed, time.Time{})
	}
	l.confirmed[n] = time.Now()
	l.told++
}

// killed notes that the broker is about to be killed.
func (l *ledger) killed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kills = append(l.kills, time.Now())
}

// killWindow is how close to a kill of the broker a message was confirmed for whose loss
// the broker can be to blame, if it answers before it has written to its disk.
const killWindow = time.Second

func (l *ledger) atKill(confirmed time.Time) bool {
	for _, k := range l.kills {
		if confirmed.Sub(k).Abs() < killWindow {
			return true
		}
	}
	return false
}

func (l *ledger) confirmations() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}

func (l *ledger) count(counter *int, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*counter += n
}

func (l *ledger) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.strange) < 20 {
		l.strange = append(l.strange, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) saw(reader int, content string) {
	var n int
	if _, err := fmt.Sscanf(content, "message %d", &n); err != nil || n < 0 || n > 1<<22 {
		l.note("%s got %.60q", l.readers[reader].name, content)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.readers[reader]
	for len(a.seen) <= n {
		a.seen = append(a.seen, 0)
	}
	a.seen[n]++
	a.got++
	a.changed = time.Now()
}

// tally is the sum of one reader's account. atKill is how many of the lost were confirmed
// when the broker was about to be killed.
type tally struct{ lost, atKill, repeated, unconfirmed int }

func (l *ledger) tally(reader int) tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum tally
	seen := l.readers[reader].seen
	for n, when := range l.confirmed {
		if when.IsZero() || n < len(seen) && seen[n] > 0 {
			continue
		}
		sum.lost++
		if l.atKill(when) {
			sum.atKill++
		}
	}
	for n, times := range seen {
		if times > 1 {
			sum.repeated++
		}
		if times > 0 && (n >= len(l.confirmed) || l.confirmed[n].IsZero()) {
			sum.unconfirmed++
		}
	}
	return sum
}

// settle waits until the reader has everything, or has got nothing new for so long.
func (l *ledger) settle(reader int, quiet time.Duration) {
	for {
		l.mu.Lock()
		still := time.Since(l.readers[reader].changed)
		l.mu.Unlock()
		if still > quiet || l.tally(reader).lost == 0 && still > time.Second {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// report prints the table that is asserted.
func (l *ledger) report(t *testing.T) []tally {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d confirmed, %d of unknown outcome, %d refusals\n", l.told, l.unknown, l.refused)
	fmt.Fprintf(&b, "%-26s %9s %9s %9s %9s %12s\n", "reader", "received", "lost", "at kills", "repeated", "unconfirmed")
	var sums []tally
	for i, a := range l.readers {
		sum := l.tally(i)
		sums = append(sums, sum)
		if a.name == "" {
			continue
		}
		fmt.Fprintf(&b, "%-26s %9d %9d %9d %9d %12d\n", a.name, a.got, sum.lost, sum.atKill, sum.repeated, sum.unconfirmed)
	}
	t.Log("\n" + b.String())
	if len(l.strange) > 0 {
		t.Errorf("strange: %.2000s", strings.Join(l.strange, "\n"))
	}
	return sums
}
