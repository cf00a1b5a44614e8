package servicebustest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/gorilla/websocket"
)

// certificate is one that httptest made, and who trusts it.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	https := httptest.NewTLSServer(nil)
	defer https.Close()
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	return &tls.Config{Certificates: https.TLS.Certificates}, &tls.Config{RootCAs: roots, ServerName: "example.com"}
}

func roundTrip(t *testing.T, s *Server, options *azservicebus.ClientOptions) {
	t.Helper()
	client, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), options)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, client.Close)
	send(t, newSender(t, client, "q"), "a", strings.Repeat("b", 200_000))
	receiver := newReceiver(t, client, "q", nil)
	for _, m := range receive(t, receiver, 2) {
		if err := receiver.CompleteMessage(background(t), m, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func webSocket(url string, config *tls.Config) func(context.Context, azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
	return func(ctx context.Context, _ azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
		dialer := websocket.Dialer{Subprotocols: []string{"amqp"}, TLSClientConfig: config}
		ws, _, err := dialer.DialContext(ctx, url, nil)
		if err != nil {
			return nil, err
		}
		return &webSocketConn{Conn: ws}, nil
	}
}

func TestTransports(t *testing.T) {
	server, client := certificate(t)
	t.Run("tls", func(t *testing.T) {
		roundTrip(t, start(t, Options{TLS: server}), &azservicebus.ClientOptions{TLSConfig: client})
	})
	t.Run("websocket", func(t *testing.T) {
		s := start(t, Options{})
		roundTrip(t, s, &azservicebus.ClientOptions{NewWebSocketConn: webSocket(s.WebSocketURL(), nil)})
	})
	t.Run("websocket over tls", func(t *testing.T) {
		s := start(t, Options{TLS: server})
		roundTrip(t, s, &azservicebus.ClientOptions{NewWebSocketConn: webSocket(s.WebSocketURL(), client)})
	})
}

func TestSilentClientIsCut(t *testing.T) {
	s := start(t, Options{IdleTimeout: 50 * time.Millisecond})
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("AMQP\x00\x01\x00\x00")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection ends", func() bool { return s.Connections() == 0 })
}

func TestStrangersAreShownTheDoor(t *testing.T) {
	s := start(t, Options{})
	for _, hello := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "AMQP\x00\x00\x09\x01", "\x16\x03\x01........", "AMQP\x00\x01\x00\x00\x00\x00\x00\x01........", "GARBAGE\r\n\r\n"} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(hello)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the connection ends", func() bool { return s.Connections() == 0 })
		_ = conn.Close()
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	s := start(t, Options{})
	client := connect(t, s)
	send(t, newSender(t, client, "q"), "a")
	receive(t, newReceiver(t, client, "q", nil), 1)
	taken := make(chan error, 1)
	go func() {
		_, err := s.Take(background(t), "q", 1)
		taken <- err
	}()
	s.Close()
	if err := <-taken; err == nil {
		t.Fatal("took from a closed namespace")
	}
	s.Close()
}
