package mqtt

import (
	"context"
	"errors"
	"sync"

	"github.com/eclipse/paho.golang/paho"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
)

// Feeder publishes to a topic with QoS 1 without waiting for anything but the broker's
// flow control.
type Feeder struct {
	client  *paho.Client
	topic   string
	content []byte
	sent    int64
}

// NewFeeder connects a feeder.
func NewFeeder(addr, topic string) (*Feeder, error) {
	c, err := connect(addr, "feeder", nil)
	if err != nil {
		return nil, err
	}
	return &Feeder{client: c, topic: topic, content: load.Content()}, nil
}

// Publish publishes n messages.
func (f *Feeder) Publish(n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	for range n {
		_, err := f.client.PublishWithOptions(ctx, &paho.Publish{Topic: f.topic, QoS: 1, Payload: f.content},
			paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
		if err != nil {
			return err
		}
		f.sent++
	}
	return nil
}

// Sent is how many messages were published.
func (f *Feeder) Sent() int64 { return f.sent }

// Close ends the connection.
func (f *Feeder) Close() error { return f.client.Disconnect(&paho.Disconnect{}) }

// ConsumeArgs say what a plain client reads.
type ConsumeArgs struct{ Addr, Topic string }

// Consumer is a plain client that reads a topic with QoS 1, as paho's documentation shows.
type Consumer struct {
	mu     sync.Mutex
	client *paho.Client
}

// Start begins to read, and hands every message to f.
func (c *Consumer) Start(args ConsumeArgs, f func([]byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return errors.New("it reads already")
	}
	client, err := connect(args.Addr, "consumer", func(p *paho.Publish) { f(p.Payload) })
	if err != nil {
		return err
	}
	if err := subscribe(client, args.Topic, 1); err != nil {
		return errors.Join(err, client.Disconnect(&paho.Disconnect{}))
	}
	c.client = client
	return nil
}

// Stop ends reading.
func (c *Consumer) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return errors.New("it does not read")
	}
	err := c.client.Disconnect(&paho.Disconnect{})
	c.client = nil
	return err
}
