package mock

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func payloadsOf(batch message.Batch) string {
	var texts []string
	for _, d := range batch.Deliveries {
		texts = append(texts, string(d.Payload))
	}
	return strings.Join(texts, " ")
}

func numbered(from, to int) []*message.Message {
	var messages []*message.Message
	for i := from; i < to; i++ {
		messages = append(messages, &message.Message{Payload: fmt.Append(nil, i)})
	}
	return messages
}

func TestLoopbackDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, &Mock{Loopback: true, Metadata: []Pair{{"region", "eu"}}})
		publish(t, m, numbered(0, 1)...) // nobody is there
		one := subscribe(t, m, message.Subscription{})
		two := subscribe(t, m, message.Subscription{})
		time.Sleep(time.Hour) // no clock
		sent := &message.Message{Key: []byte("k"), Payload: []byte("hello"), Headers: []message.Header{{Name: "h", Value: "v"}}}
		results := publish(t, m, sent, &message.Message{ID: "mine"})
		if results[0].ID != "1" || results[1].ID != "mine" {
			t.Errorf("ids %q and %q", results[0].ID, results[1].ID)
		}
		for _, stream := range []message.Stream{one, two} {
			batch, err := stream.Receive(t.Context())
			if err != nil || len(batch.Deliveries) != 2 || batch.Gap != nil {
				t.Fatalf("%+v, %v", batch, err)
			}
			d := batch.Deliveries[0]
			if d.ID != "1" || string(d.Key) != "k" || string(d.Payload) != "hello" || len(d.Headers) != 1 ||
				len(d.Metadata) != 1 || !d.Time.Equal(time.Now()) || d.Mark != (message.Mark{}) {
				t.Errorf("delivered %+v", d.Message)
			}
			if batch.Deliveries[1].ID != "mine" {
				t.Errorf("its own id became %q", batch.Deliveries[1].ID)
			}
		}
		if sent.ID != "" || !sent.Time.IsZero() {
			t.Error("the published message was changed")
		}
	})
}

// Nobody waits for a slow reader; it loses the oldest, and is told how many.
func TestLoopbackSlowReader(t *testing.T) {
	m := provision(t, &Mock{Loopback: true})
	stream := subscribe(t, m, message.Subscription{Window: message.Window{Messages: 3, Bytes: 1 << 20}})
	publish(t, m, numbered(0, 2)...)
	publish(t, m, numbered(2, 10)...)
	batch, err := stream.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if batch.Gap == nil || batch.Gap.Reason != message.GapSlow || !strings.Contains(batch.Gap.Detail, "7 messages") {
		t.Errorf("gap %+v, want slow_client with 7 messages", batch.Gap)
	}
	if got := payloadsOf(batch); got != "7 8 9" {
		t.Errorf("received %q, want the newest three", got)
	}
	publish(t, m, numbered(10, 11)...)
	if batch, err = stream.Receive(t.Context()); err != nil || batch.Gap != nil || payloadsOf(batch) != "10" {
		t.Errorf("afterwards: %+v, %v", batch, err)
	}

	narrow := subscribe(t, m, message.Subscription{Window: message.Window{Messages: 100, Bytes: 1000}})
	publish(t, m, &message.Message{Payload: make([]byte, 500)}, &message.Message{Payload: make([]byte, 5000)})
	if batch, err = narrow.Receive(t.Context()); err != nil || batch.Gap == nil || len(batch.Deliveries) != 1 {
		t.Errorf("a message larger than the window: %+v, %v", batch, err)
	}
}

// The clock of a loopback is off unless it is asked for, and then has its own lane.
func TestLoopbackClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := provision(t, &Mock{Loopback: true, MessageInterval: new(caddy.Duration(time.Second))})
		stream := subscribe(t, m, message.Subscription{})
		time.Sleep(1500 * time.Millisecond)
		publish(t, m, numbered(0, 1)...)
		batch, err := stream.Receive(t.Context())
		if err != nil || len(batch.Deliveries) != 2 {
			t.Fatalf("%+v, %v", batch, err)
		}
		lanes := map[string]string{}
		for _, d := range batch.Deliveries {
			lanes[d.Lane] = d.ID
		}
		if lanes[laneClock] != "tick-0" || lanes[laneLoopback] != "0" {
			t.Errorf("ids by lane: %v", lanes)
		}
		got := receiveFor(t, stream, time.Second)
		if len(got.ids) != 1 || got.ids[0] != "tick-1" || got.after[0] != 500*time.Millisecond {
			t.Errorf("then %v after %v", got.ids, got.after)
		}
	})
}

// Whoever publishes, all subscribers see one order.
func TestLoopbackOrder(t *testing.T) {
	m := provision(t, &Mock{Loopback: true})
	window := message.Window{Messages: 10_000, Bytes: 64 << 20}
	one := subscribe(t, m, message.Subscription{Window: window})
	two := subscribe(t, m, message.Subscription{Window: window})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				publish(t, m, numbered(0, 3)...)
			}
		})
	}
	wg.Wait()
	first, err1 := one.Receive(t.Context())
	second, err2 := two.Receive(t.Context())
	if err1 != nil || err2 != nil || len(first.Deliveries) != 2400 || len(second.Deliveries) != 2400 {
		t.Fatalf("%d and %d messages (%v, %v), want 2400", len(first.Deliveries), len(second.Deliveries), err1, err2)
	}
	for i := range first.Deliveries {
		if first.Deliveries[i].ID != fmt.Sprint(i) || first.Deliveries[i].Message != second.Deliveries[i].Message {
			t.Fatalf("message %d is %s here and %s there", i, first.Deliveries[i].ID, second.Deliveries[i].ID)
		}
	}
}

func TestModesThatAreNotThere(t *testing.T) {
	loopback, generated := provision(t, &Mock{Loopback: true}), provision(t, new(Mock))
	for _, try := range []struct {
		m    *Mock
		mode message.Mode
	}{{loopback, message.Assigned}, {loopback, message.Member}, {loopback, message.Shared}, {generated, message.Shared}} {
		_, err := try.m.Subscribe(t.Context(), endpoints.Channel{}, message.Subscription{Mode: try.mode, Name: "api.me"})
		if message.KindOf(err) != message.Mismatch {
			t.Errorf("%s, loopback %v: %v", try.mode, try.m.Loopback, err)
		}
	}
}

// The log says that messages came and never what is in them.
func TestLogHoldsNoContent(t *testing.T) {
	m := provision(t, new(Mock))
	core, logs := observer.New(zapcore.DebugLevel)
	m.logger = zap.New(core)
	publish(t, m, &message.Message{
		Key: []byte("secret-key"), Payload: []byte("secret-payload"), Headers: []message.Header{{Name: "secret-name", Value: "secret-value"}},
	})
	entries := logs.All()
	if len(entries) != 1 || entries[0].ContextMap()["payload_bytes"] != int64(14) {
		t.Fatalf("logged %+v", entries)
	}
	if text := fmt.Sprint(entries[0].Message, entries[0].ContextMap()); strings.Contains(text, "secret") {
		t.Errorf("logged %s", text)
	}
}

func TestStatus(t *testing.T) {
	m := provision(t, new(Mock))
	if s := m.Status(); s.State != endpoints.Up || s.Since.IsZero() || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	if err := m.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, loopback := range []bool{false, true} {
		b.Run(fmt.Sprintf("loopback=%v", loopback), func(b *testing.B) {
			m := provision(b, &Mock{Loopback: loopback})
			if loopback {
				subscribe(b, m, message.Subscription{})
			}
			p, _ := m.Publisher(nil)
			msg := &message.Message{Payload: make([]byte, 256)}
			b.ReportAllocs()
			for b.Loop() {
				p.Publish(context.Background(), message.Auto, msg)
			}
		})
	}
}
