package webhook

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// BenchmarkSend is an attempt beside a plain call of http.Client, to a receiver on this
// machine.
func BenchmarkSend(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	d := &message.Delivery{Message: &message.Message{Payload: bytes.Repeat([]byte("x"), 1024)}}
	b.Run("attempt", func(b *testing.B) {
		e := mustProvision(b, `{"allow_http":true,"allow_networks":["loopback"]}`)
		c, err := e.couriers.lend("api", []byte(`{"callback":"`+server.URL+`","secrets":["`+secretA+`"]}`))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if r := c.send(context.Background(), d, "msg_1", 1); r.Outcome != entrypoints.Delivered {
				b.Fatalf("%+v", r)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		b.ReportAllocs()
		for b.Loop() {
			response, err := client.Post(server.URL, "application/octet-stream", bytes.NewReader(d.Payload))
			if err != nil {
				b.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
	})
}
