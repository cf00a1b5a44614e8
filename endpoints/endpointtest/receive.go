package endpointtest

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// begin: a subscription counts from the moment in which Subscribe returned. What is
// produced after that arrives, also for a name that the broker has never seen.
func begin(s *subject) {
	for _, identifier := range []string{"first", "second", "third"} {
		r := s.open(s.usual(identifier))
		want := s.feed(3)
		s.exactly(r.takeAll(3), want)
		r.close()
	}
}

// levels: messages come at every level that the capabilities allow for the mode.
func levels(s *subject) {
	allowed := map[message.Mode][]message.QoS{
		message.Broadcast: {message.None, message.Auto},
		message.Assigned:  {message.Auto},
		message.Member:    {message.Auto},
		message.Shared:    {message.Auto},
	}[s.mode]
	if s.caps.Positions && s.mode == message.Assigned || s.caps.ManualSettle && s.mode >= message.Member {
		allowed = append(allowed, message.AtLeastOnce)
	}
	if s.caps.Fenced && s.mode >= message.Member {
		allowed = append(allowed, message.AtMostOnce)
	}
	for _, level := range allowed {
		sub := s.usual(level.String())
		sub.QoS = level
		r := s.open(sub)
		want := s.feed(10)
		s.exactly(r.takeAll(10), want)
		r.close()
	}
}

// order: within a lane, messages come in the order in which they were produced.
func order(s *subject) {
	r := s.open(s.usual("reader"))
	var all []message.Delivery
	var want []int
	for range 5 {
		want = append(want, s.feed(100)...)
		all = append(all, r.takeAll(100)...)
	}
	s.inOrder(all)
	s.exactly(all, want)
}

// allReady: Receive returns what is ready in one batch, so that it can be written in one
// go, and not message by message.
func allReady(s *subject) {
	const n = 50
	r := s.open(s.usual("reader"))
	for range 10 {
		s.feed(n)
		s.pause() // gives the messages time to arrive; a round that was too short is repeated
		before := r.calls
		r.takeAll(n)
		if r.calls-before <= n/5 {
			return
		}
	}
	s.Errorf("%d messages that were ready never came in %d batches or less", n, n/5)
}

// windowHolds: no more is lent than the window allows, and each settlement makes room.
func windowHolds(s *subject) {
	sub := s.usual("reader")
	sub.Window = message.Window{Messages: 5, Bytes: 1 << 20}
	r := s.open(sub)
	want := s.feed(20)
	held := r.take(5)
	r.silent("the window of 5 is full")
	r.settle(message.Ack, held[:2]...)
	next := r.take(2)
	r.silent("the window of 5 is full again")
	r.settle(message.Ack, held[2:]...)
	r.settle(message.Ack, next...)
	all := append(append(held, next...), r.takeAll(13)...)
	s.exactly(all, want)
	s.inOrder(all)

	// Settle works while Receive is blocked, and wakes it.
	want = s.feed(10)
	held = r.take(5)
	woken := make(chan error, 1)
	var more []message.Delivery
	go func() {
		batch, err := r.stream.Receive(s.within(s.Patience))
		more = batch.Deliveries
		woken <- err
	}()
	r.settle(message.Ack, held...)
	if err := <-woken; err != nil {
		s.Fatalf("Receive was not woken by Settle: %v", err)
	}
	r.settle(message.Ack, more...)
	s.exactly(append(append(held, more...), r.takeAll(max(5-len(more), 0))...), want)
}

// windowBytes: the window also bounds bytes, and a message larger than the window comes
// alone rather than never.
func windowBytes(s *subject) {
	sub := s.usual("reader")
	sub.Window = message.Window{Messages: 1000, Bytes: 5000}
	r := s.open(sub)
	want := s.feedSized(20, 1000)
	want = append(want, s.feedSized(2, 20_000)...)
	want = append(want, s.feedSized(3, 0)...)
	s.allOrGap(r, want, 25) // receive checks the bytes
}

// slowReader: one who does not read for a while loses nothing without being told.
func slowReader(s *subject) {
	const n = 300
	sub := s.usual("reader")
	sub.Window = message.Window{Messages: 10, Bytes: 1 << 20}
	r := s.open(sub)
	want := s.feed(n)
	s.pause()
	s.allOrGap(r, want, n)
}

// allOrGap checks that n messages come. Only a broadcast may drop some instead, and only
// if it tells.
func (s *subject) allOrGap(r *reader, want []int, n int) {
	s.Helper()
	if s.mode != message.Broadcast {
		s.exactly(r.takeAll(n), want)
		return
	}
	var all []message.Delivery
	for deadline := time.Now().Add(s.Patience); len(all) < n && time.Now().Before(deadline); {
		more, err := r.receive(s.Quiet)
		if err != nil && len(r.gaps) > 0 {
			break // the rest was dropped
		}
		all = append(all, more...)
	}
	s.inOrder(all)
	if len(r.gaps) == 0 {
		s.exactly(all[:min(n, len(all))], want)
	} else if len(all) == 0 {
		s.Error("everything was dropped: the newest messages must be kept")
	}
}

// receiveContext: Receive ends with its context, and the stream is as good as before.
func receiveContext(s *subject) {
	r := s.open(s.usual("reader"))
	for _, kind := range []error{context.Canceled, context.DeadlineExceeded} {
		begun := time.Now()
		err := s.receiveUntil(r, kind)
		if !errors.Is(err, kind) {
			s.Fatalf("Receive returned %v, want %v", err, kind)
		}
		if took := time.Since(begun); took > s.Patience/2 {
			s.Errorf("it took %v", took)
		}
	}
	want := s.feed(3)
	got := r.takeAll(3)
	if !s.Generates {
		s.exactly(got, want)
	}
}

// receiveUntil receives with a context that ends, until there was nothing to return but
// its error.
func (s *subject) receiveUntil(r *reader, kind error) error {
	for deadline := time.Now().Add(s.Patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if errors.Is(kind, context.Canceled) {
			cancel()
		}
		batch, err := r.stream.Receive(ctx)
		cancel()
		if err != nil || time.Now().After(deadline) {
			return err
		}
		if r.lends() {
			if err := r.stream.Settle(s.within(s.Patience), message.Ack, batch.Deliveries...); err != nil {
				return err
			}
		}
		if s.Generates && errors.Is(kind, context.DeadlineExceeded) {
			return kind // there is always something to return before the deadline
		}
	}
}

// closing: Close ends a blocked Receive and all later ones with an error, may be called
// again, and leaves nothing behind.
func closing(s *subject) {
	r := s.open(s.usual("reader"))
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := r.stream.Receive(context.Background()); err != nil {
				ended <- err
				return
			}
		}
	}()
	r.close()
	select {
	case err := <-ended:
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			s.Errorf("Receive returned %v, though its context did not end", err)
		}
	case <-time.After(subscribeLimit):
		s.Fatal("Receive did not end with Close")
	}
	r.close()
	if _, err := r.stream.Receive(s.within(s.Quiet)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("Receive after Close returned %v, want an error of its own", err)
	}
}

// pause lets time pass in which messages arrive. Nothing depends on its being enough.
func (s *subject) pause() { time.Sleep(s.Quiet / 2) }
