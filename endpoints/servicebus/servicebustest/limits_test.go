package servicebustest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

func TestUnknownEntity(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	if err := newSender(t, client, "missing").SendMessage(background(t), &azservicebus.Message{}, nil); condition(err) != amqp.ErrCondNotFound {
		t.Fatalf("send: %v", err)
	}
	if _, err := newReceiver(t, client, "missing", nil).ReceiveMessages(background(t), 1, nil); condition(err) != amqp.ErrCondNotFound {
		t.Fatalf("receive: %v", err)
	}
}

func TestDeletedEntity(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	sender := newSender(t, client, "q")
	send(t, sender, "a")
	s.Delete("q")
	if err := sender.SendMessage(background(t), &azservicebus.Message{}, nil); condition(err) != amqp.ErrCondNotFound {
		t.Fatalf("send: %v", err)
	}
	s.Queue("q", Entity{})
	send(t, newSender(t, client, "q"), "b") // the other one stays as it is
	if c := s.Counts("q"); c.Stored != 1 {
		t.Fatalf("%+v", c)
	}
}

func TestDenied(t *testing.T) {
	s := start(t, Options{Deny: func(audience, token string) bool {
		return !strings.Contains(audience+"/", "/q/") || !strings.HasPrefix(token, "SharedAccessSignature sr=")
	}})
	s.Queue("secret", Entity{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a")
	var sbErr *azservicebus.Error
	err := newSender(t, client, "secret").SendMessage(background(t), &azservicebus.Message{}, nil)
	if !errors.As(err, &sbErr) || sbErr.Code != azservicebus.CodeUnauthorizedAccess {
		t.Fatalf("denied: %v", err)
	}
}

func TestNoTokenNoAttach(t *testing.T) {
	s := start(t, Options{Deny: func(string, string) bool { return true }})
	_, session := dialRaw(t, s, nil)
	_, err := session.NewSender(background(t), "q", nil)
	if condition(err) != amqp.ErrCondUnauthorizedAccess {
		t.Fatalf("attached without token: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	s := start(t, Options{})
	s.Queue("small", Entity{MaxMessageBytes: 1000})
	client := connect(t, s)
	sender := newSender(t, client, "small")
	if err := sender.SendMessage(background(t), &azservicebus.Message{Body: make([]byte, 2000)}, nil); !errors.Is(err, azservicebus.ErrMessageTooLarge) {
		t.Fatalf("2000 bytes: %v", err)
	}
	send(t, sender, strings.Repeat("x", 800))
}

func TestFull(t *testing.T) {
	s := start(t, Options{})
	s.Queue("two", Entity{MaxMessages: 2})
	sender := newSender(t, connect(t, s), "two")
	send(t, sender, "a", "b")
	if err := sender.SendMessage(background(t), &azservicebus.Message{}, nil); condition(err) != amqp.ErrCondResourceLimitExceeded {
		t.Fatalf("third: %v", err)
	}
}

func TestManyFramesBothWays(t *testing.T) {
	s := start(t, Options{})
	s.Queue("big", Entity{MaxMessageBytes: 4 << 20})
	client := connect(t, s)
	body := bytes.Repeat([]byte("0123456789abcdef"), 3<<16) // 3 MiB
	sender, receiver := newSender(t, client, "big"), newReceiver(t, client, "big", nil)
	for range 3 {
		send(t, sender, string(body))
	}
	for i, m := range receive(t, receiver, 3) {
		if !bytes.Equal(m.Body, body) {
			t.Fatalf("message %d came with %d bytes, or other ones", i, len(m.Body))
		}
		if err := receiver.CompleteMessage(background(t), m, nil); err != nil {
			t.Fatal(err)
		}
	}
}
