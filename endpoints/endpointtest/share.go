package endpointtest

import (
	"context"
	"errors"
	"sync"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// eachGetsAll: streams that compete with nobody each get everything.
func eachGetsAll(s *subject) {
	one, two := s.open(s.usual("")), s.openOn(s.another(), s.usual(""))
	want := s.feed(30)
	first, second := one.take(30), two.take(30)
	s.exactly(first, want)
	s.exactly(second, want)
}

// namesGetAll: two identities do not compete.
func namesGetAll(s *subject) {
	one, two := s.open(s.usual("one")), s.open(s.usual("two"))
	want := s.feed(30)
	s.exactly(one.takeAll(30), want)
	s.exactly(two.takeAll(30), want)
}

// membersShare: several consumers of one identity, or of one queue, divide the messages
// among themselves. None is lost, also when one of them leaves with some unsettled.
func membersShare(s *subject) {
	const n = 200
	one, two := s.open(s.usual("both")), s.openOn(s.another(), s.usual("both"))
	want := s.feed(n)
	var mu sync.Mutex
	var all []message.Delivery
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(s.distinct(all)) >= n
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
	defer cancel()
	var wg sync.WaitGroup
	for _, r := range []*reader{one, two} {
		wg.Go(func() {
			for ctx.Err() == nil && !enough() {
				got := s.receiveAndAck(ctx, r)
				mu.Lock()
				all = append(all, got...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s.complete(all, want)
	s.oneLeaves(one, two)
}

// receiveAndAck receives once, for a short while, and returns what it could settle: what
// has gone to another consumer in the meantime comes there.
func (s *subject) receiveAndAck(ctx context.Context, r *reader) []message.Delivery {
	short, cancel := context.WithTimeout(ctx, s.Quiet)
	defer cancel()
	batch, err := r.stream.Receive(short)
	if err != nil {
		if short.Err() == nil {
			s.Errorf("receive: %v", err)
		}
		<-short.Done()
		return nil
	}
	switch err := r.stream.Settle(ctx, message.Ack, batch.Deliveries...); {
	case errors.Is(err, message.ErrStale):
		return nil
	case err != nil && ctx.Err() == nil:
		s.Errorf("settle: %v", err)
		return nil
	}
	return batch.Deliveries
}

// oneLeaves: what a consumer holds when it leaves comes to the other.
func (s *subject) oneLeaves(one, two *reader) {
	s.Helper()
	want := s.feed(20)
	held := one.rest()
	one.close()
	var got []message.Delivery
	if len(held) > 0 {
		got = s.comeAgain(two, held)
	}
	if !s.Generates {
		owed := make(map[int]bool)
		for _, n := range want {
			owed[n] = true
		}
		for _, n := range s.numbers(got) {
			delete(owed, n)
		}
		for len(owed) > 0 {
			delete(owed, s.number(two.take(1)[0].Message))
		}
	}
}

func (s *subject) distinct(deliveries []message.Delivery) map[string]bool {
	seen := make(map[string]bool, len(deliveries))
	for _, d := range deliveries {
		id := string(d.Payload)
		if s.Generates {
			id = d.ID
		}
		seen[id] = true
	}
	return seen
}
