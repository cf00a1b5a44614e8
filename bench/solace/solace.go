//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"solace.dev/go/messaging"
	"solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/resource"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
)

const grace = 10 * time.Second

// Broker is the peer that everything in one run talks to. It runs in this process, which has
// the CPU of the load.
type Broker struct{ *smftest.Server }

// What says what it is.
const What = "a peer in this process that speaks Solace's protocol"

// Open starts the peer.
func Open() (*Broker, error) {
	s, err := smftest.Listen("127.0.0.1:0", smftest.Options{})
	if err != nil {
		return nil, err
	}
	return &Broker{s}, nil
}

// Close ends it.
func (b *Broker) Close() error {
	b.Server.Close()
	return nil
}

// Topic is a topic that nobody else uses.
func (b *Broker) Topic(name string) string { return fmt.Sprintf("bench/%s/%08x", name, rand.Uint32()) }

// Feeder publishes to a topic, not over the wire.
type Feeder struct {
	b       *Broker
	topic   string
	content []byte
	sent    int64
}

// NewFeeder makes a feeder.
func NewFeeder(b *Broker, topic string) *Feeder {
	return &Feeder{b: b, topic: topic, content: load.Content()}
}

// Publish publishes n messages.
func (f *Feeder) Publish(n int) error {
	for range n {
		if err := f.b.Server.Publish(f.topic, false, smftest.Message{Payload: f.content}); err != nil {
			return err
		}
		f.sent++
	}
	return nil
}

// Sent is how many messages were published.
func (f *Feeder) Sent() int64 { return f.sent }

// Close does nothing.
func (f *Feeder) Close() error { return nil }

// connect connects a plain client.
func connect(url string) (solace.MessagingService, error) {
	service, err := messaging.NewMessagingServiceBuilder().FromConfigurationProvider(config.ServicePropertyMap{
		config.TransportLayerPropertyHost: url, config.ServicePropertyVPNName: "default",
		config.AuthenticationPropertySchemeBasicUserName: "bench", config.AuthenticationPropertySchemeBasicPassword: "bench",
	}).Build()
	if err != nil {
		return nil, err
	}
	return service, service.Connect()
}

// PublishArgs say how a plain client publishes.
type PublishArgs struct {
	URL, Topic string
	Callers    int
	For        time.Duration
}

// Publish has each caller publish a persistent message and wait until the broker has
// acknowledged it.
func Publish(args PublishArgs) (calls plain.Calls, err error) {
	service, err := connect(args.URL)
	if err != nil {
		return calls, err
	}
	defer func() { err = errors.Join(err, service.Disconnect()) }()
	publisher, err := service.CreatePersistentMessagePublisherBuilder().OnBackPressureWait(uint(args.Callers)).Build()
	if err != nil {
		return calls, err
	}
	publisher.SetMessagePublishReceiptListener(func(r solace.PublishReceipt) { r.GetUserContext().(chan error) <- r.GetError() })
	if err := publisher.Start(); err != nil {
		return calls, err
	}
	defer func() { err = errors.Join(err, publisher.Terminate(grace)) }()
	receipts := make([]chan error, args.Callers)
	for i := range receipts {
		receipts[i] = make(chan error, 1)
	}
	content, topic := load.Content(), resource.TopicOf(args.Topic)
	return plain.Repeat(args.Callers, args.For, func(ctx context.Context, caller, _ int) error {
		m, err := service.MessageBuilder().BuildWithByteArrayPayload(content)
		if err != nil {
			return err
		}
		defer m.Dispose()
		if err := publisher.Publish(m, topic, nil, receipts[caller]); err != nil {
			return err
		}
		select {
		case err := <-receipts[caller]:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// ConsumeArgs say what a plain client reads.
type ConsumeArgs struct{ URL, Topic string }

// Consumer is a plain client that reads a topic directly.
type Consumer struct {
	mu       sync.Mutex
	service  solace.MessagingService
	receiver solace.DirectMessageReceiver
}

// Start begins to read, and hands every message to f.
func (c *Consumer) Start(args ConsumeArgs, f func([]byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.service != nil {
		return errors.New("it reads already")
	}
	service, err := connect(args.URL)
	if err != nil {
		return err
	}
	receiver, err := service.CreateDirectMessageReceiverBuilder().OnBackPressureDropOldest(1000).
		WithSubscriptions(resource.TopicSubscriptionOf(args.Topic)).Build()
	if err == nil {
		err = receiver.Start()
	}
	if err == nil {
		err = receiver.ReceiveAsync(func(m message.InboundMessage) {
			payload, _ := m.GetPayloadAsBytes() // of 256 bytes
			f(payload)
			m.Dispose()
		})
	}
	if err != nil {
		return errors.Join(err, service.Disconnect())
	}
	c.service, c.receiver = service, receiver
	return nil
}

// Stop ends reading.
func (c *Consumer) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.service == nil {
		return errors.New("it does not read")
	}
	err := errors.Join(c.receiver.Terminate(grace), c.service.Disconnect())
	c.service, c.receiver = nil, nil
	return err
}
