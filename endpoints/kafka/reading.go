package kafka

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// batchBytes is how much one Receive returns at most, unless a single message is larger.
// The gateway keeps batches whole, so they should be neither tiny nor huge.
const batchBytes = 64 << 10

// reading is where the consumer of a reader stands. Only the consumer touches it.
type reading struct {
	build builder
	p     *part
	rest  []byte // batches of the current segment that were not begun
	batch entry  // the current batch
	open  bool
	at    cursor
	// ahead was decoded and did not fit; it is of the partition from, if there is one.
	ahead message.Delivery
	from  *part
	// touched are the partitions that were read since the reader was last told.
	touched []*part
	// done is how many buffered bytes were read and not yet given back.
	done int
}

// room is what a batch may hold. The first message always fits if lone is set.
type room struct {
	messages, bytes int
	lone            bool
}

// fill reads what is ready into b, as far as there is room. note is called with each
// delivery that is added.
func (r *reader) fill(b *message.Batch, space room, note func(*part, *message.Delivery)) error {
	space.bytes = min(space.bytes, batchBytes)
	defer r.giveBack()
	for space.messages > 0 {
		d, p, err := r.read(b)
		if err != nil || p == nil {
			return err
		}
		size := d.Size()
		if size > space.bytes && !space.lone {
			r.reading.ahead, r.reading.from = d, p
			return nil
		}
		space.messages--
		space.bytes -= size
		space.lone = false
		p.mark, p.unread = d.Mark, false
		if len(b.Deliveries) == cap(b.Deliveries) {
			b.Deliveries = slices.Grow(b.Deliveries, min(r.reading.expect(), space.messages)+1)
		}
		b.Deliveries = append(b.Deliveries, d)
		if note != nil {
			note(p, &b.Deliveries[len(b.Deliveries)-1])
		}
	}
	return nil
}

// expect is how many more deliveries the current batch may have.
func (s *reading) expect() int { return min(int(s.at.left)+len(s.at.old), chunk) }

// read decodes the next delivery, and says of which partition it is: none when nothing
// is ready, or when a gap must be told first.
func (r *reader) read(b *message.Batch) (d message.Delivery, p *part, err error) {
	s := &r.reading
	if d, p = s.ahead, s.from; p != nil {
		s.ahead, s.from = message.Delivery{}, nil
		if !p.gone.Load() {
			return d, p, nil
		}
	}
	for {
		if s.open {
			var rec record
			ok, err := s.at.next(&rec)
			switch {
			case err != nil:
				return d, nil, misread(s.p, s.batch.base, err)
			case !ok || s.p.gone.Load():
				r.endBatch()
			case rec.offset >= s.p.pos:
				return r.deliver(&rec)
			}
			continue
		}
		if more, err := r.nextBatch(b); err != nil || !more {
			return d, nil, err
		}
	}
}

func (r *reader) deliver(rec *record) (message.Delivery, *part, error) {
	s := &r.reading
	d, err := s.build.delivery(s.p, rec, s.expect()+1)
	if err != nil {
		return d, nil, misread(s.p, rec.offset, err)
	}
	s.p.pos = d.Mark.Next
	return d, s.p, nil
}

// endBatch leaves the current batch behind, with whatever compaction has taken from it.
func (r *reader) endBatch() {
	s := &r.reading
	s.p.pos = max(s.p.pos, s.batch.end)
	if s.p.track != nil {
		s.p.track.passed(s.p.pos)
	}
	s.done += len(s.batch.raw)
	s.open, s.batch, s.at = false, entry{}, cursor{}
}

// nextBatch opens the next batch that is ready. It reports false when there is none, or
// when b has messages and the next thing is a gap, which has to come before others.
func (r *reader) nextBatch(b *message.Batch) (bool, error) {
	s := &r.reading
	for {
		if len(s.rest) == 0 {
			if !r.nextSegment(b) {
				return false, nil
			}
		}
		if s.p.gone.Load() {
			s.done += len(s.rest)
			s.rest = nil
			continue
		}
		e, rest, ok, err := nextEntry(s.rest)
		if err != nil || !ok { // not ok can't be: segments hold whole batches
			return false, misread(s.p, s.p.pos, err)
		}
		s.rest = rest
		if e.end <= s.p.pos && e.magic == 2 {
			s.done += len(e.raw)
			continue
		}
		if s.at, err = e.open(); err != nil {
			return false, misread(s.p, e.base, err)
		}
		s.batch, s.open = e, true
		return true, nil
	}
}

// nextSegment takes the next segment from the queue, and gaps on the way to it.
func (r *reader) nextSegment(b *message.Batch) bool {
	s := &r.reading
	for {
		next, ok := r.pop(len(b.Deliveries) == 0)
		if !ok {
			return false
		}
		if next.gap == nil {
			s.p, s.rest = next.p, next.data
			s.touched = append(s.touched, s.p)
			return true
		}
		b.Gap = joinGaps(b.Gap, next.gap)
		next.p.pos, next.p.unread = next.next, false
		next.p.mark.Next, next.p.mark.Time = next.next, 0
		if next.p.track != nil {
			next.p.track.reset(next.next)
		}
	}
}

// pop takes the head of the queue, unless that is a gap and gaps are not wanted now.
func (r *reader) pop(gaps bool) (segment, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		r.queue = nil
		return segment{}, false
	}
	next := r.queue[0]
	if next.gap != nil && !gaps {
		return segment{}, false
	}
	r.queue[0] = segment{}
	r.queue = r.queue[1:]
	return next, true
}

// giveBack makes room for more fetches after what was read.
func (r *reader) giveBack() {
	s := &r.reading
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range s.touched {
		p.last = p.mark
	}
	s.touched = s.touched[:0]
	if s.p != nil { // it may go on
		s.touched = append(s.touched, s.p)
	}
	if s.done > 0 {
		before := r.buffered
		r.buffered -= s.done
		s.done = 0
		if before > r.limit/2 && r.buffered <= r.limit/2 {
			r.ring()
		}
	}
}

// position is where the next read continues. Partitions of which nothing was read yet,
// not even where they begin, are left out: whoever resumes reads them from their start.
func (r *reader) position(origin uint64) message.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := message.Position{Origin: origin, Marks: make([]message.Mark, 0, len(r.order))}
	for _, p := range r.order {
		if p.unread {
			continue
		}
		m := p.mark
		m.Next = p.pos
		if r.reading.from == p {
			m.Next = r.reading.ahead.Mark.Next - 1
		}
		at.Marks = append(at.Marks, m)
	}
	slices.SortFunc(at.Marks, compareMarks)
	return at
}

// wait waits until something may be ready to be read.
func (r *reader) wait(ctx context.Context) error {
	if err := r.ended(); err != nil {
		return err
	}
	select {
	case <-r.wake:
		return r.ended()
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ctx.Done(): // closed, or the whole endpoint was
		return cmp.Or(r.ended(), errClosed)
	}
}

func (r *reader) ended() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		signal(r.wake) // whoever asks next shall know it too
	}
	return r.err
}

// gapAt tells what happened to a partition's position.
func gapAt(reason message.GapReason, at partition, was, now int64) *message.Gap {
	what := "no longer has offset"
	if reason == message.GapRecreated {
		what = "was made anew since offset"
	}
	return &message.Gap{Reason: reason, Detail: fmt.Sprintf(
		"partition %d of topic %s %s %d; reading goes on at %d", at.id, at.topic, what, was, now)}
}

// joinGaps makes one gap of two: the first reason stands.
func joinGaps(a, b *message.Gap) *message.Gap {
	const longest = 500
	switch {
	case a == nil:
		return b
	case b == nil || len(a.Detail) > longest:
		return a
	}
	return &message.Gap{Reason: a.Reason, Detail: a.Detail + "; " + b.Detail}
}
