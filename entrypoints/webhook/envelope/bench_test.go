package envelope

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// order is a message as Kafka brings it.
func order() *message.Delivery {
	return &message.Delivery{
		Lane: "orders-0",
		Mark: message.Mark{Channel: "orders", Partition: 3, Next: 4711, Time: 1795000000000},
		Message: &message.Message{
			ID: "orders-3-4710", Key: []byte("customer-17"), Payload: bytes.Repeat([]byte(`{"a":"b"},`), 100),
			Headers: []message.Header{
				{Name: "content-type", Value: "application/json"},
				{Name: "X-Tenant", Value: "acme"},
				{Name: "X-Region", Value: "eu"},
				{Name: "internal", Value: "no"},
			},
			Metadata: []message.Field{message.Text("topic", "orders"), message.Number("partition", 3), message.Number("offset", 4710)},
			Time:     time.UnixMilli(1795000000000),
		},
	}
}

func BenchmarkRequest(b *testing.B) {
	d, callback, now := order(), mustURL(b, "https://example.com/hooks/orders?tenant=acme"), time.Now()
	b.Run("envelope", func(b *testing.B) {
		e := mustNew(b, Options{API: "orders", Secrets: []Secret{testSecret(1)}, Allow: []string{"x-*"}})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.Request(b.Context(), callback, d, "msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ", 1, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("two secrets, CloudEvents", func(b *testing.B) {
		e := mustNew(b, Options{API: "orders", Secrets: []Secret{testSecret(1), testSecret(2)}, Allow: []string{"x-*"},
			CloudEvents: &CloudEvents{Source: "/orders", Type: "order"}})
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.Request(b.Context(), callback, d, "msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ", 1, now); err != nil {
				b.Fatal(err)
			}
		}
	})
	// The same headers in the usual way, with the signature computed in the usual way too.
	b.Run("plain", func(b *testing.B) {
		secret := testSecret(1)
		raw := callback.String()
		b.ReportAllocs()
		for b.Loop() {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, raw, bytes.NewReader(d.Payload))
			if err != nil {
				b.Fatal(err)
			}
			id, stamp := "msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ", strconv.FormatInt(now.Unix(), 10)
			mac := hmac.New(sha256.New, secret)
			fmt.Fprintf(mac, "%s.%s.", id, stamp)
			mac.Write(d.Payload)
			r.Header.Set("webhook-id", id)
			r.Header.Set("webhook-timestamp", stamp)
			r.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
			r.Header.Set("webhook-attempt", strconv.Itoa(1))
			trace, _ := appendTrace(nil, "")
			r.Header.Set("traceparent", string(trace))
			r.Header.Set("User-Agent", DefaultUserAgent)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Tenant", "acme")
			r.Header.Set("X-Region", "eu")
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, size := range []int{100, 1000, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			all, body, stamp := newSigners([]Secret{testSecret(1)}), make([]byte, size), []byte("1795000000")
			var room [128]byte
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				all.append(room[:0], "msg_ABCDEFGHIJKLMNOPQRSTUVWXYZ", stamp, body)
			}
		})
	}
}

func BenchmarkIdentify(b *testing.B) {
	d := order()
	for _, c := range []struct {
		name string
		made func() *message.Delivery
	}{
		{"position", func() *message.Delivery { return d }},
		{"id", func() *message.Delivery { c := *d; c.Mark = message.Mark{}; return &c }},
		{"content", func() *message.Delivery {
			c, m := *d, *d.Message
			c.Mark, m.ID, c.Message = message.Mark{}, "", &m
			return &c
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			d := c.made()
			b.ReportAllocs()
			for b.Loop() {
				Identify("orders", d)
			}
		})
	}
}
