package endpointtest

import (
	"context"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/message"
)

type fakePublisher struct {
	f     *Fake
	topic string
}

// Publish implements message.Publisher.
func (p *fakePublisher) Publish(ctx context.Context, qos message.QoS, messages ...*message.Message) []message.Result {
	results := make([]message.Result, len(messages))
	b := p.f.Broker
	stalled := p.write(ctx, qos, messages, results)
	if !stalled {
		return results
	}
	wait := b.waiter()
	for wait(ctx) && b.isStalled() {
	}
	for i := range results {
		if ctx.Err() != nil && results[i].Status == message.Stored {
			results[i] = answerLost(ctx.Err())
		}
	}
	return results
}

// write stores the messages and fills in the results. It tells whether the broker's
// answer has to be waited for.
func (p *fakePublisher) write(ctx context.Context, qos message.QoS, messages []*message.Message, results []message.Result) bool {
	p.f.used.Store(true)
	b := p.f.Broker
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := b.channels[p.topic]
	for i, m := range messages {
		switch {
		case ctx.Err() != nil:
			results[i] = message.Result{Status: message.Refused, Err: fmt.Errorf("publish: %w", ctx.Err())}
		case !b.down.IsZero():
			results[i] = message.Result{Status: message.Refused, Err: unavailable()}
		case ch == nil:
			results[i] = message.Result{Status: message.Refused, Err: notFound(p.topic)}
		case p.f.Caps.MaxPayload > 0 && len(m.Payload) > p.f.Caps.MaxPayload:
			results[i] = message.Result{Status: message.Refused, Err: message.Errorf(message.TooLarge,
				"%d bytes are more than the %d that the broker takes", len(m.Payload), p.f.Caps.MaxPayload)}
		case spend(&b.refuse):
			results[i] = message.Result{Status: message.Refused, Err: message.Errorf(message.Denied, "the broker at %s refused it", FakeAddress)}
		default:
			results[i] = p.store(ch, qos, m)
		}
	}
	b.changed()
	return b.stalled && qos != message.None && p.f.Caps.Confirm
}

func (p *fakePublisher) store(ch *fakeChannel, qos message.QoS, m *message.Message) message.Result {
	partition, offset := ch.store(m)
	if qos == message.None || !p.f.Caps.Confirm {
		return message.Result{Status: message.Handed}
	}
	if spend(&p.f.Broker.lose) {
		return answerLost(fmt.Errorf("connection reset"))
	}
	return message.Result{
		Status:   message.Stored,
		ID:       fmt.Sprintf("%d-%d", partition, offset),
		Metadata: []message.Field{message.Text("topic", ch.name), message.Number("partition", int64(partition)), message.Number("offset", offset)},
	}
}

func answerLost(err error) message.Result {
	return message.Result{Err: message.Errorf(message.OutcomeUnknown,
		"the broker at %s did not answer; it may have the message: %w", FakeAddress, err)}
}

func (b *FakeBroker) isStalled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stalled
}

// waiter returns a function that waits for the next change or the end of ctx, and tells
// which. It misses no change since waiter was called.
func (b *FakeBroker) waiter() func(context.Context) bool {
	next := func() chan struct{} {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.wake
	}
	wake := next()
	return func(ctx context.Context) bool {
		select {
		case <-ctx.Done():
			return false
		case <-wake:
			wake = next()
			return true
		}
	}
}
