package load

import "fmt"

// Kind is how subscribers read.
type Kind string

// The kinds of subscriber.
const (
	SSE  Kind = "sse-h1"
	WS   Kind = "ws"
	SSE2 Kind = "sse-h2"
)

const eventStream = "text/event-stream"

// Target is what subscribers connect to. Path may have a query.
type Target struct {
	Addr string
	Path string
	Kind Kind
}

// hello returns what a subscriber sends first, and the reader of the answer.
func (t *Target) hello() ([]byte, reader, error) {
	switch t.Kind {
	case SSE:
		req := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", t.Path, t.Addr, eventStream)
		return []byte(req), &stream{status: "HTTP/1.1 200 "}, nil
	case WS:
		return []byte(upgradeRequest(t.Addr, t.Path)), &stream{status: "HTTP/1.1 101 "}, nil
	case SSE2:
		req, err := h2Request(t.Addr, t.Path, eventStream, 1)
		return req, &h2{streams: 1}, err
	}
	return nil, nil, fmt.Errorf("unknown kind of subscriber %q", t.Kind)
}

func upgradeRequest(addr, path string) string {
	return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, addr)
}
