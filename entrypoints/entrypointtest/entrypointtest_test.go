package entrypointtest_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type plain struct{}

func (plain) Format() string    { return "plain" }
func (plain) WantsCursor() bool { return true }
func (plain) Append(dst []byte, d *message.Delivery, cursor []byte) []byte {
	dst = append(append(dst, d.Payload...), '@')
	return append(append(dst, cursor...), '\n')
}

func TestFeedPlaysItsScriptInOrder(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.Feed.Resumable = true
	broken := errors.New("broken")
	var woken atomic.Int32
	s.Feed.Deliver(entrypointtest.Deliveries(0, 2)...)
	s.Feed.Gap(message.GapExpired, "gone")
	s.Feed.Deliver(entrypointtest.Delivery(7, "seven"))
	s.Feed.Fail(broken)
	feed, err := s.Subscribe(t.Context(), entrypoints.Want{Encoder: plain{}, Wake: func() { woken.Add(1) }})
	if err != nil || woken.Load() != 1 {
		t.Fatalf("Subscribe: %v, woken %d times", err, woken.Load())
	}
	burst, err := feed.Poll(2)
	if err != nil || burst.Messages != 2 || burst.First != 1 || len(burst.Frames) != 2 {
		t.Fatalf("first burst: %+v, %v", burst, err)
	}
	if got, want := string(burst.Frames[1]), "1@"+entrypointtest.Cursor(1)+"\n"; got != want {
		t.Errorf("frame %q, want %q", got, want)
	}
	if burst, _ = feed.Poll(0); burst.Messages != 1 || burst.First != 3 || burst.Gap != nil {
		t.Errorf("a burst goes as far as the next gap: %+v", burst)
	}
	if burst, _ = feed.Poll(0); burst.Messages != 1 || burst.Gap == nil || burst.Gap.Detail != "gone" {
		t.Errorf("the gap comes before its messages: %+v", burst)
	}
	if err := feed.Written(t.Context()); err != nil {
		t.Error(err)
	}
	if err := feed.Settle(t.Context(), message.Ack, 1, 9); message.KindOf(err) != message.BadInput {
		t.Errorf("an unknown number is settled: %v", err)
	}
	if _, err = feed.Poll(0); !errors.Is(err, broken) {
		t.Errorf("the error comes last: %v", err)
	}
	if err := feed.Close(t.Context()); err != nil {
		t.Error(err)
	}
	want := []string{"poll 2", "poll 1", "gap expired", "poll 1", "written 4", "settle 0 [1 9]", "fail", "close"}
	if got := s.Feed.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

func TestSessionEndsAndTicks(t *testing.T) {
	s := entrypointtest.NewSession(t)
	ends := make(chan entrypoints.End, 2)
	forget := s.OnEnd(func(e entrypoints.End) { ends <- e })
	s.End(entrypoints.End{Reason: entrypoints.EndRotate})
	s.End(entrypoints.End{Reason: entrypoints.EndSlow})
	forget()
	defer s.OnEnd(func(e entrypoints.End) { ends <- e })()
	for range 2 {
		if e := <-ends; e.Reason != entrypoints.EndRotate {
			t.Errorf("ended by %v", e)
		}
	}
	var ticks atomic.Int32
	stop := s.Every(time.Second, func(time.Time) { ticks.Add(1) })
	s.Tick(time.Now())
	stop()
	s.Tick(time.Now())
	if ticks.Load() != 1 {
		t.Errorf("%d ticks", ticks.Load())
	}
	s.RealTime = true
	stop = s.Every(time.Millisecond, func(time.Time) { ticks.Add(1) })
	entrypointtest.Await(t, "two ticks of the clock", func() bool { return ticks.Load() >= 3 })
	stop()
}
