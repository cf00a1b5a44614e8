package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// The broker does not say where a stream ends, and not where it attached a consumer either.
// Both have to be seen from what it sends, or does not send.
const (
	// silence is how long nothing comes of a place where something should be, before it is
	// believed that nothing is there.
	silence = 500 * time.Millisecond
	// rest is how long nothing more comes of the last chunk, before it is believed to be
	// complete.
	rest = 40 * time.Millisecond
	// logPrefetch is how many messages of a stream are sent ahead at most. A consumer of a
	// stream can't be replaced without attaching anew, so this suits large messages too.
	logPrefetch = 100
)

// attaching finds the place in a stream where a session begins.
type attaching struct {
	l    *logStream
	conn *connection
}

// attach makes a session that reads from an offset on.
func (a *attaching) attach(offset any) (*session, error) {
	ch, err := a.conn.Channel()
	if err != nil {
		return nil, at("a channel for reading", err)
	}
	queue := a.l.spec.queue
	s := &session{conn: a.conn, ch: ch, epoch: a.l.c.epochs.Add(1), queue: queue, tag: "gateway", calls: make(chan struct{}, 1)}
	if err = ch.Qos(a.credit(), 0, false); err == nil {
		s.deliveries, err = ch.Consume(queue, s.tag, false, false, false, false, amqp.Table{offsetHeader: offset})
	}
	if err != nil {
		_ = ch.Close() // it may be closed already
		return nil, at("stream "+queue, err)
	}
	return s, nil
}

// credit is how many messages the broker sends ahead.
func (a *attaching) credit() int { return min(a.l.window.Messages, logPrefetch) }

// next returns what comes within a while, if anything does.
func next(ctx context.Context, s *session, wait time.Duration) (*amqp.Delivery, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case d, ok := <-s.deliveries:
		if !ok {
			return nil, at("stream "+s.queue, amqp.ErrClosed)
		}
		return &d, nil
	case <-timer.C:
		return nil, nil //nolint:nilnil // nothing came, and that is an answer
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// after begins behind a message that was read before. It reads that message again, to see
// whether it is the same one still.
func (a *attaching) after(ctx context.Context, from start) (*session, *message.Gap, error) {
	for {
		s, err := a.attach(from.next - 1)
		if err != nil {
			return nil, nil, err
		}
		d, err := next(ctx, s, silence)
		if err != nil {
			_ = s.ch.Close()
			return nil, nil, err
		}
		if d != nil {
			return a.compare(s, d, from)
		}
		_ = s.ch.Close()
		// Beyond the end the broker waits for that offset, and drops what comes before it.
		end, err := a.end(ctx)
		if err != nil {
			return nil, nil, err
		}
		if end.next < from.next {
			return a.anew(from, fmt.Sprintf("it ends at offset %d now", end.next))
		}
	}
}

// compare looks at the first message that came of a place.
func (a *attaching) compare(s *session, d *amqp.Delivery, from start) (*session, *message.Gap, error) {
	offset, _ := offsetOf(d)
	s.start, s.peeked = from, []amqp.Delivery{*d}
	switch at := millis(timeOf(d)); {
	case offset == from.next-1 && (from.time == 0 || at == from.time):
		return s, nil, nil
	case offset < from.next:
		_ = s.ch.Close()
		return a.anew(from, fmt.Sprintf("offset %d has another time", offset))
	case offset == from.next:
		return s, nil, nil // what came before it was deleted, and nothing else
	}
	return s, &message.Gap{Reason: message.GapExpired, Detail: fmt.Sprintf(
		"stream %s no longer has offset %d; reading goes on at %d", s.queue, from.next, offset)}, nil
}

// anew begins at the start of a stream that is not the one that was read before.
func (a *attaching) anew(from start, why string) (*session, *message.Gap, error) {
	s, err := a.attach("first")
	if err != nil {
		return nil, nil, err
	}
	return s, &message.Gap{Reason: message.GapRecreated, Detail: fmt.Sprintf(
		"stream %s was made anew since offset %d (%s); reading goes on at its start", s.queue, from.next, why)}, nil
}

// end finds out where a stream ends.
func (a *attaching) end(ctx context.Context) (start, error) {
	s, err := a.latest(ctx)
	if err != nil {
		return start{}, err
	}
	_ = s.ch.Close() // it was only a question
	return s.start, nil
}

// latest begins at the end. What is in the last chunk is read, which tells where that is.
func (a *attaching) latest(ctx context.Context) (*session, error) {
	s, err := a.attach("last")
	if err != nil {
		return nil, err
	}
	s.start.known = true
	for wait, n := silence, 0; ; wait = rest {
		d, err := next(ctx, s, wait)
		if err != nil {
			_ = s.ch.Close()
			return nil, err
		}
		if d == nil {
			return s, s.credit(n)
		}
		if n++; n >= a.credit() {
			if err := s.credit(n); err != nil {
				return nil, err
			}
			n = 0
		}
		s.last = d.DeliveryTag
		offset, _ := offsetOf(d)
		s.start.next, s.start.time = offset+1, millis(timeOf(d))
	}
}

// credit acknowledges what was read in passing.
func (s *session) credit(n int) error {
	if n == 0 {
		return nil
	}
	return at("stream "+s.queue, s.ch.Ack(s.last, true))
}

// since begins at a time. The broker knows seconds, and begins with a whole chunk.
func (a *attaching) since(ctx context.Context, t time.Time) (*session, error) {
	s, err := a.attach(t)
	if err != nil {
		return nil, err
	}
	d, err := next(ctx, s, silence)
	if err == nil && d == nil {
		var end start
		if end, err = a.end(ctx); err == nil {
			s.start = end
			s.start.known = true
		}
	}
	if err != nil {
		_ = s.ch.Close()
		return nil, err
	}
	s.start.notBefore = t
	if d == nil {
		return s, nil
	}
	s.peeked = []amqp.Delivery{*d}
	s.start.next, _ = offsetOf(d)
	s.start.known = true
	return s, nil
}

// missing says what was deleted before a delivery, while the stream was read. Not every
// offset is a message, so a hole alone proves nothing.
func (l *logStream) missing(s *session, d *amqp.Delivery) *message.Gap {
	offset, ok := offsetOf(d)
	if !ok {
		return nil // which Receive complains of
	}
	was := s.seen
	s.seen = offset + 1
	if was == 0 || offset <= was {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, patience)
	defer cancel()
	oldest, err := (&attaching{l: l, conn: s.conn}).oldest(ctx)
	if err == nil && oldest < offset && oldest <= was {
		return nil
	}
	return &message.Gap{Reason: message.GapExpired, Detail: fmt.Sprintf(
		"stream %s no longer has offset %d; reading goes on at %d", s.queue, was, offset)}
}

// oldest is the first offset that a stream has.
func (a *attaching) oldest(ctx context.Context) (int64, error) {
	s, err := within(ctx, func() (*session, error) { return a.attach("first") }, func(s *session) { _ = s.ch.Close() })
	if err != nil {
		return 0, err
	}
	defer s.close(ctx)
	d, err := next(ctx, s, patience)
	if err != nil || d == nil {
		return 0, at("stream "+s.queue, context.DeadlineExceeded)
	}
	offset, _ := offsetOf(d)
	return offset, nil
}
