package endpointtest

import (
	"context"
	"errors"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func currentGoroutines() goleak.Option { return goleak.IgnoreCurrent() }

// defaultWindow is what the suite asks for when a promise is not about windows.
var defaultWindow = message.Window{Messages: 1000, Bytes: 16 << 20}

// reader is a stream under observation: whatever a promise does with it, the window, the
// marks and the context are checked on every Receive.
type reader struct {
	s      *subject
	stream message.Stream
	sub    message.Subscription
	// ahead was received and not yet asked for.
	ahead []message.Delivery
	gaps  []message.Gap
	// owed are unsettled deliveries of the newest epoch, by size.
	owed  map[message.Mark][]int
	epoch uint64
	// position is where the stream began, moved on by all that take returned.
	position message.Position
	calls    int
}

// usual is a subscription of the subject's mode for an identity, at the level that is
// usual for the mode.
func (s *subject) usual(identifier string) message.Subscription {
	sub := message.Subscription{Mode: s.mode, QoS: message.Auto, Window: defaultWindow}
	switch {
	case s.mode == message.Broadcast:
		sub.QoS = message.None
	case s.mode == message.Member && s.caps.ManualSettle:
		sub.QoS = message.AtLeastOnce
	}
	if s.mode == message.Member {
		sub.Name = s.name(identifier)
	}
	return sub
}

func (s *subject) open(sub message.Subscription) *reader {
	s.Helper()
	return s.openOn(s.Endpoint, sub)
}

func (s *subject) openOn(e endpoints.Endpoint, sub message.Subscription) *reader {
	s.Helper()
	stream, err := s.subscribe(e, sub)
	if err != nil {
		s.Fatalf("subscribe as %s: %v", sub.Mode, err)
	}
	r := &reader{s: s, stream: stream, sub: sub, owed: make(map[message.Mark][]int)}
	if p, ok := stream.(message.Positioned); ok {
		r.position = p.Position().Clone()
	} else if s.caps.Positions && sub.Mode == message.Assigned {
		s.Fatalf("Positions is declared, but %T is not message.Positioned", stream)
	}
	s.Cleanup(r.close)
	return r
}

// subscribe checks that Subscribe keeps its time, and that the stream outlives the
// context it was made with.
func (s *subject) subscribe(e endpoints.Endpoint, sub message.Subscription) (message.Stream, error) {
	s.Helper()
	from := e.(endpoints.Subscribing)
	channel, err := from.Channel(s.Values)
	if err != nil {
		s.Fatalf("channel: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
	defer cancel()
	begun := time.Now()
	stream, err := from.Subscribe(ctx, channel, sub)
	if took := time.Since(begun); took > subscribeLimit {
		s.Errorf("Subscribe took %v", took)
	}
	return stream, err
}

func (r *reader) close() {
	r.s.Helper()
	begun := time.Now()
	if err := r.stream.Close(r.s.within(subscribeLimit)); err != nil {
		r.s.Errorf("close: %v", err)
	}
	if took := time.Since(begun); took > subscribeLimit {
		r.s.Errorf("Close took %v", took)
	}
}

// receive calls Receive once and checks what always holds.
func (r *reader) receive(wait time.Duration) ([]message.Delivery, error) {
	r.s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	batch, err := r.stream.Receive(ctx)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			r.s.Errorf("Receive returned %v and not the context's error", err)
		}
		if len(batch.Deliveries) > 0 {
			r.s.Errorf("Receive returned an error and %d deliveries, which are lost", len(batch.Deliveries))
		}
		return nil, err
	}
	r.calls++
	if batch.Gap != nil {
		r.gaps = append(r.gaps, *batch.Gap)
	}
	if len(batch.Deliveries) == 0 && batch.Gap == nil && len(batch.Revoked) == 0 {
		r.s.Error("Receive returned nothing at all")
	}
	r.checkMarks(batch.Deliveries)
	r.checkWindow(batch)
	return batch.Deliveries, nil
}

func (r *reader) checkMarks(deliveries []message.Delivery) {
	r.s.Helper()
	for _, d := range deliveries {
		if d.Message == nil {
			r.s.Fatal("a delivery without message")
		}
		if positioned := d.Mark != (message.Mark{}); positioned && !r.s.caps.Positions {
			r.s.Errorf("mark %+v on an endpoint without positions", d.Mark)
		}
		if r.s.caps.Positions && d.Mark.Next <= 0 {
			r.s.Errorf("mark %+v: Next must be the offset after this message, so at least 1", d.Mark)
		}
	}
}

// checkWindow checks that what is lent, or what one batch holds, is within the window.
// One message may always be lent, however large it is.
func (r *reader) checkWindow(batch message.Batch) {
	r.s.Helper()
	if !r.lends() {
		r.s.checkBounds(r.sub.Window, len(batch.Deliveries), sizeOf(batch.Deliveries))
		return
	}
	if len(batch.Revoked) > 0 {
		clear(r.owed)
	}
	for _, d := range batch.Deliveries {
		if d.Epoch != r.epoch {
			clear(r.owed)
			r.epoch = d.Epoch
		}
		r.owed[d.Mark] = append(r.owed[d.Mark], d.Size())
	}
	messages, bytes := 0, 0
	for _, sizes := range r.owed {
		for _, size := range sizes {
			messages++
			bytes += size
		}
	}
	r.s.checkBounds(r.sub.Window, messages, bytes)
}

func (s *subject) checkBounds(w message.Window, messages, bytes int) {
	s.Helper()
	if messages > w.Messages {
		s.Errorf("%d messages are out, and the window is %d", messages, w.Messages)
	}
	if bytes > w.Bytes && messages > 1 {
		s.Errorf("%d bytes in %d messages are out, and the window is %d", bytes, messages, w.Bytes)
	}
}

// lends tells whether deliveries of this stream owe a settlement that we give.
func (r *reader) lends() bool {
	return r.s.caps.ManualSettle && (r.sub.Mode == message.Member || r.sub.Mode == message.Shared)
}

// take returns the next n deliveries.
func (r *reader) take(n int) []message.Delivery {
	r.s.Helper()
	for deadline := time.Now().Add(r.s.Patience); len(r.ahead) < n; {
		more, err := r.receive(max(time.Until(deadline), time.Millisecond))
		if err != nil {
			r.s.Fatalf("received %d of %d messages: %v", len(r.ahead), n, err)
		}
		r.ahead = append(r.ahead, more...)
	}
	taken := r.ahead[:n:n]
	r.ahead = r.ahead[n:]
	r.advance(taken)
	return taken
}

// takeAll is take, and acknowledges each batch as it comes, so that n may exceed the
// window.
func (r *reader) takeAll(n int) []message.Delivery {
	r.s.Helper()
	var taken []message.Delivery
	for deadline := time.Now().Add(r.s.Patience); len(taken) < n; {
		more := r.ahead
		r.ahead = nil
		if len(more) == 0 {
			var err error
			if more, err = r.receive(max(time.Until(deadline), time.Millisecond)); err != nil {
				r.s.Fatalf("received %d of %d messages: %v", len(taken), n, err)
			}
		}
		if over := len(taken) + len(more) - n; over > 0 {
			more, r.ahead = more[:len(more)-over], more[len(more)-over:]
		}
		r.settle(message.Ack, more...)
		r.advance(more)
		taken = append(taken, more...)
	}
	return taken
}

// rest returns what else comes while the suite listens, without settling it.
func (r *reader) rest() []message.Delivery {
	r.s.Helper()
	rest := r.ahead
	r.ahead = nil
	for deadline := time.Now().Add(r.s.Quiet); time.Now().Before(deadline); {
		more, err := r.receive(max(time.Until(deadline), time.Millisecond))
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				r.s.Errorf("receive: %v", err)
			}
			break
		}
		rest = append(rest, more...)
	}
	return rest
}

// silent checks that nothing comes while the suite listens.
func (r *reader) silent(why string) {
	r.s.Helper()
	if rest := r.rest(); len(rest) > 0 {
		r.s.Errorf("messages %v came, but %s", r.s.numbers(rest), why)
	}
}

func (r *reader) settle(how message.Settlement, deliveries ...message.Delivery) {
	r.s.Helper()
	if err := r.trySettle(how, deliveries...); err != nil {
		r.s.Fatalf("settle: %v", err)
	}
}

func (r *reader) trySettle(how message.Settlement, deliveries ...message.Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	err := r.stream.Settle(r.s.within(r.s.Patience), how, deliveries...)
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		if sizes := r.owed[d.Mark]; len(sizes) > 1 {
			r.owed[d.Mark] = sizes[1:]
		} else {
			delete(r.owed, d.Mark)
		}
	}
	if r.s.caps.OrderedSettle && how == message.Ack {
		clear(r.owed) // less strict, because earlier ones of the lane are settled with it
	}
	return nil
}

func (r *reader) advance(deliveries []message.Delivery) {
	if !r.s.caps.Positions {
		return
	}
	for _, d := range deliveries {
		r.position.Advance(d.Mark)
	}
}

// bookmark stores a position for the stream's name.
func (r *reader) bookmark(at message.Position) {
	r.s.Helper()
	if err := r.stream.(message.Bookmarker).Bookmark(r.s.within(r.s.Patience), at); err != nil {
		r.s.Fatalf("bookmark: %v", err)
	}
}

func sizeOf(deliveries []message.Delivery) int {
	n := 0
	for _, d := range deliveries {
		n += d.Size()
	}
	return n
}
