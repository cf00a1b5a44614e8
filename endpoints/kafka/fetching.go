package kafka

import (
	"context"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// run fetches from one broker until it leads none of our partitions.
func (r *reader) run(broker int32, bell chan struct{}) {
	var asked []ticket
	var want []wanted
	for failures := 0; ; {
		var limit int
		var ok bool
		if asked, want, limit, ok = r.plan(broker, bell, asked[:0], want[:0]); !ok {
			return
		}
		got, err := r.c.fetch(r.ctx, broker, want, limit, limit, fetchWait)
		switch {
		case r.ctx.Err() != nil:
			return
		case message.KindOf(err) == message.Mismatch:
			r.fail(err)
			return
		case err != nil:
			r.c.watch.hurry()
			pause(r.ctx, backoff(failures, 100*time.Millisecond, 2*time.Second))
			failures++
			continue
		}
		failures = 0
		if lost := r.accept(asked, got); len(lost) > 0 {
			r.reposition(broker, lost)
		}
	}
}

// ticket is a question about one partition that a fetch asks.
type ticket struct {
	p *part
	n uint64
}

// plan waits until there is something to fetch from a broker and room for it, and says
// what. It reports false when the broker leads nothing of ours any more.
func (r *reader) plan(broker int32, bell chan struct{}, asked []ticket, want []wanted) ([]ticket, []wanted, int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.ctx.Err() != nil {
			return nil, nil, 0, false
		}
		limit := max(r.limit/2/max(len(r.loops), 1), smallestFetch)
		led, wake := 0, time.Time{}
		now := time.Now()
		r.turn++ // whoever stands first in a request gets served first
		for i := range r.order {
			p := r.order[(i+r.turn)%len(r.order)]
			if p.leader != broker {
				continue
			}
			led++
			if now.Before(p.hold) {
				if wake.IsZero() || p.hold.Before(wake) {
					wake = p.hold
				}
				continue
			}
			if r.buffered > r.limit/2 {
				continue
			}
			p.ticket++
			asked = append(asked, ticket{p, p.ticket})
			want = append(want, wanted{p.partition, p.fetchAt})
			limit = max(limit, p.need)
		}
		if len(want) > 0 {
			return asked, want, limit, true
		}
		if led == 0 {
			delete(r.loops, broker)
			return nil, nil, 0, false
		}
		r.mu.Unlock()
		await(r.ctx, bell, wake)
		r.mu.Lock()
	}
}

// await waits for a bell, for a time if there is one, or for the end.
func await(ctx context.Context, bell <-chan struct{}, until time.Time) {
	var at <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		at = timer.C
	}
	select {
	case <-bell:
	case <-at:
	case <-ctx.Done():
	}
}

// accept takes over what a fetch brought. It returns the partitions whose position the
// broker does not have.
func (r *reader) accept(asked []ticket, got []fetched) (lost []*part) {
	r.mu.Lock()
	hurry := false
	var failure error
	for i := range got {
		f := &got[i]
		p := r.parts[f.partition]
		if p == nil || !slices.Contains(asked, ticket{p, p.ticket}) {
			continue // it went away meanwhile, or to another broker
		}
		switch {
		case f.code == 0:
			if err := r.keep(p, f.data); err != nil {
				failure = misread(p, p.fetchAt, err)
			}
		case f.code == kafkago.OffsetOutOfRange:
			lost = append(lost, p)
		case kindOf(f.code) == message.BadInput: // the broker's own data is damaged
			failure = misread(p, p.fetchAt, kafkaError(f.code))
		case transient(f.code):
			p.hold = time.Now().Add(backoff(1, 100*time.Millisecond, 500*time.Millisecond))
			hurry = true
		default:
			failure = brokerError("topic "+p.topic, f.code)
		}
	}
	r.mu.Unlock()
	if failure != nil {
		r.fail(failure)
	}
	if hurry {
		r.c.watch.hurry()
	}
	return lost
}

// keep queues a partition's data and moves on behind its last whole batch.
func (r *reader) keep(p *part, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	rest := data
	for {
		e, more, ok, err := nextEntry(rest)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		rest = more
		p.fetchAt = max(p.fetchAt, e.end)
	}
	whole := data[:len(data)-len(rest)]
	if len(whole) == 0 {
		p.need = min(max(2*len(data), 2*r.limit), maxFrame)
		return nil
	}
	p.need, p.fresh = 0, false
	r.queue = append(r.queue, segment{p: p, data: whole})
	r.buffered += len(whole)
	signal(r.wake)
	return nil
}

// misread is the end of a stream whose data can't be read.
func misread(p *part, offset int64, err error) error {
	return message.Errorf(message.Internal, "reading partition %d of topic %s from offset %d: %w", p.id, p.topic, offset, err)
}

// reposition moves partitions whose position the broker does not have to where the log
// begins now, and notes the gap, for which whoever reads will be told.
func (r *reader) reposition(broker int32, lost []*part) {
	ctx, cancel := context.WithTimeout(r.ctx, connectTimeout)
	defer cancel()
	places := make([]partition, len(lost))
	for i, p := range lost {
		places[i] = p.partition
	}
	starts, _, err := r.c.offsetsAt(ctx, broker, places, earliest)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range lost {
		start, ok := starts[p.partition]
		if err != nil || !ok || p.gone.Load() {
			p.hold = time.Now().Add(backoff(2, 100*time.Millisecond, 500*time.Millisecond))
			continue
		}
		if !p.fresh {
			reason := message.GapRecreated
			if p.fetchAt < start {
				reason = message.GapExpired
			}
			r.queue = append(r.queue, segment{p: p, gap: gapAt(reason, p.partition, p.fetchAt, start), next: start})
			signal(r.wake)
		}
		p.fetchAt = start
	}
	if err != nil {
		r.c.watch.hurry()
	}
}
