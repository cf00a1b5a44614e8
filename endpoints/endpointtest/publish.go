package endpointtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// stored: a message that is reported as stored can be read by somebody else.
func stored(s *subject) {
	for range 5 {
		m := s.make(1, 0)
		s.wantStatus(s.publish(message.Auto, m...), message.Stored)
		s.sameNumbers(s.Consume(s.T, 1), m)
	}
}

// handed: at level none the result says no more than that the message was handed over,
// and it arrives all the same as long as nothing goes wrong.
func handed(s *subject) {
	m := s.make(5, 0)
	s.wantStatus(s.publish(message.None, m...), message.Handed)
	s.sameNumbers(s.Consume(s.T, len(m)), m)
}

// batchResults: there is one result per message, also for none and for many.
func batchResults(s *subject) {
	if results := s.publish(message.Auto); len(results) != 0 {
		s.Errorf("no messages yielded %d results", len(results))
	}
	want := message.Stored
	if !s.caps.Confirm {
		want = message.Handed
	}
	s.wantStatus(s.publish(message.Auto, s.make(250, 0)...), want)
}

// publishOrder: a batch of one key is stored in its order.
func publishOrder(s *subject) {
	m := s.makeOfOneKey(100)
	s.wantStatus(s.publish(message.Auto, m[:50]...), message.Stored)
	s.wantStatus(s.publish(message.Auto, m[50:]...), message.Stored)
	got, want := s.messageNumbers(s.Consume(s.T, len(m))), s.messageNumbers(m)
	if !slices.Equal(got, want) {
		s.Errorf("stored in the order %v, want %v", got, want)
	}
}

// publishConcurrently: a publisher is safe for concurrent use and loses nothing.
func publishConcurrently(s *subject) {
	const callers, each = 8, 25
	all := s.make(callers*each, 0)
	p := s.publisher(s.Endpoint)
	failed := make([]error, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				r := p.Publish(s.within(s.Patience), message.Auto, all[c*each+i])
				if len(r) != 1 || r[0].Status != message.Stored {
					failed[c] = fmt.Errorf("message %d: %+v", c*each+i, r)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failed...); err != nil {
		s.Fatal(err)
	}
	s.sameNumbers(s.Consume(s.T, len(all)), all)
}

// publishContext: a context that has ended ends the publish, and it is not reported as
// stored without being so.
func publishContext(s *subject) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	begun := time.Now()
	results := s.publisher(s.Endpoint).Publish(ctx, message.Auto, s.make(1, 0)...)
	if took := time.Since(begun); took > subscribeLimit {
		s.Errorf("it took %v", took)
	}
	if len(results) != 1 {
		s.Fatalf("%d results", len(results))
	}
	if r := results[0]; !r.Status.OK() && r.Err == nil {
		s.Errorf("%s without an error", r.Status)
	}
}

// largestPayload: what MaxPayload allows is stored, one byte more is refused, and the
// refusal touches only that message of the batch.
func largestPayload(s *subject) {
	m := s.make(3, 0)
	m[0].Payload = make([]byte, s.caps.MaxPayload)
	m[1].Payload = make([]byte, s.caps.MaxPayload+1)
	results := s.publish(message.Auto, m...)
	s.wantStatus([]message.Result{results[0], results[2]}, message.Stored)
	s.wantFailure(results[1], message.Refused, message.TooLarge)
}

// refused: what the broker refuses is reported as refused, is not stored, and harms
// nothing that comes after it.
func refused(s *subject) {
	s.wantStatus(s.publish(message.Auto, s.makeOfOneKey(1)...), message.Stored)
	s.Refuse(s.T)
	result := s.publish(message.Auto, s.makeOfOneKey(1)...)[0]
	if result.Status != message.Refused || result.Err == nil {
		s.Errorf("%s (%v), want refused with an error", result.Status, result.Err)
	}
	after := s.makeOfOneKey(1)
	s.eventuallyStored(after)
	if s.Consume != nil {
		got := s.messageNumbers(s.Consume(s.T, 2))
		if want := []int{0, s.messageNumbers(after)[0]}; !slices.Equal(got, want) {
			s.Errorf("the broker has messages %v, want %v", got, want)
		}
	}
}

// unknown: when the broker has the message and its answer is lost, that is never
// reported as refused. An endpoint that finds out in time may report it as stored.
func unknown(s *subject) {
	s.wantStatus(s.publish(message.Auto, s.makeOfOneKey(1)...), message.Stored)
	s.CutAfterWrite(s.T)
	m := s.makeOfOneKey(1)
	ctx, cancel := context.WithTimeout(context.Background(), subscribeLimit)
	defer cancel()
	result := s.publisher(s.Endpoint).Publish(ctx, message.Auto, m...)[0]
	switch result.Status {
	case message.Stored:
	case message.Unknown:
		s.wantFailure(result, message.Unknown, message.OutcomeUnknown)
	default:
		s.Errorf("%s (%v), want unknown", result.Status, result.Err)
	}
	if s.Consume != nil {
		s.sameNumbers(s.Consume(s.T, 2)[1:], m)
	}
	s.eventuallyStored(s.make(1, 0))
}

// durable: what was stored is there after the broker died.
func durable(s *subject) {
	m := s.make(20, 0)
	s.wantStatus(s.publish(message.Auto, m...), message.Stored)
	s.Restart(s.T)
	s.sameNumbers(s.Consume(s.T, len(m)), m)
}

// makeOfOneKey makes messages that the broker keeps in one order.
func (s *subject) makeOfOneKey(n int) []*message.Message {
	m := s.make(n, 0)
	for i := range m {
		m[i].Key = []byte("one key")
	}
	return m
}

func (s *subject) publisher(e endpoints.Endpoint) message.Publisher {
	s.Helper()
	p, err := e.(endpoints.Publishing).Publisher(s.Values)
	if err != nil {
		s.Fatalf("publisher: %v", err)
	}
	return p
}

func (s *subject) publish(level message.QoS, messages ...*message.Message) []message.Result {
	s.Helper()
	results := s.publisher(s.Endpoint).Publish(s.within(s.Patience), level, messages...)
	if len(results) != len(messages) {
		s.Fatalf("%d messages yielded %d results", len(messages), len(results))
	}
	return results
}

func (s *subject) wantStatus(results []message.Result, want message.Status) {
	s.Helper()
	for i, r := range results {
		if r.Status != want {
			s.Fatalf("message %d is %s (%v), want %s", i, r.Status, r.Err, want)
		}
		if r.Err != nil {
			s.Errorf("message %d is %s and has the error %v", i, r.Status, r.Err)
		}
	}
}

func (s *subject) wantFailure(r message.Result, status message.Status, kind message.Kind) {
	s.Helper()
	if r.Status != status || r.Err == nil || message.KindOf(r.Err) != kind {
		s.Errorf("%s (%v), want %s with an error of kind %s", r.Status, r.Err, status, kind)
	}
}

// eventuallyStored publishes until it works again, with the same messages, as a client
// would.
func (s *subject) eventuallyStored(messages []*message.Message) {
	s.Helper()
	s.eventually("publishing works again", func() bool {
		results := s.publish(message.Auto, messages...)
		return !slices.ContainsFunc(results, func(r message.Result) bool { return r.Status != message.Stored })
	})
}

func (s *subject) messageNumbers(messages []*message.Message) []int {
	s.Helper()
	numbers := make([]int, len(messages))
	for i, m := range messages {
		numbers[i] = publishedNumber(s, m)
	}
	return numbers
}

// publishedNumber is number for what was published, which is numbered by its payload
// even where the channel fills by itself.
func publishedNumber(s *subject, m *message.Message) int {
	s.Helper()
	var n int
	if _, err := fmt.Sscanf(string(m.Payload), "message %d", &n); err != nil {
		s.Fatalf("payload %.60q is none that was published", m.Payload)
	}
	return n
}

// sameNumbers checks that two lists hold the same messages, in whatever order.
func (s *subject) sameNumbers(got, want []*message.Message) {
	s.Helper()
	g, w := s.messageNumbers(got), s.messageNumbers(want)
	slices.Sort(g)
	slices.Sort(w)
	if !slices.Equal(g, w) {
		s.Errorf("the broker has messages %v, want %v", g, w)
	}
}
