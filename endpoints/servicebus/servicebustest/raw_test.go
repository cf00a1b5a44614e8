package servicebustest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

// dialRaw connects with the AMQP library that is below the Service Bus client.
func dialRaw(t *testing.T, s *Server, options *amqp.ConnOptions) (*amqp.Conn, *amqp.Session) {
	t.Helper()
	if options == nil {
		options = &amqp.ConnOptions{}
	}
	options.SASLType = amqp.SASLTypeAnonymous()
	conn, err := amqp.Dial(background(t), "amqp://"+s.Addr(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	session, err := conn.NewSession(background(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, session
}

func fill(t testing.TB, s *Server, queue string, n int) {
	t.Helper()
	for i := range n {
		if err := s.Put(queue, amqp.NewMessage(fmt.Append(nil, i))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreditIsKept(t *testing.T) {
	s := start(t, Options{})
	fill(t, s, "q", 20)
	_, session := dialRaw(t, s, nil)
	receiver, err := session.NewReceiver(background(t), "q", &amqp.ReceiverOptions{Credit: -1, SettlementMode: amqp.ReceiverSettleModeSecond.Ptr()})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, credit := range []uint32{3, 1, 5} {
		if err := receiver.IssueCredit(credit); err != nil {
			t.Fatal(err)
		}
		for range credit {
			m, err := receiver.Receive(background(t), nil)
			if err != nil || string(m.GetData()) != fmt.Sprint(total) {
				t.Fatalf("message %d: %q %v", total, m.GetData(), err)
			}
			total++
		}
		if c := s.Counts("q"); c.Delivered != int64(total) || c.Credit != 0 {
			t.Fatalf("after %d: %+v", total, c)
		}
	}
}

func TestDrain(t *testing.T) {
	s := start(t, Options{})
	fill(t, s, "q", 2)
	_, session := dialRaw(t, s, nil)
	receiver, err := session.NewReceiver(background(t), "q", &amqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.IssueCredit(10); err != nil {
		t.Fatal(err)
	}
	eventually(t, "delivery", func() bool { return s.Counts("q").Delivered == 2 })
	if err := receiver.DrainCredit(background(t), nil); err != nil {
		t.Fatal(err)
	}
	if c := s.Counts("q"); c.Credit != 0 || c.Delivered != 2 {
		t.Fatalf("%+v", c)
	}
	fill(t, s, "q", 1)
	for range 2 {
		if _, err := receiver.Receive(background(t), nil); err != nil {
			t.Fatal(err)
		}
	}
	if receiver.Prefetched() != nil {
		t.Fatal("a message came without credit")
	}
	if err := receiver.IssueCredit(1); err != nil {
		t.Fatal(err)
	}
	if _, err := receiver.Receive(background(t), nil); err != nil {
		t.Fatal(err)
	}
}

func TestReleasedComesBackUncounted(t *testing.T) {
	s := start(t, Options{})
	fill(t, s, "q", 1)
	_, session := dialRaw(t, s, nil)
	receiver, err := session.NewReceiver(background(t), "q", &amqp.ReceiverOptions{SettlementMode: amqp.ReceiverSettleModeSecond.Ptr()})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		m, err := receiver.Receive(background(t), nil)
		if err != nil || m.Header.DeliveryCount != 0 {
			t.Fatalf("%+v %v", m.Header, err)
		}
		if err := receiver.ReleaseMessage(background(t), m); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSmallFramesAndClientHeartbeat(t *testing.T) {
	s := start(t, Options{IdleTimeout: time.Second})
	fill(t, s, "q", 1)
	_, session := dialRaw(t, s, &amqp.ConnOptions{MaxFrameSize: 512, IdleTimeout: 500 * time.Millisecond})
	big := make([]byte, 100_000)
	sender, err := session.NewSender(background(t), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := session.NewReceiver(background(t), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := receiver.Receive(background(t), nil); err != nil || receiver.AcceptMessage(background(t), m) != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond) // both idle times over
	defer cancel()
	if _, err := receiver.Receive(ctx, nil); ctx.Err() == nil {
		t.Fatalf("while idle: %v", err)
	}
	if err := sender.Send(background(t), amqp.NewMessage(big), nil); err != nil {
		t.Fatal(err)
	}
	if m, err := receiver.Receive(background(t), nil); err != nil || len(m.GetData()) != len(big) {
		t.Fatal(err)
	}
}

func TestRefusedSizesOverTheWire(t *testing.T) {
	s := start(t, Options{})
	s.Queue("small", Entity{MaxMessageBytes: 100_000})
	_, session := dialRaw(t, s, nil)
	sender, err := session.NewSender(background(t), "small", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.entities["small"].config.MaxMessageBytes = 1000 // the client still believes in more
	s.mu.Unlock()
	for _, size := range []int{2000, 90_000} {
		if err := sender.Send(background(t), amqp.NewMessage(make([]byte, size)), nil); condition(err) != amqp.ErrCondMessageSizeExceeded {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if err := sender.Send(background(t), amqp.NewMessage(make([]byte, 500)), nil); err != nil {
		t.Fatal(err)
	}
}
