package rabbitmq

import (
	"context"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// logStream reads a stream queue by its own position, and competes with nobody. Its
// acknowledgements are credit, and settle nothing.
type logStream struct {
	reader
	spec   *spec
	origin uint64
	from   start // where it was asked to begin

	// What follows is guarded by the reader.
	next      int64     // the offset of what is received next
	time      int64     // of the message before, in Unix milliseconds; 0 when unknown
	known     bool      // next is known
	notBefore time.Time // until something was received: what is older is left out

	// unsaid is the last delivery that was received, to be acknowledged when more are asked
	// for. It is the receiver's.
	unsaid uint64
	owed   *session
}

// start is where a session of a log begins.
type start struct {
	next      int64
	time      int64
	known     bool
	notBefore time.Time
	latest    bool
}

func (c *consumer) subscribeLog(ctx context.Context, s *spec, sub message.Subscription) (message.Stream, error) {
	l := &logStream{spec: s, origin: c.fingerprint(s)}
	l.reader = reader{c: c, window: sub.Window, begin: l.begin, adopt: l.adopted, inspect: l.missing}
	var foreign *message.Gap
	switch at := sub.Position; {
	case at == nil:
		l.from = startOf(sub.From)
	case at.Origin != l.origin:
		l.from = startOf(sub.From)
		foreign = &message.Gap{Reason: message.GapForeign, Detail: "the cursor belongs to another channel or broker"}
	default:
		if m, ok := at.Find(s.queue, 0); ok {
			l.from = start{next: m.Next, time: m.Time, known: true}
		}
	}
	l.gap, l.what = foreign, s.key()
	if err := l.start(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// startOf is where to begin without a position: the zero start is the beginning.
func startOf(from message.Start) start {
	switch from.Kind {
	case message.StartEarliest:
		return start{}
	case message.StartTime:
		return start{notBefore: from.Time}
	}
	return start{latest: true}
}

// adopted takes over where a session begins.
func (l *logStream) adopted(s *session) {
	l.next, l.time, l.known, l.notBefore = s.start.next, s.start.time, s.start.known, s.start.notBefore
}

// begin finds the place, and reads on from it.
func (l *logStream) begin(ctx context.Context, conn *connection, again bool) (*session, *message.Gap, error) {
	from := l.from
	if again {
		l.mu.Lock()
		if from.latest || l.known {
			from = start{next: l.next, time: l.time, known: l.known, notBefore: l.notBefore}
		}
		l.mu.Unlock()
	}
	if err := l.ensure(ctx, conn); err != nil {
		return nil, nil, err
	}
	a := &attaching{l: l, conn: conn}
	switch {
	case from.known && from.next > 0:
		return a.after(ctx, from)
	case from.latest:
		s, err := a.latest(ctx)
		return s, nil, err
	case !from.notBefore.IsZero():
		s, err := a.since(ctx, from.notBefore)
		return s, nil, err
	}
	s, err := a.attach("first")
	if err == nil {
		s.start = from
	}
	return s, nil, err
}

// ensure sees to it that the queue is there.
func (l *logStream) ensure(ctx context.Context, conn *connection) error {
	if err := l.c.vetted(ctx, conn.address, l.spec, l.spec.queue, &l.c.named); err != nil {
		return err
	}
	return onChannel(ctx, conn, func(ch *amqp.Channel) error {
		_, err := l.c.prepare(ch, l.spec, l.spec.queue, &l.c.named)
		return err
	})
}

// Position implements message.Positioned. A log that is read from its start, wherever that
// is, has no mark before something of it was received.
func (l *logStream) Position() message.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := message.Position{Origin: l.origin}
	if l.known {
		p.Marks = []message.Mark{{Channel: l.spec.queue, Next: l.next, Time: l.time}}
	}
	return p
}

// Receive implements message.Stream.
func (l *logStream) Receive(ctx context.Context) (message.Batch, error) {
	if l.owed != nil {
		_ = l.owed.ch.Ack(l.unsaid, true) // on a channel that is gone it is not needed
		l.owed = nil
	}
	for {
		b, err := l.take()
		if err != nil || len(b.Deliveries) > 0 || b.Gap != nil {
			return b, err
		}
		if err := l.wait(ctx); err != nil {
			return b, err
		}
	}
}

// take returns what is ready, as far as the window allows.
func (l *logStream) take() (b message.Batch, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ended(); err != nil {
		signal(l.wake) // whoever asks next shall know it too
		return b, err
	}
	l.takeGap(&b)
	room := room{messages: l.window.Messages, bytes: min(l.window.Bytes, batchBytes), lone: true}
	n := 0
	for ; n < l.due() && len(b.Deliveries) < room.messages; n++ {
		d := &l.ready[n]
		offset, ok := offsetOf(&d.Delivery)
		if !ok {
			l.err = message.Errorf(message.Mismatch, "queue %s is no stream, though the endpoint's configuration says so", l.spec.queue)
			return message.Batch{}, l.err
		}
		if l.skips(d, offset) {
			l.unsaid, l.owed = d.DeliveryTag, d.by
			continue
		}
		m := l.message(d, offset)
		if size := m.Size(); size > room.bytes && !room.lone {
			break
		} else {
			room.bytes -= size
		}
		room.lone = false
		l.hand(&b, d, m, offset)
	}
	l.taken(n)
	return b, nil
}

// skips reports whether a delivery lies before where reading begins: the broker sends
// whole chunks.
func (l *logStream) skips(d *arrival, offset int64) bool {
	if l.known && offset < l.next {
		return true
	}
	at := timeOf(&d.Delivery)
	return !l.notBefore.IsZero() && !at.IsZero() && at.Before(l.notBefore)
}

func (l *logStream) message(d *arrival, offset int64) *message.Message {
	m := new(message.Message)
	decode(&d.Delivery, m)
	if m.ID == "" {
		m.ID = l.spec.queue + "#" + strconv.FormatInt(offset, 10)
	}
	return m
}

func (l *logStream) hand(b *message.Batch, d *arrival, m *message.Message, offset int64) {
	l.next, l.time, l.known, l.notBefore = offset+1, millis(m.Time), true, time.Time{}
	l.unsaid, l.owed = d.DeliveryTag, d.by
	b.Deliveries = append(b.Deliveries, message.Delivery{
		Message: m, Lane: l.spec.queue, Attempt: 1, Epoch: d.by.epoch,
		Mark: message.Mark{Channel: l.spec.queue, Next: l.next, Time: l.time},
	})
}

// Settle implements message.Stream: nothing is owed to a log.
func (l *logStream) Settle(context.Context, message.Settlement, ...message.Delivery) error {
	return nil
}

// timeOf is when a message was published, as far as it says.
func timeOf(d *amqp.Delivery) time.Time {
	if n, ok := integer(d.Headers[millisHeader]); ok && n > 0 {
		return time.UnixMilli(n)
	}
	return d.Timestamp
}

// millis is a time as a position holds it.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMilli(), 0)
}

var (
	_ message.Stream     = (*logStream)(nil)
	_ message.Positioned = (*logStream)(nil)
)
