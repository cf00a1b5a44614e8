// Package ledger keeps the books of what a webhook gateway was given to deliver: what was
// produced, what its receiver was sent and has taken, and what became a dead letter. At the end
// it tells what is lost, out of order, or invented.
package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"
)

// maxFlaws is how many things that are wrong are kept in words; all are counted.
const maxFlaws = 30

// Ledger is the account of one subscription. It is safe for concurrent use.
type Ledger struct {
	plan []Message

	mu        sync.Mutex
	clock     int64 // counts what happens, so that two things are never at the same time
	records   []record
	ids       map[string]int // webhook-id → message
	produced  int
	accounted int
	repeated  int
	changed   time.Time
	came      time.Time // the last request
	flaws     []string
	wrong     int
}

// record is what happened to one message.
type record struct {
	produced bool
	id       string
	// tried and taken are when it was first sent, and first taken; 0 is never.
	tried, taken int64
	triedAt      time.Time
	attempts     int
	highest      int // of the attempts, as the gateway counts them
	given        int
	letters      []Letter
}

// Letter is a dead letter, as a client of the broker finds it.
type Letter struct {
	Key     string
	Payload []byte
	Headers map[string]string
}

// Request is what the receiver was sent.
type Request struct {
	Payload []byte
	// ID is the webhook-id, Attempt the number of the attempt.
	ID      string
	Attempt int
}

// New opens the account of a plan.
func New(plan []Message) *Ledger {
	return &Ledger{plan: plan, records: make([]record, len(plan)), ids: make(map[string]int), changed: time.Now()}
}

// Plan is what is to be produced.
func (l *Ledger) Plan() []Message { return l.plan }

// Producing notes that a message is about to be handed to the broker; it may be there even if
// that is never confirmed.
func (l *Ledger) Producing(m Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := &l.records[m.N]; !r.produced {
		r.produced = true
		l.produced++
	}
}

// Ahead is how many messages were produced of which nothing is known yet.
func (l *Ledger) Ahead() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.produced - l.accounted
}

// Accounted is how many messages were taken or are dead, and since when that is so.
func (l *Ledger) Accounted() (n int, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accounted, l.changed
}

// Came is when the last request came.
func (l *Ledger) Came() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.came
}

// Tried notes that a request has come, and returns what it is about and how often it came
// before. ok is false if nobody has produced that.
func (l *Ledger) Tried(r Request) (m Message, before int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, rec := l.find("a request", r.Payload)
	if rec == nil {
		return m, 0, false
	}
	l.clock++
	l.came = time.Now()
	if rec.tried == 0 {
		rec.tried, rec.triedAt = l.clock, l.came
	}
	before = rec.attempts
	rec.attempts++
	rec.highest = max(rec.highest, r.Attempt)
	if r.Attempt < 1 {
		l.flaw("message %d: webhook-attempt is %d", m.N, r.Attempt)
	}
	if rec.id == "" {
		rec.id = r.ID
		if other, taken := l.ids[r.ID]; taken {
			l.flaw("messages %d and %d have both the webhook-id %q", other, m.N, r.ID)
		}
		l.ids[r.ID] = m.N
	} else if rec.id != r.ID {
		l.flaw("message %d came with the webhook-ids %q and %q", m.N, rec.id, r.ID)
	}
	return m, before, true
}

// Taken notes that the receiver answers 2xx from now on.
func (l *Ledger) Taken(m Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	rec := &l.records[m.N]
	rec.given++
	if rec.given > 1 {
		l.repeated++
		return
	}
	rec.taken = l.clock
	l.account(rec)
}

// Repeated is how many 2xx were given for messages that had been taken before.
func (l *Ledger) Repeated() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.repeated
}

// Died notes a dead letter.
func (l *Ledger) Died(letter Letter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, rec := l.find("a dead letter", letter.Payload)
	if rec == nil {
		return
	}
	if letter.Key != "" && letter.Key != m.Key {
		l.flaw("the dead letter of message %d has the key %q", m.N, letter.Key)
	}
	rec.letters = append(rec.letters, letter)
	if len(rec.letters) == 1 {
		l.account(rec)
	}
}

// account counts what is known now of a message of which nothing was.
func (l *Ledger) account(rec *record) {
	if rec.given+len(rec.letters) == 1 {
		l.accounted++
		l.changed = time.Now()
	}
}

// find returns the message that the payload is, byte by byte.
func (l *Ledger) find(what string, payload []byte) (Message, *record) {
	m, err := Parse(payload)
	if err != nil {
		l.flaw("%s: %v", what, err)
		return m, nil
	}
	if m.N < 0 || m.N >= len(l.plan) || !l.records[m.N].produced || !bytes.Equal(payload, l.plan[m.N].Payload()) {
		l.flaw("%s is invented: %.200q", what, payload)
		return m, nil
	}
	return l.plan[m.N], &l.records[m.N]
}

// Note tells of something that is wrong.
func (l *Ledger) Note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flaw(format, args...)
}

func (l *Ledger) flaw(format string, args ...any) {
	l.wrong++
	if len(l.flaws) < maxFlaws {
		l.flaws = append(l.flaws, fmt.Sprintf(format, args...))
	}
}

// Flaws are what is wrong so far, in words as far as they are kept.
func (l *Ledger) Flaws() (words []string, count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.flaws), l.wrong
}
