//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"strings"

	apimessage "solace.dev/go/messaging/pkg/solace/message"
	"solace.dev/go/messaging/pkg/solace/metrics"

	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// libraryBuffer is how many direct messages the library keeps until the pump takes them,
// which it does as fast as it can.
const libraryBuffer = 4096

// subscribeDirect reads topics for all clients of this process.
func (c *consumer) subscribeDirect(ctx context.Context, spec *spec, sub message.Subscription) (message.Stream, error) {
	s := &stream{c: c, spec: spec, sub: sub}
	s.what, s.begin = "topics "+strings.Join(spec.topics, " "), s.listen
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// listen subscribes.
func (s *stream) listen(conn link.Conn[*service], again bool) (*session, *message.Gap, error) {
	// To drop the oldest, the library would forget messages without freeing them.
	from, err := conn.C.CreateDirectMessageReceiverBuilder().WithSubscriptions(subscriptions(s.spec.topics)...).
		OnBackPressureDropLatest(libraryBuffer).Build()
	if err != nil {
		return nil, nil, err
	}
	ss := &session{from: from, svc: conn.C, epoch: s.c.epochs.Add(1), lane: "direct", gone: make(chan struct{}), lost: conn.Gone}
	from.SetTerminationNotificationListener(ss.terminated)
	ss.discarded = ss.drops()
	if err := from.Start(); err != nil {
		return nil, nil, err
	}
	if !again {
		return ss, nil, nil
	}
	return ss, &message.Gap{Reason: message.GapConnection,
		Detail: "the connection to Solace was lost, which keeps no direct messages meanwhile"}, nil
}

// drops is how many messages the library has dropped.
func (ss *session) drops() uint64 {
	return ss.svc.Metrics().GetValue(metrics.ReceivedMessagesBackpressureDiscarded)
}

// droppedBefore says what is missing before a direct message.
func (s *stream) droppedBefore(ss *session, in apimessage.InboundMessage) *message.Gap {
	switch n := in.GetMessageDiscardNotification(); {
	case n == nil:
		return nil
	case n.HasInternalDiscardIndication():
		ss.discarded = ss.drops()
		return slow("the gateway did not read direct messages fast enough, and Solace's client library dropped some")
	case n.HasBrokerDiscardIndication():
		return slow("the broker dropped direct messages for the gateway, which did not take them fast enough")
	}
	return nil
}

// lookForDrops tells of what the library dropped although nothing came after it.
func (s *stream) lookForDrops(ss *session) {
	drops := ss.drops()
	if drops == ss.discarded {
		return
	}
	ss.discarded = drops
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missed(slow("the gateway did not read direct messages fast enough, and Solace's client library dropped some"))
}
