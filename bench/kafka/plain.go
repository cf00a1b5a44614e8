package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/bench/load"
	"github.com/caddy-message-api/caddy-message-api/bench/plain"
)

// PublishArgs say how a plain client publishes.
type PublishArgs struct {
	Addr, Topic string
	Callers     int
	For         time.Duration
}

// Write publishes with kafka-go's Writer, set up as one does who wants confirmations and
// does not want to wait: acks from all, one millisecond of linger.
func Write(args PublishArgs) (plain.Calls, error) {
	transport := new(kafkago.Transport)
	defer transport.CloseIdleConnections()
	w := &kafkago.Writer{
		Addr: kafkago.TCP(args.Addr), Topic: args.Topic, RequiredAcks: kafkago.RequireAll,
		BatchTimeout: time.Millisecond, Transport: transport,
	}
	content := load.Content()
	calls, err := plain.Repeat(args.Callers, args.For, func(ctx context.Context, _, _ int) error {
		return w.WriteMessages(ctx, kafkago.Message{Value: content})
	})
	return calls, errors.Join(err, w.Close())
}

// Produce publishes with kafka-go's Client, one request per message: no linger, and no
// batches.
func Produce(args PublishArgs) (plain.Calls, error) {
	transport := new(kafkago.Transport)
	defer transport.CloseIdleConnections()
	c := &kafkago.Client{Addr: kafkago.TCP(args.Addr), Transport: transport}
	content := load.Content()
	return plain.Repeat(args.Callers, args.For, func(ctx context.Context, caller, call int) error {
		answer, err := c.Produce(ctx, &kafkago.ProduceRequest{
			Topic: args.Topic, Partition: (caller + call) % Partitions, RequiredAcks: kafkago.RequireAll,
			Records: kafkago.NewRecordReader(kafkago.Record{Value: kafkago.NewBytes(content)}),
		})
		if err != nil {
			return err
		}
		return answer.Error
	})
}

// ReadArgs say what a plain client reads.
type ReadArgs struct {
	Addr, Topic string
	Messages    int
}

// Read reads a topic from its beginning with one kafka-go Reader per partition, and returns
// how long it took to get all messages.
func Read(args ReadArgs) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	left := newCountdown(args.Messages)
	errs := make(chan error, Partitions)
	var wg sync.WaitGroup
	for p := range Partitions {
		wg.Go(func() { errs <- readPartition(ctx, args, p, left) })
	}
	var failed error
	select {
	case <-left.zero:
	case failed = <-errs:
	case <-ctx.Done():
		failed = fmt.Errorf("%d messages did not come: %w", left.n.Load(), ctx.Err())
	}
	took := time.Since(start)
	cancel()
	wg.Wait()
	return took, failed
}

// readPartition reads until ctx ends.
func readPartition(ctx context.Context, args ReadArgs, partition int, left *countdown) (err error) {
	r := kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: []string{args.Addr}, Topic: args.Topic, Partition: partition, MinBytes: 1, MaxBytes: 10 << 20,
		MaxWait: 250 * time.Millisecond, // Close waits for it
	})
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		m, err := r.ReadMessage(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading partition %d: %w", partition, err)
		}
		left.down(load.Count(m.Value))
	}
}

// countdown closes zero when n comes down to it.
type countdown struct {
	n    atomic.Int64
	zero chan struct{}
}

func newCountdown(n int) *countdown {
	c := &countdown{zero: make(chan struct{})}
	c.n.Store(int64(n))
	return c
}

func (c *countdown) down(by int) {
	if c.n.Add(int64(-by)) == 0 {
		close(c.zero)
	}
}
