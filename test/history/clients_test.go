package history

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// identity makes a client one that the broker keeps track of.
const (
	identityHeader = "X-Gravitee-Client-Identifier"
	identityValue  = "history"
)

// publisher posts numbered messages until enough are confirmed. What was refused is sent
// again; what may have been stored is not.
type publisher struct {
	l      *ledger
	url    string
	target atomic.Int64
	next   atomic.Int64
}

const batchLines = 50

func (p *publisher) run(callers int) {
	var wg sync.WaitGroup
	for range callers {
		wg.Go(p.call)
	}
	wg.Wait()
}

func (p *publisher) call() {
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var batch []int
	for p.l.confirmations() < int(p.target.Load()) {
		for len(batch) < batchLines {
			batch = append(batch, int(p.next.Add(1)-1))
		}
		if left := p.post(client, batch); len(left) == len(batch) {
			time.Sleep(50 * time.Millisecond) // Retry-After says a second, and we are in a hurry
		} else {
			batch = left
		}
	}
}

// post returns what was refused.
func (p *publisher) post(client *http.Client, batch []int) (refused []int) {
	var body strings.Builder
	for _, n := range batch {
		fmt.Fprintf(&body, "{\"content\":\"message %d\"}\n", n)
	}
	a, err := gateway.TryDo(client, "POST", p.url, body.String(), "Content-Type", "application/x-ndjson")
	switch {
	case err != nil && strings.Contains(err.Error(), "connection refused"), a.Status == 503 && err == nil:
		p.l.count(&p.l.refused, 1)
		return batch
	case err != nil, a.Status == 504:
		p.l.count(&p.l.unknown, len(batch))
		return nil
	}
	var answer struct{ Items []struct{ Status int } }
	if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || len(answer.Items) != len(batch) {
		p.l.note("POST: %d %.300s", a.Status, a.Body)
		p.l.count(&p.l.unknown, len(batch))
		return nil
	}
	for i, item := range answer.Items {
		switch item.Status {
		case 202:
			p.l.confirm(batch[i])
		case 503, 429:
			refused = append(refused, batch[i])
		case 504:
			p.l.count(&p.l.unknown, 1)
		default:
			p.l.note("POST: %.300s", a.Body)
		}
	}
	if len(refused) > 0 {
		p.l.count(&p.l.refused, 1)
	}
	return refused
}

// socket reads by WebSocket until it is stopped, and connects again whenever it must. With
// acks it acknowledges what it has recorded.
type socket struct {
	l       *ledger
	reader  int
	url     string
	acks    bool
	raw     bool
	ready   chan struct{}
	stopped atomic.Bool
	done    chan struct{}

	mu   sync.Mutex
	conn *websocket.Conn
}

func (s *socket) run() {
	defer close(s.done)
	first := true
	for !s.stopped.Load() {
		d := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
		if !s.raw {
			d.Subprotocols = []string{"message-api.v1+json"}
		}
		conn, _, err := d.Dial("ws"+strings.TrimPrefix(s.url, "http"), http.Header{identityHeader: {identityValue}})
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.mu.Lock()
		s.conn = conn
		s.mu.Unlock()
		if first {
			close(s.ready)
			first = false
		}
		s.read(conn)
		_ = conn.Close()
	}
}

func (s *socket) read(conn *websocket.Conn) {
	frames := make(chan []byte, 256)
	go func() {
		defer close(frames)
		for {
			_, payload, err := conn.ReadMessage()
			if err != nil {
				return
			}
			frames <- payload
		}
	}()
	acked, seq := uint64(0), uint64(0)
	for payload := range frames {
		if n := s.take(payload); n > 0 {
			seq = n
		}
		if s.acks && seq > acked && (len(frames) == 0 || seq-acked >= 100) {
			if conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","upto":%d}`, seq)) != nil {
				_ = conn.Close()
			}
			acked = seq
		}
	}
}

// take records one frame.
func (s *socket) take(payload []byte) (seq uint64) {
	if s.raw {
		s.l.saw(s.reader, string(payload))
		return 0
	}
	var f struct {
		Type, Content, Reason, Detail string
		Seq                           uint64
	}
	if err := json.Unmarshal(payload, &f); err != nil {
		s.l.note("frame %.200q", payload)
	}
	switch f.Type {
	case "message":
		s.l.saw(s.reader, f.Content)
	case "gap", "goaway", "error": // of what is lost or comes again the ledger knows
	default:
		s.l.note("frame %.200q", payload)
	}
	return f.Seq
}

func (s *socket) stop() {
	s.stopped.Store(true)
	s.mu.Lock()
	if s.conn != nil {
		_ = s.conn.Close()
	}
	s.mu.Unlock()
	<-s.done
}

// poller fetches by GET until it is stopped, and confirms each response by its receipt.
type poller struct {
	l       *ledger
	reader  int
	url     string
	ready   chan struct{}
	stopped atomic.Bool
	done    chan struct{}
}

func (p *poller) run() {
	defer close(p.done)
	client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	cursor, first := "", true
	for !p.stopped.Load() {
		a, err := gateway.TryDo(client, "GET", p.url+"?cursor="+cursor, "", identityHeader, identityValue)
		if err != nil || a.Status == 503 || a.Status == 429 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		var page gateway.Page
		if err := json.Unmarshal([]byte(a.Body), &page); err != nil || a.Status != 200 {
			p.l.note("GET: %d %.300s", a.Status, a.Body)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		for _, item := range page.Items {
			p.l.saw(p.reader, item.Content)
		}
		cursor = page.Pagination.NextCursor
		if first {
			close(p.ready)
			first = false
		}
	}
}

func (p *poller) stop() {
	p.stopped.Store(true)
	<-p.done
}
