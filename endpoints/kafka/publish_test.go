package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestPublishKeepsEverything(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker) {
		for _, compression := range compressions {
			t.Run(compression, func(t *testing.T) {
				topic := b.topic(t, 1)
				k := b.endpoint(t, &Kafka{Producer: &Producer{Topics: []string{topic}, Compression: compression}})
				at := time.UnixMilli(1_700_000_000_123)
				sent := []*message.Message{
					{Key: []byte{0, 0xff}, Payload: []byte("\x00\xfe binary"), Time: at, Headers: []message.Header{
						{Name: "a", Value: "1"}, {Name: "b", Value: "\xff\x00"}, {Name: "a", Value: "2"}, {Name: "", Value: ""},
					}},
					{Payload: []byte(strings.Repeat("long ", 20_000))},
					{Key: []byte{}, Payload: []byte{}},
					{Key: []byte("gone"), Metadata: []message.Field{message.Flag("tombstone", true)}},
				}
				results := publish(t, k, sent...)
				wantStored(t, results)
				for i, r := range results {
					if want := fmt.Sprintf("%s@0#%d", topic, i); r.ID != want {
						t.Errorf("id is %q, want %q", r.ID, want)
					}
				}
				if ts := results[0].Metadata[3]; ts.Value() != at.UnixMilli() {
					t.Errorf("timestamp is %v", ts.Value())
				}
				got := b.consume(t, len(sent), topic)
				for i, r := range got {
					m := sent[i]
					if string(r.Key) != string(m.Key) || (r.Key == nil) != (m.Key == nil) || string(r.Value) != string(m.Payload) {
						t.Errorf("record %d is %q=%.50q", i, r.Key, r.Value)
					}
					var headers []message.Header
					for _, h := range r.Headers {
						headers = append(headers, message.Header{Name: h.Key, Value: string(h.Value)})
					}
					if !slices.Equal(headers, m.Headers) {
						t.Errorf("headers of record %d are %q", i, headers)
					}
				}
				if got[3].Value != nil || got[2].Value == nil {
					t.Errorf("a tombstone must be null and an empty payload must not be")
				}
				if !got[0].Timestamp.Equal(at) {
					t.Errorf("timestamp is %v", got[0].Timestamp)
				}
			})
		}
	})
}

// values replaces {who}.
type values string

func (v values) Text(s string) (string, error) {
	return strings.ReplaceAll(s, "{who}", string(v)), nil
}

func (v values) Name(s string) (string, error) {
	if strings.Contains(s, "{who}") && strings.ContainsAny(string(v), "/ ") {
		return "", errors.New("not a name")
	}
	return v.Text(s)
}

func TestPublishExpandsTopicsAndKey(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 6)
	k := b.endpoint(t, &Kafka{Producer: &Producer{Topics: []string{b.prefix + "{who}"}, Key: "key of {who}"}})
	who := values(strings.TrimPrefix(topic, b.prefix))
	p, err := k.Publisher(who)
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, p.Publish(context.Background(), message.Auto, &message.Message{Payload: []byte("x")}))
	wantStored(t, p.Publish(context.Background(), message.Auto, &message.Message{Key: []byte("own"), Payload: []byte("y")}))
	got := b.consume(t, 2, topic)
	keys := map[string]string{string(got[0].Value): string(got[0].Key), string(got[1].Value): string(got[1].Key)}
	if keys["x"] != "key of "+string(who) || keys["y"] != "own" {
		t.Errorf("keys are %v", keys)
	}
	if _, err := k.Publisher(values("a/b")); err == nil {
		t.Error("a bad name was taken")
	}
	if _, err := k.Publisher(values("a~b")); message.KindOf(err) != message.BadInput {
		t.Errorf("a name that Kafka does not take yields %v", err)
	}
}

func TestPublishToSeveralTopics(t *testing.T) {
	b := fakeBroker(t)
	one, two := b.topic(t, 1), b.topic(t, 1)
	k := b.endpoint(t, &Kafka{Producer: &Producer{Topics: []string{one, two}}})
	wantStored(t, publish(t, k, &message.Message{Payload: []byte("x")}, &message.Message{Payload: []byte("y")}))
	for _, topic := range []string{one, two} {
		if got := b.consume(t, 2, topic); string(got[0].Value)+string(got[1].Value) != "xy" {
			t.Errorf("%s holds %q, %q", topic, got[0].Value, got[1].Value)
		}
	}
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: two, Err: kerr.TopicAuthorizationFailed})
	r := publish(t, k, &message.Message{Payload: []byte("z")})[0]
	if r.Status != message.Unknown || !strings.Contains(r.Err.Error(), one) {
		t.Errorf("half stored is %s: %v", r.Status, r.Err)
	}
}

func TestPublishRefusedAndUnknown(t *testing.T) {
	for _, c := range []struct {
		err    *kerr.Error
		status message.Status
		kind   message.Kind
	}{
		{kerr.MessageTooLarge, message.Refused, message.TooLarge},
		{kerr.TopicAuthorizationFailed, message.Refused, message.Denied},
		{kerr.InvalidRecord, message.Refused, message.BadInput},
		{kerr.UnsupportedCompressionType, message.Refused, message.Mismatch},
		{kerr.RequestTimedOut, message.Unknown, message.OutcomeUnknown},
		{kerr.NotEnoughReplicasAfterAppend, message.Unknown, message.OutcomeUnknown},
		{kerr.UnknownServerError, message.Unknown, message.OutcomeUnknown},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			b := fakeBroker(t)
			topic := b.topic(t, 1)
			k := b.both(t, topic)
			h := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: c.err, Count: -1})
			r := publish(t, k, &message.Message{Payload: []byte("x")})[0]
			if r.Status != c.status || message.KindOf(r.Err) != c.kind {
				t.Errorf("%s, %s: %v; want %s, %s", r.Status, message.KindOf(r.Err), r.Err, c.status, c.kind)
			}
			if n := h.Hits(); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
		})
	}
}

func TestPublishTriesAgainWhatIsNotStored(t *testing.T) {
	t.Parallel()
	for _, err := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.NotEnoughReplicas, kerr.UnknownTopicOrPartition,
	} {
		t.Run(err.Message, func(t *testing.T) {
			b := fakeBroker(t)
			topic := b.topic(t, 1)
			k := b.both(t, topic)
			b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: err, Count: 2})
			wantStored(t, publish(t, k, &message.Message{Payload: []byte("x")}))
			if got := b.consume(t, 1, topic); len(got) != 1 {
				t.Errorf("stored %d times", len(got))
			}
		})
	}
	t.Run("for good", func(t *testing.T) {
		b := fakeBroker(t)
		topic := b.topic(t, 1)
		k := b.both(t, topic)
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotEnoughReplicas, Count: -1})
		began := time.Now()
		r := publish(t, k, &message.Message{Payload: []byte("x")})[0]
		if r.Status != message.Refused || message.KindOf(r.Err) != message.Unavailable || time.Since(began) > 5500*time.Millisecond {
			t.Errorf("%s after %v: %v", r.Status, time.Since(began), r.Err)
		}
	})
}

// One message that the broker does not take must not take others of its batch with it.
func TestPublishIsolatesTheCulprit(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1, "max.message.bytes", "20000")
	k := b.both(t, topic)
	all := make([]*message.Message, 40)
	for i := range all {
		all[i] = &message.Message{Payload: []byte(fmt.Sprint(i))}
	}
	all[17] = &message.Message{Payload: make([]byte, 30_000)}
	results := publish(t, k, all...)
	for i, r := range results {
		switch {
		case i == 17:
			if r.Status != message.Refused || message.KindOf(r.Err) != message.TooLarge {
				t.Errorf("the large one is %s: %v", r.Status, r.Err)
			}
		case r.Status != message.Stored:
			t.Errorf("message %d is %s: %v", i, r.Status, r.Err)
		}
	}
	for i, r := range b.consume(t, 39, topic) {
		want := i
		if i >= 17 {
			want++
		}
		if string(r.Value) != fmt.Sprint(want) {
			t.Fatalf("record %d is %q: order was not kept", i, r.Value)
		}
	}
}

func TestPublishCutAfterWrite(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker) {
		topic, line := b.topic(t, 1), &line{}
		k := b.endpoint(t, &Kafka{dial: line.dial, Producer: &Producer{Topics: []string{topic}}})
		wantStored(t, publish(t, k, &message.Message{Payload: []byte("first")}))
		line.swallow.Store(true)
		r := publish(t, k, &message.Message{Payload: []byte("lost answer")})[0]
		if r.Status != message.Unknown || message.KindOf(r.Err) != message.OutcomeUnknown {
			t.Fatalf("%s: %v", r.Status, r.Err)
		}
		// A write that fails has reached nobody: it is safe to try again.
		line.refuse.Store(true)
		wantStored(t, publish(t, k, &message.Message{Payload: []byte("last")}))
		got := b.consume(t, 3, topic)
		if string(got[1].Value) != "lost answer" || string(got[2].Value) != "last" {
			t.Errorf("stored: %q, %q", got[1].Value, got[2].Value)
		}
	})
}

// The first publish after the broker came back finds connections that are dead. It must
// notice before it writes, or else it could not tell what became of the message.
func TestPublishAfterRestartIsStored(t *testing.T) {
	b := durableBroker(t)
	topic, line := b.topic(t, 2), &line{}
	k := b.endpoint(t, &Kafka{dial: line.dial, Producer: &Producer{Topics: []string{topic}}})
	for i := range 5 {
		wantStored(t, publish(t, k, &message.Message{Payload: []byte(fmt.Sprint(i))}))
		before := line.held()
		b.restart(t)
		eventually(t, "the broker has closed its connections", func() bool { return dead(before) })
	}
	wantStored(t, publish(t, k, &message.Message{Payload: []byte("5")}))
	if got := b.consume(t, 6, topic); len(got) != 6 {
		t.Errorf("%d records", len(got))
	}
}

func TestPublishEndsWithItsContext(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	k := b.both(t, topic)
	wantStored(t, publish(t, k, &message.Message{Payload: []byte("0")}))
	arrived, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		once.Do(func() { close(arrived) })
		b.cluster.SleepControl(func() { <-answer })
		return nil, nil, false
	})
	p, err := k.Publisher(verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var inFlight, behind message.Result
	var wg sync.WaitGroup
	wg.Go(func() { inFlight = p.Publish(ctx, message.Auto, &message.Message{Payload: []byte("1")})[0] })
	<-arrived
	wg.Go(func() { behind = p.Publish(ctx, message.Auto, &message.Message{Payload: []byte("2")})[0] })
	top, err := k.producer.topic(topic)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second waits", func() bool {
		l := top.lanes[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.queue) == 1
	})
	top.release()
	cancel()
	wg.Wait()
	close(answer)
	if inFlight.Status != message.Unknown || message.KindOf(inFlight.Err) != message.OutcomeUnknown {
		t.Errorf("what was sent is %s: %v", inFlight.Status, inFlight.Err)
	}
	if behind.Status != message.Refused {
		t.Errorf("what was not sent is %s: %v", behind.Status, behind.Err)
	}
	wantStored(t, publish(t, k, &message.Message{Payload: []byte("3")}))
	var values []string
	for _, r := range b.consume(t, 3, topic) {
		values = append(values, string(r.Value))
	}
	if !slices.Equal(values, []string{"0", "1", "3"}) {
		t.Errorf("stored: %v", values)
	}
}

// A broker that accepts connections and says nothing must not keep anyone for longer
// than was promised.
func TestPublishToMuteBroker(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := b.topic(t, 2)
	k := b.both(t, topic)
	wantStored(t, publish(t, k, &message.Message{Payload: []byte("0")}))
	answer := make(chan struct{})
	defer close(answer)
	b.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.SleepControl(func() { <-answer })
		return nil, nil, false
	})
	p, err := k.Publisher(verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			began := time.Now()
			r := p.Publish(ctx, message.Auto, &message.Message{Payload: []byte("x")})[0]
			took := time.Since(began)
			switch {
			case r.Status == message.Refused && took > 5500*time.Millisecond, took > 10*time.Second:
				t.Errorf("message %d is %s after %v: %v", i, r.Status, took, r.Err)
			case r.Status.OK():
				t.Errorf("message %d is %s", i, r.Status)
			}
		})
	}
	wg.Wait()
}

func TestPublishWithoutBroker(t *testing.T) {
	t.Parallel()
	b := &broker{addrs: []string{fmt.Sprintf("127.0.0.1:%d", freePort(t))}}
	k := b.both(t, "nowhere")
	for i := range 3 {
		began := time.Now()
		r := publish(t, k, &message.Message{Payload: []byte("x")})[0]
		took := time.Since(began)
		if r.Status != message.Refused || message.KindOf(r.Err) != message.Unavailable || took > 5*time.Second {
			t.Errorf("%s after %v: %v", r.Status, took, r.Err)
		}
		if !strings.Contains(r.Err.Error(), b.addrs[0]) || !strings.Contains(r.Err.Error(), "refused") {
			t.Errorf("%q does not name address and cause", r.Err)
		}
		if i > 0 && took > time.Second {
			t.Errorf("a broker that has been gone for a while is still waited for: %v", took)
		}
	}
	if s := k.Status(); s.State != endpoints.Down || s.Address != b.addrs[0] || s.Error == "" || s.Since.IsZero() {
		t.Errorf("status is %+v", s)
	}
	if err := k.Probe(context.Background()); message.KindOf(err) != message.Unavailable {
		t.Errorf("probe: %v", err)
	}
}

func TestPublishBatchesWhatArrivesMeanwhile(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	k := b.both(t, topic)
	h := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
	const callers, each = 32, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				m := &message.Message{Key: []byte(fmt.Sprint(c)), Payload: []byte(fmt.Sprint(i))}
				wantStored(t, publish(t, k, m))
			}
		})
	}
	wg.Wait()
	if n := h.Hits(); n > callers*each/2 {
		t.Errorf("%d messages took %d requests", callers*each, n)
	}
	last := make(map[string]int)
	for _, r := range b.consume(t, callers*each, topic) {
		n := 0
		_, _ = fmt.Sscan(string(r.Value), &n)
		if want := last[string(r.Key)]; n != want {
			t.Fatalf("caller %s: %d came where %d was due", r.Key, n, want)
		}
		last[string(r.Key)]++
	}
}

func TestPublishNoneTellsOfLosses(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	k := b.both(t, topic)
	lost := make(chan error, 1)
	k.producer.lost = func(_ string, err error) { lost <- err }
	p, err := k.Publisher(verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.MessageTooLarge})
	r := p.Publish(context.Background(), message.None, &message.Message{Payload: []byte("x")})[0]
	if r.Status != message.Handed || r.Err != nil {
		t.Fatalf("%s: %v", r.Status, r.Err)
	}
	if err := <-lost; message.KindOf(err) != message.TooLarge {
		t.Errorf("lost because of %v", err)
	}
}

func TestPublishFollowsTheLeader(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t, kfake.NumBrokers(3))
	topic := b.topic(t, 3)
	k := b.both(t, topic)
	for i := range 30 {
		wantStored(t, publish(t, k, &message.Message{Key: []byte(fmt.Sprint(i)), Payload: []byte(fmt.Sprint(i))}))
		if i%5 == 0 {
			for p := range int32(3) {
				if err := b.cluster.MoveTopicPartition(topic, p, int32(i/5+int(p))%3); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if got := b.consume(t, 30, topic); len(got) != 30 {
		t.Errorf("%d records", len(got))
	}
}

func TestPublishRemembersFewTopics(t *testing.T) {
	b := fakeBroker(t)
	k := b.endpoint(t, &Kafka{Producer: &Producer{Topics: []string{"{who}"}}})
	for i := range 3 * maxTopics {
		top, err := k.producer.topic(fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		top.release()
	}
	if n := len(k.producer.topics); n > maxTopics {
		t.Errorf("%d topics are remembered", n)
	}
}
