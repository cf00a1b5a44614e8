package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// broker is a queue with several lanes that keeps account of what it lent.
type broker struct {
	mu      sync.Mutex
	lanes   []*brokerLane
	ordered bool          // settling one settles all before it in its lane
	hold    time.Duration // loans end after that; 0 is never
	window  int
	batch   int // the largest
	random  *rand.Rand
	nextKey int
	wake    chan struct{}
	epoch   uint64
	current *loanStream
	// settled is called for each message that is acknowledged, also by a later one.
	settled func(m *message.Message)
	// published is called for each message before anybody can have it.
	published func(l *brokerLane, m *message.Message)
	// released are the offsets of what was given back, in that order.
	released []int
	// refuse makes settlements fail.
	refuse error
}

type brokerLane struct {
	name     string
	messages []*message.Message
	next     int
	back     map[int]int // offsets that come again, with how often they came
	acked    map[int]bool
	epoch    uint64
}

type loan struct {
	to      *loanStream
	lane    *brokerLane
	offset  int
	attempt int
	expires time.Time
	d       message.Delivery
}

type loanStream struct {
	b       *broker
	loans   map[*loan]bool
	revoked []string
	gap     *message.Gap
	away    map[string]time.Time // lanes that another consumer has, until then
	closed  bool
	fail    error
}

func newBroker(lanes, window int) *broker {
	b := &broker{window: window, batch: 10, wake: make(chan struct{}), random: rand.New(rand.NewPCG(1, 2))}
	for i := range lanes {
		b.lanes = append(b.lanes, &brokerLane{name: fmt.Sprintf("orders/%d", i), back: map[int]int{}, acked: map[int]bool{}})
	}
	return b
}

// publish adds a message, whose payload says which it is.
func (b *broker) publish(lane int, key string) *message.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[lane]
	m := &message.Message{Payload: []byte(fmt.Sprintf("%s %d", l.name, len(l.messages)))}
	if key != "" {
		m.Key = []byte(key)
	}
	if b.published != nil {
		b.published(l, m)
	}
	l.messages = append(l.messages, m)
	b.changed()
	return m
}

func (b *broker) changed() {
	close(b.wake)
	b.wake = make(chan struct{})
}

// open begins a new stream; the one before is over, as after a crash.
func (b *broker) open() *loanStream {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current != nil {
		b.current.end()
	}
	b.outdate()
	b.current = &loanStream{b: b, loans: map[*loan]bool{}, away: map[string]time.Time{}}
	return b.current
}

// unsettled counts what is not acknowledged.
func (b *broker) unsettled() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		n += len(l.messages) - len(l.acked)
	}
	return n
}

func (b *broker) lent() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.current.loans)
}

// refusing makes settlements fail.
func (b *broker) refusing(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = err
}

func (b *broker) acked(lane, offset int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lanes[lane].acked[offset]
}

// reconnect has the broker forget what it lent: it comes again, with another epoch.
func (b *broker) reconnect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current.giveBack(func(*loan) bool { return true })
	b.outdate()
	b.changed()
}

// revoke gives a lane to another consumer for a while, which does nothing with it.
func (b *broker) revoke(lane int, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, name := b.current, b.lanes[lane].name
	s.giveBack(func(l *loan) bool { return l.lane.name == name })
	s.revoked = append(s.revoked, name)
	s.away[name] = time.Now().Add(d)
	b.epoch++
	b.lanes[lane].epoch = b.epoch
	b.changed()
}

// elsewhere has another consumer acknowledge a message that is not lent.
func (b *broker) elsewhere(lane, offset int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[lane]
	delete(l.back, offset)
	l.acked[offset] = true
}

func (b *broker) outdate() {
	b.epoch++
	for _, l := range b.lanes {
		l.epoch = b.epoch
	}
}

func (s *loanStream) giveBack(match func(*loan) bool) {
	for l := range s.loans {
		if match(l) {
			delete(s.loans, l)
			l.lane.back[l.offset] = l.attempt
		}
	}
}

func (s *loanStream) end() {
	s.giveBack(func(*loan) bool { return true })
	s.closed = true
	s.b.changed()
}

func (s *loanStream) Receive(ctx context.Context) (message.Batch, error) {
	for {
		s.b.mu.Lock()
		batch, until := s.take()
		err, wake := s.fail, s.b.wake
		s.b.mu.Unlock()
		if err != nil || len(batch.Deliveries) > 0 || len(batch.Revoked) > 0 || batch.Gap != nil {
			return batch, err
		}
		timer := time.NewTimer(until)
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return message.Batch{}, ctx.Err()
		}
		timer.Stop()
	}
}

// take returns what is ready, and when to look again.
func (s *loanStream) take() (batch message.Batch, until time.Duration) {
	b, now := s.b, time.Now()
	until = time.Hour
	s.giveBack(func(l *loan) bool { return !l.expires.IsZero() && !now.Before(l.expires) })
	for l := range s.loans {
		if !l.expires.IsZero() {
			until = min(until, l.expires.Sub(now))
		}
	}
	batch.Revoked, s.revoked, batch.Gap, s.gap = s.revoked, nil, s.gap, nil
	if s.closed {
		return batch, until
	}
	room := min(b.window-len(s.loans), 1+b.random.IntN(b.batch))
	for i := range b.lanes {
		l := b.lanes[(i+b.nextKey)%len(b.lanes)]
		if back := s.away[l.name]; now.Before(back) {
			until = min(until, back.Sub(now))
			continue
		}
		for room > 0 {
			offset, attempt, ok := l.peek()
			if !ok {
				break
			}
			room--
			batch.Deliveries = append(batch.Deliveries, s.lend(l, offset, attempt+1, now))
		}
	}
	b.nextKey++
	return batch, until
}

func (l *brokerLane) peek() (offset, attempt int, ok bool) {
	if len(l.back) == 0 {
		return l.next, 0, l.next < len(l.messages)
	}
	offset = len(l.messages)
	for o, n := range l.back {
		if o < offset {
			offset, attempt = o, n
		}
	}
	return offset, attempt, true
}

func (s *loanStream) lend(lane *brokerLane, offset, attempt int, now time.Time) message.Delivery {
	if _, again := lane.back[offset]; again {
		delete(lane.back, offset)
	} else {
		lane.next++
	}
	l := &loan{to: s, lane: lane, offset: offset, attempt: attempt}
	if s.b.hold > 0 {
		l.expires = now.Add(s.b.hold)
	}
	s.loans[l] = true
	l.d = message.Delivery{
		Message: lane.messages[offset], Mark: message.Mark{Channel: lane.name, Next: int64(offset) + 1},
		Lane: lane.name, Attempt: attempt, Epoch: lane.epoch, Handle: l,
	}
	return l.d
}

func (s *loanStream) Settle(ctx context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.b.refuse != nil {
		return s.b.refuse
	}
	stale := false
	for i := range deliveries {
		l := deliveries[i].Handle.(*loan)
		switch {
		case !s.loans[l], !l.expires.IsZero() && !time.Now().Before(l.expires):
			stale = true
		case how == message.Release:
			delete(s.loans, l)
			l.lane.back[l.offset] = l.attempt
			s.b.released = append(s.b.released, l.offset)
		default:
			s.ack(l)
		}
	}
	s.b.changed()
	if stale {
		return message.ErrStale
	}
	return nil
}

func (s *loanStream) ack(l *loan) {
	all := []*loan{l}
	if s.b.ordered {
		for other := range s.loans {
			if other.lane == l.lane && other.offset < l.offset {
				all = append(all, other)
			}
		}
		slices.SortFunc(all, func(a, b *loan) int { return a.offset - b.offset })
	}
	for _, l := range all {
		delete(s.loans, l)
		l.lane.acked[l.offset] = true
		if s.b.settled != nil {
			s.b.settled(l.d.Message)
		}
	}
}

func (s *loanStream) Close(context.Context) error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if !s.closed {
		s.end()
	}
	return nil
}

var _ message.Stream = (*loanStream)(nil)
