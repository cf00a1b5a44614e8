package servicebustest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

// TestBacklogKeepsOrder compares with a sorted list, while messages are added, taken, returned and dropped.
func TestBacklogKeepsOrder(t *testing.T) {
	var b backlog
	var there, out []*message
	var sequence int64
	for range 50_000 {
		switch rand.IntN(8) {
		case 0, 1, 2:
			sequence++
			m := &message{sequence: sequence}
			there = append(there, m)
			b.add(m)
		case 3, 4, 5:
			m := b.next()
			if m == nil {
				if len(there) > 0 {
					t.Fatalf("nothing next of %d", len(there))
				}
				continue
			}
			if m != there[0] {
				t.Fatalf("next is %d, not %d", m.sequence, there[0].sequence)
			}
			there = there[1:]
			out = append(out, m)
		case 6:
			if len(out) > 0 {
				i := rand.IntN(len(out))
				m := out[i]
				out = slices.Delete(out, i, i+1)
				at, _ := slices.BinarySearchFunc(there, m, func(a, b *message) int { return int(a.sequence - b.sequence) })
				there = slices.Insert(slices.Clone(there), at, m)
				b.add(m)
			}
		case 7:
			if len(there) > 0 && rand.IntN(4) == 0 {
				i := rand.IntN(len(there))
				b.drop(there[i])
				there = slices.Delete(slices.Clone(there), i, i+1)
			}
		}
		if b.ready != len(there) {
			t.Fatalf("%d are ready, not %d", b.ready, len(there))
		}
	}
}

func TestTakeFromSessions(t *testing.T) {
	s, client, sender := withSessions(t, Entity{})
	sendTo(t, sender, "one", "a", "b")
	sendTo(t, sender, "two", "c")
	acceptSession(t, client, "two")
	got, err := s.Take(background(t), "s", 2)
	if err != nil || string(got[0].GetData())+string(got[1].GetData()) != "ab" {
		t.Fatalf("%v %v", got, err)
	}
}

func TestDelayedSendsStayInOrder(t *testing.T) {
	s := start(t, Options{})
	_, session := dialRaw(t, s, nil)
	sender, err := session.NewSender(background(t), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.OnFault(once(OpSend, Fault{Delay: 100 * time.Millisecond}))
	var receipts []amqp.SendReceipt
	for i := range 5 {
		receipt, err := sender.SendWithReceipt(background(t), amqp.NewMessage(fmt.Append(nil, i)), nil)
		if err != nil {
			t.Fatal(err)
		}
		receipts = append(receipts, receipt)
	}
	for _, receipt := range receipts {
		if state, err := receipt.Wait(background(t)); err != nil {
			t.Fatalf("%v %v", state, err)
		}
	}
	got, err := s.Take(background(t), "q", 5)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range got {
		if string(m.GetData()) != fmt.Sprint(i) {
			t.Fatalf("%q at %d", m.GetData(), i)
		}
	}
}

func TestDeferredIsSettledByManagement(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a")
	receiver := newReceiver(t, client, "q", nil)
	m := receive(t, receiver, 1)[0]
	if err := receiver.DeferMessage(background(t), m, nil); err != nil {
		t.Fatal(err)
	}
	again := func() *azservicebus.ReceivedMessage {
		deferred, err := receiver.ReceiveDeferredMessages(background(t), []int64{*m.SequenceNumber}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return deferred[0]
	}
	if err := receiver.DeferMessage(background(t), again(), &azservicebus.DeferMessageOptions{PropertiesToModify: map[string]any{"k": "v"}}); err != nil {
		t.Fatal(err)
	}
	last := again()
	if last.ApplicationProperties["k"] != "v" {
		t.Fatalf("%v", last.ApplicationProperties)
	}
	if err := receiver.DeadLetterMessage(background(t), last, &azservicebus.DeadLetterOptions{Reason: to.Ptr("r"), ErrorDescription: to.Ptr("d")}); err != nil {
		t.Fatal(err)
	}
	letters, err := s.Take(background(t), "q/$DeadLetterQueue", 1)
	if err != nil || letters[0].ApplicationProperties["DeadLetterReason"] != "r" || letters[0].ApplicationProperties["DeadLetterErrorDescription"] != "d" {
		t.Fatalf("%v %v", letters, err)
	}
	if c := s.Counts("q"); c.Active+c.Deferred+c.Locked+c.DeadLetter != 0 {
		t.Fatalf("%+v", c)
	}
}

func TestDeleteTopicEndsSubscriptions(t *testing.T) {
	s := start(t, Options{})
	s.Subscription("news", "a", Entity{})
	client := connect(t, s)
	sender := newSender(t, client, "news")
	send(t, sender, "x")
	receiver, err := client.NewReceiverForSubscription("news", "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, receiver.Close)
	receive(t, receiver, 1)
	s.Delete("news")
	if _, err := receiver.ReceiveMessages(background(t), 1, nil); condition(err) != amqp.ErrCondNotFound {
		t.Fatalf("receive: %v", err)
	}
	if err := sender.SendMessage(background(t), &azservicebus.Message{}, nil); condition(err) != amqp.ErrCondNotFound {
		t.Fatalf("send: %v", err)
	}
	for _, wrong := range []string{"news", "news/Subscriptions/a", "news/Subscriptions/a/$DeadLetterQueue"} {
		if err := s.Put(wrong, amqp.NewMessage(nil)); err == nil {
			t.Errorf("%s is still there", wrong)
		}
	}
}

// TestSessionWindow delivers no more frames than the client's session takes, then the rest.
func TestSessionWindow(t *testing.T) {
	s := start(t, Options{})
	s.Queue("big", Entity{MaxMessageBytes: 1 << 20})
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newConn(s, &wire{Conn: ours, muted: &s.muted})
	c.opened, c.peerMax = true, minMaxFrame
	if err := s.Put("big", amqp.NewMessage(make([]byte, 1000)), amqp.NewMessage(make([]byte, 1000))); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	defer c.cut()
	se := &session{c: c, links: map[uint32]*link{}, unsettled: map[uint32]lent{}, window: 2}
	c.sessions[0] = se
	if err := se.attach(attach{name: "l", receiver: true, sourceAddress: "big"}, nil); err != nil {
		t.Fatal(err)
	}
	give := func(credit, seen, window uint32) {
		t.Helper()
		w := flow{hasHandle: credit > 0, credit: credit, incomingKnown: true, nextIncoming: seen, incomingWindow: window}
		if err := se.flow(w, nil); err != nil {
			t.Fatal(err)
		}
	}
	give(5, 0, 2)
	if se.nextOutgoing != 2 || len(se.blocked) == 0 || se.nextDelivery != 1 {
		t.Fatalf("after two frames: %d sent, %d wait, %d deliveries", se.nextOutgoing, len(se.blocked), se.nextDelivery)
	}
	give(0, 2, 100)
	if se.nextDelivery != 2 || len(se.blocked) != 0 || se.window != 102-se.nextOutgoing {
		t.Fatalf("with more room: %d sent, %d wait, %d deliveries, room for %d", se.nextOutgoing, len(se.blocked), se.nextDelivery, se.window)
	}
}
