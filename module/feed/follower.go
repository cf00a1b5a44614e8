package feed

import (
	"context"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// follower is a session on the log. While it has a stream of its own (catching up) it
// reads that; otherwise it reads what comes after at.
type follower struct {
	log  *Log
	opt  Options
	open Opener
	slot int
	priv *body // the current part encoded for this session alone, when slot is -1

	at     *chunk // the last link that was read to its end
	on     *chunk // the link after at, while it is read in part,
	part   *body  // and what it carries
	index  int    // how much of part was read
	told   bool   // the gap of the link after at was told
	seq    uint64
	frames [][]byte

	// ahead is where this session already is while the log is still behind it in some
	// partition: what the log repeats is skipped, and cursors are made from pos.
	ahead *message.Position
	pos   message.Position

	// first is what the broker keeps for those who come later, until it was polled.
	first []message.Delivery

	own    *own // catching up; nil when following
	closed bool
	parked int // index in Log.waiting, or -1; guarded by Log.mu
}

// Follow joins the log behind its newest message. What the broker keeps for those who come
// later (retained messages) comes first.
func (l *Log) Follow(opt Options, open Opener) entrypoints.Feed {
	f := l.newFollower(opt, open)
	f.at = l.newest() // before the snapshot: rather twice than not at all
	if s, ok := l.stream.(message.Snapshotter); ok {
		f.first = s.Snapshot()
	}
	return f
}

// FollowFrom joins the log from a position, or, when at is nil, from where open begins.
// What the log no longer has is first read by a stream of the session's own.
func (l *Log) FollowFrom(ctx context.Context, opt Options, at *message.Position, open Opener) (entrypoints.Feed, error) {
	f := l.newFollower(opt, open)
	if at != nil && f.join(at, false) {
		return f, nil
	}
	if err := f.catchUp(ctx, at); err != nil {
		f.leave()
		return nil, err
	}
	return f, nil
}

func (l *Log) newFollower(opt Options, open Opener) *follower {
	f := &follower{log: l, opt: opt, open: open, parked: -1, slot: l.slot(opt.Encoder)}
	l.mu.Lock()
	l.joined++
	l.mu.Unlock()
	return f
}

func (f *follower) leave() {
	l := f.log
	l.mu.Lock()
	defer l.mu.Unlock()
	l.joined--
	if f.slot >= 0 {
		l.formats[f.slot].refs--
	}
	if i := f.parked; i >= 0 {
		last := len(l.waiting) - 1
		l.waiting[i] = l.waiting[last]
		l.waiting[i].parked = i
		l.waiting[last] = nil
		l.waiting = l.waiting[:last]
		f.parked = -1
	}
}

// catchUp reads by a stream of the session's own for now.
func (f *follower) catchUp(ctx context.Context, at *message.Position) error {
	stream, err := f.open(ctx, at)
	if err != nil {
		return err
	}
	f.own = newOwn(stream, f.opt, f.seq)
	return nil
}

// join follows the log from pos on, if the log covers it.
func (f *follower) join(pos *message.Position, vouched bool) bool {
	at, ok := f.log.find(pos, vouched)
	if !ok {
		return false
	}
	f.at, f.part, f.index, f.told = at, nil, 0, false
	f.ahead = nil
	if at.end != nil && !at.end.Covers(pos) {
		ahead := pos.Clone()
		f.ahead, f.pos = &ahead, pos.Clone()
	}
	return true
}

// Poll implements entrypoints.Feed.
func (f *follower) Poll(limit int) (entrypoints.Burst, error) {
	if f.own != nil {
		burst, err := f.own.Poll(limit)
		f.seq = f.own.seq
		if err != nil || !burst.Empty() {
			return burst, err
		}
		if !f.changeOver() {
			return burst, nil
		}
	}
	if len(f.first) > 0 {
		return f.pollFirst(limit), nil
	}
	for {
		burst, fallen, err := f.follow(limit)
		switch {
		case err != nil:
			return burst, err
		case !burst.Empty():
			return burst, nil
		case fallen:
			if gap := f.fallOut(); gap != nil {
				return entrypoints.Burst{Gap: gap, First: f.seq + 1}, nil
			}
			if f.own != nil {
				return f.own.Poll(limit)
			}
			if f.closed {
				return burst, nil
			}
		default:
			if parked, err := f.log.park(f); parked || err != nil {
				return burst, err
			}
		}
	}
}

// pollFirst encodes for this session alone: snapshots differ from one moment to the next.
func (f *follower) pollFirst(limit int) entrypoints.Burst {
	burst := entrypoints.Burst{First: f.seq + 1}
	var buf []byte
	for i := range f.first {
		if limit > 0 && i == limit || len(buf) >= burstBytes {
			break
		}
		buf = f.opt.Encoder.Append(buf, &f.first[i], nil)
		burst.Messages++
	}
	f.first = f.first[burst.Messages:]
	f.seq += uint64(burst.Messages)
	f.frames = append(f.frames[:0], buf)
	burst.Frames, burst.Bytes = f.frames, len(buf)
	return burst
}

// changeOver moves from the session's own stream to the log, once everything that was
// received was polled and the log covers it.
func (f *follower) changeOver() bool {
	pos, ok := f.own.position()
	if !ok || !f.join(&pos, true) {
		return false
	}
	own := f.own
	f.own = nil
	go func() { // leaving the broker must not hold up the session
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		_ = own.Close(ctx) // nothing is unsettled on an assigned stream
	}()
	return true
}

// follow collects what is ready in the log. fallen tells that the next link was dropped.
func (f *follower) follow(limit int) (burst entrypoints.Burst, fallen bool, err error) {
	burst.First = f.seq + 1
	f.frames = f.frames[:0]
	for burst.Bytes < burstBytes && (limit <= 0 || burst.Messages < limit) {
		// A chunk that was begun is read to its end, also if it has been dropped meanwhile
		// and the link to it was cut.
		next, b := f.on, f.part
		if b == nil {
			if next = f.at.next.Load(); next == nil {
				break
			}
			b = next.body.Load()
		}
		if b == nil {
			fallen = true
			break
		}
		if b.gap != nil && !f.told {
			if burst.Messages > 0 {
				break
			}
			burst.Gap, f.told = b.gap, true
		}
		f.on, f.part = next, b
		f.collect(&burst, next, limit)
		if f.index == len(b.deliveries) {
			f.at, f.part, f.index, f.told = next, nil, 0, false
			if f.ahead != nil && next.end.Covers(f.ahead) {
				f.ahead = nil
			}
		}
	}
	f.seq += uint64(burst.Messages)
	burst.Frames = f.frames
	return burst, fallen, nil
}

// collect adds messages of the current part to the burst.
func (f *follower) collect(burst *entrypoints.Burst, c *chunk, limit int) {
	from, to := f.index, len(f.part.deliveries)
	if limit > 0 {
		to = min(to, from+limit-burst.Messages)
	}
	f.index = to
	if to == from {
		return
	}
	if f.ahead != nil {
		f.collectOwn(burst, from, to)
		return
	}
	piece := f.wire(c).piece(from, to)
	f.frames = append(f.frames, piece)
	burst.Messages += to - from
	burst.Bytes += len(piece)
}

// collectOwn encodes for this session alone, leaving out what it already has.
func (f *follower) collectOwn(burst *entrypoints.Burst, from, to int) {
	var buf, cursor []byte
	for i := from; i < to; i++ {
		d := &f.part.deliveries[i]
		if m, ok := f.pos.Find(d.Mark.Channel, d.Mark.Partition); ok && d.Mark.Next <= m.Next {
			continue
		}
		f.pos.Advance(d.Mark)
		if f.opt.Encoder.WantsCursor() {
			cursor = f.pos.AppendCursor(cursor[:0])
		}
		buf = f.opt.Encoder.Append(buf, d, cursor)
		burst.Messages++
	}
	if len(buf) > 0 {
		f.frames = append(f.frames, buf)
		burst.Bytes += len(buf)
	}
}

// wire returns the current part in this session's wire form.
func (f *follower) wire(c *chunk) *wire {
	if f.slot >= 0 {
		w, added := f.part.encode(f.slot, f.opt.Encoder)
		if added > 0 {
			f.log.grew(c, added)
		}
		return w
	}
	if f.priv == nil || &f.priv.deliveries[0] != &f.part.deliveries[0] {
		f.priv = &body{gap: f.part.gap, deliveries: f.part.deliveries, start: f.part.start}
	}
	w, _ := f.priv.encode(0, f.opt.Encoder)
	return w
}

// fallOut is what happens to a session whose next message was dropped from the log: at
// at_least_once it reads on by itself, otherwise it is told of a gap and goes on with
// the oldest message that is still there, or is ended.
func (f *follower) fallOut() *message.Gap {
	if f.opt.QoS == message.AtLeastOnce && f.open != nil {
		if pos, ok := f.position(); ok {
			ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
			defer cancel()
			if err := f.catchUp(ctx, &pos); err == nil {
				return nil
			}
		}
	}
	if f.opt.Slow != nil {
		if !f.closed {
			f.closed = true
			f.opt.Slow()
		}
		return nil
	}
	f.at, f.part, f.index, f.told, f.ahead = f.log.oldest(), nil, 0, false, nil
	return &message.Gap{Reason: message.GapSlow, Detail: "the client read too slowly, and what it had not read was dropped"}
}

// position is where the session is in the channel's history.
func (f *follower) position() (message.Position, bool) {
	switch {
	case f.own != nil:
		return f.own.position()
	case f.ahead != nil:
		return f.pos.Clone(), true
	case f.at.end == nil:
		return message.Position{}, false
	}
	pos := f.at.end.Clone()
	if f.part != nil {
		for i := range f.index {
			pos.Advance(f.part.deliveries[i].Mark)
		}
	}
	return pos, true
}

// Cursor implements entrypoints.Feed.
func (f *follower) Cursor(dst []byte) []byte {
	if pos, ok := f.position(); ok {
		return pos.AppendCursor(dst)
	}
	return dst
}

// Written implements entrypoints.Feed. Nothing is owed for what is broadcast.
func (f *follower) Written(ctx context.Context) error {
	if f.own != nil {
		return f.own.Written(ctx)
	}
	return nil
}

// Settle implements entrypoints.Feed.
func (f *follower) Settle(_ context.Context, _ message.Settlement, seqs ...uint64) error {
	return fmt.Errorf("message %d is part of a broadcast: there is nothing to settle", seqs[0])
}

// Close implements entrypoints.Feed.
func (f *follower) Close(ctx context.Context) error {
	f.leave()
	f.at, f.part, f.first, f.frames = nil, nil, nil, nil
	if f.own != nil {
		return f.own.Close(ctx)
	}
	return nil
}
