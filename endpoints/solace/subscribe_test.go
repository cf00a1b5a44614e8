//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// subscribe is open, for those that may fail.
func subscribe(t *testing.T, s *Solace, sub message.Subscription) (message.Stream, error) {
	t.Helper()
	channel, err := s.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	var stream message.Stream
	inTime(t, "Subscribe", func() { stream, err = s.Subscribe(t.Context(), channel, sub) })
	if stream != nil {
		t.Cleanup(func() { closeStream(t, stream) })
	}
	return stream, err
}

func numbered(n int) []*message.Message {
	all := make([]*message.Message, n)
	for i := range all {
		all[i] = &message.Message{Payload: fmt.Append(nil, i)}
	}
	return all
}

func TestLoginRefusedThenAllowed(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Producer: &Producer{Topics: []string{"t"}}, Consumer: &Consumer{Topics: []string{"t"}}})
	b.OnFault(always(smftest.OpLogin, smftest.Fault{Code: 401, Text: "Unauthorized"}))
	_, err := subscribe(t, s, member)
	if message.KindOf(err) != message.Unavailable || !strings.Contains(err.Error(), `login of user "default"`) || !strings.Contains(err.Error(), b.URL()) {
		t.Errorf("Subscribe returned %v", err)
	}
	wantFailure(t, publish(t, s, message.Auto, &message.Message{}), message.Refused, message.Unavailable)
	if err := s.Probe(t.Context()); message.KindOf(err) != message.Unavailable {
		t.Errorf("Probe returned %v", err)
	}
	if status := s.Status(); status.State != endpoints.Down || status.Error == "" || status.Address != b.URL() {
		t.Errorf("status is %+v", status)
	}
	b.OnFault(nil)
	// Who asks while an attempt is on its way hears what comes of that one.
	var stream message.Stream
	eventually(t, "a subscription", func() bool {
		stream, err = subscribe(t, s, member)
		return err == nil
	})
	t.Cleanup(func() { closeStream(t, stream) })
	eventually(t, "publishing works", func() bool { return publish(t, s, message.Auto, &message.Message{}).Status == message.Stored })
	receive(t, stream, 1)
	if err := s.Probe(t.Context()); err != nil {
		t.Errorf("Probe returned %v", err)
	}
}

func TestBindRefusedThenAllowed(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	b.Queue("q", smftest.Queue{NonExclusive: true})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Queue: "q", Shared: true}})
	shared := message.Subscription{Mode: message.Shared}
	for text, kind := range map[string]message.Kind{
		"503 Queue Shutdown": message.Unavailable, "403 Permission Not Allowed": message.Denied, "503 Max clients exceeded for queue": message.Busy,
	} {
		code := 0
		if _, err := fmt.Sscan(text, &code); err != nil {
			t.Fatal(err)
		}
		b.OnFault(always(smftest.OpBind, smftest.Fault{Code: code, Text: text[4:]}))
		if _, err := subscribe(t, s, shared); message.KindOf(err) != kind || !strings.Contains(err.Error(), "queue q") {
			t.Errorf("%s: Subscribe returned %v of kind %s, want %s", text, err, message.KindOf(err), kind)
		}
	}
	b.OnFault(nil)
	stream := open(t, s, shared)
	// A running stream waits until it may again.
	b.OnFault(always(smftest.OpBind, smftest.Fault{Code: 503, Text: "Queue Shutdown"}))
	b.Unbind("q", "Queue Shutdown")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := stream.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive returned %v, while the queue is shut down", err)
	}
	b.OnFault(nil)
	if err := b.Put("q", smftest.Message{Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	receive(t, stream, 1)
	if n := b.Clients(); n != 1 {
		t.Errorf("%d connections: the one that there was should have stayed", n)
	}
}

// A queue that the broker unbinds is bound again, over the same connection, and what was in
// hand comes again.
func TestUnbind(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	b.Queue("q", smftest.Queue{NonExclusive: true, Topics: []string{"t"}})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Queue: "q", Shared: true}})
	stream := open(t, s, message.Subscription{Mode: message.Shared})
	for _, text := range []string{"Queue Shutdown", "Endpoint Shutdown", "Service Unavailable", "Replay Started"} {
		b.produce(t, "t", numbered(3)...)
		old, _ := receive(t, stream, 3)
		b.Unbind("q", text)
		if strings.HasPrefix(text, "Service") || strings.HasPrefix(text, "Replay") { // the library binds again by itself
			eventually(t, "the flow is back", func() bool { return b.Counts("q").Flows == 1 })
			_ = stream.Settle(t.Context(), message.Ack, old...) // it may be too late or not
			eventually(t, "nothing is left", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				if again, err := stream.Receive(ctx); err == nil {
					_ = stream.Settle(t.Context(), message.Ack, again.Deliveries...)
				}
				counts := b.Counts("q")
				return counts.Ready+counts.Unacked == 0
			})
			continue
		}
		again, _ := receive(t, stream, 3)
		for _, d := range again {
			if d.Attempt == 1 || d.Epoch == old[0].Epoch {
				t.Errorf("%s: came again as attempt %d of epoch %d", text, d.Attempt, d.Epoch)
			}
		}
		if err := stream.Settle(t.Context(), message.Ack, old...); !errors.Is(err, message.ErrStale) {
			t.Errorf("%s: settling what was in hand returned %v", text, err)
		}
		settle(t, stream, message.Ack, again...)
	}
	eventually(t, "all is acknowledged", func() bool { return b.Counts("q").Unacked == 0 })
}

// An identity's queue that somebody deleted is made again, and the client is told.
func TestDeletedQueueOfAnIdentity(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Topics: []string{"t/>"}}})
	stream := open(t, s, member)
	queues := b.Queues()
	if len(queues) != 1 || !strings.HasPrefix(queues[0], "api.reader.") {
		t.Fatalf("queues are %q", queues)
	}
	b.DeleteQueue(queues[0])
	eventually(t, "the queue is there again", func() bool { return b.Counts(queues[0]).Flows == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	batch, err := stream.Receive(ctx)
	if err != nil || batch.Gap == nil || batch.Gap.Reason != message.GapRecreated {
		t.Fatalf("received %+v, %v", batch, err)
	}
	b.produce(t, "t/1", numbered(1)...)
	receive(t, stream, 1)
}

// A queue that is not made here is waited for, and then the stream ends.
func TestDeletedSharedQueue(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	b.Queue("q", smftest.Queue{NonExclusive: true})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Queue: "q", Shared: true}})
	s.state.consumer.endurance = 300 * time.Millisecond
	stream := open(t, s, message.Subscription{Mode: message.Shared})
	b.DeleteQueue("q")
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := stream.Receive(ctx); message.KindOf(err) != message.NotFound {
		t.Errorf("Receive returned %v", err)
	}
	if _, err := stream.Receive(ctx); message.KindOf(err) != message.NotFound {
		t.Errorf("and then %v", err)
	}
}

func TestProvisioning(t *testing.T) {
	b := startBroker(t, smftest.Options{NoProvisioning: true})
	off := false
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Topics: []string{"t"}}})
	without := b.endpoint(t, &Solace{Consumer: &Consumer{Topics: []string{"t"}, Provision: &off}})
	name := identityQueue(member.Name, s.spec)
	if _, err := subscribe(t, s, member); message.KindOf(err) != message.Denied || !strings.Contains(err.Error(), name) {
		t.Errorf("the broker lets nobody make queues: %v", err)
	}
	if _, err := subscribe(t, without, member); message.KindOf(err) != message.NotFound || !strings.Contains(err.Error(), name) {
		t.Errorf("provision off, and there is no queue: %v", err)
	}
	b.Queue(name, smftest.Queue{NonExclusive: true})
	stream := open(t, without, member)
	b.Publish("t", true, smftest.Message{}) //nolint:errcheck // nobody is to get it
	closeStream(t, stream)
	if n := b.Counts(name).Ready; n != 0 {
		t.Errorf("provision off has subscribed the queue to its topics: %d messages", n)
	}
	stream = open(t, s, member)
	b.produce(t, "t", numbered(1)...)
	receive(t, stream, 1)
}

// A subscription that the broker refuses is no reason to reconnect.
func TestSubscriptionRefused(t *testing.T) {
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Topics: []string{"t"}}})
	b.OnFault(func(op smftest.Op, topic string) *smftest.Fault {
		if op == smftest.OpSubscribe && topic == "t" || op == smftest.OpSubscribe && strings.HasPrefix(topic, member.Name) {
			return &smftest.Fault{Code: 403, Text: "Subscription ACL Denied"}
		}
		return nil
	})
	for _, sub := range []message.Subscription{{}, member} {
		if _, err := subscribe(t, s, sub); message.KindOf(err) != message.Denied || !strings.Contains(err.Error(), "t") {
			t.Errorf("%s: Subscribe returned %v", sub.Mode, err)
		}
		if status := s.Status(); status.State != endpoints.Up {
			t.Errorf("status is %+v", status)
		}
	}
}

// A reader that is too slow for direct messages gets the newest, and is told. The others
// are not his problem: the connection goes on.
func TestSlowReaderOfDirectMessages(t *testing.T) {
	const n = 3 * backlogMessages
	b := startBroker(t, smftest.Options{})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Topics: []string{"t"}}})
	reader := open(t, s, message.Subscription{})
	unread := reader.(*stream)
	for all := numbered(n); len(all) > 0; all = all[backlogMessages/16:] { // not faster than the library can
		some := all[:backlogMessages/16]
		b.produce(t, "t", some...)
		eventually(t, "the last message has come", func() bool {
			unread.mu.Lock()
			defer unread.mu.Unlock()
			last := len(unread.ready) - 1
			return last >= 0 && string(unread.ready[last].Payload) == string(some[len(some)-1].Payload)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	batch, err := reader.Receive(ctx)
	if err != nil || batch.Gap == nil || batch.Gap.Reason != message.GapSlow {
		t.Fatalf("received %d messages with gap %+v, %v", len(batch.Deliveries), batch.Gap, err)
	}
	all := batch.Deliveries
	more, gaps := receive(t, reader, backlogMessages-len(all))
	all = append(all, more...)
	if len(gaps) > 0 || string(all[len(all)-1].Payload) != fmt.Sprint(n-1) || !slices.IsSortedFunc(all, byNumber) {
		t.Errorf("the newest %d messages end with %s; more gaps: %v", len(all), all[len(all)-1].Payload, gaps)
	}
}

func byNumber(a, b message.Delivery) int {
	var x, y int
	_, _ = fmt.Sscan(string(a.Payload), &x)
	_, _ = fmt.Sscan(string(b.Payload), &y)
	return x - y
}

// What a session holds beyond its window is what the library takes ahead, and no more.
func TestHoarding(t *testing.T) {
	const n, window = 2000, 5
	b := startBroker(t, smftest.Options{})
	b.Queue("q", smftest.Queue{NonExclusive: true, Topics: []string{"t"}})
	s := b.endpoint(t, &Solace{Consumer: &Consumer{Queue: "q", Shared: true}})
	b.produce(t, "t", numbered(n)...)
	stream := open(t, s, message.Subscription{Mode: message.Shared, Window: message.Window{Messages: window, Bytes: 1 << 20}})
	receive(t, stream, window)
	last := -1
	eventually(t, "nothing more comes", func() bool {
		time.Sleep(100 * time.Millisecond)
		before := last
		last = b.Counts("q").Unacked
		return last == before
	})
	t.Logf("with a window of %d, %d messages are held", window, last)
	if most := window + 305; last > most {
		t.Errorf("%d messages are held, which is more than %d", last, most)
	}
	closeStream(t, stream)
	eventually(t, "all is back in the queue", func() bool {
		c := b.Counts("q")
		return c.Ready == n && c.Unacked == 0
	})
}
