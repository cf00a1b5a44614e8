package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/caddy-message-api/caddy-message-api/message"
)

var fromStart = message.Subscription{Mode: message.Assigned, From: message.Start{Kind: message.StartEarliest}}

// inOrderOnce checks that the deliveries are the numbers 0 to n-1, each once, and in
// order within each lane.
func inOrderOnce(t testing.TB, all []message.Delivery, n int) {
	t.Helper()
	seen, last := make(map[int]bool), make(map[string]int)
	for _, d := range all {
		i := number(t, d)
		if seen[i] {
			t.Errorf("%d came twice", i)
		}
		seen[i] = true
		if before, ok := last[d.Lane]; ok && i <= before {
			t.Errorf("%d came after %d in %s", i, before, d.Lane)
		}
		last[d.Lane] = i
	}
	if len(seen) != n {
		t.Errorf("%d different messages came, want %d", len(seen), n)
	}
}

func TestReadEverythingInOrder(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		const n = 20_000
		topic := b.topic(t, 6)
		k := b.endpoint(t, &Kafka{Consumer: &Consumer{Topics: []string{topic}}})
		live := subscribe(t, k, message.Subscription{Mode: message.Broadcast})
		b.produce(t, numbered(topic, 6, 0, n))
		late := subscribe(t, k, fromStart)
		for _, s := range []message.Stream{live, late} {
			all, gaps := receive(t, s, n)
			inOrderOnce(t, all, n)
			if len(gaps) > 0 {
				t.Errorf("gaps %v", gaps)
			}
		}
	})
}

func TestReadKeepsEverything(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker) {
		for _, codec := range []kgo.CompressionCodec{
			kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
		} {
			topic := b.topic(t, 1)
			k := b.endpoint(t, &Kafka{Consumer: &Consumer{Topics: []string{topic}}})
			at := time.UnixMilli(1_700_000_000_123)
			sent := []*kgo.Record{
				{Topic: topic, Key: []byte("kéy"), Value: []byte("\x00\xfe binary"), Timestamp: at, Headers: []kgo.RecordHeader{
					{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("\xff")}, {Key: "a", Value: nil}, {Key: "", Value: []byte("x")},
				}},
				{Topic: topic, Key: []byte{0xff}, Value: []byte(strings.Repeat("long ", 20_000))},
				{Topic: topic, Key: []byte{}, Value: []byte{}},
				{Topic: topic, Key: []byte("gone")},
			}
			b.produce(t, sent, kgo.ProducerBatchCompression(codec))
			all, _ := receive(t, subscribe(t, k, fromStart), len(sent))
			for i, d := range all {
				if string(d.Payload) != string(sent[i].Value) || string(d.Key) != string(sent[i].Key) || (d.Key == nil) != (sent[i].Key == nil) {
					t.Errorf("%v: message %d is %q=%.40q", codec, i, d.Key, d.Payload)
				}
				if d.ID != fmt.Sprintf("%s@0#%d", topic, i) || d.Lane != topic+"/0" {
					t.Errorf("id %q, lane %q", d.ID, d.Lane)
				}
			}
			first := all[0]
			if want := "[{a 1} {b \xff} {a } { x}]"; fmt.Sprint(first.Headers) != want {
				t.Errorf("headers are %q, want %q", first.Headers, want)
			}
			want := fmt.Sprintf(`{"topic":%q,"partition":0,"offset":0,"timestamp":%d,"key":"kéy"}`, topic, at.UnixMilli())
			if got := string(message.AppendJSONMetadata(nil, first.Metadata)); got != want {
				t.Errorf("metadata is %s, want %s", got, want)
			}
			if !first.Time.Equal(at) || first.Mark != (message.Mark{Channel: topic, Next: 1, Time: at.UnixMilli()}) {
				t.Errorf("time %v, mark %+v", first.Time, first.Mark)
			}
			if f, ok := all[1].Field("key_base64"); !ok || f.String() != "/w==" {
				t.Errorf("key_base64 is %v", f)
			}
			if _, ok := all[2].Field("tombstone"); ok {
				t.Error("an empty payload is no tombstone")
			}
			if f, ok := all[3].Field("tombstone"); !ok || f.Value() != true || all[3].Payload == nil || len(all[3].Payload) > 0 {
				t.Errorf("tombstone: %v, payload %q", f, all[3].Payload)
			}
		}
	})
}

func TestResumeAnywhere(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		const n, cuts = 4000, 200
		topic := b.topic(t, 6)
		nodes := []*Kafka{b.both(t, topic), b.both(t, topic)}
		b.produce(t, numbered(topic, 6, 0, n), kgo.ProducerLinger(time.Millisecond))
		sub := fromStart
		var all []message.Delivery
		for i := 0; len(all) < n; i++ {
			s, err := trySubscribe(nodes[i%2], sub)
			if err != nil {
				t.Fatal(err)
			}
			at := s.(message.Positioned).Position()
			some, gaps := receive(t, s, 1)
			if len(gaps) > 0 {
				t.Fatalf("gap %v", gaps)
			}
			// The client has a part of what was received when its connection breaks.
			some = some[:min(len(some), 1+rand.IntN(2*n/cuts))]
			for _, d := range some {
				at.Advance(d.Mark)
			}
			all = append(all, some...)
			closeStream(t, s)
			cursor, err := message.ParseCursor(at.Cursor())
			if err != nil {
				t.Fatal(err)
			}
			sub = message.Subscription{Mode: message.Assigned, Position: &cursor}
		}
		inOrderOnce(t, all, n)
	})
}

func TestPositionIsWhereTheNextReceiveReads(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 3)
	k := b.both(t, topic)
	b.produce(t, numbered(topic, 3, 0, 300))
	sub := fromStart
	sub.Window = message.Window{Messages: 7, Bytes: 1 << 20}
	var all []message.Delivery
	for len(all) < 300 {
		s, err := trySubscribe(k, sub)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if some, _ := receive(t, s, min(1, 300-len(all))); len(some) > 0 {
				all = append(all, some...)
			}
		}
		at := s.(message.Positioned).Position()
		sub.Position = &at
		closeStream(t, s)
	}
	inOrderOnce(t, all, 300)
}

func TestStreamReturnsAfterItsPositionExpires(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		k := b.both(t, topic)
		b.produce(t, numbered(topic, 1, 0, 100))
		s := subscribe(t, k, fromStart)
		at := s.(message.Positioned).Position()
		all, _ := receive(t, s, 100)
		exact := at.Clone()
		for _, d := range all[:60] {
			exact.Advance(d.Mark)
		}
		b.truncate(t, topic, 1, 60)

		// Everything before the position is gone, and nothing after it: that is no gap.
		rest, gaps := receive(t, subscribe(t, k, message.Subscription{Mode: message.Assigned, Position: &exact}), 40)
		if len(gaps) > 0 || number(t, rest[0]) != 60 {
			t.Errorf("gaps %v, first %d", gaps, number(t, rest[0]))
		}
		rest, gaps = receive(t, subscribe(t, k, message.Subscription{Mode: message.Assigned, Position: &at}), 40)
		if len(gaps) != 1 || gaps[0].Reason != message.GapExpired || number(t, rest[0]) != 60 {
			t.Errorf("gaps %v, first %d", gaps, number(t, rest[0]))
		}
	})
}

// A topic that was made anew is noticed by the timestamp, even when it has more messages
// than the old one had.
func TestRecreatedTopicIsNoticedByTime(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		k := b.both(t, topic)
		old := numbered(topic, 1, 0, 10)
		for _, r := range old {
			r.Timestamp = time.UnixMilli(1_600_000_000_000)
		}
		b.produce(t, old)
		s := subscribe(t, k, fromStart)
		at := s.(message.Positioned).Position()
		all, _ := receive(t, s, 10)
		for _, d := range all {
			at.Advance(d.Mark)
		}
		closeStream(t, s)
		b.deleteTopic(t, topic)
		b.createTopic(t, topic, 1)
		b.produce(t, numbered(topic, 1, 100, 50))
		rest, gaps := receive(t, subscribe(t, k, message.Subscription{Mode: message.Assigned, Position: &at}), 50)
		if len(gaps) != 1 || gaps[0].Reason != message.GapRecreated || number(t, rest[0]) != 100 {
			t.Errorf("gaps %v, first %d", gaps, number(t, rest[0]))
		}
	})
}

func TestRunningStreamMeetsRecreatedTopic(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	k := b.both(t, topic)
	b.produce(t, numbered(topic, 1, 0, 10))
	s := subscribe(t, k, fromStart)
	receive(t, s, 10)
	b.deleteTopic(t, topic)
	r := s.(*assigned).reader
	eventually(t, "the stream notices", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.order[0].missing
	})
	b.createTopic(t, topic, 1)
	b.produce(t, numbered(topic, 1, 100, 30)) // more than the old one had
	all, gaps := receive(t, s, 30)
	if len(gaps) != 1 || gaps[0].Reason != message.GapRecreated || number(t, all[0]) != 100 {
		t.Errorf("gaps %v, first %d", gaps, number(t, all[0]))
	}
}

func TestExpiredWhileReading(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	k := b.both(t, topic)
	sub := fromStart
	sub.Window = message.Window{Messages: 10, Bytes: 20_000}
	for i := range 40 {
		r := numbered(topic, 1, i, 1)
		r[0].Headers = []kgo.RecordHeader{{Key: "pad", Value: make([]byte, 10_000)}}
		b.produce(t, r)
	}
	s := subscribe(t, k, sub)
	first, _ := receive(t, s, 1)
	b.truncate(t, topic, 1, 30)
	var gaps []message.Gap
	all := first
	for number(t, all[len(all)-1]) != 39 {
		more, g := receive(t, s, 1)
		gaps = append(gaps, g...)
		all = append(all, more...)
	}
	if len(gaps) != 1 || gaps[0].Reason != message.GapExpired || !strings.Contains(gaps[0].Detail, topic) {
		t.Errorf("gaps %v", gaps)
	}
	for i := 1; i < len(all); i++ {
		if a, b := number(t, all[i-1]), number(t, all[i]); b != a+1 && b != 30 {
			t.Errorf("%d came after %d", b, a)
		}
	}
}

// Compaction leaves batches that are empty, or that end before their last offset.
func TestReadCompactedTopic(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := b.topic(t, 1, "cleanup.policy", "compact", "segment.bytes", "2000", "min.cleanable.dirty.ratio", "0")
	k := b.both(t, topic)
	for i := range 60 {
		records := numbered(topic, 1, i*5, 5)
		for j, r := range records {
			r.Key = []byte(fmt.Sprint(j % 3))
		}
		if i == 0 {
			records[0].Key = []byte("stays") // so that the log still begins where it did
		}
		b.produce(t, records)
	}
	s := subscribe(t, k, fromStart)
	at := s.(message.Positioned).Position()
	before, _ := receive(t, s, 300)
	for _, d := range before[:120] {
		at.Advance(d.Mark)
	}
	b.cluster.Compact()
	last := func(sub message.Subscription) (all []message.Delivery, gaps []message.Gap) {
		s := subscribe(t, k, sub)
		for len(all) == 0 || number(t, all[len(all)-1]) != 299 {
			more, g := receive(t, s, 1)
			all, gaps = append(all, more...), append(gaps, g...)
		}
		quiet(t, s)
		return all, gaps
	}
	all, gaps := last(fromStart)
	if len(all) >= 300 || len(gaps) > 0 {
		t.Errorf("%d messages, gaps %v: want fewer than before, and no gap", len(all), gaps)
	}
	if _, gaps := last(message.Subscription{Mode: message.Assigned, Position: &at}); len(gaps) > 0 {
		t.Errorf("a position whose record was compacted makes gaps %v", gaps)
	}
}

func TestReadSkipsTransactionMarkers(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		k := b.both(t, topic)
		for i := range 20 {
			b.foreign(t, func(ctx context.Context, cl *kgo.Client) {
				if err := cl.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				if err := cl.ProduceSync(ctx, numbered(topic, 1, i, 1)...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
					t.Fatal(err)
				}
			}, kgo.TransactionalID(b.prefix+"tx"))
		}
		s := subscribe(t, k, fromStart)
		all, _ := receive(t, s, 20)
		inOrderOnce(t, all, 20)
		// The position comes to stand behind the last marker, and is good to resume from.
		eventually(t, "the position passes the last marker", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			_, _ = s.Receive(ctx)
			return s.(message.Positioned).Position().Marks[0].Next == 40
		})
		at := s.(message.Positioned).Position()
		again := subscribe(t, k, message.Subscription{Mode: message.Assigned, Position: &at})
		b.produce(t, numbered(topic, 1, 20, 1))
		more, gaps := receive(t, again, 1)
		if number(t, more[0]) != 20 || len(gaps) > 0 {
			t.Errorf("resumed with %d, gaps %v", number(t, more[0]), gaps)
		}
	})
}

func TestNewPartitionsAreReadFromTheirStart(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		k := b.both(t, topic)
		s := subscribe(t, k, message.Subscription{Mode: message.Broadcast})
		b.produce(t, numbered(topic, 1, 0, 10))
		b.addPartitions(t, topic, 3)
		b.produce(t, numbered(topic, 3, 10, 90))
		all, gaps := receive(t, s, 100)
		inOrderOnce(t, all, 100)
		if len(gaps) > 0 {
			t.Errorf("gaps %v", gaps)
		}
	})
}

func TestPatternFindsNewTopics(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		k := b.endpoint(t, &Kafka{Consumer: &Consumer{TopicPattern: regexp.QuoteMeta(b.prefix) + "orders-[a-z]+"}})
		s := subscribe(t, k, message.Subscription{Mode: message.Broadcast}) // matches nothing yet
		if at := s.(message.Positioned).Position(); len(at.Marks) > 0 {
			t.Errorf("position of nothing is %+v", at)
		}
		for i, name := range []string{"orders-eu", "orders-us"} {
			b.createTopic(t, b.prefix+name, 2)
			b.produce(t, numbered(b.prefix+name, 2, i*10, 10))
		}
		b.createTopic(t, b.prefix+"orders-1", 1)
		b.produce(t, numbered(b.prefix+"orders-1", 1, 1000, 1))
		b.createTopic(t, b.prefix+"more-orders-eu", 1)
		b.produce(t, numbered(b.prefix+"more-orders-eu", 1, 1001, 1))
		all, gaps := receive(t, s, 20)
		inOrderOnce(t, all, 20)
		if len(gaps) > 0 {
			t.Errorf("gaps %v", gaps)
		}
		at := s.(message.Positioned).Position()
		if len(at.Marks) != 4 {
			t.Errorf("position %+v", at)
		}
	})
}

func TestStreamsSurviveRestart(t *testing.T) {
	t.Parallel()
	b := durableBroker(t)
	topic := b.topic(t, 3)
	k := b.both(t, topic)
	streams := []message.Stream{
		subscribe(t, k, message.Subscription{Mode: message.Broadcast}),
		subscribe(t, k, message.Subscription{Mode: message.Assigned}),
	}
	var all [2][]message.Delivery
	for round := range 3 {
		b.produce(t, numbered(topic, 3, round*10, 10))
		for i, s := range streams {
			some, gaps := receive(t, s, 10)
			if len(gaps) > 0 {
				t.Errorf("gaps %v", gaps)
			}
			all[i] = append(all[i], some...)
		}
		b.restart(t)
	}
	for i := range all {
		inOrderOnce(t, all[i], 30)
	}
}

func TestStreamsFollowTheLeader(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t, kfake.NumBrokers(3))
	topic := b.topic(t, 6)
	k := b.both(t, topic)
	s := subscribe(t, k, message.Subscription{Mode: message.Broadcast})
	var all []message.Delivery
	for i := range 10 {
		b.cluster.ShufflePartitionLeaders()
		b.produce(t, numbered(topic, 6, i*60, 60))
		some, _ := receive(t, s, 60)
		all = append(all, some...)
	}
	inOrderOnce(t, all, 600)
}

func TestTroubleThatPasses(t *testing.T) {
	t.Parallel()
	for _, err := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition, kerr.UnknownServerError,
		kerr.FencedLeaderEpoch, kerr.KafkaStorageError,
	} {
		t.Run(err.Message, func(t *testing.T) {
			b := fakeBroker(t)
			topic := b.topic(t, 2)
			k := b.both(t, topic)
			s := subscribe(t, k, message.Subscription{Mode: message.Broadcast})
			b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: err, Count: 3})
			b.produce(t, numbered(topic, 2, 0, 10))
			all, gaps := receive(t, s, 10)
			inOrderOnce(t, all, 10)
			if len(gaps) > 0 {
				t.Errorf("gaps %v", gaps)
			}
		})
	}
}

func TestLargeMessages(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		k := b.both(t, topic)
		var records []*kgo.Record
		for i := range 6 {
			records = append(records, &kgo.Record{Topic: topic, Value: make([]byte, 100_000*(i+1))})
		}
		b.produce(t, records, kgo.ProducerBatchMaxBytes(1_000_000))
		sub := fromStart
		sub.Window = message.Window{Messages: 100, Bytes: 50_000}
		s := subscribe(t, k, sub)
		for i := range 6 {
			got, _ := receive(t, s, 1)
			if len(got) != 1 || len(got[0].Payload) != 100_000*(i+1) {
				t.Fatalf("message %d: %d messages, the first has %d bytes", i, len(got), len(got[0].Payload))
			}
		}
	})
}

func TestBatchesAreOfModerateSize(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 2)
	k := b.both(t, topic)
	records := numbered(topic, 2, 0, 2000)
	for _, r := range records {
		r.Headers = []kgo.RecordHeader{{Key: "pad", Value: make([]byte, 500)}}
	}
	b.produce(t, records)
	s := subscribe(t, k, fromStart)
	for n := 0; n < 2000; {
		batch, err := s.Receive(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, d := range batch.Deliveries {
			size += d.Size()
		}
		if size > batchBytes || len(batch.Deliveries) > defaultMessages {
			t.Errorf("a batch has %d messages and %d bytes", len(batch.Deliveries), size)
		}
		n += len(batch.Deliveries)
	}
}

// A client that does not read must not make the reader fetch on and on.
func TestBufferIsBounded(t *testing.T) {
	b := fakeBroker(t, kfake.NumBrokers(2))
	topic := b.topic(t, 8)
	k := b.both(t, topic)
	records := numbered(topic, 8, 0, 4000)
	for _, r := range records {
		r.Headers = []kgo.RecordHeader{{Key: "pad", Value: make([]byte, 2000)}}
	}
	b.produce(t, records, kgo.ProducerBatchMaxBytes(20_000))
	sub := fromStart
	sub.Window = message.Window{Messages: 100, Bytes: 200_000}
	s := subscribe(t, k, sub)
	r := s.(*assigned).reader
	eventually(t, "the buffer fills", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.buffered > r.limit/2
	})
	r.mu.Lock()
	buffered := r.buffered
	r.mu.Unlock()
	if buffered > 2*sub.Window.Bytes {
		t.Errorf("%d bytes are buffered for a window of %d", buffered, sub.Window.Bytes)
	}
	all, _ := receive(t, s, 4000)
	inOrderOnce(t, all, 4000)
}

func TestOneConnectionPerStreamAndBroker(t *testing.T) {
	b := fakeBroker(t)
	topic, line := b.topic(t, 40), &line{}
	k := b.endpoint(t, &Kafka{dial: line.dial, Consumer: &Consumer{Topics: []string{topic}}})
	for range 5 {
		subscribe(t, k, message.Subscription{Mode: message.Broadcast})
	}
	b.produce(t, numbered(topic, 40, 0, 400))
	// One for each stream, one for metadata, and one that served to begin.
	if n := line.open(); n > 5+3 {
		t.Errorf("5 streams of 40 partitions have %d connections", n)
	}
}

func TestTooManyPartitions(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, message.MaxPartitions+1)
	_, err := trySubscribe(b.both(t, topic), fromStart)
	if message.KindOf(err) != message.Mismatch || !strings.Contains(err.Error(), "256") {
		t.Errorf("%v", err)
	}
}

func TestSubscribeFailsInTime(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0") // connects, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	mute := &broker{addrs: []string{l.Addr().String()}}
	for name, c := range map[string]struct {
		k    *Kafka
		kind message.Kind
		text string
	}{
		"unknown topic": {b.both(t, topic+"-no"), message.NotFound, topic + "-no"},
		"wrong address": {b.endpoint(t, &Kafka{Brokers: []string{"127.0.0.1:1"}, Consumer: &Consumer{Topics: []string{"x"}}}),
			message.Unavailable, "127.0.0.1:1"},
		"black hole": {b.endpoint(t, &Kafka{Brokers: []string{"192.0.2.1:9092"}, Consumer: &Consumer{Topics: []string{"x"}}}),
			message.Unavailable, "192.0.2.1:9092"},
		"mute": {mute.both(t, "x"), message.Unavailable, mute.addrs[0]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, mode := range []message.Mode{message.Assigned, message.Member} {
				began := time.Now()
				s, err := trySubscribe(c.k, message.Subscription{Mode: mode, Name: "api.client"})
				if err == nil {
					closeStream(t, s)
					t.Fatal("no error")
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				if message.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: %v", message.KindOf(err), err)
				}
			}
		})
	}
	t.Run("denied", func(t *testing.T) {
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: topic, Err: kerr.TopicAuthorizationFailed})
		if _, err := trySubscribe(b.both(t, topic), fromStart); message.KindOf(err) != message.Denied {
			t.Errorf("%v", err)
		}
	})
	t.Run("shared", func(t *testing.T) {
		if _, err := trySubscribe(b.both(t, topic), message.Subscription{Mode: message.Shared}); message.KindOf(err) != message.Mismatch {
			t.Errorf("%v", err)
		}
	})
}

// What the broker forbids in the middle of a stream is the end of it.
func TestDeniedWhileReading(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	s := subscribe(t, b.both(t, topic), fromStart)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.TopicAuthorizationFailed})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := s.Receive(ctx); message.KindOf(err) != message.Denied {
		t.Errorf("%v", err)
	}
	if _, err := s.Receive(ctx); message.KindOf(err) != message.Denied {
		t.Errorf("the second time: %v", err)
	}
}

func TestStartsAreWhatIsConfigured(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	b.produce(t, numbered(topic, 1, 0, 3))
	early := b.endpoint(t, &Kafka{Consumer: &Consumer{Topics: []string{topic}, AutoOffsetReset: "earliest"}})
	all, _ := receive(t, subscribe(t, early, message.Subscription{Mode: message.Broadcast}), 3)
	inOrderOnce(t, all, 3)
	quiet(t, subscribe(t, b.both(t, topic), message.Subscription{Mode: message.Broadcast}))
	future := message.Subscription{Mode: message.Assigned, From: message.Start{Kind: message.StartTime, Time: time.Now().Add(time.Hour)}}
	s := subscribe(t, early, future)
	if at := s.(message.Positioned).Position(); at.Marks[0].Next != 3 {
		t.Errorf("the future begins at %+v", at)
	}
}
