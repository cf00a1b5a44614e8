package servicebustest

import (
	"context"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves a namespace with a queue "q" for one test.
func start(t testing.TB, options Options) *Server {
	t.Helper()
	s, err := Listen("127.0.0.1:0", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Queue("q", Entity{})
	return s
}

// background is a context that ends long before the test binary is killed.
func background(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func quickRetries() azservicebus.RetryOptions {
	return azservicebus.RetryOptions{MaxRetries: 3, RetryDelay: 10 * time.Millisecond, MaxRetryDelay: 50 * time.Millisecond}
}

// connect is a client of the namespace, as its connection string says.
func connect(t testing.TB, s *Server) *azservicebus.Client {
	t.Helper()
	client, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), &azservicebus.ClientOptions{RetryOptions: quickRetries()})
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, client.Close)
	return client
}

func closeLater(t testing.TB, closing func(context.Context) error) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = closing(ctx) // the test may have cut it
	})
}

func newSender(t testing.TB, client *azservicebus.Client, entity string) *azservicebus.Sender {
	t.Helper()
	sender, err := client.NewSender(entity, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, sender.Close)
	return sender
}

func newReceiver(t testing.TB, client *azservicebus.Client, queue string, options *azservicebus.ReceiverOptions) *azservicebus.Receiver {
	t.Helper()
	receiver, err := client.NewReceiverForQueue(queue, options)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, receiver.Close)
	return receiver
}

func send(t testing.TB, sender *azservicebus.Sender, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if err := sender.SendMessage(background(t), &azservicebus.Message{Body: []byte(body)}, nil); err != nil {
			t.Fatalf("send %q: %v", body, err)
		}
	}
}

type receiving interface {
	ReceiveMessages(ctx context.Context, maxMessages int, options *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
}

// receive waits for exactly n messages.
func receive(t testing.TB, receiver receiving, n int) []*azservicebus.ReceivedMessage {
	t.Helper()
	var all []*azservicebus.ReceivedMessage
	for len(all) < n {
		messages, err := receiver.ReceiveMessages(background(t), n-len(all), nil)
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		all = append(all, messages...)
	}
	return all
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func bodies(messages []*azservicebus.ReceivedMessage) []string {
	all := make([]string, len(messages))
	for i, m := range messages {
		all[i] = string(m.Body)
	}
	return all
}
