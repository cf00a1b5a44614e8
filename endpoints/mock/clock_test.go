package mock

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// received is what came, and when.
type received struct {
	ids   []string
	after []time.Duration
	gaps  []message.GapReason
}

// receiveFor reads until the time is over.
func receiveFor(t *testing.T, stream message.Stream, d time.Duration) received {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var got received
	for {
		batch, err := stream.Receive(ctx)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			return got
		}
		if batch.Gap != nil {
			got.gaps = append(got.gaps, batch.Gap.Reason)
		}
		for _, d := range batch.Deliveries {
			if d.Time.After(time.Now()) {
				t.Errorf("message %s came %v early", d.ID, time.Until(d.Time))
			}
			got.ids = append(got.ids, d.ID)
			got.after = append(got.after, time.Since(start))
		}
	}
}

func wantIDs(t *testing.T, got received, from, to int) {
	t.Helper()
	var want []string
	for i := from; i < to; i++ {
		want = append(want, strconv.Itoa(i))
	}
	if !slices.Equal(got.ids, want) {
		t.Errorf("received %v, want %v", got.ids, want)
	}
}

// A window of five seconds has exactly the ticks at 1, 2, 3 and 4 s.
func TestFourTicksInFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		for range 20 {
			stream := subscribe(t, m, message.Subscription{Mode: message.Assigned})
			got := receiveFor(t, stream, 5*time.Second)
			wantIDs(t, got, 0, 4)
			for i, after := range got.after {
				if want := time.Duration(i+1) * time.Second; after != want {
					t.Errorf("message %d came after %v, want %v", i, after, want)
				}
			}
		}
	})
}

// Each subscription has its own clock and ids; a broadcast shares them.
func TestWhoseClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		one := subscribe(t, m, message.Subscription{Mode: message.Assigned})
		all := subscribe(t, m, message.Subscription{Mode: message.Broadcast})
		time.Sleep(2700 * time.Millisecond)
		two := subscribe(t, m, message.Subscription{Mode: message.Assigned})
		late := subscribe(t, m, message.Subscription{Mode: message.Broadcast})
		if got := receiveFor(t, late, time.Second); got.after[0] != 300*time.Millisecond {
			t.Errorf("the shared clock ticked after %v, want 300ms", got.after[0])
		} else {
			wantIDs(t, got, 2, 3)
		}
		wantIDs(t, receiveFor(t, two, 1100*time.Millisecond), 0, 2)
		wantIDs(t, receiveFor(t, one, time.Millisecond), 0, 4)
		wantIDs(t, receiveFor(t, all, time.Millisecond), 0, 4)
	})
}

// Late readers get all that is due at once, and the grid does not move.
func TestLatenessDoesNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		stream := subscribe(t, m, message.Subscription{Mode: message.Assigned})
		time.Sleep(3700 * time.Millisecond)
		got := receiveFor(t, stream, 1400*time.Millisecond)
		wantIDs(t, got, 0, 5)
		want := []time.Duration{0, 0, 0, 300 * time.Millisecond, 1300 * time.Millisecond}
		if !slices.Equal(got.after, want) {
			t.Errorf("messages came after %v, want %v", got.after, want)
		}
	})
}

func TestMessageCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, &Mock{MessageCount: new(int64(3))})
		for _, mode := range []message.Mode{message.Broadcast, message.Assigned, message.Member} {
			stream := subscribe(t, m, message.Subscription{Mode: mode, Name: "api.me"})
			if got := receiveFor(t, stream, time.Minute); len(got.ids) != 3 {
				t.Errorf("%s: %d messages, want 3", mode, len(got.ids))
			}
		}
	})
}

func TestContentHeadersMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, &Mock{
			MessageContent: new(""),
			Header:         []Pair{{"a", "1"}, {"b", ""}, {"a", "2"}},
			Metadata:       []Pair{{"region", "eu"}},
		})
		stream := subscribe(t, m, message.Subscription{Mode: message.Assigned})
		start := time.Now()
		batch, err := stream.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d := batch.Deliveries[0]
		if want := []message.Header{{Name: "a", Value: "1"}, {Name: "b"}, {Name: "a", Value: "2"}}; !slices.Equal(d.Headers, want) {
			t.Errorf("headers %v, want %v", d.Headers, want)
		}
		if f, ok := d.Field("region"); !ok || f.String() != "eu" {
			t.Errorf("metadata %v", d.Metadata)
		}
		if len(d.Payload) != 0 || !d.Time.Equal(start.Add(time.Second)) {
			t.Errorf("payload %q at %v", d.Payload, d.Time)
		}
	})
}

// At high rates one wake-up brings many messages, in batches that stay small.
func TestHighRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, &Mock{MessageInterval: new(caddy.Duration(MinInterval))})
		stream := subscribe(t, m, message.Subscription{Mode: message.Broadcast})
		time.Sleep(time.Second)
		next, batches := 0, 0
		for next < 100_000 {
			batch, err := stream.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			batches++
			size := 0
			for _, d := range batch.Deliveries {
				if d.ID != strconv.Itoa(next) || d.Mark.Next != int64(next+1) {
					t.Fatalf("message %s with mark %+v, want %d", d.ID, d.Mark, next)
				}
				next++
				size += d.Size()
			}
			if size > batchBytes {
				t.Fatalf("a batch of %d bytes", size)
			}
		}
		if batches > 350 {
			t.Errorf("100000 messages came in %d batches", batches)
		}
	})
}

// A stream that waits costs no goroutine but its reader's, and little memory.
func TestStreamsAreCheap(t *testing.T) {
	m := provision(t, new(Mock))
	goroutines := runtime.NumGoroutine()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const n = 10_000
	streams := make([]message.Stream, n)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range streams {
		streams[i] = subscribe(t, m, message.Subscription{Mode: message.Assigned})
		if _, err := streams[i].Receive(ended); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if now := runtime.NumGoroutine(); now > goroutines+2 {
		t.Errorf("%d streams run %d goroutines", n, now-goroutines)
	}
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > 2048 {
		t.Errorf("a stream takes %d bytes", each)
	}
	runtime.KeepAlive(streams)
}

// Ending is not a matter of luck: a deadline that is over wins against a tick that is due.
func TestDeadlineBeforeTick(t *testing.T) {
	now := time.Now()
	late, cancel := context.WithDeadline(t.Context(), now.Add(time.Hour))
	defer cancel()
	if err := over(late, now.Add(time.Hour)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the deadline, before its timer fired: %v", err)
	}
	if err := over(late, now.Add(time.Hour-1)); err != nil {
		t.Errorf("before the deadline: %v", err)
	}
}

func BenchmarkReceive(b *testing.B) {
	m := provision(b, &Mock{MessageInterval: new(caddy.Duration(MinInterval))})
	for _, mode := range []message.Mode{message.Broadcast, message.Member} {
		b.Run(mode.String(), func(b *testing.B) {
			stream := subscribe(b, m, message.Subscription{Mode: mode, Name: "api.bench"})
			backdate(stream, 24*time.Hour) // so that there is always something due
			b.ReportAllocs()
			for n := 0; n < b.N; {
				batch, err := stream.Receive(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if err := stream.Settle(b.Context(), message.Ack, batch.Deliveries...); err != nil {
					b.Fatal(err)
				}
				n += len(batch.Deliveries)
			}
		})
	}
}

func backdate(stream message.Stream, d time.Duration) {
	switch s := stream.(type) {
	case *reading:
		s.clock.start = s.clock.start.Add(-d)
	case *member:
		s.clock.start = s.clock.start.Add(-d)
	}
}
