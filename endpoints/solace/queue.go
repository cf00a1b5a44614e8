//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"fmt"

	"solace.dev/go/messaging/pkg/solace/config"
	"solace.dev/go/messaging/pkg/solace/resource"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// subscribeQueue reads the queue of an identity, or one that clients share.
func (c *consumer) subscribeQueue(ctx context.Context, spec *spec, sub message.Subscription) (message.Stream, error) {
	s := &stream{c: c, spec: spec, sub: sub, queue: spec.queue}
	if s.queue == "" {
		s.queue = identityQueue(sub.Name, spec)
	}
	s.what, s.begin = "queue "+s.queue, s.bind
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// bind begins to read the queue. It is made when it is not there and may be made.
func (s *stream) bind(conn link.Conn[*service], again bool) (*session, *message.Gap, error) {
	ss, err := s.open(conn)
	if err == nil || kindOf(err) != message.NotFound {
		return ss, nil, err
	}
	if !s.c.provision {
		if s.spec.queue == "" {
			err = message.Errorf(message.NotFound, "queue %s does not exist at Solace, and `provision off` says that it is not made: "+
				"make it there, subscribed to %q: %w", s.queue, s.spec.topics, err)
		}
		return nil, nil, err
	}
	if err := s.c.makeQueue(conn.C, s.queue); err != nil {
		return nil, nil, err
	}
	if ss, err = s.open(conn); err != nil || !again {
		return ss, nil, err
	}
	return ss, &message.Gap{Reason: message.GapRecreated,
		Detail: "queue " + s.queue + " was gone, with its messages, and was made anew"}, nil
}

// makeQueue makes a durable queue that several sessions can read at a time.
func (c *consumer) makeQueue(svc *service, name string) error {
	p := svc.EndpointProvisioner().WithDurability(true).WithExclusiveAccess(false)
	if c.quotaMB > 0 {
		p = p.WithQuotaMB(c.quotaMB)
	}
	if c.maxRedeliveries > 0 {
		p = p.WithMaxMessageRedelivery(uint(c.maxRedeliveries)) //nolint:gosec // checked
	}
	err := p.Provision(name, true).GetError()
	if kindOf(err) == message.Denied {
		return message.Errorf(message.Denied, "Solace does not let the gateway make queue %s: "+
			"its client profile must allow guaranteed endpoints to be created, or the queue be there: %w", name, err)
	}
	return err
}

// open binds to the queue. The topics of an identity's queue are added to it each time: to
// those that it has, that changes nothing.
func (s *stream) open(conn link.Conn[*service]) (*session, error) {
	b := conn.C.CreatePersistentMessageReceiverBuilder().WithMessageClientAcknowledgement().
		WithRequiredMessageOutcomeSupport(config.PersistentReceiverFailedOutcome, config.PersistentReceiverRejectedOutcome)
	if s.c.provision {
		b = b.WithSubscriptions(subscriptions(s.spec.topics)...)
	}
	flow, err := b.Build(resource.QueueDurableNonExclusive(s.queue))
	if err != nil {
		return nil, err
	}
	ss := &session{
		from: flow, flow: flow, svc: conn.C, epoch: s.c.epochs.Add(1), lane: s.queue, gone: make(chan struct{}), lost: conn.Gone,
	}
	flow.SetTerminationNotificationListener(ss.terminated)
	return ss, flow.Start()
}

func subscriptions(topics []string) []resource.Subscription {
	all := make([]resource.Subscription, len(topics))
	for i, t := range topics {
		all[i] = resource.TopicSubscriptionOf(t)
	}
	return all
}

// outcomes are what Solace calls the settlements.
var outcomes = map[message.Settlement]config.MessageSettlementOutcome{
	message.Ack:     config.PersistentReceiverAcceptedOutcome,
	message.Release: config.PersistentReceiverFailedOutcome,
	message.Reject:  config.PersistentReceiverRejectedOutcome,
}

// Settle implements message.Stream. The library tells the broker: at once what is released
// or rejected, and within a second what is acknowledged.
func (s *stream) Settle(_ context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	if !s.lends() {
		return nil // nothing is owed
	}
	outcome, ok := outcomes[how]
	if !ok {
		return message.Errorf(message.Internal, "settlement %d is unknown", how)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stale := false
	var failed error
	for i := range deliveries {
		m, ok := deliveries[i].Handle.(*incoming)
		if !ok {
			return message.Errorf(message.Internal, "the delivery is not one of the Solace endpoint")
		}
		ss := m.session
		if ss != s.cur || m.at < 0 || deliveries[i].Epoch != ss.epoch {
			stale = true
			continue
		}
		if !ss.svc.enter() {
			stale = true
			continue
		}
		err := ss.flow.Settle(m.in, outcome)
		ss.svc.leave()
		switch {
		case err == nil:
			s.settled(m)
		case isBroken(err):
			stale = true // it is not known here yet that the receiver is over
		default:
			failed = fmt.Errorf("settling a message of queue %s: %w", s.queue, err)
		}
	}
	signal(s.room)
	signal(s.wake)
	switch {
	case failed != nil:
		return failed
	case stale:
		return message.ErrStale
	}
	return nil
}

// settled takes a message out of the account. s.mu is held.
func (s *stream) settled(m *incoming) {
	lent := m.session.lent
	last := len(lent) - 1
	lent[m.at] = lent[last]
	lent[m.at].at = m.at
	lent[last] = nil
	m.session.lent = lent[:last]
	m.at = -1
	s.lent.sub(m)
	s.held.sub(m)
	m.dispose()
}
