package egress

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
)

func TestHTTP2(t *testing.T) {
	var one, two atomic.Int64
	server := newCounted(t, true, nil, func(_ http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			two.Add(1)
		} else {
			one.Add(1)
		}
	})
	client := newClient(t, server.options())
	if failed, err := storm(client, server.URL, 64, 20); failed > 0 {
		t.Fatalf("%d calls failed: %v", failed, err)
	}
	if one.Load() != 0 || two.Load() != 64*20 {
		t.Errorf("%d calls by HTTP/1.1, %d by HTTP/2", one.Load(), two.Load())
	}
	before := server.opened.Load()
	if failed, err := storm(client, server.URL, 64, 20); failed > 0 || server.opened.Load() != before {
		t.Errorf("%d calls failed (%v), and %d connections more, once there is one", failed, err, server.opened.Load()-before)
	}
	if _, err := post(newClient(t, Options{Policy: Policy{Networks: networks("loopback")}}), server.URL); err == nil {
		t.Error("a certificate of an unknown authority is taken")
	} else if outcome, text := Classify(err); outcome != entrypoints.Unreachable || !strings.Contains(text, "certificate") {
		t.Errorf("%s: %s", outcome, text)
	}
}

// With few calls at once per connection, few connections, and a server that ends connections all
// the time, everything still gets through.
func TestHTTP2WithinLimits(t *testing.T) {
	var calls atomic.Int64
	server := newCounted(t, true, func(s *http.Server) { s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 10} }, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1)%50 == 0 {
			w.Header().Set("Connection", "close") // GOAWAY
		}
	})
	opt := server.options()
	opt.Connections = 4
	transport := NewTransport(opt)
	t.Cleanup(transport.CloseIdleConnections)
	if failed, err := storm(NewClient(transport, 20*time.Second), server.URL, 200, 5); failed > 0 {
		t.Fatalf("%d of %d calls failed: %v", failed, 200*5, err)
	}
	if most := server.most.Load(); most > 200/10+4 {
		t.Errorf("%d connections at once, for 200 calls of which 10 share one", most)
	}
	t.Logf("%d connections, %d at once", server.opened.Load(), server.most.Load())
}

// A server that permits no calls at all must not get one connection after the other.
func TestHTTP2WithoutStreams(t *testing.T) {
	certificate := newCounted(t, true, nil, func(http.ResponseWriter, *http.Request) {})
	l := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: []string{"h2"}}))
	var opened atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			opened.Add(1)
			wg.Go(func() { refuseStreams(conn) })
		}
	})
	opt := certificate.options()
	transport := NewTransport(opt)
	// One after the other, they fail before their time is up.
	client := NewClient(transport, 20*time.Second)
	for range 2 {
		before := opened.Load()
		_, err := post(client, "https://"+l.Addr().String())
		if outcome, text := Classify(err); outcome != entrypoints.Unreachable || text != errTooManyDials.Error() {
			t.Errorf("%s: %s", outcome, text)
		}
		if n := opened.Load() - before; n > maxDials {
			t.Errorf("%d connections for one call", n)
		}
	}
	client = NewClient(transport, 500*time.Millisecond)
	if failed, _ := storm(client, "https://"+l.Addr().String(), 20, 2); failed != 40 {
		t.Errorf("%d of 40 calls failed", failed)
	}
	if n := opened.Load(); n > 42*maxDials {
		t.Errorf("%d connections for 42 calls", n)
	}
	t.Logf("%d connections", opened.Load())
	transport.CloseIdleConnections()
	_ = l.Close()
	wg.Wait()
}

func refuseStreams(conn net.Conn) {
	defer conn.Close()
	// The client leaves when it has nothing to wait for.
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			_ = framer.WriteRSTStream(f.StreamID, http2.ErrCodeRefusedStream)
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = framer.WritePing(true, f.Data)
			}
		}
	}
}
