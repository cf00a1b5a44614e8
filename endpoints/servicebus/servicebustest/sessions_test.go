package servicebustest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

func withSessions(t *testing.T, config Entity) (*Server, *azservicebus.Client, *azservicebus.Sender) {
	t.Helper()
	s := start(t, Options{})
	config.Sessions = true
	s.Queue("s", config)
	client := connect(t, s)
	return s, client, newSender(t, client, "s")
}

func sendTo(t *testing.T, sender *azservicebus.Sender, session string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if err := sender.SendMessage(background(t), &azservicebus.Message{Body: []byte(body), SessionID: to.Ptr(session)}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func acceptSession(t *testing.T, client *azservicebus.Client, id string) *azservicebus.SessionReceiver {
	t.Helper()
	receiver, err := client.AcceptSessionForQueue(background(t), "s", id, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, receiver.Close)
	return receiver
}

func TestSessionByName(t *testing.T) {
	_, client, sender := withSessions(t, Entity{})
	sendTo(t, sender, "one", "a", "b")
	sendTo(t, sender, "two", "x")
	receiver := acceptSession(t, client, "one")
	if until := time.Until(receiver.LockedUntil()); until < 20*time.Second || until > 31*time.Second {
		t.Fatalf("locked for %s", until)
	}
	sendTo(t, sender, "one", "c")
	messages := receive(t, receiver, 3)
	if got := bodies(messages); !slices.Equal(got, []string{"a", "b", "c"}) || *messages[0].SessionID != "one" {
		t.Fatalf("received %q of %q", got, *messages[0].SessionID)
	}
	for _, m := range messages {
		if err := receiver.CompleteMessage(background(t), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	before := receiver.LockedUntil()
	if err := receiver.RenewSessionLock(background(t), nil); err != nil || receiver.LockedUntil().Before(before) {
		t.Fatalf("renewed until %s, before %s: %v", receiver.LockedUntil(), before, err)
	}
	peeked, err := receiver.PeekMessages(background(t), 10, nil)
	if err != nil || len(peeked) != 0 {
		t.Fatalf("peeked %q of another session: %v", bodies(peeked), err)
	}
}

func TestSessionCannotBeLockedTwice(t *testing.T) {
	_, client, sender := withSessions(t, Entity{})
	sendTo(t, sender, "one", "a", "b")
	first := acceptSession(t, client, "one")
	receive(t, first, 1)
	var amqpErr *amqp.Error
	if _, err := client.AcceptSessionForQueue(background(t), "s", "one", nil); !errors.As(err, &amqpErr) || amqpErr.Condition != "com.microsoft:session-cannot-be-locked" {
		t.Fatalf("second: %v", err)
	}
	if err := first.Close(background(t)); err != nil {
		t.Fatal(err)
	}
	messages := receive(t, acceptSession(t, client, "one"), 2)
	if got := bodies(messages); !slices.Equal(got, []string{"a", "b"}) || messages[0].DeliveryCount != 1 {
		t.Fatalf("received %q, delivery %d", got, messages[0].DeliveryCount)
	}
}

func TestNextSession(t *testing.T) {
	_, client, sender := withSessions(t, Entity{})
	sendTo(t, sender, "one", "a")
	sendTo(t, sender, "two", "b")
	for _, want := range []string{"one", "two"} {
		receiver, err := client.AcceptNextSessionForQueue(background(t), "s", nil)
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, receiver.Close)
		if receiver.SessionID() != want {
			t.Fatalf("session %q, want %q", receiver.SessionID(), want)
		}
		receive(t, receiver, 1)
	}
}

// TestNoSessionInTime asks below the client, which gives its own context hardly longer than the service.
func TestNoSessionInTime(t *testing.T) {
	s, _, _ := withSessions(t, Entity{})
	_, session := dialRaw(t, s, nil)
	began := time.Now()
	_, err := session.NewReceiver(background(t), "s", &amqp.ReceiverOptions{
		Filters:    []amqp.LinkFilter{amqp.NewLinkFilter(sessionFilter, sessionFilterCode, nil)},
		Properties: map[string]any{"com.microsoft:timeout": uint32(200)},
	})
	if waited := time.Since(began); condition(err) != "com.microsoft:timeout" || waited < 200*time.Millisecond {
		t.Fatalf("after %s: %v", waited, err)
	}
	if c := s.Counts("s"); c.Receivers != 0 {
		t.Fatalf("%+v", c)
	}
}

func TestWaitingForSessions(t *testing.T) {
	const n = 10
	_, client, sender := withSessions(t, Entity{})
	var wg sync.WaitGroup
	got := make(chan string, n)
	for range n {
		wg.Go(func() {
			receiver, err := client.AcceptNextSessionForQueue(background(t), "s", nil)
			if err != nil {
				t.Error(err)
				return
			}
			got <- receiver.SessionID()
			if err := receiver.Close(background(t)); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range n {
		sendTo(t, sender, fmt.Sprint(i), "m")
	}
	wg.Wait()
	if len(got) != n {
		t.Fatalf("%d of %d got a session", len(got), n)
	}
}

func TestSessionLockExpires(t *testing.T) {
	s, client, sender := withSessions(t, Entity{LockDuration: 200 * time.Millisecond})
	sendTo(t, sender, "one", "a")
	first := acceptSession(t, client, "one")
	m := receive(t, first, 1)[0]
	eventually(t, "the session is free", func() bool { return s.Counts("s").Receivers == 0 })
	if c := s.Counts("s"); c.Expired != 1 || c.Locked != 0 {
		t.Fatalf("%+v", c)
	}
	second := acceptSession(t, client, "one")
	if again := receive(t, second, 1)[0]; again.DeliveryCount != 2 {
		t.Fatalf("delivery %d", again.DeliveryCount)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := first.CompleteMessage(ctx, m, nil); err == nil {
		t.Fatal("completed with a lock that is over")
	}
}

func TestSessionState(t *testing.T) {
	_, client, _ := withSessions(t, Entity{})
	receiver := acceptSession(t, client, "one")
	if state, err := receiver.GetSessionState(background(t), nil); err != nil || state != nil {
		t.Fatalf("%q %v", state, err)
	}
	if err := receiver.SetSessionState(background(t), []byte("hello"), nil); err != nil {
		t.Fatal(err)
	}
	if err := receiver.Close(background(t)); err != nil {
		t.Fatal(err)
	}
	if state, err := acceptSession(t, client, "one").GetSessionState(background(t), nil); err != nil || string(state) != "hello" {
		t.Fatalf("%q %v", state, err)
	}
}

func TestSessionsMustFit(t *testing.T) {
	_, client, sender := withSessions(t, Entity{})
	var amqpErr *amqp.Error
	if err := sender.SendMessage(background(t), &azservicebus.Message{}, nil); !errors.As(err, &amqpErr) || amqpErr.Condition != amqp.ErrCondNotAllowed {
		t.Fatalf("send without session: %v", err)
	}
	if _, err := newReceiver(t, client, "s", nil).ReceiveMessages(background(t), 1, nil); !errors.As(err, &amqpErr) || amqpErr.Condition != amqp.ErrCondNotAllowed {
		t.Fatalf("receive without session: %v", err)
	}
	if _, err := client.AcceptSessionForQueue(background(t), "q", "one", nil); !errors.As(err, &amqpErr) || amqpErr.Condition != amqp.ErrCondNotAllowed {
		t.Fatalf("session of an entity without: %v", err)
	}
}

func TestDroppedConnectionFreesSession(t *testing.T) {
	s, client, sender := withSessions(t, Entity{})
	sendTo(t, sender, "one", "a", "b")
	receive(t, acceptSession(t, client, "one"), 2)
	s.Drop()
	messages := receive(t, acceptSession(t, connect(t, s), "one"), 2)
	if got := bodies(messages); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("received %q", got)
	}
}

func TestListSessions(t *testing.T) {
	_, client, sender := withSessions(t, Entity{})
	list := func(options *azservicebus.ListSessionsOptions) (ids []string) {
		for pager := client.NewListSessionsForQueuePager("s", options); pager.More(); {
			page, err := pager.NextPage(background(t))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, page.Sessions...)
		}
		return ids
	}
	if ids := list(nil); len(ids) != 0 {
		t.Fatalf("%q", ids)
	}
	for i := range 250 {
		sendTo(t, sender, fmt.Sprintf("%03d", i), "m")
	}
	began := time.Now().Add(-time.Second)
	receiver := acceptSession(t, client, "007")
	if err := receiver.DeferMessage(background(t), receive(t, receiver, 1)[0], nil); err != nil {
		t.Fatal(err)
	}
	if err := acceptSession(t, client, "empty").SetSessionState(background(t), []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	if ids := list(nil); len(ids) != 251 || ids[7] != "007" || ids[250] != "empty" {
		t.Fatalf("%d sessions: %q", len(ids), ids)
	}
	if ids := list(&azservicebus.ListSessionsOptions{SessionStateUpdatedAfter: &began}); !slices.Equal(ids, []string{"empty"}) {
		t.Fatalf("%q", ids)
	}
}

func TestDeferredInSession(t *testing.T) {
	s, client, sender := withSessions(t, Entity{})
	sendTo(t, sender, "one", "a")
	first := acceptSession(t, client, "one")
	m := receive(t, first, 1)[0]
	if err := first.DeferMessage(background(t), m, nil); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(background(t)); err != nil {
		t.Fatal(err)
	}
	second := acceptSession(t, client, "one")
	deferred, err := second.ReceiveDeferredMessages(background(t), []int64{*m.SequenceNumber}, nil)
	if err != nil || len(deferred) != 1 {
		t.Fatalf("%v %v", deferred, err)
	}
	if err := second.CompleteMessage(background(t), deferred[0], nil); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(background(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.entities["s"].groups) == 0
	})
}
