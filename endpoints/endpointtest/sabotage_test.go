package endpointtest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// A suite that can't fail proves nothing. Each sabotage breaks one promise of an honest
// fake, and the suite must name that promise. Because a failing subtest fails the whole
// test, the sabotaged runs happen in processes of their own.

const sabotageVariable = "ENDPOINTTEST_SABOTAGE"

// spoiled is a fake whose publisher, subscription or streams are tampered with.
type spoiled struct {
	*Fake
	caps      func(*message.Capabilities)
	publish   func(qos message.QoS, honest func(...*message.Message) []message.Result, m []*message.Message) []message.Result
	subscribe func(honest func() (message.Stream, error)) (message.Stream, error)
	stream    func(*spoiledStream)
}

// Capabilities implements endpoints.Endpoint.
func (s *spoiled) Capabilities() message.Capabilities {
	caps := s.Caps
	if s.caps != nil {
		s.caps(&caps)
	}
	return caps
}

// Publisher implements endpoints.Publishing.
func (s *spoiled) Publisher(v endpoints.Values) (message.Publisher, error) {
	honest, err := s.Fake.Publisher(v)
	return spoiledPublisher{s, honest}, err
}

type spoiledPublisher struct {
	s      *spoiled
	honest message.Publisher
}

// Publish implements message.Publisher.
func (p spoiledPublisher) Publish(ctx context.Context, qos message.QoS, m ...*message.Message) []message.Result {
	honest := func(m ...*message.Message) []message.Result { return p.honest.Publish(ctx, qos, m...) }
	if p.s.publish == nil {
		return honest(m...)
	}
	return p.s.publish(qos, honest, m)
}

// Subscribe implements endpoints.Subscribing.
func (s *spoiled) Subscribe(ctx context.Context, ch endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	honest := func() (message.Stream, error) { return s.Fake.Subscribe(ctx, ch, sub) }
	if s.subscribe != nil {
		return s.subscribe(honest)
	}
	stream, err := honest()
	if err != nil || s.stream == nil {
		return stream, err
	}
	w := &spoiledStream{Stream: stream, sub: sub}
	w.receive, w.settle = stream.Receive, stream.Settle
	w.position = func() message.Position { return message.Position{} }
	w.bookmark = func(context.Context, message.Position) error { return errors.New("no bookmarks") }
	w.stop = func(context.Context) error { return nil }
	if p, ok := stream.(message.Positioned); ok {
		w.position = p.Position
	}
	if b, ok := stream.(message.Bookmarker); ok {
		w.bookmark = b.Bookmark
	}
	if stopper, ok := stream.(message.Stopper); ok {
		w.stop = stopper.Stop
	}
	s.stream(w)
	return w, nil
}

type spoiledStream struct {
	message.Stream
	sub      message.Subscription
	receive  func(context.Context) (message.Batch, error)
	settle   func(context.Context, message.Settlement, ...message.Delivery) error
	position func() message.Position
	bookmark func(context.Context, message.Position) error
	stop     func(context.Context) error
}

// Receive implements message.Stream.
func (w *spoiledStream) Receive(ctx context.Context) (message.Batch, error) { return w.receive(ctx) }

// Settle implements message.Stream.
func (w *spoiledStream) Settle(ctx context.Context, how message.Settlement, d ...message.Delivery) error {
	return w.settle(ctx, how, d...)
}

// Position implements message.Positioned.
func (w *spoiledStream) Position() message.Position { return w.position() }

// Bookmark implements message.Bookmarker.
func (w *spoiledStream) Bookmark(ctx context.Context, at message.Position) error {
	return w.bookmark(ctx, at)
}

// Stop implements message.Stopper.
func (w *spoiledStream) Stop(ctx context.Context) error { return w.stop(ctx) }

// batches tampers with every batch that is received.
func batches(change func(*message.Batch)) func(*spoiledStream) {
	return func(w *spoiledStream) {
		honest := w.receive
		w.receive = func(ctx context.Context) (message.Batch, error) {
			b, err := honest(ctx)
			b.Deliveries = slices.Clone(b.Deliveries)
			change(&b)
			return b, err
		}
	}
}

// messages tampers with every message that is received.
func messages(change func(*message.Message)) func(*spoiledStream) {
	return batches(func(b *message.Batch) {
		for i := range b.Deliveries {
			m := *b.Deliveries[i].Message
			change(&m)
			b.Deliveries[i].Message = &m
		}
	})
}

// settlements tampers with Settle.
func settlements(change func(how message.Settlement, honest func(message.Settlement) error) error) func(*spoiledStream) {
	return func(w *spoiledStream) {
		honest := w.settle
		w.settle = func(ctx context.Context, how message.Settlement, d ...message.Delivery) error {
			return change(how, func(how message.Settlement) error { return honest(ctx, how, d...) })
		}
	}
}

func results(change func(*message.Result)) func(message.QoS, func(...*message.Message) []message.Result, []*message.Message) []message.Result {
	return func(_ message.QoS, honest func(...*message.Message) []message.Result, m []*message.Message) []message.Result {
		r := honest(m...)
		for i := range r {
			change(&r[i])
		}
		return r
	}
}

// sabotages are named after the promise that they break, with a note after the colon.
var sabotages = map[string]spoiled{
	"capabilities: unknown side": {caps: func(c *message.Capabilities) { c.Subscribe = false }},
	"confirm: stored nowhere": {publish: func(_ message.QoS, _ func(...*message.Message) []message.Result, m []*message.Message) []message.Result {
		return slices.Repeat([]message.Result{{Status: message.Stored}}, len(m))
	}},
	"batch: one result too few": {publish: func(_ message.QoS, honest func(...*message.Message) []message.Result, m []*message.Message) []message.Result {
		r := honest(m...)
		return r[:max(len(r)-1, 0)]
	}},
	"publish-order: backwards": {publish: func(_ message.QoS, honest func(...*message.Message) []message.Result, m []*message.Message) []message.Result {
		m = slices.Clone(m)
		slices.Reverse(m)
		return honest(m...)
	}},
	"refused: told as unknown": {publish: results(func(r *message.Result) {
		if r.Status == message.Refused {
			r.Status = message.Unknown
		}
	})},
	"unknown: told as refused": {publish: results(func(r *message.Result) {
		if r.Status == message.Unknown {
			r.Status = message.Refused
		}
	})},
	"max-payload: of another kind": {publish: results(func(r *message.Result) {
		if r.Err != nil {
			r.Err = errors.New("too large")
		}
	})},
	"unreachable-publish: without address": {publish: results(func(r *message.Result) {
		if r.Err != nil {
			r.Err = message.Errorf(message.Unavailable, "no connection")
		}
	})},
	"payload-in: trimmed":          {stream: messages(func(m *message.Message) { m.Payload = []byte(strings.TrimSpace(string(m.Payload))) })},
	"payload-in: made valid UTF-8": {stream: messages(func(m *message.Message) { m.Payload = []byte(strings.ToValidUTF8(string(m.Payload), "?")) })},
	"key-in: no key became empty":  {stream: messages(func(m *message.Message) { m.Key = append([]byte{}, m.Key...) })},
	"headers-in: sorted":           {stream: messages(func(m *message.Message) { m.Headers = sorted(m.Headers) })},
	"order: backwards":             {stream: batches(func(b *message.Batch) { slices.Reverse(b.Deliveries) })},
	"all-ready: one by one":        {stream: oneByOne},
	"window: twice as much":        {stream: twice},
	"slow-reader: drops in silence": {stream: batches(func(b *message.Batch) {
		if len(b.Deliveries) > 9 {
			b.Deliveries = b.Deliveries[1:]
		}
	})},
	"receive-context: of another kind": {stream: func(w *spoiledStream) {
		honest := w.receive
		w.receive = func(ctx context.Context) (message.Batch, error) {
			b, err := honest(ctx)
			if err != nil {
				err = errors.New("interrupted")
			}
			return b, err
		}
	}},
	"capabilities: leaves a goroutine": {subscribe: func(honest func() (message.Stream, error)) (message.Stream, error) {
		go func() { time.Sleep(time.Hour) }()
		return honest()
	}},
	"ack: forgotten":          {stream: settlements(func(message.Settlement, func(message.Settlement) error) error { return nil })},
	"release: taken for ack":  {stream: settlements(func(_ message.Settlement, honest func(message.Settlement) error) error { return honest(message.Ack) })},
	"unsettled: acknowledged": {stream: ackOnReceive},
	"reject: taken for release": {stream: settlements(func(how message.Settlement, honest func(message.Settlement) error) error {
		if how == message.Reject {
			how = message.Release
		}
		return honest(how)
	})},
	"stale: in silence": {stream: settlements(func(how message.Settlement, honest func(message.Settlement) error) error {
		if err := honest(how); !errors.Is(err, message.ErrStale) {
			return err
		}
		return nil
	})},
	"settle-after-close: in silence": {stream: settlements(func(how message.Settlement, honest func(message.Settlement) error) error {
		_ = honest(how)
		return nil
	})},
	"at-most-once: settled later":  {stream: settlements(func(message.Settlement, func(message.Settlement) error) error { return nil })},
	"stop: closes":                 {stream: func(w *spoiledStream) { w.stop = w.Close }},
	"resume: one too far":          {stream: shifted(1)},
	"resume: one too early":        {stream: shifted(-1)},
	"resume-unread: empty":         {stream: func(w *spoiledStream) { w.position = func() message.Position { return message.Position{} } }},
	"resume-foreign: in silence":   {stream: batches(func(b *message.Batch) { b.Gap = nil })},
	"resume-expired: in silence":   {stream: batches(func(b *message.Batch) { b.Gap = nil })},
	"resume-recreated: in silence": {stream: batches(func(b *message.Batch) { b.Gap = nil })},
	"bookmark: not kept": {stream: func(w *spoiledStream) {
		w.bookmark = func(context.Context, message.Position) error { return nil }
	}},
	"reconnect: gives up": {stream: func(w *spoiledStream) {
		honest := w.receive
		w.receive = func(ctx context.Context) (message.Batch, error) {
			b, err := honest(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				err = message.Errorf(message.Unavailable, "connection lost")
			}
			return b, err
		}
	}},
	"missing-subscribe: of another kind": {subscribe: func(honest func() (message.Stream, error)) (message.Stream, error) {
		stream, err := honest()
		if err != nil {
			err = errors.New("not found")
		}
		return stream, err
	}},
}

// oneByOne returns one delivery at a time, as push libraries tempt one to.
func oneByOne(w *spoiledStream) {
	honest := w.receive
	var ahead []message.Delivery
	w.receive = func(ctx context.Context) (message.Batch, error) {
		var batch message.Batch
		if len(ahead) == 0 {
			var err error
			if batch, err = honest(ctx); err != nil {
				return batch, err
			}
			ahead = batch.Deliveries
		}
		batch.Deliveries = ahead[:min(1, len(ahead))]
		ahead = ahead[len(batch.Deliveries):]
		return batch, nil
	}
}

// twice returns a delivery of the next batch with each batch, over the window.
func twice(w *spoiledStream) {
	honest := w.receive
	w.receive = func(ctx context.Context) (message.Batch, error) {
		batch, err := honest(ctx)
		for i := range batch.Deliveries {
			d := batch.Deliveries[i]
			m := *d.Message
			d.Message, d.Mark.Next = &m, d.Mark.Next+1_000_000
			batch.Deliveries = append(batch.Deliveries, d)
		}
		return batch, err
	}
}

func ackOnReceive(w *spoiledStream) {
	honest := w.receive
	w.receive = func(ctx context.Context) (message.Batch, error) {
		batch, err := honest(ctx)
		if len(batch.Deliveries) > 0 {
			_ = w.Stream.Settle(ctx, message.Ack, batch.Deliveries...)
		}
		return batch, err
	}
	w.settle = func(context.Context, message.Settlement, ...message.Delivery) error { return nil }
}

// shifted is off by a little in every mark.
func shifted(by int64) func(*spoiledStream) {
	return batches(func(b *message.Batch) {
		for i := range b.Deliveries {
			b.Deliveries[i].Mark.Next = max(b.Deliveries[i].Mark.Next+by, 1)
			b.Deliveries[i].Mark.Time = 0
		}
	})
}

// TestSabotaged is the run that must fail. It does nothing unless TestSuiteCanFail
// starts it.
func TestSabotaged(t *testing.T) {
	s, ok := sabotages[os.Getenv(sabotageVariable)]
	if !ok {
		return
	}
	Run(t, Harness{
		New: func(*testing.T) *Rig {
			rig := fakeRig(FakeCapabilities)
			spoil := func(e endpoints.Endpoint) endpoints.Endpoint {
				tampered := s
				tampered.Fake = e.(*Fake)
				return &tampered
			}
			rig.Endpoint = spoil(rig.Endpoint)
			again, missing, unreachable := rig.Again, rig.Missing, rig.Unreachable
			rig.Again = func(t *testing.T) endpoints.Endpoint { return spoil(again(t)) }
			rig.Missing = func(t *testing.T) endpoints.Endpoint { return spoil(missing(t)) }
			rig.Unreachable = func(t *testing.T) endpoints.Endpoint { return spoil(unreachable(t)) }
			return rig
		},
		Keys: true, Headers: true, HeaderOrder: true, BinaryHeaders: true,
		Patience: 700 * time.Millisecond, Quiet: 20 * time.Millisecond,
	})
}

func TestSuiteCanFail(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it starts one process per sabotage")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range sabotages {
		t.Run(name, func(t *testing.T) {
			promise, _, _ := strings.Cut(name, ":")
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestSabotaged$/^(capabilities|"+promise+")$", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), sabotageVariable+"="+name)
			out, err := cmd.CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
				t.Fatalf("the sabotaged run ended with %v:\n%s", err, out)
			}
			if want := "--- FAIL: TestSabotaged/" + promise; !strings.Contains(string(out), want) {
				t.Errorf("the suite did not see that %q is broken:\n%s", promise, out)
			}
		})
	}
}
