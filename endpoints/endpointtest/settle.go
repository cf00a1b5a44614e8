package endpointtest

import (
	"errors"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// ackIsFinal: what was acknowledged does not come again.
func ackIsFinal(s *subject) {
	r := s.open(s.usual("reader"))
	want := s.feed(10)
	first := r.takeAll(10)
	s.exactly(first, want)
	r.close()

	r = s.open(s.usual("reader"))
	want = s.feed(5)
	second := r.take(5)
	s.none(append(second, r.rest()...), first, "it was acknowledged")
	if !s.Generates {
		s.exactly(second, want)
	}
}

// ackOutOfOrder: an acknowledgement of a later message takes none of the earlier ones
// away (unless settling is ordered, and says so).
func ackOutOfOrder(s *subject) {
	if s.caps.OrderedSettle {
		s.Log("settling is ordered: see ack-ordered")
		return
	}
	r := s.open(s.usual("reader"))
	s.feed(10)
	all := r.take(10)
	r.settle(message.Ack, all[9], all[4])
	r.close()

	s.comeAgain(s.open(s.usual("reader")), append(all[:4:4], all[5:9]...))
}

// ackOrdered: an acknowledgement settles all that came before it in its lane.
func ackOrdered(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(20)
	all := r.take(20)
	last := make(map[string]message.Delivery)
	for _, d := range all {
		last[d.Lane] = d
	}
	for _, d := range last {
		r.settle(message.Ack, d)
	}
	r.close()

	r = s.open(s.usual("reader"))
	s.feed(5)
	s.none(append(r.take(5), r.rest()...), all, "it was settled with a later one of its lane")
}

// release: what was given back comes again, counted.
func release(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(5)
	all := r.take(5)
	r.settle(message.Release, all[2])
	again := s.comeAgain(r, all[2:3])
	for _, d := range again {
		if s.number(d.Message) != s.number(all[2].Message) {
			continue
		}
		if d.Attempt <= all[2].Attempt && d.Attempt != 0 {
			s.Errorf("attempt %d came after attempt %d", d.Attempt, all[2].Attempt)
		}
		r.settle(message.Ack, d)
		break
	}
	r.close()
}

// unsettled: what was not settled when the stream was closed comes again, and only that.
func unsettled(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(9)
	all := r.take(9)
	settled := s.headsOfLanes(all)
	r.settle(message.Ack, settled...)
	r.close()

	owed := without(s, all, settled)
	r = s.open(s.usual("reader"))
	again := s.comeAgain(r, owed)
	s.none(append(again, r.rest()...), settled, "it was acknowledged")
	counted := without(s, again, without(s, again, owed)) // in case something else came too
	for _, d := range counted {
		if d.Attempt == 1 {
			s.Errorf("message %d comes for the second time and says attempt 1", s.number(d.Message))
		}
	}
}

// reject: what was rejected does not come again.
func reject(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(5)
	all := r.take(5)
	r.settle(message.Reject, all[0])
	r.settle(message.Ack, all[1:]...)
	r.close()

	r = s.open(s.usual("reader"))
	s.feed(5)
	s.none(append(r.take(5), r.rest()...), all, "it was rejected")
}

// deadLetters: what was rejected is put aside, whole.
func deadLetters(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(3)
	all := r.take(3)
	r.settle(message.Reject, all[1])
	r.settle(message.Ack, all[0], all[2])
	letter := s.DeadLetters(s.T, 1)[0]
	s.samePayload("dead letter", letter, all[1].Payload)
}

// settleAfterClose: a closed stream has given its deliveries back, and settling them
// touches nothing.
func settleAfterClose(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(3)
	all := r.take(3)
	r.close()
	if err := r.trySettle(message.Ack, all...); !errors.Is(err, message.ErrStale) {
		s.Errorf("settling on a closed stream returned %v, want ErrStale", err)
	}
	s.comeAgain(s.open(s.usual("reader")), all)
}

// stale: a delivery of an earlier connection is either still ours, and then settling it
// is in force, or it is reported as stale, and then it comes again. Nothing in between,
// and never another message in its place.
func stale(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(6)
	old := r.take(6)
	s.Cut(s.T)
	s.Restore(s.T)
	s.feed(1)
	again := r.take(1) // the new connection works
	err := r.trySettle(message.Ack, old...)
	switch {
	case err == nil && again[0].Epoch == old[0].Epoch:
		r.settle(message.Ack, again...)
		r.close()
		r = s.open(s.usual("reader"))
		s.feed(1)
		s.none(append(r.take(1), r.rest()...), old, "its settlement was accepted")
	case errors.Is(err, message.ErrStale):
		s.comeAgain(r, without(s, old, again))
	default:
		s.Errorf("settling deliveries of epoch %d in epoch %d returned %v, want ErrStale", old[0].Epoch, again[0].Epoch, err)
	}
}

// atMostOnce: what was settled before the client saw it never comes again, whatever
// happens after the settlement returned.
func atMostOnce(s *subject) {
	sub := s.usual("reader")
	sub.QoS = message.AtMostOnce
	var seen []message.Delivery
	for range 5 {
		r := s.open(sub)
		s.feed(20)
		some := r.take(10)
		r.settle(message.Ack, some...)
		if s.Cut != nil && s.Restore != nil {
			s.Cut(s.T)
			s.Restore(s.T)
		}
		s.none(some, seen, "it was settled before it was handed over")
		seen = append(seen, some...)
		r.close()
	}
	s.none(s.open(sub).rest(), seen, "it was settled before it was handed over")
}

// hold: what is held for longer than the broker lends it comes again, and the late
// settlement is reported.
func hold(s *subject) {
	r := s.open(s.usual("reader"))
	s.feed(1)
	held := r.take(1)
	again := s.comeAgain(r, held)
	if err := r.trySettle(message.Ack, held...); !errors.Is(err, message.ErrStale) {
		s.Errorf("settling after MaxHold returned %v, want ErrStale", err)
	}
	r.settle(message.Ack, again...)
}

// stopping: a stopped stream takes nothing more and gives back what was not received, and
// what it has handed out stays its own until it is settled.
func stopping(s *subject) {
	r := s.open(s.usual("reader"))
	stopper, ok := r.stream.(message.Stopper)
	if !ok {
		s.Logf("%T is no message.Stopper: what comes meanwhile waits in its window", r.stream)
		return
	}
	s.feed(4)
	lent := r.take(4)
	s.feed(3) // which may be on their way to it
	if err := stopper.Stop(s.within(s.Patience)); err != nil {
		s.Fatalf("stop: %v", err)
	}
	s.feed(3)
	other := s.open(s.usual("reader"))
	theirs := other.take(6)
	s.none(append(theirs, other.rest()...), lent, "it is still lent to the stream that was stopped")
	other.settle(message.Ack, theirs...)
	r.settle(message.Ack, lent[:3]...)
	r.close()
	s.comeAgain(other, lent[3:])
}

// comeAgain receives until all owed messages have come, and returns all that came.
func (s *subject) comeAgain(r *reader, owed []message.Delivery) []message.Delivery {
	s.Helper()
	missing := make(map[int]bool)
	for _, n := range s.numbers(owed) {
		missing[n] = true
	}
	var came []message.Delivery
	more := r.ahead
	r.ahead = nil
	for deadline := time.Now().Add(s.Patience); ; {
		for _, n := range s.numbers(more) {
			delete(missing, n)
		}
		came = append(came, more...)
		if len(missing) == 0 {
			return came
		}
		var err error
		if more, err = r.receive(max(time.Until(deadline), time.Millisecond)); err != nil {
			s.Fatalf("messages %v did not come again: %v", keysOf(missing), err)
		}
	}
}

// headsOfLanes are the first message of each lane, which every broker can settle alone.
func (s *subject) headsOfLanes(all []message.Delivery) []message.Delivery {
	seen := make(map[string]bool)
	var heads []message.Delivery
	for _, d := range all {
		if !seen[d.Lane] {
			seen[d.Lane] = true
			heads = append(heads, d)
		}
	}
	return heads
}

func without(s *subject, all, some []message.Delivery) []message.Delivery {
	gone := make(map[int]bool)
	for _, n := range s.numbers(some) {
		gone[n] = true
	}
	var left []message.Delivery
	for _, d := range all {
		if !gone[s.number(d.Message)] {
			left = append(left, d)
		}
	}
	return left
}

func keysOf(m map[int]bool) []int {
	var out []int
	for n := range m {
		out = append(out, n)
	}
	return out
}
