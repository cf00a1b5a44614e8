package servicebustest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

// once makes a fault befall the first operation of its kind.
func once(op Op, f Fault) func(Op, string) *Fault {
	var done atomic.Bool
	return func(asked Op, _ string) *Fault {
		if asked == op && done.CompareAndSwap(false, true) {
			return &f
		}
		return nil
	}
}

func condition(err error) amqp.ErrCond {
	var amqpErr *amqp.Error
	if errors.As(err, &amqpErr) {
		return amqpErr.Condition
	}
	return ""
}

func briefly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestSendFaults(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	sender := newSender(t, client, "q")
	send(t, sender, "before")
	message := &azservicebus.Message{Body: []byte("m")}

	s.OnFault(once(OpSend, Fault{Condition: "com.microsoft:server-busy", Description: "busy"}))
	send(t, sender, "after busy") // the client tries again

	s.OnFault(once(OpSend, Fault{Condition: "amqp:resource-limit-exceeded"}))
	if err := sender.SendMessage(background(t), message, nil); condition(err) != amqp.ErrCondResourceLimitExceeded {
		t.Fatalf("full: %v", err)
	}
	s.OnFault(once(OpSend, Fault{Condition: "amqp:link:detach-forced", Detach: true}))
	send(t, sender, "after detach")

	s.OnFault(once(OpSend, Fault{Silent: true}))
	if err := sender.SendMessage(briefly(t), message, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("silent: %v", err)
	}
	s.OnFault(once(OpSend, Fault{Drop: true}))
	send(t, sender, "twice") // stored, cut, sent again
	s.OnFault(nil)
	want := []string{"before", "after busy", "after detach", "twice", "twice"}
	if got := bodies(receive(t, newReceiver(t, client, "q", nil), 5)); !slices.Equal(got, want) {
		t.Fatalf("stored %q, want %q", got, want)
	}
}

func TestDelayHoldsOneLinkOnly(t *testing.T) {
	s := start(t, Options{})
	s.Queue("other", Entity{})
	client := connect(t, s)
	slow, quick := newSender(t, client, "q"), newSender(t, client, "other")
	send(t, slow, "a")
	send(t, quick, "a")
	s.OnFault(func(op Op, entity string) *Fault {
		if op == OpSend && entity == "q" {
			return &Fault{Delay: 300 * time.Millisecond}
		}
		return nil
	})
	sent := make(chan error, 1)
	began := time.Now()
	go func() { sent <- slow.SendMessage(background(t), &azservicebus.Message{Body: []byte("b")}, nil) }()
	for range 20 {
		send(t, quick, "b")
	}
	if s.Counts("q").Stored != 1 || s.Counts("other").Stored != 21 {
		t.Fatalf("stored %d slowly, %d quickly", s.Counts("q").Stored, s.Counts("other").Stored)
	}
	if err := <-sent; err != nil || time.Since(began) < 300*time.Millisecond {
		t.Fatalf("after %s: %v", time.Since(began), err)
	}
}

func TestDeliverFaults(t *testing.T) {
	s := start(t, Options{})
	s.Queue("q", Entity{LockDuration: 300 * time.Millisecond})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a", "b", "c")
	receiver := newReceiver(t, client, "q", nil)

	s.OnFault(once(OpDeliver, Fault{Delay: 100 * time.Millisecond}))
	if got := bodies(receive(t, receiver, 1)); got[0] != "a" {
		t.Fatalf("delayed: %q", got)
	}
	s.OnFault(once(OpDeliver, Fault{Silent: true}))
	if got := bodies(receive(t, receiver, 1)); got[0] != "c" {
		t.Fatalf("b is lost for now: %q", got)
	}
	s.OnFault(once(OpDeliver, Fault{Condition: "amqp:link:detach-forced"}))
	if got := bodies(receive(t, receiver, 3)); len(got) != 3 {
		t.Fatalf("after detach: %q", got)
	}
	s.OnFault(once(OpDeliver, Fault{Drop: true}))
	if got := bodies(receive(t, receiver, 3)); len(got) != 3 {
		t.Fatalf("after cut: %q", got)
	}
}

func TestSettleFaults(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a", "b", "c", "d")
	receiver := newReceiver(t, client, "q", nil)
	messages := receive(t, receiver, 4)

	s.OnFault(once(OpSettle, Fault{Condition: "com.microsoft:message-lock-lost"}))
	var sbErr *azservicebus.Error
	if err := receiver.CompleteMessage(background(t), messages[0], nil); !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeLockLost {
		t.Fatalf("lock lost: %v", err)
	}
	s.OnFault(once(OpSettle, Fault{Silent: true}))
	if err := receiver.CompleteMessage(briefly(t), messages[1], nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("silent: %v", err)
	}
	s.OnFault(once(OpRenew, Fault{Condition: "com.microsoft:message-lock-lost"}))
	if err := receiver.RenewMessageLock(background(t), messages[2], nil); !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeLockLost {
		t.Fatalf("renew: %v", err)
	}
	s.OnFault(once(OpRenew, Fault{Condition: "com.microsoft:server-busy"}))
	if err := receiver.RenewMessageLock(background(t), messages[2], nil); err != nil {
		t.Fatalf("renew after busy: %v", err)
	}
	s.OnFault(once(OpSettle, Fault{Drop: true}))
	if err := receiver.CompleteMessage(briefly(t), messages[3], nil); err == nil {
		t.Fatal("completed on a cut connection")
	}
	if c := s.Counts("q"); c.Completed != 1 || c.Active != 3 {
		t.Fatalf("%+v", c)
	}
}

func TestAttachAndOpenFaults(t *testing.T) {
	for _, op := range []Op{OpOpen, OpToken, OpAttachSender} {
		t.Run(string(op), func(t *testing.T) {
			s := start(t, Options{})
			s.OnFault(once(op, Fault{Drop: true}))
			send(t, newSender(t, connect(t, s), "q"), "a")
			s.OnFault(once(op, Fault{Delay: 50 * time.Millisecond}))
			send(t, newSender(t, connect(t, s), "q"), "a")
			s.OnFault(once(op, Fault{Condition: "amqp:unauthorized-access", Description: "no"}))
			err := newSender(t, connect(t, s), "q").SendMessage(background(t), &azservicebus.Message{}, nil)
			var sbErr *azservicebus.Error
			if !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeUnauthorizedAccess {
				t.Fatalf("refused: %v", err)
			}
			s.OnFault(once(op, Fault{Silent: true}))
			if err := newSender(t, connect(t, s), "q").SendMessage(briefly(t), &azservicebus.Message{}, nil); err == nil {
				t.Fatal("sent without answer")
			}
		})
	}
}

func TestDropAndResume(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	sender, receiver := newSender(t, client, "q"), newReceiver(t, client, "q", nil)
	send(t, sender, "a")
	if n := s.Drop(); n != 1 || s.Connections() != 0 {
		t.Fatalf("dropped %d, %d are left", n, s.Connections())
	}
	send(t, sender, "b")
	if got := bodies(receive(t, receiver, 2)); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("received %q", got)
	}
	s.Pause()
	if err := sender.SendMessage(briefly(t), &azservicebus.Message{}, nil); err == nil {
		t.Fatal("sent to nobody")
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	send(t, sender, "c")
}

func TestMute(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	sender := newSender(t, client, "q")
	send(t, sender, "a")
	s.Mute(true)
	if err := sender.SendMessage(briefly(t), &azservicebus.Message{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("sent into a black hole: %v", err)
	}
	if err := newSender(t, connect(t, s), "q").SendMessage(briefly(t), &azservicebus.Message{}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("connected to a black hole: %v", err)
	}
	s.Mute(false)
	send(t, sender, "b")
	if c := s.Counts("q"); c.Stored != 2 {
		t.Fatalf("%+v", c)
	}
}
