package feed

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// ErrLogClosed is what sessions of a log get after Close.
var ErrLogClosed = errors.New("the shared log was closed")

// Log holds the last messages of one channel, filled by one broker subscription and
// followed by any number of sessions.
type Log struct {
	limit  int
	stream message.Stream
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	before  *chunk   // the link before chunks[0]
	chunks  []*chunk // what is retained, oldest first
	basis   int      // how many of chunks lie before the last gap, and are no place to join
	size    int
	waiting []*follower // sessions that have read everything
	spare   []*follower
	formats []format
	err     error
	woken   time.Time
	timer   *time.Timer // a wake-up that was put off; nil when there is none
	joined  int
}

type format struct {
	enc  entrypoints.Encoder
	refs int
}

// NewLog starts to follow a stream. limit is the log's size in bytes; the newest chunk is
// kept whatever its size. The log owns the stream.
func NewLog(stream message.Stream, limit int) *Log {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Log{limit: limit, stream: stream, cancel: cancel, done: make(chan struct{})}
	l.before = new(chunk)
	if p, ok := stream.(message.Positioned); ok {
		pos := p.Position()
		l.before.end = &pos
	}
	go l.read(ctx)
	return l
}

// read is the log's only writer.
func (l *Log) read(ctx context.Context) {
	defer close(l.done)
	end := l.before.end
	for {
		batch, err := l.stream.Receive(ctx)
		if err != nil {
			l.fail(err)
			return
		}
		if len(batch.Deliveries) == 0 && batch.Gap == nil {
			continue
		}
		gap, rest := batch.Gap, batch.Deliveries
		for gap != nil || len(rest) > 0 {
			n := firstChunk(rest)
			c := newChunk(gap, rest[:n], end)
			gap, rest, end = nil, rest[n:], c.end
			l.append(c)
		}
	}
}

// firstChunk says how many deliveries make the next chunk.
func firstChunk(deliveries []message.Delivery) int {
	size := 0
	for i := range deliveries {
		size += len(deliveries[i].Payload)
		if size > chunkBytes && i > 0 {
			return i
		}
	}
	return len(deliveries)
}

func newChunk(gap *message.Gap, deliveries []message.Delivery, start *message.Position) *chunk {
	c := new(chunk)
	b := &body{gap: gap, deliveries: slices.Clip(deliveries), start: start}
	if start != nil {
		end := start.Clone()
		for i := range deliveries {
			move(&end, deliveries[i].Mark, gap != nil)
		}
		c.end = &end
		c.size += 48 * len(end.Marks)
	}
	for i := range deliveries {
		c.size += deliveries[i].Size()
	}
	c.body.Store(b)
	return c
}

func (l *Log) append(c *chunk) {
	b := c.body.Load()
	for slot, enc := range l.live() {
		if enc != nil {
			_, added := b.encode(slot, enc)
			c.size += added
		}
	}
	l.mu.Lock()
	tail := l.before
	if n := len(l.chunks); n > 0 {
		tail = l.chunks[n-1]
	}
	l.chunks = append(l.chunks, c)
	l.size += c.size
	if b.gap != nil {
		l.basis = len(l.chunks)
	}
	l.trim()
	tail.next.Store(c)
	wake := l.due()
	l.mu.Unlock()
	l.rouse(wake)
}

// live returns the encoders whose sessions would otherwise all encode at once.
func (l *Log) live() (encs [maxFormats]entrypoints.Encoder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, f := range l.formats {
		if f.refs > 0 {
			encs[i] = f.enc
		}
	}
	return encs
}

// trim drops the oldest chunks until the log fits its size.
func (l *Log) trim() {
	n := 0
	for l.size > l.limit && n < len(l.chunks)-1 {
		c := l.chunks[n]
		c.body.Store(nil)
		l.size -= c.size
		l.before.next.Store(lost)
		l.before = c
		n++
	}
	if n > 0 {
		l.chunks = slices.Delete(l.chunks, 0, n)
		l.basis = max(0, l.basis-n)
	}
}

// due returns the sessions to wake now; when the last round was just before, it puts
// them off and returns none.
func (l *Log) due() []*follower {
	if len(l.waiting) == 0 || l.timer != nil {
		return nil
	}
	if wait := wakeEvery - time.Since(l.woken); wait > 0 {
		l.timer = time.AfterFunc(wait, l.wakeLater)
		return nil
	}
	return l.takeWaiting()
}

func (l *Log) takeWaiting() []*follower {
	l.woken = time.Now()
	wake := l.waiting
	l.waiting, l.spare = l.spare[:0], nil
	for _, f := range wake {
		f.parked = -1
	}
	return wake
}

func (l *Log) wakeLater() {
	l.mu.Lock()
	l.timer = nil
	wake := l.takeWaiting()
	l.mu.Unlock()
	l.rouse(wake)
}

// rouse wakes sessions, and keeps the list's memory for the next round.
func (l *Log) rouse(wake []*follower) {
	if len(wake) == 0 {
		return
	}
	for _, f := range wake {
		f.opt.Wake()
	}
	clear(wake)
	l.mu.Lock()
	l.spare = wake
	l.mu.Unlock()
}

// park registers f to be woken at the next append, unless something came meanwhile.
func (l *Log) park(f *follower) (parked bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.at.next.Load() != nil {
		return false, nil
	}
	if l.err != nil {
		return false, l.err
	}
	if f.parked < 0 {
		f.parked = len(l.waiting)
		l.waiting = append(l.waiting, f)
	}
	return true, nil
}

// slot returns where the encoder's wire form is kept, or -1 when there are too many.
func (l *Log) slot(enc entrypoints.Encoder) int {
	name := enc.Format()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.formats {
		if l.formats[i].enc.Format() == name {
			l.formats[i].refs++
			return i
		}
	}
	if len(l.formats) == maxFormats {
		return -1
	}
	l.formats = append(l.formats, format{enc: enc, refs: 1})
	return len(l.formats) - 1
}

// grew accounts for bytes that a session encoded after its chunk was appended.
func (l *Log) grew(c *chunk, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.body.Load() == nil {
		return
	}
	c.size += bytes
	l.size += bytes
	l.trim()
}

// find returns the link from which a session that has read up to pos can follow the log
// without missing anything, and whether there is one. Unless the broker has vouched for
// pos, the log must itself have come as far: a position that is ahead of it may belong to
// a channel that was made anew.
func (l *Log) find(pos *message.Position, vouched bool) (*chunk, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, usable := l.before, l.chunks[l.basis:]
	if l.basis > 0 {
		first = l.chunks[l.basis-1]
	}
	if l.err != nil || first.end == nil || first.end.Origin != pos.Origin || !pos.Covers(first.end) {
		return nil, false
	}
	last := first
	if n := len(usable); n > 0 {
		last = usable[n-1]
	}
	if !vouched && !last.end.Covers(pos) {
		return nil, false
	}
	i, _ := slices.BinarySearchFunc(usable, pos, func(c *chunk, pos *message.Position) int {
		if pos.Covers(c.end) {
			return -1
		}
		return 1
	})
	if i == 0 {
		return first, true
	}
	return usable[i-1], true
}

// oldest and newest return the links before everything and after everything.
func (l *Log) oldest() *chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.before
}

func (l *Log) newest() *chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.chunks); n > 0 {
		return l.chunks[n-1]
	}
	return l.before
}

// fail ends the log: sessions read what is there, and then get err.
func (l *Log) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	wake := l.takeWaiting()
	l.mu.Unlock()
	l.rouse(wake)
}

// Sessions returns how many sessions follow the log.
func (l *Log) Sessions() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.joined
}

// Err returns why the log ended, or nil while it runs.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close ends the subscription, and with it the sessions that follow the log.
func (l *Log) Close(ctx context.Context) error {
	l.fail(ErrLogClosed)
	l.cancel()
	<-l.done
	return l.stream.Close(ctx)
}
