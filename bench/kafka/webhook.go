package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/caddy-message-api/caddy-message-api/bench/webhook"
)

// PushArgs say what a plain loop brings where.
type PushArgs struct {
	Addr, Topic, Group, Receiver string
}

// Push reads a topic as a consumer group until ctx ends, and marks each message for the next
// commit after its 2xx: what the documentation of kafka-go shows, with as many goroutines as there
// are to be requests. Unlike the gateway it commits past messages that are still under way.
func Push(ctx context.Context, args PushArgs) error {
	r := kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: []string{args.Addr}, Topic: args.Topic, GroupID: args.Group, StartOffset: kafkago.FirstOffset,
		MinBytes: 1, MaxBytes: 10 << 20, MaxWait: 250 * time.Millisecond, CommitInterval: time.Second,
	})
	poster := webhook.NewPoster(args.Receiver)
	defer poster.Close()
	messages := make(chan kafkago.Message)
	var wg sync.WaitGroup
	errs := make([]error, webhook.InFlight)
	for i := range errs {
		wg.Go(func() {
			for m := range messages {
				errs[i] = errors.Join(errs[i], push(r, poster, &m))
			}
		})
	}
	var failed error
	for {
		m, err := r.FetchMessage(ctx)
		if ctx.Err() != nil {
			break
		}
		if failed = err; failed != nil {
			break
		}
		messages <- m
	}
	close(messages)
	wg.Wait()
	return errors.Join(failed, errors.Join(errs...), r.Close())
}

func push(r *kafkago.Reader, poster *webhook.Poster, m *kafkago.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	id := fmt.Sprintf("msg_%d_%d", m.Partition, m.Offset)
	if err := poster.Post(ctx, id, m.Value); err != nil {
		return fmt.Errorf("message %s: %w", id, err)
	}
	return r.CommitMessages(ctx, *m)
}
