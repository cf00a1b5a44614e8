package kafka

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"
	"unsafe"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// produceTimeout is how long the broker may wait for its replicas, and
	// produceAnswer how long we wait for the broker.
	produceTimeout = 5 * time.Second
	produceAnswer  = 8 * time.Second
	// givenUp is for how long a cluster must have been silent before a message is tried
	// once and not again: waiting for a broker that is gone helps nobody.
	givenUp = 2 * time.Second
)

var (
	errNothingLeft = errors.New("nobody waits for these messages any more")
	errNoLeader    = errors.New("the partition has no leader at the moment")
)

func errBehind(l *lane) error {
	e := message.Errorf(message.Unavailable,
		"not sent: the request before it to partition %d of topic %s has no answer yet", l.partition, l.topic.name)
	e.RetryAfter = retryAfter
	return e
}

// run sends batch after batch until nothing is left.
func (l *lane) run() {
	for l.take() {
		l.watch()
		l.send(l.flight)
	}
}

// send brings a batch to the broker, or settles it otherwise. What is known not to be
// stored is tried again while there is time; what may be stored never is.
func (l *lane) send(batch []*pending) {
	for attempt := 0; len(batch) > 0; attempt++ {
		var res *produce.ResponsePartition
		var sent bool
		batch, res, sent = l.attempt(batch, attempt)
		if res == nil {
			if sent {
				return // settled as unknown
			}
			continue
		}
		switch code := kafkago.Error(res.ErrorCode); verdict(code) {
		case stored:
			l.stored(batch, res)
			return
		case unclear:
			l.settleAll(batch, outcome{status: message.Unknown, err: l.unknown(kafkaError(code))})
			return
		case refused:
			l.refuse(batch, code)
			return
		default:
			batch = l.again(batch, attempt, brokerError(l.where(), code))
		}
	}
}

// attempt makes one try. It returns the broker's answer, or nil and what is left to try.
func (l *lane) attempt(batch []*pending, attempt int) ([]*pending, *produce.ResponsePartition, bool) {
	ctx, cancel := context.WithTimeout(l.topic.p.c.ctx, produceAnswer)
	defer cancel()
	leader := l.topic.leader(l.partition)
	if leader == noLeader {
		return l.again(batch, attempt, l.topic.p.c.unavailable(errNoLeader)), nil, false
	}
	batch, res, err := l.produce(ctx, leader, batch)
	switch {
	case errors.Is(err, errNothingLeft):
		return nil, nil, false
	case err == nil:
		return batch, res, true
	case maybeSent(err):
		l.settleAll(batch, outcome{status: message.Unknown, err: l.unknown(err)})
		return nil, nil, true
	}
	return l.again(batch, attempt, l.topic.p.c.unavailable(err)), nil, false
}

// again prepares another try of what is certainly not stored: it looks who leads now,
// waits a moment, and gives up on what has no time left.
func (l *lane) again(batch []*pending, attempt int, why *message.Error) []*pending {
	p := l.topic.p
	wait := backoff(attempt, 10*time.Millisecond, 400*time.Millisecond)
	err := l.topic.refresh(p.c.ctx)
	if e, ok := errors.AsType[*message.Error](err); ok {
		why = e // what the cluster says of the topic tells more than the failed request
	}
	now := time.Now().Add(wait)
	switch {
	case p.c.health.downFor() > givenUp, p.c.ctx.Err() != nil:
		now = now.Add(time.Hour)
	case why.Kind == message.NotFound && l.topic.missingFor() > unknownFor:
		now = now.Add(time.Hour)
	}
	batch = l.live(batch, why, now)
	if len(batch) > 0 {
		pause(p.c.ctx, wait)
	}
	return batch
}

// ruling is what an error code of a produce answer means for the records.
type ruling uint8

const (
	stored ruling = iota
	retry
	refused
	unclear
)

func verdict(code kafkago.Error) ruling {
	switch code {
	case 0:
		return stored
	case kafkago.RequestTimedOut, kafkago.NotEnoughReplicasAfterAppend, kafkago.Unknown, kafkago.KafkaStorageError,
		kafkago.NetworkException:
		return unclear
	}
	if transient(code) {
		return retry
	}
	return refused
}

// refuse settles what the broker does not take. Which message it minds can't be told
// from the answer, so that a batch is halved until the culprits stand alone: nothing of
// it was stored.
func (l *lane) refuse(batch []*pending, code kafkago.Error) {
	splittable := kindOf(code) == message.TooLarge || kindOf(code) == message.BadInput
	if !splittable || len(batch) == 1 {
		l.settleAll(batch, outcome{status: message.Refused, err: brokerError(l.where(), code)})
		return
	}
	batch = l.live(batch, nil, time.Time{})
	half := len(batch) / 2
	l.send(batch[:half:half])
	l.send(batch[half:])
}

func (l *lane) stored(batch []*pending, res *produce.ResponsePartition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		o := outcome{status: message.Stored, offset: res.BaseOffset + int64(i), time: res.LogAppendTime}
		if o.time < 0 {
			o.time = p.time(l.launched).UnixMilli()
		}
		l.settle(p, o)
	}
}

func (l *lane) where() string { return "topic " + l.topic.name }

func (l *lane) unknown(err error) error {
	return message.Errorf(message.OutcomeUnknown,
		"it was sent to partition %d of topic %s at %s, and whether it is stored is not known: %w",
		l.partition, l.topic.name, l.topic.p.c.address(), legible(err, true))
}

// produce sends one request and returns what of the batch was in it.
func (l *lane) produce(ctx context.Context, leader int32, batch []*pending) ([]*pending, *produce.ResponsePartition, error) {
	c := l.topic.p.c
	var launched []*pending // belongs to the connection until the exchange is over
	m, err := c.exchange(ctx, &exchange{broker: leader, key: protocol.Produce, build: func(int16) (protocol.Message, error) {
		now := time.Now()
		if launched = l.launch(batch, now); len(launched) == 0 {
			return nil, errNothingLeft
		}
		return l.request(launched, now), nil
	}})
	if err != nil {
		return batch, nil, err
	}
	res := m.(*produce.Response)
	if len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
		return batch, nil, &callError{sent: true, err: errors.New("the broker's answer names no partition")}
	}
	return launched, &res.Topics[0].Partitions[0], nil
}

func (l *lane) request(batch []*pending, now time.Time) *produce.Request {
	return &produce.Request{
		Acks:    int16(kafkago.RequireAll),
		Timeout: int32(produceTimeout / time.Millisecond),
		Topics: []produce.RequestTopic{{
			Topic: l.topic.name,
			Partitions: []produce.RequestPartition{{
				Partition: l.partition,
				RecordSet: protocol.RecordSet{
					Attributes: protocol.Attributes(l.topic.p.compression),
					Records:    &records{batch: batch, now: now},
				},
			}},
		}},
	}
}

// records presents a batch to kafka-go's encoder without copying it.
type records struct {
	batch []*pending
	now   time.Time
	next  int

	record  protocol.Record
	key     view
	value   view
	headers []protocol.Header
}

// view is a protocol.Bytes that can be used again.
type view struct{ bytes.Reader }

func (*view) Close() error { return nil }

// ReadRecord implements protocol.RecordReader.
func (r *records) ReadRecord() (*protocol.Record, error) {
	if r.next == len(r.batch) {
		return nil, io.EOF
	}
	p := r.batch[r.next]
	r.next++
	r.record = protocol.Record{Time: p.time(r.now)}
	if p.key != nil {
		r.key.Reset(p.key)
		r.record.Key = &r.key
	}
	if !p.null {
		r.value.Reset(p.msg.Payload)
		r.record.Value = &r.value
	}
	r.headers = r.headers[:0]
	for _, h := range p.msg.Headers {
		r.headers = append(r.headers, protocol.Header{
			Key:   h.Name,
			Value: unsafe.Slice(unsafe.StringData(h.Value), len(h.Value)),
		})
	}
	r.record.Headers = r.headers
	return &r.record, nil
}

var _ protocol.RecordReader = (*records)(nil)
