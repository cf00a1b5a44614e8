package mqtt5

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"

	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

func retain(t testing.TB, f *foreign, topic, payload string) {
	t.Helper()
	if _, err := f.Publish(context.Background(), &paho.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte(payload)}); err != nil {
		t.Fatal(err)
	}
}

func snapshotOf(s message.Stream) (all []string) {
	for _, d := range s.(*stream).Snapshot() {
		all = append(all, d.Lane[strings.LastIndex(d.Lane, "/")+1:]+"="+string(d.Payload))
	}
	slices.Sort(all)
	return all
}

// A broadcast begins with the retained messages, keeps them up to date for those who join
// later, and gets them again when its connection was lost.
func TestRetainedMessages(t *testing.T) {
	onBrokers(t, func(t *testing.T, addr string) {
		topic := brokers.UniqueName(t)
		feed := connectForeign(t, addr, topic, false, nil)
		for _, name := range []string{"a", "b", "c"} {
			retain(t, feed, topic+"/"+name, "old")
			defer retain(t, feed, topic+"/"+name, "")
		}
		gateway := newProcess(t, addr, topic+"/#")
		s := subscribe(t, gateway.MQTT5, message.Subscription{Mode: message.Broadcast})
		if got := payloads(receive(t, s, 3)); got["old"] != 3 {
			t.Errorf("the broadcast began with %v", got)
		}
		retain(t, feed, topic+"/a", "new")
		retain(t, feed, topic+"/b", "")
		feed.produce(t, topic+"/c", numbered(7, 8)...)
		receive(t, s, 3)
		if got := fmt.Sprint(snapshotOf(s)); got != "[a=new c=old]" {
			t.Errorf("the snapshot is %s", got)
		}
		gateway.line.cut()
		gateway.line.restore()
		var gap bool
		var again []message.Delivery
		for len(again) < 2 {
			batch, err := s.Receive(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if batch.Gap != nil {
				gap = batch.Gap.Reason == message.GapConnection
				again = nil
			}
			again = append(again, batch.Deliveries...)
		}
		if got := fmt.Sprint(snapshotOf(s)); !gap || got != "[a=new c=old]" {
			t.Errorf("after the connection was lost: gap %v, snapshot %s", gap, got)
		}
	})
}

// What is kept of retained messages is bounded, and the oldest go.
func TestRetainedMessagesAreBounded(t *testing.T) {
	note := func(r *retained, i, size int) {
		in := &incoming{}
		fill(&in.Message, &publish{retain: true, payload: make([]byte, size)}, fmt.Sprint("t/", i))
		in.size = in.Message.Size()
		r.note(in)
	}
	r := newRetained()
	for i := range maxRetainedTopics + 10 {
		note(r, i, 10)
	}
	if n := len(r.deliveries()); n != maxRetainedTopics || r.deliveries()[0].Lane != "t/10" {
		t.Errorf("%d topics are kept, the oldest is %s", n, r.deliveries()[0].Lane)
	}
	for i := range 40 {
		note(r, i, 1<<20)
	}
	if r.bytes > maxRetainedBytes || len(r.byTopic) > 16 || r.order.Len() != len(r.byTopic) {
		t.Errorf("%d bytes of %d topics are kept", r.bytes, len(r.byTopic))
	}
	note(r, 99, maxRetainedBytes)
	if _, kept := r.byTopic["t/99"]; kept {
		t.Error("a message is kept that is larger than the bound")
	}
	r.forget()
	if len(r.deliveries()) != 0 || r.bytes != 0 {
		t.Error("something is left after forget")
	}
}

// At most once, and with QoS 0, a lost connection is told too.
func TestAtMostOnceTellsOfLostConnections(t *testing.T) {
	p := newPeer(t)
	gateway := newProcess(t, p.addr(), "topic")
	s := subscribe(t, gateway.MQTT5, message.Subscription{Mode: message.Member, QoS: message.AtMostOnce, Name: "api.client"})
	feed := connectForeign(t, p.addr(), "feed", false, nil)
	feed.produce(t, "topic", numbered(0, 3)...)
	held := receive(t, s, 3)
	gateway.line.cut()
	gateway.line.restore()
	batch, err := s.Receive(context.Background())
	if err != nil || batch.Gap == nil || batch.Gap.Reason != message.GapConnection {
		t.Errorf("Receive returned %+v, %v and no gap", batch, err)
	}
	ack(t, s, held...) // it was delivered at most once, whatever happens
	if ids := p.ids(); len(ids) > 1 {
		t.Errorf("sessions %v", ids)
	}
}

// A durable session that the broker has lost is told as a gap.
func TestALostSessionIsAGap(t *testing.T) {
	p := newPeer(t)
	gateway := newProcess(t, p.addr(), "topic")
	s := gateway.member(t, 10)
	p.forget()
	batch, err := s.Receive(context.Background())
	if err != nil || batch.Gap == nil || batch.Gap.Reason != message.GapConnection {
		t.Errorf("Receive returned %+v, %v and no gap", batch, err)
	}
	waitFor(t, "it is subscribed again", func() bool { return len(p.filtersOf(s.(*stream).home.id)) == 1 })
	connectForeign(t, p.addr(), "feed", false, nil).produce(t, "topic", numbered(0, 3)...)
	receive(t, s, 3)
}

// A broker that says it has a session, and has none, still gets the subscription.
func TestASessionThatIsALie(t *testing.T) {
	p := newPeer(t)
	p.lie = true
	s := newProcess(t, p.addr(), "topic").member(t, 10)
	connectForeign(t, p.addr(), "feed", false, nil).produce(t, "topic", numbered(0, 3)...)
	receive(t, s, 3)
}
