package worker

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// torrent is a stream that always has a batch ready, until it has delivered as many as it
// should. Its window is respected, as a broker's would be.
type torrent struct {
	left    int
	batch   int
	window  int
	message []*message.Message
	at      int64
	lent    atomic.Int64
	room    chan struct{}
	settles int
}

func (s *torrent) Receive(ctx context.Context) (message.Batch, error) {
	for int(s.lent.Load())+s.batch > s.window || s.left == 0 {
		select {
		case <-s.room:
		case <-ctx.Done():
			return message.Batch{}, ctx.Err()
		}
	}
	n := min(s.batch, s.left)
	deliveries := make([]message.Delivery, n)
	for i := range deliveries {
		s.at++
		deliveries[i] = message.Delivery{Message: s.message[int(s.at)%len(s.message)], Lane: "orders/0", Epoch: 1,
			Mark: message.Mark{Channel: "orders", Next: s.at}}
	}
	s.left -= n
	s.lent.Add(int64(n))
	return message.Batch{Deliveries: deliveries}, nil
}

func (s *torrent) Settle(_ context.Context, _ message.Settlement, deliveries ...message.Delivery) error {
	s.settles++
	s.lent.Add(-int64(len(deliveries)))
	select {
	case s.room <- struct{}{}:
	default:
	}
	return nil
}

func (s *torrent) Close(context.Context) error { return nil }

func keyed(n int) []*message.Message {
	all := make([]*message.Message, n)
	for i := range all {
		all[i] = &message.Message{Key: []byte("customer-" + strconv.Itoa(i)), Payload: make([]byte, 200)}
	}
	return all
}

func BenchmarkRun(b *testing.B) {
	for _, bench := range []struct {
		name        string
		concurrency int
		order       Order
		keys        int
		ordered     bool
		yield       bool
	}{
		{name: "one", concurrency: 1},
		{name: "keys", concurrency: 64, keys: 997},
		{name: "keys,ordered", concurrency: 64, keys: 997, ordered: true},
		{name: "keys,yield", concurrency: 64, keys: 997, yield: true},
		{name: "none", concurrency: 64, order: None},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			s := &torrent{left: b.N, batch: 100, window: 1000, message: keyed(max(bench.keys, 1)), room: make(chan struct{}, 1)}
			ctx, cancel := context.WithCancel(b.Context())
			var n atomic.Int64
			ok := Result{Attempt: entrypoints.Attempt{Outcome: entrypoints.Delivered, Status: 204}}
			err := Run(ctx, Options{
				Stream: s, Settles: true, Concurrency: bench.concurrency, Order: bench.order,
				Window:       message.Window{Messages: s.window, Bytes: 16 << 20},
				Capabilities: message.Capabilities{OrderedSettle: bench.ordered},
				Identity:     func(*message.Delivery) (string, string) { return "f", "msg_1" },
				Send: func(context.Context, *message.Delivery, string, int) Result {
					if bench.yield {
						runtime.Gosched()
					}
					if n.Add(1) == int64(b.N) {
						cancel()
					}
					return ok
				},
			})
			if err != nil && !errors.Is(err, context.Canceled) {
				b.Fatal(err)
			}
			b.ReportMetric(float64(s.settles)/float64(b.N), "settles/op")
		})
	}
}
