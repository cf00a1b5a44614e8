package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"github.com/caddy-message-api/caddy-message-api/message"
)

const (
	// fetchWait is how long a broker holds a fetch for which it has nothing.
	fetchWait = 500 * time.Millisecond
	// fetchAnswer is how long we wait for the broker beyond that.
	fetchAnswer = 10 * time.Second
	// maxFrame bounds what a broker may make us allocate.
	maxFrame = 256 << 20
	// oldestFetch is the first version with record batches (Kafka 0.11).
	oldestFetch = 4
)

// partition is one partition of one topic.
type partition struct {
	topic string
	id    int32
}

// wanted is what a fetch asks of one partition.
type wanted struct {
	partition
	offset int64
}

// fetched is what a broker answers for one partition.
type fetched struct {
	partition
	code kafkago.Error
	// end is the high watermark, start the first offset there is; -1 where the broker
	// does not say.
	start, end int64
	data       []byte
}

type fetchResponse struct{ partitions []fetched }

// ApiKey implements protocol.Message.
func (*fetchResponse) ApiKey() protocol.ApiKey { return protocol.Fetch } //nolint:revive // kafka-go's spelling

// fetch asks one broker for what it has of several partitions that it leads, in one
// request. The answer's data lies in one piece of memory that belongs to the caller.
func (c *client) fetch(
	ctx context.Context, broker int32, want []wanted, maxBytes, partitionBytes int, wait time.Duration,
) ([]fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+fetchAnswer)
	defer cancel()
	req := &fetch.Request{
		ReplicaID:    -1,
		MaxWaitTime:  int32(wait / time.Millisecond),
		MinBytes:     1,
		MaxBytes:     int32(maxBytes),
		SessionEpoch: -1,
	}
	for _, w := range want {
		i := slices.IndexFunc(req.Topics, func(t fetch.RequestTopic) bool { return t.Topic == w.topic })
		if i < 0 {
			i = len(req.Topics)
			req.Topics = append(req.Topics, fetch.RequestTopic{Topic: w.topic})
		}
		t := &req.Topics[i]
		t.Partitions = append(t.Partitions, fetch.RequestPartition{
			Partition:          w.id,
			CurrentLeaderEpoch: -1,
			FetchOffset:        w.offset,
			LogStartOffset:     -1,
			PartitionMaxBytes:  int32(partitionBytes),
		})
	}
	m, err := c.exchange(ctx, &exchange{
		broker: broker,
		key:    protocol.Fetch,
		build: func(version int16) (protocol.Message, error) {
			if version < oldestFetch {
				return nil, message.Errorf(message.Mismatch, "broker %d is older than Kafka 0.11", broker)
			}
			return req, nil
		},
		read: readFetch,
	})
	if err != nil {
		return nil, err
	}
	return m.(*fetchResponse).partitions, nil
}

// readFetch reads a fetch response frame and takes it apart, leaving the records as they
// are: they are decoded when somebody reads them, and where they lie.
func readFetch(r io.Reader, version int16, id int32) (protocol.Message, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != id {
		return nil, fmt.Errorf("the broker answered request %d, not %d", got, id)
	}
	if size < 4 || size > maxFrame {
		return nil, fmt.Errorf("the broker's answer says it has %d bytes", size)
	}
	frame := make([]byte, size-4)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	p := parser{data: frame}
	p.int32() // throttle time, which the broker enforces itself
	if version >= 7 {
		if code := kafkago.Error(p.int16()); code != 0 {
			return nil, kafkaError(code)
		}
		p.int32() // session
	}
	res := &fetchResponse{}
	for range p.int32() {
		topic := string(p.take(int(p.int16())))
		for range p.int32() {
			f := readPartition(&p, version)
			f.topic = topic
			if p.bad {
				return nil, fmt.Errorf("%w: a fetch response of %d bytes", errCorrupt, size)
			}
			res.partitions = append(res.partitions, f)
		}
		if p.bad {
			break
		}
	}
	if p.bad {
		return nil, fmt.Errorf("%w: a fetch response of %d bytes", errCorrupt, size)
	}
	return res, nil
}

func readPartition(p *parser, version int16) fetched {
	f := fetched{start: -1}
	f.id = p.int32()
	f.code = kafkago.Error(p.int16())
	f.end = p.int64()
	p.int64() // last stable offset: we read uncommitted
	if version >= 5 {
		f.start = p.int64()
	}
	if n := p.int32(); n > 0 {
		p.take(int(n) * 16) // aborted transactions
	}
	if version >= 11 {
		p.int32() // preferred replica
	}
	f.data = p.bytes(int64(p.int32()))
	return f
}
