package kafka

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/caddy-message-api/caddy-message-api/message"
)

func memberOf(b *broker, earliest bool) message.Subscription {
	sub := message.Subscription{Mode: message.Member, QoS: message.AtLeastOnce, Name: b.prefix + "api.client"}
	if earliest {
		sub.From.Kind = message.StartEarliest
	}
	return sub
}

func settle(t testing.TB, s message.Stream, how message.Settlement, deliveries ...message.Delivery) {
	t.Helper()
	if err := s.Settle(context.Background(), how, deliveries...); err != nil {
		t.Fatalf("settle: %v", err)
	}
}

func (b *broker) waitCommitted(t testing.TB, group string, at partition, want int64) {
	t.Helper()
	var got int64
	eventually(t, fmt.Sprintf("%s commits %d of %v", group, want, at), func() bool {
		got = b.committedOffsets(t, group)[at]
		return got == want
	})
}

func TestCommitsFollowTheSettled(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		k := b.both(t, topic)
		sub, at := memberOf(b, true), partition{topic, 0}
		b.produce(t, numbered(topic, 1, 0, 100))
		s := subscribe(t, k, sub)
		all, _ := receive(t, s, 100)

		settle(t, s, message.Ack, all[0:10]...)
		b.waitCommitted(t, sub.Name, at, 10)
		settle(t, s, message.Ack, all[20:100]...) // 10 to 19 are owed: nothing may move
		settle(t, s, message.Ack, all[10])
		b.waitCommitted(t, sub.Name, at, 11)
		settle(t, s, message.Reject, all[12])
		settle(t, s, message.Ack, all[11])
		b.waitCommitted(t, sub.Name, at, 13)
		settle(t, s, message.Ack, all[13:20]...)
		b.waitCommitted(t, sub.Name, at, 100)
		settle(t, s, message.Ack, all[50]) // again: nothing moves backwards
		closeStream(t, s)
		b.waitCommitted(t, sub.Name, at, 100)
	})
}

// Whatever is settled in whatever order: what is committed is always all of what came
// before, and never less than before.
func TestCommitsNeverRunAheadNorBack(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 3)
	k := b.both(t, topic)
	sub := memberOf(b, true)
	const n = 1500
	b.produce(t, numbered(topic, 3, 0, n))
	var mu sync.Mutex
	settled, last := make(map[partition]map[int64]bool), make(map[partition]int64)
	for p := range int32(3) {
		settled[partition{topic, p}] = make(map[int64]bool)
	}
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		req := r.(*kmsg.OffsetCommitRequest)
		if req.Generation < 0 {
			return nil, nil, false
		}
		for _, p := range req.Topics[0].Partitions {
			at := partition{topic, p.Partition}
			if p.Offset < last[at] {
				t.Errorf("%v: %d was committed after %d", at, p.Offset, last[at])
			}
			last[at] = p.Offset
			for o := range p.Offset {
				if !settled[at][o] {
					t.Errorf("%v: %d was committed, and %d is not settled", at, p.Offset, o)
					return nil, nil, false
				}
			}
		}
		return nil, nil, false
	})
	s := subscribe(t, k, sub)
	for got := 0; got < n; {
		batch, err := s.Receive(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		got += len(batch.Deliveries)
		rand.Shuffle(len(batch.Deliveries), func(i, j int) {
			batch.Deliveries[i], batch.Deliveries[j] = batch.Deliveries[j], batch.Deliveries[i]
		})
		for some := range slices.Chunk(batch.Deliveries, 7) {
			mu.Lock()
			for _, d := range some {
				settled[partition{topic, d.Mark.Partition}][d.Mark.Next-1] = true
			}
			mu.Unlock()
			settle(t, s, message.Ack, some...)
		}
	}
	closeStream(t, s)
	for p := range int32(3) {
		b.waitCommitted(t, sub.Name, partition{topic, p}, n/3)
	}
}

func TestReleasedComesAgain(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	sub := memberOf(b, true)
	sub.Window = message.Window{Messages: 5, Bytes: 1 << 20}
	b.produce(t, numbered(topic, 1, 0, 10))
	s := subscribe(t, b.both(t, topic), sub)
	all, _ := receive(t, s, 5)
	settle(t, s, message.Release, all[1], all[3])
	again, _ := receive(t, s, 2)
	if number(t, again[0]) != 1 || number(t, again[1]) != 3 || again[0].Attempt != 2 {
		t.Errorf("again came %d and %d, attempt %d", number(t, again[0]), number(t, again[1]), again[0].Attempt)
	}
	settle(t, s, message.Release, again[0])
	third, _ := receive(t, s, 1)
	if third[0].Attempt != 3 {
		t.Errorf("attempt %d", third[0].Attempt)
	}
	settle(t, s, message.Ack, all...)
	settle(t, s, message.Release, all[2]) // it was settled: nothing to give back
	rest, _ := receive(t, s, 5)
	if number(t, rest[0]) != 5 {
		t.Errorf("%d came instead of 5", number(t, rest[0]))
	}
}

// drain receives and acknowledges in the background until it is stopped.
type drain struct {
	mu   sync.Mutex
	all  []message.Delivery
	stop context.CancelFunc
	done chan struct{}
}

func drained(t testing.TB, s message.Stream) *drain {
	ctx, cancel := context.WithCancel(context.Background())
	d := &drain{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		for {
			batch, err := s.Receive(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("receive: %v", err)
				}
				return
			}
			for _, one := range batch.Deliveries { // one by one, so that each is counted rightly
				if err := s.Settle(ctx, message.Ack, one); err == nil {
					d.mu.Lock()
					d.all = append(d.all, one)
					d.mu.Unlock()
				} else if !errors.Is(err, message.ErrStale) && ctx.Err() == nil {
					t.Errorf("settle: %v", err)
				}
			}
		}
	}()
	t.Cleanup(d.end)
	return d
}

func (d *drain) end() {
	d.stop()
	<-d.done
}

func distinctOf(t testing.TB, drains ...*drain) map[int]int {
	seen := make(map[int]int)
	for _, d := range drains {
		d.mu.Lock()
		for _, one := range d.all {
			seen[number(t, one)]++
		}
		d.mu.Unlock()
	}
	return seen
}

func TestRebalanceLosesNothing(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 6)
		sub := memberOf(b, false)
		first := subscribe(t, b.both(t, topic), sub)
		one := drained(t, first)
		n := 0
		feed := func() {
			b.produce(t, numbered(topic, 6, n, 60))
			n += 60
		}
		for range 10 {
			feed()
		}
		second := subscribe(t, b.both(t, topic), sub)
		two := drained(t, second)
		eventually(t, "the second has its share", func() bool {
			feed()
			two.mu.Lock()
			defer two.mu.Unlock()
			return len(two.all) > 100
		})
		one.end()
		closeStream(t, first)
		left := time.Now()
		for range 10 {
			feed()
		}
		eventually(t, "everything has come", func() bool { return len(distinctOf(t, one, two)) == n })
		t.Logf("%v after the first left; %d of %d came twice", time.Since(left), len(one.all)+len(two.all)-n, n)
	})
}

// Lanes that stay with a member through a rebalance stay valid; those that go are told
// and can't be settled any more.
func TestRebalanceKeepsWhatStays(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := b.topic(t, 4)
	sub := memberOf(b, true)
	b.produce(t, numbered(topic, 4, 0, 40))
	first := subscribe(t, b.both(t, topic), sub)
	all, _ := receive(t, first, 40)
	second := subscribe(t, b.both(t, topic), sub)
	others, _ := receive(t, second, 20)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	batch, err := first.Receive(ctx)
	if err != nil || len(batch.Revoked) != 2 || len(batch.Deliveries) > 0 {
		t.Fatalf("%d deliveries, revoked %v, %v", len(batch.Deliveries), batch.Revoked, err)
	}
	for _, d := range others {
		if !slices.Contains(batch.Revoked, d.Lane) {
			t.Errorf("the second got %s, and the first lost %v", d.Lane, batch.Revoked)
		}
	}
	for _, d := range all {
		err := first.Settle(ctx, message.Ack, d)
		if gone := slices.Contains(batch.Revoked, d.Lane); gone != errors.Is(err, message.ErrStale) {
			t.Errorf("settling in %s: %v", d.Lane, err)
		}
	}
	settle(t, second, message.Ack, others...)
	for p := range int32(4) {
		b.waitCommitted(t, sub.Name, partition{topic, p}, 10)
	}
}

func TestGroupBeginsWhereItSubscribed(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 3)
		sub := memberOf(b, false)
		b.produce(t, numbered(topic, 3, 1000, 30))
		s := subscribe(t, b.both(t, topic), sub)
		b.produce(t, numbered(topic, 3, 0, 30)) // at once: the group may not even be joined
		all, _ := receive(t, s, 30)
		inOrderOnce(t, all, 30)
		closeStream(t, s) // nothing was settled
		s = subscribe(t, b.both(t, topic), sub)
		all, _ = receive(t, s, 30)
		inOrderOnce(t, all, 30)
	})
}

// What a group has read elsewhere says nothing about a topic that it begins with.
func TestGroupBeginsWithAnotherTopic(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		before, topic := b.topic(t, 1), b.topic(t, 1)
		sub := memberOf(b, false)
		closeStream(t, subscribe(t, b.both(t, before), sub))
		k := b.both(t, topic)
		wantStored(t, publish(t, k, &message.Message{Payload: []byte("1000")})) // connects
		s := subscribe(t, k, sub)
		wantStored(t, publish(t, k, &message.Message{Payload: []byte("0")})) // at once: the group may not even be joined
		all, _ := receive(t, s, 1)
		inOrderOnce(t, all, 1)
	})
}

// Partitions that come while nobody of the group is there are read from their start too.
func TestGroupFindsNewPartitions(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		sub := memberOf(b, false)
		closeStream(t, subscribe(t, b.both(t, topic), sub))
		b.addPartitions(t, topic, 3)
		b.produce(t, numbered(topic, 3, 0, 90))
		d := drained(t, subscribe(t, b.both(t, topic), sub))
		eventually(t, "everything has come", func() bool { return len(distinctOf(t, d)) == 90 })
	})
}

func TestMembersGetNewPartitions(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 1)
		s := subscribe(t, b.both(t, topic), memberOf(b, false))
		b.produce(t, numbered(topic, 1, 0, 10))
		d := drained(t, s)
		b.addPartitions(t, topic, 3)
		b.produce(t, numbered(topic, 3, 10, 90))
		eventually(t, "everything has come", func() bool { return len(distinctOf(t, d)) == 100 })
	})
}

func TestMembersGetNewTopics(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, b *broker) {
		pattern := regexp.QuoteMeta(b.prefix) + "orders-.*"
		k := b.endpoint(t, &Kafka{Consumer: &Consumer{TopicPattern: pattern}})
		d := drained(t, subscribe(t, k, memberOf(b, false))) // matches nothing yet
		for i := range 2 {
			name := fmt.Sprintf("%sorders-%d", b.prefix, i)
			b.createTopic(t, name, 2)
			b.produce(t, numbered(name, 2, i*10, 10))
			eventually(t, "the new topic is read", func() bool { return len(distinctOf(t, d)) == (i+1)*10 })
		}
	})
}

func TestMembersSurviveRestart(t *testing.T) {
	t.Parallel()
	b := durableBroker(t)
	topic := b.topic(t, 3)
	sub := memberOf(b, false)
	s := subscribe(t, b.both(t, topic), sub)
	d := drained(t, s)
	for round := range 3 {
		b.produce(t, numbered(topic, 3, round*30, 30))
		eventually(t, "the round has come", func() bool { return len(distinctOf(t, d)) == (round+1)*30 })
		b.restart(t)
	}
	d.end()
}

// What was settled at most once is committed when Settle returns.
func TestAtMostOnceIsCommittedAtOnce(t *testing.T) {
	eachBroker(t, func(t *testing.T, b *broker) {
		topic := b.topic(t, 2)
		sub := memberOf(b, true)
		sub.QoS = message.AtMostOnce
		b.produce(t, numbered(topic, 2, 0, 100))
		s := subscribe(t, b.both(t, topic), sub)
		all, _ := receive(t, s, 100)
		for _, some := range [][]message.Delivery{all[:30], all[30:]} {
			want := b.committedOffsets(t, sub.Name)
			for _, d := range some {
				want[partition{topic, d.Mark.Partition}] = d.Mark.Next
			}
			settle(t, s, message.Ack, some...)
			for p, offset := range b.committedOffsets(t, sub.Name) {
				if offset != want[p] {
					t.Errorf("%v is at %d after Settle, want %d", p, offset, want[p])
				}
			}
		}
	})
}

func TestAtMostOnceTellsWhenTheCommitFails(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	sub := memberOf(b, true)
	sub.QoS = message.AtMostOnce
	b.produce(t, numbered(topic, 1, 0, 2))
	s := subscribe(t, b.both(t, topic), sub)
	all, _ := receive(t, s, 2)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.TopicAuthorizationFailed})
	if err := s.Settle(context.Background(), message.Ack, all[0]); message.KindOf(err) != message.Denied {
		t.Errorf("a commit that was denied: %v", err)
	}
	settle(t, s, message.Ack, all[1])
	b.waitCommitted(t, sub.Name, partition{topic, 0}, 2)
}

func TestGroupIsDenied(t *testing.T) {
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Group: b.prefix + "api.client",
		TopLevel: true, Err: kerr.GroupAuthorizationFailed, Count: -1})
	if _, err := trySubscribe(b.both(t, topic), memberOf(b, true)); message.KindOf(err) != message.Denied {
		t.Errorf("%v", err)
	}
}

// A member that does not settle is not thrown out of its group, however long it takes.
func TestHeartbeatsGoOnWhileNothingIsSettled(t *testing.T) {
	t.Parallel()
	b := fakeBroker(t)
	topic := b.topic(t, 1)
	sub := memberOf(b, true)
	sub.Window = message.Window{Messages: 5, Bytes: 1 << 20}
	b.produce(t, numbered(topic, 1, 0, 20))
	s := subscribe(t, b.both(t, topic), sub)
	all, _ := receive(t, s, 5)
	h := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Observe: true, Count: -1})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Wait(ctx, 3); err != nil {
		t.Fatal(err)
	}
	quiet(t, s)
	settle(t, s, message.Ack, all...)
	rest, _ := receive(t, s, 5)
	if number(t, rest[0]) != 5 || rest[0].Epoch != all[0].Epoch {
		t.Errorf("%d came, epoch %d after %d", number(t, rest[0]), rest[0].Epoch, all[0].Epoch)
	}
}

func TestTrackerCountsWhatIsHeld(t *testing.T) {
	var a account
	x := newTracker(&a, 10)
	for o := int64(10); o < 20; o++ {
		x.lend(o, 100)
	}
	if a.messages != 10 || a.bytes != 1000 || a.span != 10 {
		t.Errorf("%d messages, %d bytes, span %d", a.messages, a.bytes, a.span)
	}
	for _, o := range []int64{11, 12, 19} {
		if !x.settle(o) || x.settle(o) {
			t.Errorf("%d must be settled once", o)
		}
	}
	if to, news := x.due(); to != 10 || news {
		t.Errorf("due %d, %v, and 10 is owed", to, news)
	}
	if a.messages != 7 || a.span != 10 {
		t.Errorf("%d messages, span %d", a.messages, a.span)
	}
	x.settle(10)
	if to, news := x.due(); to != 13 || !news || a.span != 7 {
		t.Errorf("due %d, %v, span %d", to, news, a.span)
	}
	if x.settle(99) || x.settle(9) {
		t.Error("what was never lent was settled")
	}
	x.drop()
	x.passed(25) // transaction markers behind the last one
	if to, _ := x.due(); to != 25 || a.messages != 0 || a.bytes != 0 || a.span != 0 {
		t.Errorf("due %d, %d messages, %d bytes, span %d", to, a.messages, a.bytes, a.span)
	}
}
