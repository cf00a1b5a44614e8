package kafka

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// The same messages through this endpoint and through plain kafka-go, with one caller and
// with 64:
//
//	go test -run - -bench Publish ./endpoints/kafka
func BenchmarkPublish(b *testing.B) {
	const partitions = 4
	payload := make([]byte, 256)
	for _, callers := range []int{1, 64} {
		run := func(name string, start func(b *testing.B, br *broker, topic string) func() error) {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) {
				br := fakeBroker(b)
				topic := br.topic(b, partitions)
				publish := start(b, br, topic)
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
		run("endpoint", func(b *testing.B, br *broker, topic string) func() error {
			p, err := br.both(b, topic).Publisher(verbatim{})
			if err != nil {
				b.Fatal(err)
			}
			return func() error {
				r := p.Publish(context.Background(), message.Auto, &message.Message{Payload: payload})
				return r[0].Err
			}
		})
		run("client", func(b *testing.B, br *broker, topic string) func() error {
			tr := &kafkago.Transport{}
			b.Cleanup(tr.CloseIdleConnections)
			cl := &kafkago.Client{Addr: kafkago.TCP(br.addrs...), Transport: tr}
			var next atomic.Int64
			return func() error {
				res, err := cl.Produce(context.Background(), &kafkago.ProduceRequest{
					Topic: topic, Partition: int(next.Add(1) % partitions), RequiredAcks: kafkago.RequireAll,
					Records: kafkago.NewRecordReader(kafkago.Record{Value: kafkago.NewBytes(payload)}),
				})
				if err != nil {
					return err
				}
				return res.Error
			}
		})
		run("writer", func(b *testing.B, br *broker, topic string) func() error {
			tr := &kafkago.Transport{}
			w := &kafkago.Writer{
				Addr: kafkago.TCP(br.addrs...), Topic: topic, Transport: tr,
				RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond,
			}
			b.Cleanup(func() {
				_ = w.Close()
				tr.CloseIdleConnections()
			})
			return func() error {
				return w.WriteMessages(context.Background(), kafkago.Message{Value: payload})
			}
		})
	}
}

// BenchmarkRead reads messages of 256 bytes; plain is kafka-go's Reader.
func BenchmarkRead(b *testing.B) {
	const n = 100_000
	br := fakeBroker(b)
	topic := br.topic(b, 1)
	records := numbered(topic, 1, 0, n)
	for _, r := range records {
		r.Value = make([]byte, 256)
	}
	br.produce(b, records, kgo.ProducerLinger(5*time.Millisecond))
	b.Run("endpoint", func(b *testing.B) {
		k := br.both(b, topic)
		b.ReportAllocs()
		for b.Loop() {
			s, err := trySubscribe(k, fromStart)
			if err != nil {
				b.Fatal(err)
			}
			for got := 0; got < n; {
				batch, err := s.Receive(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				got += len(batch.Deliveries)
			}
			closeStream(b, s)
		}
		b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "msg/s")
	})
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := kafkago.NewReader(kafkago.ReaderConfig{Brokers: br.addrs, Topic: topic, MaxBytes: 1 << 20, MaxWait: 500 * time.Millisecond})
			for range n {
				if _, err := r.ReadMessage(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
			_ = r.Close()
		}
		b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "msg/s")
	})
}
