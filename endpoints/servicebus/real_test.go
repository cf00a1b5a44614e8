package servicebus

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// The environment that names a real namespace (or Microsoft's emulator), and queues in it
// that belong to the tests alone: everything in them is deleted. The lock duration of the
// queue that is read, with or without sessions, should be as short as the service allows.
const (
	realString   = "SERVICE_BUS_CONNECTION_STRING"
	realQueue    = "SERVICE_BUS_QUEUE"         // is read
	realSessions = "SERVICE_BUS_SESSION_QUEUE" // is read, and requires sessions
	realOut      = "SERVICE_BUS_OUT_QUEUE"     // is published to
)

// TestRealPromises checks what TestPromisesOfAQueue and TestPromisesOfSessions do, on the
// real service, but for faults that only a peer of our own has.
func TestRealPromises(t *testing.T) {
	connect, out := os.Getenv(realString), os.Getenv(realOut)
	if connect == "" || out == "" {
		t.Skipf("set %s, %s and %s or %s to queues of your own to run this on a real namespace", realString, realOut, realQueue, realSessions)
	}
	for _, tc := range []struct {
		name, queue string
		consumer    Consumer
	}{
		{"queue", os.Getenv(realQueue), Consumer{Shared: true}},
		{"sessions", os.Getenv(realSessions), Consumer{Shared: true, Sessions: true, ConcurrentSessions: 16}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.queue == "" {
				t.Skipf("neither %s nor %s names one", realQueue, realSessions)
			}
			f := &foreign{connect: connect}
			tc.consumer.Queue = tc.queue
			endpointtest.Run(t, endpointtest.Harness{
				Headers: true, BinaryHeaders: true, Patience: 3 * time.Minute, Quiet: 3 * time.Second,
				New:    func(t *testing.T) *endpointtest.Rig { return f.rig(t, tc.consumer, out) },
				Ignore: []goleak.Option{goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop")},
			})
		})
	}
}

// foreign is the library as a foreign client.
type foreign struct{ connect string }

func (f *foreign) rig(t *testing.T, c Consumer, out string) *endpointtest.Rig {
	f.empty(t, c.Queue, c.Sessions)
	f.empty(t, out, false)
	line := &line{}
	made := func(t *testing.T, connect string, c Consumer, out string) endpoints.Endpoint {
		return provision(t, &ServiceBus{ConnectionString: connect, Consumer: &c, Producer: &Producer{Queue: out}, dial: line.dial})
	}
	missing := c
	missing.Queue = "there-is-no-" + c.Queue
	host, _, err := parseConnectionString(f.connect)
	if err != nil {
		t.Fatal(err)
	}
	return &endpointtest.Rig{
		Endpoint: made(t, f.connect, c, out),
		Produce:  func(t *testing.T, m ...*message.Message) { f.send(t, c.Queue, m) },
		Consume:  func(t *testing.T, n int) []*message.Message { return f.take(t, out, n, 0) },
		DeadLetters: func(t *testing.T, n int) []*message.Message {
			return f.take(t, c.Queue, n, azservicebus.SubQueueDeadLetter)
		},
		Again:   func(t *testing.T) endpoints.Endpoint { return made(t, f.connect, c, out) },
		Missing: func(t *testing.T) endpoints.Endpoint { return made(t, f.connect, missing, "there-is-no-"+out) },
		Unreachable: func(t *testing.T) endpoints.Endpoint {
			return made(t, strings.Replace(f.connect, host, "127.0.0.1:1", 1), c, out)
		},
		Cut:     func(*testing.T) { line.cut() },
		Restore: func(*testing.T) { line.restore() },
	}
}

func (f *foreign) client(t *testing.T) (*azservicebus.Client, context.Context) {
	t.Helper()
	client, err := azservicebus.NewClientFromConnectionString(f.connect, nil)
	if err != nil {
		t.Fatal("the connection string is not one")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return client, ctx
}

func (f *foreign) send(t *testing.T, queue string, messages []*message.Message) {
	t.Helper()
	client, ctx := f.client(t)
	defer client.Close(ctx)
	s, err := client.NewSender(queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		a := &azservicebus.Message{Body: m.Payload, SessionID: to.Ptr(sessionOf(m)), ApplicationProperties: make(map[string]any)}
		for _, h := range m.Headers {
			a.ApplicationProperties[h.Name] = headerValue(nil, h.Value)
		}
		if err := s.SendMessage(ctx, a, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *foreign) take(t *testing.T, queue string, n int, sub azservicebus.SubQueue) []*message.Message {
	t.Helper()
	client, ctx := f.client(t)
	defer client.Close(ctx)
	r, err := client.NewReceiverForQueue(queue, &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete, SubQueue: sub})
	if err != nil {
		t.Fatal(err)
	}
	var all []*message.Message
	for len(all) < n {
		got, err := r.ReceiveMessages(ctx, n-len(all), nil)
		if err != nil {
			t.Fatalf("%s: %d of %d messages: %v", queue, len(all), n, err)
		}
		for _, m := range got {
			all = append(all, &message.Message{Payload: m.Body, Headers: headers(m.ApplicationProperties)})
		}
	}
	return all
}

// empty deletes what earlier tests have left.
func (f *foreign) empty(t *testing.T, queue string, sessions bool) {
	t.Helper()
	client, ctx := f.client(t)
	defer client.Close(ctx)
	drain := func(r receiver) {
		for {
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			got, err := r.ReceiveMessages(short, 100, nil)
			cancel()
			if len(got) == 0 || err != nil {
				_ = r.Close(ctx)
				return
			}
		}
	}
	for _, sub := range []azservicebus.SubQueue{0, azservicebus.SubQueueDeadLetter} {
		if sessions && sub == 0 {
			continue
		}
		r, err := client.NewReceiverForQueue(queue, &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete, SubQueue: sub})
		if err != nil {
			t.Fatal(err)
		}
		drain(r)
	}
	for sessions {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		r, err := client.AcceptNextSessionForQueue(short, queue, &azservicebus.SessionReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete})
		cancel()
		if err != nil {
			return
		}
		drain(r)
	}
}
