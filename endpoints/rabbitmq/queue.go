package rabbitmq

import (
	"context"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// batchBytes is how much one Receive returns at most, unless a single message is larger.
// The gateway keeps batches whole, so they should be neither tiny nor huge.
const batchBytes = 64 << 10

// queueStream reads a queue: that of an identity, one that clients share, or a copy for
// one process.
type queueStream struct {
	reader
	spec *spec
	q    queueSpec
	name string // "" when the broker makes one up
	mode message.Mode
	qos  message.QoS

	settling chan struct{} // taken by who settles at at_most_once
	// unsaid is the last delivery of a copy that was received, to be acknowledged when the
	// next are asked for. It is the receiver's.
	unsaid uint64
	from   *session
	handed int    // messages since the last acknowledgement
	inThem int    // bytes
	by     string // the consumer that they came by last
	its    int    // messages that came by that one
}

func (c *consumer) subscribeQueue(ctx context.Context, s *spec, sub message.Subscription) (message.Stream, error) {
	q := &queueStream{spec: s, mode: sub.Mode, qos: sub.QoS, settling: make(chan struct{}, 1)}
	switch {
	case s.queue != "":
		q.name, q.q = s.queue, c.named
	case sub.Mode == message.Broadcast:
		q.q = queueSpec{declare: true, autoDelete: true, exclusive: true}
	default:
		q.name, q.q = c.identityQueue(sub.Name, s), c.own
	}
	q.reader = reader{c: c, window: sub.Window, begin: q.begin, counted: q.count, keep: sub.Mode == message.Broadcast}
	q.what = s.key() + " " + q.name
	if err := q.start(ctx); err != nil {
		return nil, err
	}
	return q, nil
}

// begin declares what is to be read, and reads it.
func (q *queueStream) begin(ctx context.Context, conn *connection, again bool) (*session, *message.Gap, error) {
	var gap *message.Gap
	if again {
		var err error
		if gap, err = q.lostWith(ctx, conn); err != nil {
			return nil, nil, err
		}
	}
	if err := q.c.vetted(ctx, conn.address, q.spec, q.name, &q.q); err != nil {
		return nil, nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, nil, at("a channel for reading", err)
	}
	s := &session{conn: conn, ch: ch, epoch: q.c.epochs.Add(1), tag: "gateway", calls: make(chan struct{}, 1), ledger: newLedger(), next: 1}
	if s.queue, err = q.c.prepare(ch, q.spec, q.name, &q.q); err == nil {
		err = q.consume(s)
	}
	if err != nil {
		_ = ch.Close() // it may be closed already
		return nil, nil, err
	}
	return s, gap, nil
}

func (q *queueStream) consume(s *session) (err error) {
	s.flow.prefetch = min(q.window.Messages, firstPrefetch)
	s.deliveries, err = q.consumer(s, s.tag, s.flow.prefetch)
	return at("queue "+s.queue, err)
}

// count keeps the account of what the broker sends ahead.
func (q *queueStream) count(s *session, d *amqp.Delivery) {
	if prefetch := s.flow.came(sizeOf(d), d.ConsumerTag == s.tag, q.window); prefetch > 0 {
		s.flow.changing = true
		go q.resize(s, prefetch)
	}
}

// sizeOf is about how much memory a delivery takes.
func sizeOf(d *amqp.Delivery) int {
	const overhead = 400
	return overhead + len(d.Body) + 64*len(d.Headers)
}

// lostWith says what went with the session before.
func (q *queueStream) lostWith(ctx context.Context, conn *connection) (*message.Gap, error) {
	if q.name == "" {
		return &message.Gap{Reason: message.GapConnection,
			Detail: "the connection to RabbitMQ was lost, which keeps nothing for a copy meanwhile"}, nil
	}
	there, err := exists(ctx, conn, q.name)
	if err != nil {
		return nil, at("queue "+q.name, err)
	}
	if !there {
		if !q.q.declare {
			return nil, at("queue "+q.name, &amqp.Error{Code: amqp.NotFound, Reason: "NOT_FOUND - no such queue"})
		}
		return recreated(q.name), nil
	}
	return nil, nil
}

// Receive implements message.Stream.
func (q *queueStream) Receive(ctx context.Context) (message.Batch, error) {
	q.acknowledge()
	for {
		b, err := q.take()
		if err != nil || len(b.Deliveries) > 0 || b.Gap != nil {
			return b, err
		}
		if err := q.wait(ctx); err != nil {
			return b, err
		}
	}
}

// acknowledge makes room for more in a copy. Nobody else is interested in whether its
// messages arrive.
func (q *queueStream) acknowledge() {
	if q.from != nil {
		_ = q.from.ch.Ack(q.unsaid, true) // if the channel is gone, so is the queue
		q.mu.Lock()
		if q.by != q.from.tag {
			q.its = 0
		}
		q.from.flow.went(q.handed, q.inThem, q.its)
		q.mu.Unlock()
		q.from, q.handed, q.inThem, q.its = nil, 0, 0, 0
	}
}

// take returns what is ready, as far as the window allows.
func (q *queueStream) take() (b message.Batch, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.ended(); err != nil {
		signal(q.wake) // whoever asks next shall know it too
		return b, err
	}
	q.takeGap(&b)
	room := q.room()
	n := min(q.due(), room.messages)
	if n <= 0 {
		return b, nil
	}
	b.Deliveries = make([]message.Delivery, 0, n)
	for i := range n {
		d := &q.ready[i]
		if d.DeliveryTag != d.by.next {
			break // what comes before it is on its way, by another consumer of the channel
		}
		if _, ok := offsetOf(&d.Delivery); ok {
			q.err = message.Errorf(message.Mismatch, "queue %s is a stream: say so with `type stream` in the endpoint's configuration", d.by.queue)
			return message.Batch{}, q.err
		}
		l := &lent{session: d.by, tag: d.DeliveryTag, wire: sizeOf(&d.Delivery), by: d.ConsumerTag}
		decode(&d.Delivery, &l.Message)
		l.size = l.Size()
		if l.size > room.bytes && !room.lone {
			break
		}
		room.bytes -= l.size
		room.lone = false
		q.lend(&b, &d.Delivery, l)
	}
	q.taken(len(b.Deliveries))
	return b, nil
}

// lend adds a delivery to a batch, and to the account. q.mu is held.
func (q *queueStream) lend(b *message.Batch, d *amqp.Delivery, l *lent) {
	s := l.session
	s.next = l.tag + 1
	if q.mode == message.Broadcast {
		if q.from != s {
			q.handed, q.inThem, q.its = 0, 0, 0
		}
		if q.by != d.ConsumerTag {
			q.by, q.its = d.ConsumerTag, 0
		}
		q.its++
		q.unsaid, q.from = l.tag, s
		q.handed++
		q.inThem += sizeOf(d)
	} else {
		s.ledger.lend(l.tag)
		s.messages++
		s.bytes += l.size
	}
	b.Deliveries = append(b.Deliveries, message.Delivery{
		Message: &l.Message, Lane: s.queue, Attempt: attempt(d), Epoch: s.epoch, Handle: l,
	})
}

// room is what a batch may hold. The first message always fits if lone is set.
type room struct {
	messages, bytes int
	lone            bool
}

// room is what the window leaves. q.mu is held.
func (q *queueStream) room() room {
	r := room{messages: q.window.Messages, bytes: q.window.Bytes, lone: true}
	if s := q.cur; s != nil {
		r.messages -= s.messages
		r.bytes -= s.bytes
		r.lone = s.messages == 0
	}
	if q.qos != message.AtMostOnce { // which settles a batch at a time, at some cost
		r.bytes = min(r.bytes, batchBytes)
	}
	return r
}

// Settle implements message.Stream.
func (q *queueStream) Settle(ctx context.Context, how message.Settlement, deliveries ...message.Delivery) error {
	if q.mode == message.Broadcast {
		return nil // nothing is owed for a copy
	}
	if q.qos == message.AtMostOnce && how != message.Release {
		return q.settleSurely(ctx, how, deliveries)
	}
	_, err := q.note(how, deliveries)
	return err
}

// note tells the broker. It returns the session that the deliveries belong to, if any.
func (q *queueStream) note(how message.Settlement, deliveries []message.Delivery) (*session, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.cur
	stale := s == nil && len(deliveries) > 0
	var told error
	if s != nil {
		for i := range deliveries {
			l, ok := deliveries[i].Handle.(*lent)
			if !ok || l.session != s || deliveries[i].Epoch != s.epoch || !s.ledger.holds(l.tag) {
				stale = true
				continue
			}
			s.messages--
			s.bytes -= l.size
			its := 0
			if l.by == s.tag {
				its = 1
			}
			s.flow.went(1, l.wire, its)
			if how == message.Ack {
				s.ledger.set(l.tag, acked)
				continue
			}
			s.ledger.set(l.tag, over)
			if s.flow.changing {
				s.held = append(s.held, heldBack{l.tag, how == message.Release})
				continue
			}
			told = errors.Join(told, s.ch.Nack(l.tag, false, how == message.Release))
		}
		switch {
		case s.flow.changing: // the broker is told when that is over
		case how == message.Ack:
			told = q.tell(s, deliveries)
		default:
			s.ledger.advance()
		}
	}
	signal(q.wake) // there may be room now
	if stale || told != nil {
		return s, message.ErrStale // a channel that takes nothing is closed: it all comes again
	}
	return s, nil
}

// tell acknowledges what was noted: the settled beginning with one word, and the rest one
// by one. q.mu is held.
func (q *queueStream) tell(s *session, deliveries []message.Delivery) error {
	var err error
	if upTo := s.ledger.advance(); upTo > 0 {
		err = s.ch.Ack(upTo, true)
	}
	for i := range deliveries {
		l, ok := deliveries[i].Handle.(*lent)
		if !ok || l.session != s || l.tag < s.ledger.base || s.ledger.slots[l.tag-s.ledger.base] != acked {
			continue
		}
		s.ledger.set(l.tag, over)
		err = errors.Join(err, s.ch.Ack(l.tag, false))
	}
	return err
}

var (
	_ message.Stream  = (*queueStream)(nil)
	_ message.Stopper = (*queueStream)(nil)
)
