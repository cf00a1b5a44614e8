package module

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/module/feed"
)

// countingSub counts subscriptions, and holds them up while gate is set and not closed.
type countingSub struct {
	*endpointtest.Fake
	gate          chan struct{}
	opened, ended atomic.Int64
}

func (c *countingSub) Subscribe(ctx context.Context, ch endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	c.opened.Add(1)
	if c.gate != nil {
		<-c.gate
	}
	stream, err := c.Fake.Subscribe(ctx, ch, sub)
	if err != nil {
		return nil, err
	}
	return &countedStream{Stream: stream, ended: &c.ended}, nil
}

type countedStream struct {
	message.Stream
	once  sync.Once
	ended *atomic.Int64
}

func (c *countedStream) Close(ctx context.Context) error {
	c.once.Do(func() { c.ended.Add(1) })
	return c.Stream.Close(ctx)
}

// logsRig is a unit with one endpoint whose subscriptions are counted.
func logsRig(t *testing.T, id string) (*logs, *endpoint, *countingSub) {
	t.Helper()
	sub := &countingSub{Fake: endpointtest.NewFake(endpointtest.FakeCapabilities)}
	e := fakeEndpoint("fake", sub.Fake)
	e.sub = sub
	l := testUnit(id).logs
	t.Cleanup(func() {
		if err := l.close(context.Background()); err != nil {
			t.Errorf("closing: %v", err)
		}
		if opened, ended := sub.opened.Load(), sub.ended.Load(); ended > opened {
			t.Errorf("%d streams opened, %d closed", opened, ended)
		}
	})
	return l, e, sub
}

var fakeChannel = endpoints.Channel{Key: "fake", Spec: "fake"}

// plainEncoder writes the payload.
type plainEncoder struct{}

func (plainEncoder) Format() string    { return "plain" }
func (plainEncoder) WantsCursor() bool { return false }
func (plainEncoder) Append(dst []byte, d *message.Delivery, _ []byte) []byte {
	return append(dst, d.Payload...)
}

func TestLogsSubscribeOnceForAll(t *testing.T) {
	l, e, sub := logsRig(t, "once")
	sub.gate = make(chan struct{})
	const sessions = 50
	got := make(chan *feed.Log, sessions)
	for range sessions {
		go func() {
			log, err := l.get(t.Context(), e, fakeChannel)
			if err != nil {
				t.Error(err)
			}
			got <- log
		}()
	}
	eventually(t, "a subscription", func() bool { return sub.opened.Load() == 1 })
	if l.has(e, fakeChannel) {
		t.Error("a log in the making is taken for one")
	}
	close(sub.gate)
	first := receive(t, got, "a log")
	for range sessions - 1 {
		if log := receive(t, got, "a log"); log != first || log == nil {
			t.Fatal("one channel has two logs")
		}
	}
	if n := sub.opened.Load(); n != 1 || l.len() != 1 || !l.has(e, fakeChannel) {
		t.Errorf("%d subscriptions, %d logs", n, l.len())
	}
	other := endpoints.Channel{Key: "other", Spec: "fake"}
	if log, err := l.get(t.Context(), e, other); err != nil || log == first {
		t.Errorf("another channel: %v", err)
	}
}

// A broker that is down fails whoever asks now, and nobody later.
func TestLogsErrorIsNotKept(t *testing.T) {
	l, e, sub := logsRig(t, "error")
	sub.Broker.SetDown(true)
	for range 2 {
		if _, err := l.get(t.Context(), e, fakeChannel); message.KindOf(err) != message.Unavailable {
			t.Fatalf("got %v", err)
		}
	}
	if l.len() != 0 || l.has(e, fakeChannel) {
		t.Errorf("%d logs are kept", l.len())
	}
	sub.Broker.SetDown(false)
	if _, err := l.get(t.Context(), e, fakeChannel); err != nil {
		t.Errorf("when the broker is back: %v", err)
	}
}

// One impatient client does not spoil it for the others, and does not wait longer than it
// wants, though it was the first.
func TestLogsWaitEndsWithContext(t *testing.T) {
	l, e, sub := logsRig(t, "impatient")
	sub.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := l.get(ctx, e, fakeChannel)
		failed <- err
	}()
	eventually(t, "a subscription", func() bool { return sub.opened.Load() == 1 })
	patient := make(chan error, 1)
	go func() {
		_, err := l.get(t.Context(), e, fakeChannel)
		patient <- err
	}()
	cancel()
	if err := receive(t, failed, "the impatient one"); !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient one: %v", err)
	}
	close(sub.gate)
	if err := receive(t, patient, "the patient one"); err != nil {
		t.Errorf("the patient one: %v", err)
	}
	if n := sub.opened.Load(); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
}

// A subscription that the broker has ended for good is made anew for the next client.
func TestLogsReplaceEndedLog(t *testing.T) {
	l, e, sub := logsRig(t, "ended")
	first, err := l.get(t.Context(), e, fakeChannel)
	if err != nil {
		t.Fatal(err)
	}
	gone := message.Errorf(message.Denied, "the topic may no longer be read")
	sub.Broker.FailStreams(gone)
	eventually(t, "the log to end", func() bool { return first.Err() != nil })
	sub.Broker.FailStreams(nil)
	second, err := l.get(t.Context(), e, fakeChannel)
	if err != nil || second == first || second.Err() != nil {
		t.Fatalf("got %v, the same: %v", err, second == first)
	}
	if n := sub.ended.Load(); n != 1 || l.len() != 1 {
		t.Errorf("%d streams were closed, %d logs", n, l.len())
	}
}

func TestLogsCloseWhenUnused(t *testing.T) {
	l, e, sub := logsRig(t, "unused")
	log, err := l.get(t.Context(), e, fakeChannel)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	at := func(d time.Duration) {
		t.Helper()
		l.closeIdle(start.Add(d))
	}
	alive := func(when string, want bool) {
		t.Helper()
		if got := l.has(e, fakeChannel); got != want || (sub.ended.Load() == 0) != want {
			t.Fatalf("%s: alive is %v, %d streams closed", when, got, sub.ended.Load())
		}
	}
	at(0)
	at(logIdle - 1)
	alive("unused for not quite long enough", true)

	f := log.Follow(feed.Options{Encoder: plainEncoder{}, Wake: func() {}}, nil)
	at(2 * logIdle)
	at(4 * logIdle)
	alive("somebody follows", true)
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	at(5 * logIdle)
	alive("just left", true)

	// Whoever was just given the log has not followed it yet.
	if again, err := l.get(t.Context(), e, fakeChannel); err != nil || again != log {
		t.Fatalf("given another one, %v", err)
	}
	at(6 * logIdle)
	alive("just given out", true)
	at(7 * logIdle)
	alive("unused for long", false)
	if l.len() != 0 {
		t.Errorf("%d logs", l.len())
	}
	at(7*logIdle + 1)
	l.mu.Lock()
	if l.sweep != nil {
		t.Error("an empty list is still swept")
	}
	l.mu.Unlock()
	if again, err := l.get(t.Context(), e, fakeChannel); err != nil || again == log {
		t.Errorf("after that: %v", err)
	}
}

func TestLogsAreBounded(t *testing.T) {
	l, e, sub := logsRig(t, "bounded")
	for i := range maxChannels {
		topic := fmt.Sprint("topic-", i)
		sub.Broker.Create(topic)
		if _, err := l.get(t.Context(), e, endpoints.Channel{Key: topic, Spec: topic}); err != nil {
			t.Fatalf("channel %d: %v", i, err)
		}
	}
	_, err := l.get(t.Context(), e, fakeChannel)
	var busy *message.Error
	if !errors.As(err, &busy) || busy.Kind != message.Busy || busy.RetryAfter <= 0 {
		t.Errorf("one over the bound: %v", err)
	}
	if _, err := l.get(t.Context(), e, endpoints.Channel{Key: "topic-7", Spec: "topic-7"}); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}

func TestLogsClose(t *testing.T) {
	l, e, sub := logsRig(t, "closed")
	log, err := l.get(t.Context(), e, fakeChannel)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(log.Err(), feed.ErrLogClosed) || sub.ended.Load() != 1 || l.len() != 0 {
		t.Errorf("%v, %d streams closed, %d logs", log.Err(), sub.ended.Load(), l.len())
	}
	if _, err := l.get(t.Context(), e, fakeChannel); message.KindOf(err) != message.Unavailable {
		t.Errorf("afterwards: %v", err)
	}
	if n := sub.opened.Load(); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
}

// A log that is in the making when the unit retires does not outlive it.
func TestLogsCloseWaitsForWhatIsBeingMade(t *testing.T) {
	l, e, sub := logsRig(t, "closing")
	sub.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := l.get(ctx, e, fakeChannel)
		failed <- err
	}()
	eventually(t, "a subscription", func() bool { return sub.opened.Load() == 1 })
	cancel()
	receive(t, failed, "the client to leave")
	closed := make(chan error, 1)
	go func() { closed <- l.close(context.Background()) }()
	close(sub.gate)
	if err := receive(t, closed, "closing"); err != nil {
		t.Error(err)
	}
	if n := sub.ended.Load(); n != 1 {
		t.Errorf("%d streams closed", n)
	}
}

// The reader of a new definition begins when that of the old one has let go, and gives up
// with a clear error when it does not.
func TestLogsHandOver(t *testing.T) {
	old, e, sub := logsRig(t, "handover")
	anew := testUnit("handover").logs
	t.Cleanup(func() { _ = anew.close(context.Background()) })
	if _, err := old.get(t.Context(), e, fakeChannel); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := anew.get(t.Context(), e, fakeChannel)
		got <- err
	}()
	eventually(t, "the new one to ask", func() bool { return anew.len() == 1 })
	if n := sub.opened.Load(); n != 1 {
		t.Errorf("%d subscriptions while the old one reads", n)
	}
	if err := old.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, got, "the new reader"); err != nil || sub.opened.Load() != 2 {
		t.Errorf("%v, %d subscriptions", err, sub.opened.Load())
	}
}

func TestLogsHandOverGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := endpointtest.NewFake(endpointtest.FakeCapabilities)
		l, e := testUnit("stuck").logs, fakeEndpoint("fake", f)
		start := time.Now()
		s := &sharedLog{ready: make(chan struct{})}
		key := logKey(e, fakeChannel)
		l.byKey[key] = s
		release, err := slots.acquire(t.Context(), "stuck\x00fake\x00fake")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		l.open(s, key, e, fakeChannel)
		if message.KindOf(s.err) != message.Unavailable || time.Since(start) != handOver || l.len() != 0 {
			t.Errorf("%v after %s, %d logs", s.err, time.Since(start), l.len())
		}
	})
}
