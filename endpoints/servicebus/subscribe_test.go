package servicebus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestWhatIsReceived(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	subject, contentType, group := "news", "text/plain", "s1"
	full := &amqp.Message{
		Header:      &amqp.MessageHeader{TTL: time.Hour},
		Annotations: amqp.Annotations{"x-opt-partition-key": "s1"},
		Properties: &amqp.MessageProperties{
			MessageID: "id-7", Subject: &subject, ContentType: &contentType, GroupID: &group, CorrelationID: "c",
		},
		ApplicationProperties: map[string]any{"n": int64(7), "b": true, "raw": []byte("\xff"), "text": "x"},
		Data:                  [][]byte{[]byte("one "), []byte("two")},
	}
	value := &amqp.Message{Value: map[string]any{"a": int64(1)}, Properties: &amqp.MessageProperties{MessageID: uint64(9)}}
	sequence := &amqp.Message{Sequence: [][]any{{"a", int64(1)}}}
	if err := n.Put("q", full, value, sequence); err != nil {
		t.Fatal(err)
	}
	s := subscribe(t, reading(t, n), message.Subscription{})
	all := receiveAll(t, s, 3)
	d := all[0]
	if d.ID != "id-7" || string(d.Key) != "s1" || string(d.Payload) != "one two" || d.Attempt != 1 || d.Time.IsZero() {
		t.Errorf("received %+v", d.Message)
	}
	var names []string
	for _, f := range d.Metadata {
		names = append(names, f.Name)
	}
	want := "queue sequence_number enqueued_time message_id session_id partition_key subject content_type correlation_id delivery_count time_to_live expires_at"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("metadata %s", got)
	}
	var headers []string
	for _, h := range d.Headers {
		headers = append(headers, fmt.Sprintf("%s=%q", h.Name, h.Value))
	}
	if got := strings.Join(headers, " "); got != `b="true" n="7" raw="\xff" text="x"` {
		t.Errorf("headers %s", got)
	}
	if string(all[1].Payload) != `{"a":1}` || all[1].ID != "9" || string(all[2].Payload) != `["a",1]` || all[2].ID == "" {
		t.Errorf("received %q (%s) and %q (%s)", all[1].Payload, all[1].ID, all[2].Payload, all[2].ID)
	}
}

// The client library panics at messages that are not what it expects. They harm nobody else.
func TestAMessageThatCantBeRead(t *testing.T) {
	t.Parallel()
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{LockDuration: 200 * time.Millisecond, MaxDeliveryCount: 2})
	s := subscribe(t, reading(t, n), message.Subscription{})
	bad := amqp.NewMessage([]byte("bad"))
	bad.Properties, bad.ApplicationProperties = new(amqp.MessageProperties), map[string]any{deadLetterReason: int64(5)}
	if err := n.Put("q", bad); err != nil {
		t.Fatal(err)
	}
	put(t, n, "q", numbered(0, 3)...)
	if err := settle(t, s, message.Ack, receiveAll(t, s, 3)...); err != nil {
		t.Error(err)
	}
	eventually(t, "the bad one is put aside", func() bool { return n.Counts("q").DeadLetter == 1 })
}

func held(n *servicebustest.Server) int { return n.Counts("q").Locked }

// What a client holds stays its own, however long the lock is.
func TestLocksAreRenewed(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions %t", sessions), func(t *testing.T) {
			n := namespace(t, servicebustest.Options{})
			n.Queue("q", servicebustest.Entity{LockDuration: shortLock, Sessions: sessions})
			put(t, n, "q", numbered(0, 20)...)
			s := subscribe(t, reading(t, n, func(c *Consumer) { c.Sessions = sessions }), message.Subscription{})
			all := receiveAll(t, s, 20)
			if !sessions {
				eventually(t, "each lock was renewed three times", func() bool { return n.Counts("q").Renewed >= 60 })
			} else {
				eventually(t, "the session's lock was renewed three times", func() bool { return n.Counts("q").Renewed >= 3 })
			}
			if err := settle(t, s, message.Ack, all...); err != nil {
				t.Errorf("settling: %v", err)
			}
			if c := n.Counts("q"); c.Completed != 20 || c.Expired != 0 || c.Delivered != 20 {
				t.Errorf("the queue counts %+v", c)
			}
		})
	}
}

// A lock that the service has ended makes the delivery stale, and nothing else.
func TestALostLock(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	put(t, n, "q", numbered(0, 3)...)
	s := subscribe(t, reading(t, n), message.Subscription{})
	old := receiveAll(t, s, 3)
	n.ExpireLocks("q")
	if err := settle(t, s, message.Ack, old...); !errors.Is(err, message.ErrStale) {
		t.Errorf("settling: %v", err)
	}
	again := receiveAll(t, s, 3)
	if again[0].Attempt != 2 {
		t.Errorf("attempt %d", again[0].Attempt)
	}
	if err := settle(t, s, message.Ack, again...); err != nil {
		t.Error(err)
	}
	if c := n.Counts("q"); c.Active != 0 || c.Completed != 3 {
		t.Errorf("the queue counts %+v", c)
	}
}

// One that does not read holds its window and no more; the rest goes to another.
func TestASlowReader(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	e := reading(t, n)
	slow := subscribe(t, e, message.Subscription{Window: message.Window{Messages: 10}})
	put(t, n, "q", numbered(0, 1000)...)
	mine := receiveAll(t, slow, 10)
	other := subscribe(t, e, message.Subscription{})
	for n := 0; n < 990; {
		b, err := other.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := settle(t, other, message.Ack, b.Deliveries...); err != nil {
			t.Fatal(err)
		}
		n += len(b.Deliveries)
	}
	if c := n.Counts("q"); c.Locked != 10 || c.Active != 10 {
		t.Errorf("the queue counts %+v", c)
	}
	if err := settle(t, slow, message.Ack, mine...); err != nil {
		t.Error(err)
	}
}

// Not the number of messages alone is bounded: a client that takes nothing holds no more
// bytes than its window, but for what was asked for before their size was known.
func TestTheWindowInBytes(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	n.Queue("q", servicebustest.Entity{})
	large := numbered(0, 100)
	for _, m := range large {
		m.Payload = make([]byte, 100_000)
	}
	put(t, n, "q", large...)
	s := subscribe(t, reading(t, n), message.Subscription{Window: message.Window{Messages: 100, Bytes: 500_000}})
	receiveAll(t, s, 4)
	eventually(t, "some are locked", func() bool { return held(n) >= 4 })
	if got := held(n); got > 12 {
		t.Errorf("%d messages of 100 KB are locked, and the window is 500 KB", got)
	}
}

// What was received is lost with the connection, and settling it touches nothing.
func TestADrop(t *testing.T) {
	t.Parallel()
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions %t", sessions), func(t *testing.T) {
			n := namespace(t, servicebustest.Options{})
			n.Queue("q", servicebustest.Entity{LockDuration: shortLock, Sessions: sessions})
			put(t, n, "q", numbered(0, 5)...)
			s := subscribe(t, reading(t, n, func(c *Consumer) { c.Sessions = sessions }), message.Subscription{})
			old := receiveAll(t, s, 5)
			if err := settle(t, s, message.Ack, old[0]); err != nil {
				t.Fatal(err)
			}
			n.Drop()
			again := receiveAll(t, s, 4)
			begun := time.Now()
			if err := settle(t, s, message.Ack, old[1:]...); !errors.Is(err, message.ErrStale) {
				t.Errorf("settling old deliveries: %v", err)
			}
			if took := time.Since(begun); took > time.Second {
				t.Errorf("it took %v to say so", took)
			}
			if again[0].Epoch == old[0].Epoch {
				t.Errorf("both connections are epoch %d", old[0].Epoch)
			}
			if err := settle(t, s, message.Ack, again...); err != nil {
				t.Error(err)
			}
			if c := n.Counts("q"); c.Active != 0 || c.Completed != 5 {
				t.Errorf("the queue counts %+v", c)
			}
		})
	}
}

// A receiver that the service detaches is replaced, with an error or without.
func TestADetachedReceiver(t *testing.T) {
	t.Parallel()
	for _, sessions := range []bool{false, true} {
		for _, condition := range []string{"amqp:link:detach-forced", "com.microsoft:server-busy"} {
			t.Run(fmt.Sprintf("sessions %t %s", sessions, condition), func(t *testing.T) {
				n := namespace(t, servicebustest.Options{})
				n.Queue("q", servicebustest.Entity{LockDuration: shortLock, Sessions: sessions})
				s := subscribe(t, reading(t, n, func(c *Consumer) { c.Sessions = sessions }), message.Subscription{})
				nextTime(n, servicebustest.OpDeliver, servicebustest.Fault{Detach: true, Condition: condition, Description: "maintenance"})
				put(t, n, "q", numbered(0, 10)...)
				all := receiveAll(t, s, 10)
				if err := settle(t, s, message.Ack, all...); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A queue that is deleted is waited for, for a while.
func TestADeletedQueue(t *testing.T) {
	t.Parallel()
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions %t", sessions), func(t *testing.T) {
			t.Parallel()
			n := namespace(t, servicebustest.Options{})
			entity := servicebustest.Entity{LockDuration: shortLock, Sessions: sessions}
			n.Queue("q", entity)
			e := reading(t, n, func(c *Consumer) { c.Sessions = sessions })
			e.consumer.endurance = 2 * time.Second
			s := subscribe(t, e, message.Subscription{})
			n.Delete("q")
			n.Queue("q", entity)
			put(t, n, "q", numbered(0, 2)...)
			if err := settle(t, s, message.Ack, receiveAll(t, s, 2)...); err != nil {
				t.Error(err)
			}
			n.Delete("q")
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			for {
				b, err := s.Receive(ctx)
				if err == nil && len(b.Deliveries) == 0 {
					continue
				}
				if message.KindOf(err) != message.NotFound {
					t.Errorf("the stream ended with %v", err)
				}
				break
			}
		})
	}
}

// A queue that requires sessions, and one that knows none, are told apart.
func TestWrongKindOfQueue(t *testing.T) {
	n := namespace(t, servicebustest.Options{})
	for _, sessions := range []bool{false, true} {
		n.Queue("q", servicebustest.Entity{Sessions: !sessions})
		_, err := trySubscribe(t, reading(t, n, func(c *Consumer) { c.Sessions = sessions }), message.Subscription{})
		if message.KindOf(err) != message.Mismatch || !strings.Contains(err.Error(), "sessions") {
			t.Errorf("sessions %t: %v", sessions, err)
		}
	}
}

// At at_most_once nothing comes twice, and nothing is taken that nobody asks for.
func TestAtMostOnce(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions %t", sessions), func(t *testing.T) {
			n := namespace(t, servicebustest.Options{})
			n.Queue("q", servicebustest.Entity{Sessions: sessions})
			put(t, n, "q", numbered(0, 50)...)
			e := reading(t, n, func(c *Consumer) { c.Sessions = sessions })
			s := subscribe(t, e, message.Subscription{QoS: message.AtMostOnce})
			if c := n.Counts("q"); c.Active != 50 {
				t.Errorf("%d messages were taken before anybody asked", 50-c.Active)
			}
			seen := make(map[string]bool)
			for len(seen) < 30 {
				for _, d := range receiveAll(t, s, 1) {
					if seen[string(d.Payload)] {
						t.Errorf("%s came twice", d.Payload)
					}
					seen[string(d.Payload)] = true
					if err := settle(t, s, message.Ack, d); err != nil {
						t.Error(err)
					}
				}
			}
			if err := s.Close(context.Background()); err != nil {
				t.Error(err)
			}
			left := n.Counts("q").Active
			if lost := int(e.consumer.lost.Count()); len(seen)+left+lost != 50 {
				t.Errorf("of 50 messages %d came, %d are left and %d are known to be lost", len(seen), left, lost)
			}
		})
	}
}
