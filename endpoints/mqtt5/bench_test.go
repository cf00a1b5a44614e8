package mqtt5

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// The same messages through this endpoint and through plain paho, with one caller and with
// 64:
//
//	go test -run - -bench . ./endpoints/mqtt5
func BenchmarkPublish(b *testing.B) {
	addr := brokers.SharedMosquitto(b).Plain
	payload := make([]byte, 256)
	topic := brokers.UniqueName(b)
	// A receiver for everything, as in real life; it also makes the PUBACK an ordinary one.
	starts := map[string]func(b *testing.B) func() error{
		"endpoint": func(b *testing.B) func() error {
			p, err := provision(b, &MQTT5{Servers: []string{addr}, Producer: &Producer{Topic: topic}}).Publisher(endpointtest.Verbatim{})
			if err != nil {
				b.Fatal(err)
			}
			return func() error {
				return p.Publish(context.Background(), message.Auto, &message.Message{Payload: payload})[0].Err
			}
		},
		"paho": func(b *testing.B) func() error {
			f := connectForeign(b, addr, brokers.UniqueName(b), false, nil)
			return func() error {
				_, err := f.Publish(context.Background(), &paho.Publish{Topic: topic, QoS: 1, Payload: payload})
				return err
			}
		},
	}
	for _, callers := range []int{1, 64} {
		for _, name := range []string{"endpoint", "paho"} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) {
				publish := starts[name](b)
				if err := publish(); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.SetParallelism(max(callers/2, 1)) // times two processors
				b.ResetTimer()
				if callers == 1 {
					for b.Loop() {
						if err := publish(); err != nil {
							b.Fatal(err)
						}
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := publish(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}

// BenchmarkRead reads and acknowledges messages of 256 bytes with QoS 1.
func BenchmarkRead(b *testing.B) {
	addr := brokers.SharedMosquitto(b).Plain
	for _, name := range []string{"endpoint", "paho"} {
		b.Run(name, func(b *testing.B) {
			topic := brokers.UniqueName(b)
			next := readers[name](b, addr, topic)
			feed := connectForeign(b, addr, topic+"-feed", false, nil)
			payload := make([]byte, 256)
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				for range b.N {
					if _, err := feed.PublishWithOptions(context.Background(), &paho.Publish{Topic: topic, QoS: 1, Payload: payload},
						paho.PublishOptions{Method: paho.PublishMethod_AsyncSend}); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			for got := 0; got < b.N; {
				got += next()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

var readers = map[string]func(b *testing.B, addr, topic string) (next func() int){
	"endpoint": func(b *testing.B, addr, topic string) func() int {
		m := provision(b, &MQTT5{Servers: []string{addr}, Consumer: &Consumer{Topics: []string{topic}}})
		s := subscribe(b, m, message.Subscription{Mode: message.Member, QoS: message.AtLeastOnce, Name: "bench"})
		return func() int {
			batch, err := s.Receive(context.Background())
			if err == nil {
				err = s.Settle(context.Background(), message.Ack, batch.Deliveries...)
			}
			if err != nil {
				b.Fatal(err)
			}
			return len(batch.Deliveries)
		}
	},
	"paho": func(b *testing.B, addr, topic string) func() int {
		messages := make(chan struct{}, 1000)
		tcp, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		var c *paho.Client
		c = paho.NewClient(paho.ClientConfig{
			Conn: tcp, EnableManualAcknowledgment: true, SendAcksInterval: time.Millisecond,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				messages <- struct{}{}
				return true, c.Ack(p.Packet)
			}},
		})
		if _, err := c.Connect(context.Background(), &paho.Connect{ClientID: topic, CleanStart: true, KeepAlive: 30}); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}) })
		if _, err := c.Subscribe(context.Background(), &paho.Subscribe{
			Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 1}}}); err != nil {
			b.Fatal(err)
		}
		return func() int { <-messages; return 1 }
	},
}

func subscribe(t testing.TB, m *MQTT5, sub message.Subscription) message.Stream {
	t.Helper()
	channel, err := m.Channel(endpointtest.Verbatim{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Subscribe(context.Background(), channel, sub)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStream(t, s) })
	return s
}

func closeStream(t testing.TB, s message.Stream) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
