package endpointtest

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// FakeAddress is where the fake broker says that it is.
const FakeAddress = "fake.invalid:9092"

// Fake is an endpoint in front of a FakeBroker. It does what its capabilities say, and
// refuses what they do not, so that a test can take away one at a time.
type Fake struct {
	// Broker holds the channels, and fails when told to. Several fakes on one broker are
	// several processes.
	Broker *FakeBroker
	// Caps is what Capabilities answers.
	Caps message.Capabilities
	// Topic is the channel that is read and written. Placeholders are expanded.
	Topic string
	// From is where reading begins when the subscription leaves it to the configuration:
	// StartLatest unless set.
	From message.StartKind

	used atomic.Bool
}

// FakeCapabilities is everything that a fake can do, but for those that contradict each
// other: loans do not expire, and each settlement stands for itself.
var FakeCapabilities = message.Capabilities{
	Publish: true, Confirm: true, Subscribe: true, Copy: true, Exclusive: true, Shared: true,
	ManualSettle: true, Positions: true, DeadLetter: true, Fenced: true, MaxPayload: 1 << 20,
}

// NewFake makes a fake with a broker of its own, which has the channel "fake" with three
// partitions.
func NewFake(caps message.Capabilities) *Fake {
	b := NewFakeBroker(3)
	b.Create("fake")
	return &Fake{Broker: b, Caps: caps, Topic: "fake"}
}

// Produce has somebody else put messages into the channel.
func (f *Fake) Produce(messages ...*message.Message) { f.Broker.Produce(f.Topic, messages...) }

// Messages are all messages that were ever stored in the channel, in their order.
func (f *Fake) Messages() []*message.Message { return f.Broker.Messages(f.Topic) }

// Capabilities implements endpoints.Endpoint.
func (f *Fake) Capabilities() message.Capabilities { return f.Caps }

// Status implements endpoints.Endpoint.
func (f *Fake) Status() endpoints.Status {
	status := endpoints.Status{State: endpoints.Idle, Address: FakeAddress}
	if !f.used.Load() {
		return status
	}
	status.State = endpoints.Up
	if down := f.Broker.downSince(); !down.IsZero() {
		status.State, status.Error, status.Since = endpoints.Down, "connection refused", down
	}
	return status
}

// Probe implements endpoints.Prober.
func (f *Fake) Probe(context.Context) error {
	f.used.Store(true)
	if !f.Broker.downSince().IsZero() {
		return unavailable()
	}
	return nil
}

// Publisher implements endpoints.Publishing.
func (f *Fake) Publisher(values endpoints.Values) (message.Publisher, error) {
	if !f.Caps.Publish {
		return nil, message.Errorf(message.Mismatch, "the fake endpoint has no producer")
	}
	topic, err := values.Name(f.Topic)
	if err != nil {
		return nil, err
	}
	return &fakePublisher{f: f, topic: topic}, nil
}

// Channel implements endpoints.Subscribing.
func (f *Fake) Channel(values endpoints.Values) (endpoints.Channel, error) {
	topic, err := values.Name(f.Topic)
	return endpoints.Channel{Key: topic, Spec: topic}, err
}

// Subscribe implements endpoints.Subscribing.
func (f *Fake) Subscribe(ctx context.Context, channel endpoints.Channel, sub message.Subscription) (message.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !f.can(sub.Mode) {
		return nil, message.Errorf(message.Mismatch, "the fake endpoint can't subscribe as %s", sub.Mode)
	}
	f.used.Store(true)
	if sub.Window.Messages <= 0 {
		sub.Window.Messages = 500
	}
	if sub.Window.Bytes <= 0 {
		sub.Window.Bytes = 1 << 20
	}
	if sub.From.Kind == message.StartDefault {
		sub.From.Kind = f.From
	}
	b := f.Broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.down.IsZero() {
		return nil, unavailable()
	}
	ch, ok := b.channels[channel.Spec.(string)]
	if !ok {
		return nil, notFound(channel.Spec.(string))
	}
	base := fakeStream{f: f, b: b, topic: ch.name, sub: sub, epoch: b.epoch}
	if sub.Mode == message.Member || sub.Mode == message.Shared {
		return newMember(base, ch), nil
	}
	return newReading(base, ch), nil
}

func (f *Fake) can(mode message.Mode) bool {
	switch mode {
	case message.Broadcast:
		return f.Caps.Subscribe && f.Caps.Copy
	case message.Assigned:
		return f.Caps.Subscribe && (f.Caps.Positions || f.Caps.PerSession)
	case message.Member:
		return f.Caps.Subscribe && f.Caps.Exclusive
	default:
		return f.Caps.Subscribe && f.Caps.Shared
	}
}

func unavailable() error {
	return &message.Error{
		Kind: message.Unavailable, RetryAfter: time.Second,
		Detail: "the broker at " + FakeAddress + " can't be reached: connection refused",
	}
}

func notFound(topic string) error {
	return message.Errorf(message.NotFound, "the broker at %s has no channel %q", FakeAddress, topic)
}

var (
	_ endpoints.Endpoint    = (*Fake)(nil)
	_ endpoints.Prober      = (*Fake)(nil)
	_ endpoints.Publishing  = (*Fake)(nil)
	_ endpoints.Subscribing = (*Fake)(nil)
)
