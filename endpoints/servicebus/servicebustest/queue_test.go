package servicebustest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

func TestSendReceiveComplete(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a", "b", "c")
	receiver := newReceiver(t, client, "q", nil)
	messages := receive(t, receiver, 3)
	if got := bodies(messages); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("received %q", got)
	}
	if c := s.Counts("q"); c.Locked != 3 || c.Active != 3 {
		t.Fatalf("counts while locked: %+v", c)
	}
	for _, m := range messages {
		if err := receiver.CompleteMessage(background(t), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if c := s.Counts("q"); c.Active != 0 || c.Completed != 3 || c.Stored != 3 {
		t.Fatalf("counts at the end: %+v", c)
	}
}

func TestReceiveAndDelete(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a", "b", "c")
	receiver := newReceiver(t, client, "q", &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete})
	if got := bodies(receive(t, receiver, 2)); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("received %q", got)
	}
	if c := s.Counts("q"); c.Active != 1 || c.Locked != 0 || c.Completed != 2 {
		t.Fatalf("%+v", c)
	}
}

func TestBatchKeepsOrderAndProperties(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	sender := newSender(t, client, "q")
	batch, err := sender.NewMessageBatch(background(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		m := &azservicebus.Message{
			Body: []byte{byte(i), 0, 255}, MessageID: to.Ptr(strconv.Itoa(i)), ContentType: to.Ptr("application/octet-stream"), Subject: to.Ptr("s"),
			CorrelationID: to.Ptr("c"), ReplyTo: to.Ptr("r"), To: to.Ptr("t"), PartitionKey: to.Ptr("p"),
			ApplicationProperties: map[string]any{"n": int64(i), "f": 1.5, "b": true, "text": "ü"},
		}
		if err := batch.AddMessage(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := sender.SendMessageBatch(background(t), batch, nil); err != nil {
		t.Fatal(err)
	}
	for i, m := range receive(t, newReceiver(t, client, "q", nil), 100) {
		if !bytes.Equal(m.Body, []byte{byte(i), 0, 255}) || m.MessageID != strconv.Itoa(i) || *m.ContentType != "application/octet-stream" ||
			*m.Subject != "s" || *m.CorrelationID != "c" || *m.ReplyTo != "r" || *m.To != "t" || *m.PartitionKey != "p" {
			t.Fatalf("message %d: %+v", i, m)
		}
		if want := map[string]any{"n": int64(i), "f": 1.5, "b": true, "text": "ü"}; !maps.Equal(m.ApplicationProperties, want) {
			t.Fatalf("properties %v, want %v", m.ApplicationProperties, want)
		}
		if *m.SequenceNumber != int64(i+1) || m.DeliveryCount != 1 || time.Since(*m.EnqueuedTime) > time.Minute || time.Until(*m.LockedUntil) < 20*time.Second {
			t.Fatalf("message %d: sequence %d, delivery %d, enqueued %s, locked until %s", i, *m.SequenceNumber, m.DeliveryCount, m.EnqueuedTime, m.LockedUntil)
		}
	}
}

func TestAbandonGoesToTheFrontAndIsCounted(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a", "b", "c")
	receiver := newReceiver(t, client, "q", nil)
	messages := receive(t, receiver, 2)
	options := &azservicebus.AbandonMessageOptions{PropertiesToModify: map[string]any{"why": "tired"}}
	for _, m := range slices.Backward(messages) {
		if err := receiver.AbandonMessage(background(t), m, options); err != nil {
			t.Fatal(err)
		}
	}
	messages = receive(t, receiver, 3)
	if got := bodies(messages); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("received %q", got)
	}
	if messages[0].DeliveryCount != 2 || messages[1].DeliveryCount != 2 || messages[2].DeliveryCount != 1 {
		t.Fatalf("delivery counts %d %d %d", messages[0].DeliveryCount, messages[1].DeliveryCount, messages[2].DeliveryCount)
	}
	if messages[0].ApplicationProperties["why"] != "tired" {
		t.Fatalf("properties %v", messages[0].ApplicationProperties)
	}
}

func TestDeadLetter(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a")
	receiver := newReceiver(t, client, "q", nil)
	err := receiver.DeadLetterMessage(background(t), receive(t, receiver, 1)[0], &azservicebus.DeadLetterOptions{
		Reason: to.Ptr("bad"), ErrorDescription: to.Ptr("very bad"), PropertiesToModify: map[string]any{"n": int32(1)}})
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Counts("q"); c.DeadLetter != 1 || c.Active != 0 {
		t.Fatalf("%+v", c)
	}
	letters := newReceiver(t, client, "q", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
	m := receive(t, letters, 1)[0]
	if string(m.Body) != "a" || *m.DeadLetterReason != "bad" || *m.DeadLetterErrorDescription != "very bad" || m.ApplicationProperties["n"] != int32(1) {
		t.Fatalf("%+v", m)
	}
	if err := letters.CompleteMessage(background(t), m, nil); err != nil {
		t.Fatal(err)
	}
	if c := s.Counts("q/$DeadLetterQueue"); c.Active != 0 || c.Completed != 1 {
		t.Fatalf("%+v", c)
	}
}

func TestMaxDeliveryCount(t *testing.T) {
	s := start(t, Options{})
	s.Queue("short", Entity{MaxDeliveryCount: 2})
	client := connect(t, s)
	send(t, newSender(t, client, "short"), "a")
	receiver := newReceiver(t, client, "short", nil)
	for range 2 {
		if err := receiver.AbandonMessage(background(t), receive(t, receiver, 1)[0], nil); err != nil {
			t.Fatal(err)
		}
	}
	letters := newReceiver(t, client, "short", &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
	if m := receive(t, letters, 1)[0]; *m.DeadLetterReason != "MaxDeliveryCountExceeded" {
		t.Fatalf("reason %q", *m.DeadLetterReason)
	}
}

func TestLockExpires(t *testing.T) {
	s := start(t, Options{})
	s.Queue("brief", Entity{LockDuration: 150 * time.Millisecond})
	client := connect(t, s)
	send(t, newSender(t, client, "brief"), "a")
	receiver := newReceiver(t, client, "brief", nil)
	first := receive(t, receiver, 1)[0]
	second := receive(t, receiver, 1)[0]
	if second.DeliveryCount != 2 || second.LockToken == first.LockToken {
		t.Fatalf("delivery %d", second.DeliveryCount)
	}
	var sbErr *azservicebus.Error
	if err := receiver.CompleteMessage(background(t), first, nil); !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeLockLost {
		t.Fatalf("complete after the lock: %v", err)
	}
	if err := receiver.RenewMessageLock(background(t), first, nil); !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeLockLost {
		t.Fatalf("renew after the lock: %v", err)
	}
	if c := s.Counts("brief"); c.Expired < 1 {
		t.Fatalf("%+v", c)
	}
}

func TestRenewedLockLasts(t *testing.T) {
	s := start(t, Options{})
	s.Queue("brief", Entity{LockDuration: 300 * time.Millisecond})
	client := connect(t, s)
	send(t, newSender(t, client, "brief"), "a", "b")
	receiver := newReceiver(t, client, "brief", nil)
	messages := receive(t, receiver, 2)
	began := time.Now()
	for time.Since(began) < 800*time.Millisecond {
		before := *messages[0].LockedUntil
		if err := receiver.RenewMessageLock(background(t), messages[0], nil); err != nil {
			t.Fatal(err)
		}
		if messages[0].LockedUntil.Before(before) {
			t.Fatalf("locked until %s, before until %s", messages[0].LockedUntil, before)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if c := s.Counts("brief"); c.Expired != 1 || c.Renewed < 2 {
		t.Fatalf("%+v", c)
	}
	if err := receiver.CompleteMessage(background(t), messages[0], nil); err != nil {
		t.Fatal(err)
	}
}

func TestExpireLocks(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a", "b")
	receiver := newReceiver(t, client, "q", nil)
	receive(t, receiver, 2)
	s.ExpireLocks("q")
	if c := s.Counts("q"); c.Locked != 0 || c.Expired != 2 || c.Active != 2 {
		t.Fatalf("%+v", c)
	}
	if got := bodies(receive(t, receiver, 2)); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("received %q", got)
	}
}

func TestClosedLinkLeavesLocksAndReleaseDoesNot(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a")
	first := newReceiver(t, client, "q", nil)
	m := receive(t, first, 1)[0]
	if err := first.Close(background(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no receiver", func() bool { return s.Counts("q").Receivers == 0 })
	if c := s.Counts("q"); c.Locked != 1 {
		t.Fatalf("%+v", c)
	}
	second := newReceiver(t, client, "q", nil) // settles by $management what came by another link
	if err := second.CompleteMessage(background(t), m, nil); err != nil {
		t.Fatal(err)
	}
	if c := s.Counts("q"); c.Active != 0 || c.Completed != 1 {
		t.Fatalf("%+v", c)
	}
}

func TestDeferAndReceiveDeferred(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a", "b")
	receiver := newReceiver(t, client, "q", nil)
	m := receive(t, receiver, 1)[0]
	if err := receiver.DeferMessage(background(t), m, nil); err != nil {
		t.Fatal(err)
	}
	if c := s.Counts("q"); c.Deferred != 1 || c.Active != 1 {
		t.Fatalf("%+v", c)
	}
	for _, settle := range []func(context.Context, *azservicebus.ReceivedMessage) error{
		func(ctx context.Context, m *azservicebus.ReceivedMessage) error {
			return receiver.AbandonMessage(ctx, m, nil)
		},
		func(ctx context.Context, m *azservicebus.ReceivedMessage) error {
			return receiver.CompleteMessage(ctx, m, nil)
		},
	} {
		deferred, err := receiver.ReceiveDeferredMessages(background(t), []int64{*m.SequenceNumber}, nil)
		if err != nil || len(deferred) != 1 || string(deferred[0].Body) != "a" || deferred[0].State != azservicebus.MessageStateDeferred {
			t.Fatalf("deferred: %v %v", deferred, err)
		}
		if err := settle(background(t), deferred[0]); err != nil {
			t.Fatal(err)
		}
	}
	if c := s.Counts("q"); c.Deferred != 0 || c.Active != 1 {
		t.Fatalf("%+v", c)
	}
	var sbErr *azservicebus.Error
	if _, err := receiver.ReceiveDeferredMessages(background(t), []int64{99}, nil); !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeNotFound {
		t.Fatalf("unknown number: %v", err)
	}
}

func TestPeek(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	sender := newSender(t, client, "q")
	send(t, sender, "locked", "deferred", "active")
	if _, err := sender.ScheduleMessages(background(t), []*azservicebus.Message{{Body: []byte("scheduled")}}, time.Now().Add(time.Hour), nil); err != nil {
		t.Fatal(err)
	}
	receiver := newReceiver(t, client, "q", nil)
	if err := receiver.DeferMessage(background(t), receive(t, receiver, 2)[1], nil); err != nil {
		t.Fatal(err)
	}
	peeked, err := receiver.PeekMessages(background(t), 3, nil)
	if err != nil || !slices.Equal(bodies(peeked), []string{"locked", "deferred", "active"}) {
		t.Fatalf("peeked %q %v", bodies(peeked), err)
	}
	peeked, err = receiver.PeekMessages(background(t), 3, nil)
	if err != nil || !slices.Equal(bodies(peeked), []string{"scheduled"}) || peeked[0].State != azservicebus.MessageStateScheduled {
		t.Fatalf("peeked %q %v", bodies(peeked), err)
	}
	if peeked, err = receiver.PeekMessages(background(t), 3, nil); err != nil || len(peeked) != 0 {
		t.Fatalf("peeked %q %v", bodies(peeked), err)
	}
}

func TestScheduleAndCancel(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	sender := newSender(t, client, "q")
	later := []*azservicebus.Message{{Body: []byte("later")}, {Body: []byte("never")}}
	numbers, err := sender.ScheduleMessages(background(t), later, time.Now().Add(300*time.Millisecond), nil)
	if err != nil || len(numbers) != 2 {
		t.Fatalf("%v %v", numbers, err)
	}
	if err := sender.CancelScheduledMessages(background(t), numbers[1:], nil); err != nil {
		t.Fatal(err)
	}
	annotated := &azservicebus.Message{Body: []byte("annotated"), ScheduledEnqueueTime: to.Ptr(time.Now().Add(350 * time.Millisecond))}
	if err := sender.SendMessage(background(t), annotated, nil); err != nil {
		t.Fatal(err)
	}
	send(t, sender, "now")
	if c := s.Counts("q"); c.Scheduled != 2 || c.Active != 1 {
		t.Fatalf("%+v", c)
	}
	if got := bodies(receive(t, newReceiver(t, client, "q", nil), 3)); !slices.Equal(got, []string{"now", "later", "annotated"}) {
		t.Fatalf("received %q", got)
	}
	var sbErr *azservicebus.Error
	if err := sender.CancelScheduledMessages(background(t), numbers[1:], nil); !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeNotFound {
		t.Fatalf("cancel again: %v", err)
	}
}

func TestTimeToLive(t *testing.T) {
	s := start(t, Options{})
	s.Queue("letters", Entity{DeadLetterExpired: true})
	client := connect(t, s)
	for _, queue := range []string{"q", "letters"} {
		sender := newSender(t, client, queue)
		if err := sender.SendMessage(background(t), &azservicebus.Message{Body: []byte("short"), TimeToLive: to.Ptr(50 * time.Millisecond)}, nil); err != nil {
			t.Fatal(err)
		}
		send(t, sender, "long")
		eventually(t, "expiry in "+queue, func() bool { return s.Counts(queue).Lapsed == 1 })
		if got := bodies(receive(t, newReceiver(t, client, queue, nil), 1)); got[0] != "long" {
			t.Fatalf("received %q", got)
		}
	}
	if a, b := s.Counts("q").DeadLetter, s.Counts("letters").DeadLetter; a != 0 || b != 1 {
		t.Fatalf("dead letters: %d and %d", a, b)
	}
}

func TestPutAndTake(t *testing.T) {
	s := start(t, Options{})
	m := &amqp.Message{
		Data: [][]byte{[]byte("one"), []byte("two")}, ApplicationProperties: map[string]any{"k": "v"},
		Properties: &amqp.MessageProperties{MessageID: "id", GroupID: to.Ptr("g")}, Header: &amqp.MessageHeader{DeliveryCount: 4},
	}
	if err := s.Put("q", m, amqp.NewMessage([]byte("three"))); err != nil {
		t.Fatal(err)
	}
	got, err := s.Take(background(t), "q", 2)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v %v", got, err)
	}
	if len(got[0].Data) != 2 || string(got[0].Data[1]) != "two" || got[0].ApplicationProperties["k"] != "v" || got[0].Properties.MessageID != "id" ||
		*got[0].Properties.GroupID != "g" || got[0].Header.DeliveryCount != 4 || got[0].Annotations["x-opt-sequence-number"] != int64(1) {
		t.Fatalf("%+v", got[0])
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if got, err := s.Take(ctx, "q", 1); len(got) != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v %v", got, err)
	}
	if err := s.Put("missing", m); err == nil {
		t.Fatal("put into nothing")
	}
	if c := s.Counts("q"); c.Active != 0 {
		t.Fatalf("%+v", c)
	}
}

func TestTopic(t *testing.T) {
	s := start(t, Options{})
	s.Topic("news", Entity{})
	s.Subscription("news", "a", Entity{})
	s.Subscription("news", "b", Entity{})
	client := connect(t, s)
	sender := newSender(t, client, "news")
	send(t, sender, "now")
	if _, err := sender.ScheduleMessages(background(t), []*azservicebus.Message{{Body: []byte("later")}}, time.Now().Add(50*time.Millisecond), nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		receiver, err := client.NewReceiverForSubscription("news", name, nil)
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, receiver.Close)
		messages := receive(t, receiver, 2)
		if got := bodies(messages); !slices.Equal(got, []string{"now", "later"}) {
			t.Fatalf("received %q", got)
		}
		if err := receiver.CompleteMessage(background(t), messages[0], nil); err != nil {
			t.Fatal(err)
		}
	}
	if c := s.Counts("news/Subscriptions/a"); c.Completed != 1 || c.Locked != 1 {
		t.Fatalf("%+v", c)
	}
}
