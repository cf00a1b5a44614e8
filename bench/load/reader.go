package load

import (
	"bytes"
	"fmt"
)

// reader finds out how many messages stand in what one connection received. It is
// given every byte once, in order, cut anywhere.
type reader interface {
	// read returns how many messages p holds, and whether the connection is ready: the
	// server has said that it will stream.
	read(p []byte) (messages int, ready bool, err error)
	// reply is what must be written now, if anything; the next read forgets it.
	reply() []byte
}

// maxHead bounds an HTTP response's header.
const maxHead = 16 << 10

// stream reads an HTTP/1.1 response that never ends: an event stream, or a WebSocket.
type stream struct {
	status string // what the response must begin with
	head   []byte
	ready  bool
}

func (s *stream) read(p []byte) (int, bool, error) {
	if s.ready {
		return Count(p), true, nil
	}
	s.head = append(s.head, p...)
	end := bytes.Index(s.head, []byte("\r\n\r\n"))
	if end < 0 {
		if len(s.head) > maxHead {
			return 0, false, fmt.Errorf("the response's header has no end: %.200q", s.head)
		}
		return 0, false, nil
	}
	if !bytes.HasPrefix(s.head, []byte(s.status)) {
		return 0, false, fmt.Errorf("the server does not stream: %.2000s", s.head)
	}
	rest := s.head[end+4:]
	s.head, s.ready = nil, true
	return Count(rest), true, nil
}

func (*stream) reply() []byte { return nil }
