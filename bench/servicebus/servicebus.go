// Package servicebus provides the benchmarks with an Azure Service Bus namespace, or a peer
// that behaves as one, and with plain clients.
package servicebus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
)

const adminTimeout = 30 * time.Second

// Broker is the peer that everything in one run talks to. It runs in this process, which has
// the CPU of the load.
type Broker struct{ *servicebustest.Server }

// What says what it is.
const What = "a peer in this process that behaves as a Service Bus namespace"

// Open starts the peer.
func Open() (*Broker, error) {
	s, err := servicebustest.Listen("127.0.0.1:0", servicebustest.Options{})
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

// NewQueue makes a queue that nobody else uses.
func (b *Broker) NewQueue(name string) string {
	name = fmt.Sprintf("%s-%08x", name, rand.Uint32())
	b.Queue(name, servicebustest.Entity{})
	return name
}

// Feeder puts messages into a queue, not over the wire.
type Feeder struct {
	b       *Broker
	queue   string
	message *amqp.Message
	sent    int64
}

// NewFeeder makes a feeder.
func NewFeeder(b *Broker, queue string) *Feeder {
	return &Feeder{b: b, queue: queue, message: amqp.NewMessage(load.Content())}
}

// Publish puts n messages.
func (f *Feeder) Publish(n int) error {
	for range n {
		if err := f.b.Put(f.queue, f.message); err != nil {
			return err
		}
		f.sent++
	}
	return nil
}

// Sent is how many messages were put.
func (f *Feeder) Sent() int64 { return f.sent }

// Close does nothing.
func (f *Feeder) Close() error { return nil }

// PublishArgs say how plain clients publish.
type PublishArgs struct {
	ConnectionString, Queue string
	// Callers share so many clients, each with a connection of its own.
	Callers, Clients int
	For              time.Duration
}

// Publish has each caller send a message and wait until it is accepted.
func Publish(args PublishArgs) (calls plain.Calls, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), args.For+2*adminTimeout)
	defer cancel()
	senders := make([]*azservicebus.Sender, args.Clients)
	for i := range senders {
		client, err := azservicebus.NewClientFromConnectionString(args.ConnectionString, nil)
		if err != nil {
			return calls, err
		}
		defer func() { err = errors.Join(err, client.Close(ctx)) }()
		if senders[i], err = client.NewSender(args.Queue, nil); err != nil {
			return calls, err
		}
	}
	content := load.Content()
	return plain.Repeat(args.Callers, args.For, func(ctx context.Context, caller, _ int) error {
		return senders[caller%len(senders)].SendMessage(ctx, &azservicebus.Message{Body: content}, nil)
	})
}

// ConsumeArgs say what a plain client reads.
type ConsumeArgs struct {
	ConnectionString, Queue string
	// Window is how many messages it asks for at a time.
	Window int
}

// Consumer is a plain client that completes each message once it has handed it on, those of a
// batch side by side.
type Consumer struct {
	mu   sync.Mutex
	stop func() error
}

// Start begins to read, and hands every message to f.
func (c *Consumer) Start(args ConsumeArgs, f func([]byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		return errors.New("it reads already")
	}
	client, err := azservicebus.NewClientFromConnectionString(args.ConnectionString, nil)
	if err != nil {
		return err
	}
	receiver, err := client.NewReceiverForQueue(args.Queue, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consume(ctx, receiver, args.Window, f) }()
	c.stop = func() error {
		cancel()
		err := <-ended
		closing, cancel := context.WithTimeout(context.Background(), adminTimeout)
		defer cancel()
		return errors.Join(err, client.Close(closing))
	}
	return nil
}

func consume(ctx context.Context, receiver *azservicebus.Receiver, window int, f func([]byte)) error {
	for {
		messages, err := receiver.ReceiveMessages(ctx, window, nil)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		errs := make([]error, len(messages))
		var wg sync.WaitGroup
		for i, m := range messages {
			f(m.Body)
			wg.Go(func() { errs[i] = receiver.CompleteMessage(ctx, m, nil) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// Stop ends reading.
func (c *Consumer) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil {
		return errors.New("it does not read")
	}
	err := c.stop()
	c.stop = nil
	return err
}
