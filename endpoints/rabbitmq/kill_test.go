package rabbitmq

import (
	"context"
	"errors"
	"flag"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

var kills = flag.Int("kills", 2, "how often TestKilledBroker kills the broker per level and type of queue")

// The broker is killed (SIGKILL) while messages flow through it. At at_least_once nothing
// that was reported as stored is lost. At at_most_once nothing that was handed over comes
// again, as far as quorum queues go; classic queues promise less, and the number is told.
func TestKilledBroker(t *testing.T) {
	node := brokers.RabbitMQ(t)
	for _, qos := range []message.QoS{message.AtMostOnce, message.AtLeastOnce} {
		for _, kind := range []string{quorum, classic} {
			t.Run(qos.String()+"/"+kind, func(t *testing.T) {
				b := &broker{RabbitMQBroker: node.RabbitMQBroker, vhost: node.Vhost(t)}
				b.queue(t, "work", kind, nil)
				made := time.Now()
				e := b.endpoint(t, &RabbitMQ{
					Producer: &Producer{RoutingKey: "work"},
					Consumer: &Consumer{Queue: &Queue{Name: "work"}, Shared: true},
				})
				through := &killed{seen: make(map[int]int)}
				stop := through.read(t, e, qos)
				// RabbitMQ 3.10 can't revive a quorum queue that was made a moment before it is
				// killed.
				time.Sleep(5*time.Second - time.Since(made))
				for range *kills {
					through.kill(t, e, node)
				}
				through.drain(t)
				stop()
				through.judge(t, qos, kind)
			})
		}
	}
}

// killed is what goes through a broker that is killed.
type killed struct {
	sent   atomic.Int64
	stored sync.Map // numbers that were reported as stored

	mu      sync.Mutex
	seen    map[int]int // by number, how often it was handed over
	dropped int         // at at_most_once, what could not be settled
}

// read receives and settles, as the gateway does at that level.
func (k *killed) read(t *testing.T, e *RabbitMQ, qos message.QoS) (stop func()) {
	s := subscribe(t, e, message.Subscription{Mode: message.Shared, QoS: qos})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			batch, err := s.Receive(ctx)
			if err != nil {
				return
			}
			settle, stop := context.WithTimeout(context.Background(), 5*time.Second)
			err = s.Settle(settle, message.Ack, batch.Deliveries...)
			stop()
			k.mu.Lock()
			for i := range batch.Deliveries {
				if err != nil && qos == message.AtMostOnce {
					k.dropped++
					continue
				}
				n, _ := strconv.Atoi(string(batch.Deliveries[i].Payload))
				k.seen[n]++
			}
			k.mu.Unlock()
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// kill publishes for a while, kills the broker in the midst of it, and starts it again. It
// returns when messages flow again.
func (k *killed) kill(t *testing.T, e *RabbitMQ, node *brokers.RabbitMQServer) {
	p, err := e.Publisher(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for ctx.Err() == nil {
				n := int(k.sent.Add(1))
				r := p.Publish(ctx, message.Auto, &message.Message{Payload: strconv.AppendInt(nil, int64(n), 10)})[0]
				if r.Status == message.Stored {
					k.stored.Store(n, true)
				} else if ctx.Err() == nil && !pause(ctx, 4) {
					return
				}
			}
		})
	}
	flowing := func(what string) {
		before := k.handed()
		eventually(t, what, func() bool { return k.handed() > before+1000 })
	}
	flowing("messages flow")
	node.Kill()
	node.Restart()
	flowing("messages flow again")
	cancel()
	callers.Wait()
}

func (k *killed) handed() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.seen) + k.dropped
}

// drain waits until nothing more comes.
func (k *killed) drain(t *testing.T) {
	last, since := -1, time.Now()
	eventually(t, "everything was received", func() bool {
		if n := k.handed(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 3*time.Second
	})
}

func (k *killed) judge(t *testing.T, qos message.QoS, kind string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	repeated, lost, stored := 0, 0, 0
	for _, n := range k.seen {
		repeated += n - 1
	}
	k.stored.Range(func(n, _ any) bool {
		stored++
		if k.seen[n.(int)] == 0 {
			lost++
		}
		return true
	})
	t.Logf("%s, %s queue, %d kills: sent %d, stored %d, received %d, lost %d, repeated %d, dropped before hand-over %d",
		qos, kind, *kills, k.sent.Load(), stored, len(k.seen), lost, repeated, k.dropped)
	switch {
	case len(k.seen) == 0:
		t.Error("nothing was received")
	case qos == message.AtLeastOnce && lost > 0:
		t.Errorf("%d messages were lost", lost)
	case qos == message.AtMostOnce && kind == quorum && repeated > 0:
		t.Errorf("%d messages came again", repeated)
	case qos == message.AtMostOnce && lost > k.dropped:
		t.Errorf("%d messages were lost, and only %d of them were dropped", lost, k.dropped)
	}
}

func subscribe(t *testing.T, r *RabbitMQ, sub message.Subscription) message.Stream {
	t.Helper()
	channel, err := r.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Subscribe(t.Context(), channel, sub)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
	})
	return s
}
