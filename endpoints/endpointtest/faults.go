package endpointtest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// reconnectLimit is how long after the broker is back the first message may take.
const reconnectLimit = 10 * time.Second

// reconnect: a running stream survives its broker's absence. Receive waits meanwhile and
// does not fail; afterwards messages come, and what can't be made up for is told.
func reconnect(s *subject) {
	r := s.open(s.usual("reader"))
	want := s.feed(5)
	all := r.takeAll(5)
	s.Cut(s.T)
	if _, err := r.receive(s.Quiet); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("Receive failed while the broker was away: %v", err)
	}
	s.Restore(s.T)
	restored := time.Now()

	// A subscription that the broker forgets with the connection begins anew at some
	// time after Restore, so we produce until something comes.
	for {
		want = append(want, s.feed(1)...)
		more, err := r.receive(s.Quiet)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.Fatalf("the stream did not survive: %v", err)
		}
		r.settleIfHeld(more)
		all = append(all, more...)
		if len(more) > 0 {
			break
		}
		if time.Since(restored) > reconnectLimit {
			s.Fatalf("nothing came within %v after the broker was back", reconnectLimit)
		}
	}
	want = append(want, s.feed(5)...)
	all = append(all, s.collect(r, want)...)
	if lost := len(want) - len(s.distinct(all)); lost > 0 && len(r.gaps) == 0 {
		s.Errorf("%d messages were lost, and no gap was told", lost)
	}
	if s.caps.Positions || s.mode >= message.Member {
		s.complete(all, want)
	}
	if s.mode == message.Assigned && s.caps.Positions {
		s.exactly(all, want)
	}
}

// collect receives until the last of the wanted messages has come, and nothing more.
func (s *subject) collect(r *reader, want []int) []message.Delivery {
	s.Helper()
	if s.Generates {
		return r.takeAll(5)
	}
	var all []message.Delivery
	for deadline := time.Now().Add(s.Patience); time.Now().Before(deadline); {
		more, err := r.receive(s.Quiet)
		if err != nil {
			break
		}
		r.settleIfHeld(more)
		all = append(all, more...)
	}
	for _, n := range s.numbers(all) {
		if n == want[len(want)-1] {
			return all
		}
	}
	s.Errorf("the last message did not come")
	return all
}

// settleIfHeld acknowledges, and takes ErrStale for what it is: the message comes again.
func (r *reader) settleIfHeld(deliveries []message.Delivery) {
	r.s.Helper()
	if err := r.trySettle(message.Ack, deliveries...); err != nil && !errors.Is(err, message.ErrStale) {
		r.s.Errorf("settle: %v", err)
	}
}

// publisherReconnects: a publish while the broker is away says so in time and is never
// reported as stored; afterwards publishing works again.
func publisherReconnects(s *subject) {
	s.wantStatus(s.publish(message.Auto, s.make(1, 0)...), message.Stored)
	s.Cut(s.T)
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	result := s.publisher(s.Endpoint).Publish(ctx, message.Auto, s.make(1, 0)...)[0]
	if took := time.Since(begun); took > subscribeLimit {
		s.Errorf("publishing to a broker that is away took %v", took)
	}
	switch result.Status {
	case message.Refused:
		s.wantFailure(result, message.Refused, message.Unavailable)
	case message.Unknown: // it may have been on its way when the connection broke
		s.wantFailure(result, message.Unknown, message.OutcomeUnknown)
	default:
		s.Errorf("%s, while the broker is away", result.Status)
	}
	s.Restore(s.T)
	s.eventuallyStored(s.make(1, 0))
}

// unreachablePublish: a broker that never was there yields a refusal that names it.
func unreachablePublish(s *subject) {
	e := s.Unreachable(s.T)
	begun := time.Now()
	result := s.publisher(e).Publish(s.within(s.Patience), message.Auto, s.make(1, 0)...)[0]
	if took := time.Since(begun); took > subscribeLimit {
		s.Errorf("it took %v to say so", took)
	}
	s.wantFailure(result, message.Refused, message.Unavailable)
	s.wantAddress(e, result.Err)
}

// unreachableSubscribe: likewise for reading, and the status tells it too.
func unreachableSubscribe(s *subject) {
	e := s.Unreachable(s.T)
	_, err := s.subscribe(e, s.usual("reader"))
	if message.KindOf(err) != message.Unavailable {
		s.Fatalf("Subscribe returned %v, want an error of kind %s", err, message.Unavailable)
	}
	s.wantAddress(e, err)
	if status := e.Status(); status.State == endpoints.Up || status.Error == "" {
		s.Errorf("status is %+v, though the broker can't be reached", status)
	}
}

func (s *subject) wantAddress(e endpoints.Endpoint, err error) {
	s.Helper()
	address := e.Status().Address
	if address == "" || err == nil || !strings.Contains(err.Error(), address) {
		s.Errorf("%q does not name the address %q", err, address)
	}
}

// missingPublish: publishing into nothing is refused as such.
func missingPublish(s *subject) {
	result := s.publisher(s.Missing(s.T)).Publish(s.within(s.Patience), message.Auto, s.make(1, 0)...)[0]
	s.wantFailure(result, message.Refused, message.NotFound)
}

// missingSubscribe: reading from nothing is refused as such.
func missingSubscribe(s *subject) {
	_, err := s.subscribe(s.Missing(s.T), s.usual("reader"))
	if message.KindOf(err) != message.NotFound {
		s.Errorf("Subscribe returned %v, want an error of kind %s", err, message.NotFound)
	}
}

// status: the endpoint tells how its connection is, in the agreed words, and that it is
// up while it is used.
func status(s *subject) {
	known := func() bool {
		switch s.Endpoint.Status().State {
		case endpoints.Idle, endpoints.Connecting, endpoints.Up, endpoints.Down:
			return true
		}
		return false
	}
	if !known() {
		s.Errorf("status is %+v before first use", s.Endpoint.Status())
	}
	if s.caps.Publish {
		s.publish(message.Auto, s.make(1, 0)...)
	} else {
		for _, m := range everyMode {
			if s.mode = m; s.has(m) {
				s.open(s.usual("reader"))
				break
			}
		}
	}
	if now := s.Endpoint.Status(); now.State != endpoints.Up || now.Error != "" {
		s.Errorf("status is %+v after use, want up without an error", now)
	}
}

func (s *subject) has(m message.Mode) bool {
	switch m {
	case message.Broadcast:
		return s.caps.Copy
	case message.Assigned:
		return s.caps.Positions || s.caps.PerSession
	case message.Member:
		return s.caps.Exclusive
	default:
		return s.caps.Shared
	}
}
