package kafka

import (
	"context"
	"errors"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Receive implements message.Stream.
func (m *member) Receive(ctx context.Context) (message.Batch, error) {
	for {
		var b message.Batch
		if err := m.ended(); err != nil {
			return b, err
		}
		space := m.prepare(&b)
		err := m.fill(&b, space, func(p *part, d *message.Delivery) {
			d.Handle = p
			p.track.lend(d.Mark.Next-1, d.Size())
		})
		if err != nil {
			m.fail(err) // the next call tells, after what is good has been delivered
		}
		if len(b.Deliveries) > 0 || b.Gap != nil || len(b.Revoked) > 0 {
			return b, nil
		}
		if err := m.wait(ctx); err != nil {
			return b, err
		}
	}
}

// prepare puts what was revoked and what was released into a batch, and tells how much
// room the window leaves for more.
func (m *member) prepare(b *message.Batch) room {
	m.mu().Lock()
	defer m.mu().Unlock()
	b.Revoked, m.revoked = m.revoked, nil
	for _, again := range m.again {
		b.Deliveries = append(b.Deliveries, again.d)
	}
	m.again = nil
	space := room{
		messages: m.sub.Window.Messages - m.messages,
		bytes:    m.sub.Window.Bytes - m.bytes,
		lone:     m.messages == 0,
	}
	if m.span >= maxSpan {
		space.messages = 0
	}
	return space
}

// Settle implements message.Stream. A message that is rejected counts as done: Kafka has
// no place to put it aside.
func (m *member) Settle(ctx context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	stale := m.note(how, deliveries)
	signal(m.wake) // there may be room now, or something to deliver again
	var err error
	if m.sub.QoS == message.AtMostOnce && how != message.Release {
		err = m.commitNow(ctx, deliveries)
	} else {
		signal(m.dirty)
	}
	if stale {
		return message.ErrStale
	}
	return err
}

// commitNow commits, and waits out a rebalance as long as the deliveries stay ours.
func (m *member) commitNow(ctx context.Context, deliveries []message.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := m.commitAll(ctx)
		if !errors.Is(err, message.ErrStale) {
			return err
		}
		for i := range deliveries {
			if p, ok := deliveries[i].Handle.(*part); ok && p.gone.Load() {
				return message.ErrStale
			}
		}
		if !pause(ctx, heartbeat/20) {
			return message.Errorf(message.Unavailable, "group %s is being rebalanced, and the settlement could not be committed", m.sub.Name)
		}
	}
}

// note takes settlements into account. It reports whether any delivery was not ours.
func (m *member) note(how message.Settlement, deliveries []message.Delivery) (stale bool) {
	m.mu().Lock()
	defer m.mu().Unlock()
	for i := range deliveries {
		d := &deliveries[i]
		p, ok := d.Handle.(*part)
		if !ok || m.closed || p.gone.Load() || p.track == nil || p.track.account != &m.account || p.epoch != d.Epoch {
			stale = true
			continue
		}
		offset := d.Mark.Next - 1
		if how != message.Release {
			p.track.settle(offset)
			continue
		}
		if p.track.owes(offset) {
			next := *d
			next.Attempt = max(next.Attempt, 1) + 1
			m.again = append(m.again, redelivery{p, next})
		}
	}
	return stale
}

// commitLoop commits what is settled, a little later, so that many settlements are one
// commit.
func (m *member) commitLoop() {
	for failures := 0; ; {
		select {
		case <-m.dirty:
		case <-m.ctx.Done():
			return
		}
		if !pause(m.ctx, commitDelay) {
			return
		}
		if err := m.commitAll(m.ctx); err != nil && !errors.Is(err, message.ErrStale) {
			// It stays due. Whoever reads on is not disturbed: the worst that follows is
			// that messages come again.
			pause(m.ctx, backoff(failures, commitDelay, 16*commitDelay))
			failures++
			signal(m.dirty)
			continue
		}
		failures = 0
	}
}

// commitAll commits everything that is settled and not committed yet.
func (m *member) commitAll(ctx context.Context) error {
	m.commits.Lock()
	defer m.commits.Unlock()
	who, due := m.due()
	if len(due) == 0 {
		return nil
	}
	if who == nil {
		return message.ErrStale // between two generations nobody may commit
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	offsets := make(map[partition]committed, len(due))
	for p, to := range due {
		offsets[p.partition] = committed{offset: to}
	}
	if err := m.c.commit(ctx, who.identity, offsets); err != nil {
		if e, ok := errors.AsType[*codeError](err); ok && memberOnly(e.code) {
			return message.ErrStale
		}
		return err
	}
	m.mu().Lock()
	defer m.mu().Unlock()
	for p, to := range due {
		p.track.committed = max(p.track.committed, to)
	}
	return nil
}

// due collects what there is to commit.
func (m *member) due() (*generation, map[*part]int64) {
	m.mu().Lock()
	defer m.mu().Unlock()
	m.reader.mu.Lock()
	defer m.reader.mu.Unlock()
	due := make(map[*part]int64)
	for _, p := range m.reader.order {
		if to, news := p.track.due(); news {
			due[p] = to
		}
	}
	if m.joined == nil || m.joined.ended {
		return nil, due
	}
	return m.joined, due
}

// flush commits what it can before a membership ends. What it can't comes again.
func (m *member) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	_ = m.commitAll(ctx) // at least once: nobody was promised more
}

func (m *member) flushBeforeLeaving() {
	if m.ctx.Err() == nil {
		m.flush(m.ctx)
	}
}
