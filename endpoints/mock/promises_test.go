package mock

import (
	"context"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// provision makes an endpoint ready as the gateway does.
func provision(t testing.TB, m *Mock) *Mock {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if err := m.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	m.logger = zap.NewNop() // debug is on where no Caddy configures the log
	m.SetScope(endpoints.Scope{Owner: "api", Name: "mock"})
	t.Cleanup(func() {
		if err := m.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func subscribe(t testing.TB, m *Mock, sub message.Subscription) message.Stream {
	t.Helper()
	channel, err := m.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := m.Subscribe(t.Context(), channel, sub)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close(context.Background()) })
	return stream
}

func publish(t testing.TB, m *Mock, messages ...*message.Message) []message.Result {
	t.Helper()
	p, err := m.Publisher(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	results := p.Publish(t.Context(), message.Auto, messages...)
	for _, r := range results {
		if r.Status != message.Stored {
			t.Fatalf("published: %+v", r)
		}
	}
	return results
}

// TestPromises runs the suite on the clock and on the loopback.
func TestPromises(t *testing.T) {
	t.Run("clock", func(t *testing.T) {
		endpointtest.Run(t, endpointtest.Harness{
			New: func(t *testing.T) *endpointtest.Rig {
				m := provision(t, &Mock{MessageInterval: new(caddy.Duration(time.Millisecond))})
				return &endpointtest.Rig{Endpoint: m, Generates: true}
			},
			Quiet: 100 * time.Millisecond,
		})
	})
	t.Run("loopback", func(t *testing.T) {
		endpointtest.Run(t, endpointtest.Harness{
			New: loopbackRig, Keys: true, Headers: true, HeaderOrder: true, BinaryHeaders: true,
			Quiet: 50 * time.Millisecond,
		})
	})
}

// loopbackRig has one more subscriber that plays the foreign client.
func loopbackRig(t *testing.T) *endpointtest.Rig {
	m := provision(t, &Mock{Loopback: true})
	foreign := subscribe(t, m, message.Subscription{Window: message.Window{Messages: 10_000, Bytes: 64 << 20}})
	var read []*message.Message
	return &endpointtest.Rig{
		Endpoint: m,
		Produce:  func(t *testing.T, messages ...*message.Message) { publish(t, m, messages...) },
		Consume: func(t *testing.T, n int) []*message.Message {
			for len(read) < n {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				batch, err := foreign.Receive(ctx)
				cancel()
				if err != nil {
					t.Fatalf("read %d of %d: %v", len(read), n, err)
				}
				for _, d := range batch.Deliveries {
					read = append(read, d.Message)
				}
			}
			next := read[:n]
			read = read[n:]
			return next
		},
	}
}
