package mqtt5

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// The broker is killed, connections are cut, the gateway crashes, clients come and go: what
// was stored comes at least once, and at at_most_once nothing comes twice.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it takes its time")
	}
	t.Run("one client at a time", func(t *testing.T) { chaos(t, 1, true) })
	// Mosquitto before 2.0.19 loses shared subscriptions when it restarts, so here it is
	// spared.
	t.Run("several at a time", func(t *testing.T) { chaos(t, 3, false) })
}

func chaos(t *testing.T, clients int, kill bool) {
	server := brokers.Mosquitto(t)
	const topic = "chaos"
	l := &line{}
	sender := provision(t, &MQTT5{Servers: []string{server.Addr()}, Producer: &Producer{Topic: topic}, dial: l.dial})
	gateway := newProcess(t, server.Addr(), topic)
	closeStream(t, gateway.member(t, 5)) // the identity exists

	var mu sync.Mutex
	stored, maybe, unheard, seen := map[string]time.Time{}, 0, 0, map[string]int{}
	var kills []time.Time
	once := map[string]int{}
	ctx, cancel := context.WithCancel(context.Background())
	var sending, reading sync.WaitGroup
	for i := range 8 {
		sending.Go(func() {
			p := publisherOf(t, sender)
			for n := 0; ctx.Err() == nil; n++ {
				m := &message.Message{Payload: fmt.Append(nil, i, "-", n)}
				switch r := p.Publish(context.Background(), message.Auto, m)[0]; r.Status {
				case message.Stored:
					mu.Lock()
					if len(r.Metadata) > 1 {
						unheard++ // the broker says that nobody is subscribed
					} else {
						stored[string(m.Payload)] = time.Now()
					}
					mu.Unlock()
				case message.Unknown:
					mu.Lock()
					maybe++
					mu.Unlock()
				}
			}
		})
	}
	read := func(ctx context.Context, s message.Stream, into map[string]int) {
		for ctx.Err() == nil {
			batch, err := s.Receive(ctx)
			if err != nil {
				return
			}
			// At most once settles before anybody sees it; at least once, after.
			if err := s.Settle(context.Background(), message.Ack, batch.Deliveries...); err != nil && !errors.Is(err, message.ErrStale) {
				t.Error(err)
				return
			}
			mu.Lock()
			for k, n := range payloads(batch.Deliveries) {
				into[k] += n
			}
			mu.Unlock()
		}
	}
	try := func(name string, qos message.QoS) (message.Stream, bool) {
		channel, _ := gateway.Channel(replace{})
		s, err := gateway.Subscribe(ctx, channel, message.Subscription{
			Mode: message.Member, QoS: qos, Name: name, Window: message.Window{Messages: 30, Bytes: 1 << 20},
		})
		return s, err == nil
	}
	for i := range clients + 1 {
		reading.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for ctx.Err() == nil {
				name, qos, into := "api.client", message.AtLeastOnce, seen
				if i == 0 {
					name, qos, into = "api.other", message.AtMostOnce, once
				}
				if s, ok := try(name, qos); ok {
					short, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(1500))*time.Millisecond)
					read(short, s, into)
					cancel()
					closeStream(t, s)
				}
			}
		})
	}
	for range 5 {
		time.Sleep(300 * time.Millisecond)
		if kill {
			server.Kill()
			kills = append(kills, time.Now())
			server.Restart()
		}
		for range 3 {
			time.Sleep(200 * time.Millisecond)
			for _, l := range []*line{l, gateway.line} {
				l.cut()
				l.restore()
			}
		}
	}
	time.Sleep(time.Second)
	cancel()
	sending.Wait()
	reading.Wait()
	gateway.crash()

	next := newProcess(t, server.Addr(), topic)
	s := next.member(t, 100)
	end, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); read(end, s, seen) }()
	// Mosquitto acknowledges what it saves in the next moment: what it said in its last
	// moments is not to be relied on.
	lastWords := func(at time.Time) bool {
		return slices.ContainsFunc(kills, func(kill time.Time) bool { return at.Before(kill) && kill.Sub(at) < 100*time.Millisecond })
	}
	missing := func() (lost, unsaved int) {
		mu.Lock()
		defer mu.Unlock()
		for k, at := range stored {
			switch {
			case seen[k] > 0:
			case lastWords(at):
				unsaved++
			default:
				lost++
			}
		}
		return lost, unsaved
	}
	lost, unsaved := missing()
	for lost > 0 && end.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		lost, unsaved = missing()
	}
	cancel()
	<-done
	repeated, twice := 0, 0
	for _, n := range seen {
		repeated += n - 1
	}
	for _, n := range once {
		if n > 1 {
			twice++
		}
	}
	t.Logf("stored %d, without subscribers %d, unknown %d; at_least_once: received %d, lost %d, never saved by the broker %d, repeated %d; at_most_once: received %d, repeated %d",
		len(stored), unheard, maybe, len(seen), lost, unsaved, repeated, len(once), twice)
	if lost > 0 || unsaved > 10*len(kills) || twice > 0 || len(stored) < 500 {
		t.Errorf("lost %d of %d, %d came twice at at_most_once", lost, len(stored), twice)
	}
}
