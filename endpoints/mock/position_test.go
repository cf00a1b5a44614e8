package mock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func positionOf(stream message.Stream) *message.Position {
	at := stream.(message.Positioned).Position()
	return &at
}

// A cursor continues the count at the usual pace.
func TestResumeOwnClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		stream := subscribe(t, m, message.Subscription{Mode: message.Assigned})
		wantIDs(t, receiveFor(t, stream, 3500*time.Millisecond), 0, 3)
		at := positionOf(stream)
		time.Sleep(time.Hour)
		stream = subscribe(t, m, message.Subscription{Mode: message.Assigned, Position: at})
		got := receiveFor(t, stream, 2500*time.Millisecond)
		wantIDs(t, got, 3, 5)
		if got.after[0] != time.Second {
			t.Errorf("the first message came after %v", got.after[0])
		}
	})
}

// A cursor of the shared clock brings what was missed at once, and then stays with it.
func TestResumeSharedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		stream := subscribe(t, m, message.Subscription{Mode: message.Broadcast})
		wantIDs(t, receiveFor(t, stream, 2500*time.Millisecond), 0, 2)
		at := positionOf(stream)
		time.Sleep(3 * time.Second)
		stream = subscribe(t, m, message.Subscription{Mode: message.Assigned, Name: "api.me", Position: at})
		got := receiveFor(t, stream, time.Second)
		wantIDs(t, got, 2, 6)
		if got.after[2] != 0 || got.after[3] != 500*time.Millisecond {
			t.Errorf("messages came after %v", got.after)
		}
		if _, ok := stream.(message.Bookmarker); ok {
			t.Error("the shared clock's positions can't be kept for a name")
		}

		anew := provision(t, new(Mock)) // as after a restart of the process
		time.Sleep(500 * time.Millisecond)
		subscribe(t, anew, message.Subscription{Mode: message.Broadcast})
		time.Sleep(time.Minute)
		got = receiveFor(t, subscribe(t, anew, message.Subscription{Mode: message.Assigned, Position: at}), 1500*time.Millisecond)
		if len(got.gaps) != 1 || got.gaps[0] != message.GapRecreated {
			t.Errorf("gaps %v, want recreated", got.gaps)
		}
		wantIDs(t, got, 60, 61)
	})
}

// What a client presents is checked, whatever it holds.
func TestForeignPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		origin := m.origin()
		for name, at := range map[string]message.Position{
			"other origin":    {Origin: origin + 1, Marks: []message.Mark{{Channel: channelOwn, Next: 3}}},
			"other channel":   {Origin: origin, Marks: []message.Mark{{Channel: "orders", Next: 3}}},
			"other partition": {Origin: origin, Marks: []message.Mark{{Channel: channelOwn, Partition: 1, Next: 3}}},
			"two partitions":  {Origin: origin, Marks: []message.Mark{{Channel: channelOwn, Next: 3}, {Channel: channelOwn, Partition: 1}}},
			"end of time":     {Origin: origin, Marks: []message.Mark{{Channel: channelOwn, Next: 1<<63 - 1}}},
		} {
			stream := subscribe(t, m, message.Subscription{Mode: message.Assigned, Position: &at})
			got := receiveFor(t, stream, 2500*time.Millisecond)
			if len(got.gaps) != 1 || got.gaps[0] != message.GapForeign {
				t.Errorf("%s: gaps %v, want foreign", name, got.gaps)
			}
			wantIDs(t, got, 0, 2)
		}
		ahead := message.Position{Origin: origin, Marks: []message.Mark{{Channel: channelShared, Next: 1 << 40}}}
		got := receiveFor(t, subscribe(t, m, message.Subscription{Mode: message.Assigned, Position: &ahead}), time.Millisecond)
		if len(got.gaps) != 1 || got.gaps[0] != message.GapRecreated {
			t.Errorf("gaps %v, want recreated", got.gaps)
		}
	})
}

// The origin tells endpoints apart by place and configuration, and is the same on every
// node.
func TestOrigin(t *testing.T) {
	base := provision(t, new(Mock))
	same := provision(t, new(Mock))
	other := provision(t, &Mock{MessageContent: new("other")})
	moved := provision(t, new(Mock))
	moved.SetScope(endpoints.Scope{Owner: "another", Name: "mock"})
	if base.origin() != same.origin() {
		t.Error("two nodes with one configuration have different origins")
	}
	if base.origin() == other.origin() || base.origin() == moved.origin() {
		t.Error("different endpoints have one origin")
	}
}

// Members of a name divide its ids, each at its own pace; a name keeps its place.
func TestMembersDivide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		sub := message.Subscription{Mode: message.Member, Name: "api.me"}
		one, two := subscribe(t, m, sub), subscribe(t, m, sub)
		time.Sleep(3500 * time.Millisecond)
		wantIDs(t, receiveFor(t, one, time.Millisecond), 0, 3)
		wantIDs(t, receiveFor(t, two, time.Millisecond), 3, 6)
		if err := one.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		batch, err := two.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Deliveries) != 3 || batch.Deliveries[0].ID != "0" || batch.Deliveries[0].Attempt != 2 {
			t.Errorf("what one held came as %+v", batch.Deliveries)
		}
		_ = two.Close(t.Context())
		wantIDs(t, receiveFor(t, subscribe(t, m, sub), time.Millisecond), 0, 6)
		wantIDs(t, receiveFor(t, subscribe(t, m, message.Subscription{Mode: message.Member, Name: "api.you"}), 1500*time.Millisecond), 0, 1)
	})
}

// A settlement counts once, for the stream and the attempt that it belongs to.
func TestSettleOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		sub := message.Subscription{Mode: message.Member, Name: "api.me"}
		stream, other := subscribe(t, m, sub), subscribe(t, m, sub)
		batch, err := stream.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		first := batch.Deliveries[0]
		if err := other.Settle(t.Context(), message.Ack, first); err == nil {
			t.Error("another stream settled it")
		}
		if err := stream.Settle(t.Context(), message.Release, first); err != nil {
			t.Fatal(err)
		}
		if err := stream.Settle(t.Context(), message.Ack, first); err == nil {
			t.Error("it was settled twice")
		}
		batch, err = stream.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Settle(t.Context(), message.Ack, first); err == nil {
			t.Error("the first attempt settled the second")
		}
		if err := stream.Settle(t.Context(), message.Ack, batch.Deliveries...); err != nil {
			t.Error(err)
		}
	})
}

// Members and bookmarks of a name are one state: a bookmark moves members on.
func TestBookmarkMovesMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, new(Mock))
		member := message.Subscription{Mode: message.Member, Name: "api.me"}
		reader := message.Subscription{Mode: message.Assigned, Name: "api.me"}
		stream := subscribe(t, m, member)
		wantIDs(t, receiveFor(t, stream, 3500*time.Millisecond), 0, 3)
		wantIDs(t, receiveFor(t, subscribe(t, m, reader), 1500*time.Millisecond), 0, 1) // nothing is settled
		_ = stream.Close(t.Context())

		bookmark := subscribe(t, m, reader).(message.Bookmarker)
		at := message.Position{Origin: m.origin(), Marks: []message.Mark{{Channel: channelOwn, Next: 7}}}
		if err := bookmark.Bookmark(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		wantIDs(t, receiveFor(t, subscribe(t, m, member), 1500*time.Millisecond), 7, 8)
		at.Origin++
		if err := bookmark.Bookmark(t.Context(), at); message.KindOf(err) != message.BadInput {
			t.Errorf("a foreign bookmark: %v", err)
		}
	})
}

// Idle names are bounded; names in use are never forgotten.
func TestNamesAreBounded(t *testing.T) {
	var n names
	kept := n.acquire("kept")
	kept.next = 5
	for i := range 2 * maxNames {
		n.release(n.acquire(time.Duration(i).String()))
	}
	if len(n.all) != maxNames+1 {
		t.Errorf("%d names are remembered, want %d", len(n.all), maxNames+1)
	}
	if n.stands("kept") != 5 || n.stands("0s") != 0 {
		t.Error("a name in use was forgotten")
	}
	n.release(kept)
	if n.idle.Len() != maxNames || len(n.all) != maxNames {
		t.Errorf("%d idle names of %d", n.idle.Len(), len(n.all))
	}
}

// A member whose window is full waits for a settlement and not for the clock.
func TestFullWindowWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, &Mock{MessageInterval: new(caddy.Duration(time.Millisecond))})
		sub := message.Subscription{Mode: message.Member, Name: "api.me", Window: message.Window{Messages: 2, Bytes: 1 << 20}}
		stream := subscribe(t, m, sub)
		time.Sleep(time.Second)
		batch, err := stream.Receive(t.Context())
		if err != nil || len(batch.Deliveries) != 2 {
			t.Fatalf("%d messages (%v), want 2", len(batch.Deliveries), err)
		}
		woken := make(chan int)
		go func() {
			batch, _ := stream.Receive(context.Background())
			woken <- len(batch.Deliveries)
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		if err := stream.Settle(t.Context(), message.Ack, batch.Deliveries...); err != nil {
			t.Fatal(err)
		}
		if n := <-woken; n != 2 {
			t.Errorf("%d messages after the settlement, want 2", n)
		}
	})
}
