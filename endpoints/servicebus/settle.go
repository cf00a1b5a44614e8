package servicebus

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// settlers is how many settlements are on their way at a time: the service answers each, and
// the library waits for it.
const settlers = 64

// byClient is what the dead-letter queue tells of a message that a client has rejected.
var byClient = &azservicebus.DeadLetterOptions{
	Reason: to.Ptr("rejected"), ErrorDescription: to.Ptr("a client of the gateway rejected the message"),
}

// Settle implements message.Stream.
func (s *stream) Settle(ctx context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	list, stale := s.claim(deliveries)
	switch {
	case !s.deleting:
		stale = s.settleAll(ctx, how, list) > 0 || stale
	case how != message.Ack && len(list) > 0:
		stale = true // it is deleted, and can't be given back
	}
	s.mu.Lock()
	for _, l := range list {
		s.drop(l)
	}
	s.nudge()
	s.mu.Unlock()
	if len(list) > 0 {
		signal(s.wake) // there is room now for what is ready
		s.freeSessions()
	}
	if stale {
		return message.ErrStale
	}
	return nil
}

// claim takes the deliveries that can be settled. What is not among them was lost.
func (s *stream) claim(deliveries []message.Delivery) (list []*lent, stale bool) {
	list = make([]*lent, 0, len(deliveries))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range deliveries {
		l, ok := deliveries[i].Handle.(*lent)
		if !ok || l.state != isOut || s.err != nil || l.src.over && !s.deleting {
			stale = true
			continue
		}
		l.state = isSettling
		list = append(list, l)
	}
	return list, stale
}

// settleAll tells the service, about many at a time, and returns how many it did not
// confirm.
func (s *stream) settleAll(ctx context.Context, how message.Settlement, list []*lent) int {
	if len(list) == 0 {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begun := time.Now()
	var failed, next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(list)); i = next.Add(1) - 1 {
			if err := tell(ctx, how, list[i]); err != nil {
				failed.Add(1)
			}
		}
	}
	if len(list) == 1 {
		work()
	} else {
		var wg sync.WaitGroup
		for range min(settlers, len(list)) {
			wg.Go(work)
		}
		wg.Wait()
	}
	if failed.Load() > 0 {
		s.complain(ctx, list[0].src.conn, begun)
	}
	return int(failed.Load())
}

// tell settles one message. Its lock, or the connection that it came by, may be lost.
func tell(ctx context.Context, how message.Settlement, l *lent) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.src.ctx, cancel)()
	if err := ctx.Err(); err != nil {
		return err
	}
	switch how {
	case message.Ack:
		return l.src.CompleteMessage(ctx, l.raw, nil)
	case message.Reject:
		return l.src.DeadLetterMessage(ctx, l.raw, byClient)
	default:
		return l.src.AbandonMessage(ctx, l.raw, nil)
	}
}

// giveBack abandons what nobody has received, or was held for too long. What the service has
// deleted can't be given back.
func (s *stream) giveBack(ctx context.Context, list []*lent) {
	switch {
	case len(list) == 0:
	case s.deleting:
		s.c.lost.Note(len(list), errClosed, zap.String("from", s.at.String()))
	default:
		s.settleAll(ctx, message.Release, list)
	}
}
