package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Answer is a response that was read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do sends a request and reads the whole answer. Headers are given as name, value, ….
func Do(t testing.TB, client *http.Client, method, url, body string, headers ...string) Answer {
	t.Helper()
	a, err := TryDo(client, method, url, body, headers...)
	// A server that a reload has just replaced closes a connection that it accepted last,
	// before it has read a request.
	for try := 0; errors.Is(err, io.EOF) && try < 3; try++ {
		a, err = TryDo(client, method, url, body, headers...)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

// TryDo is Do for requests that may fail.
func TryDo(client *http.Client, method, url, body string, headers ...string) (Answer, error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, r)
	if err != nil {
		return Answer{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, string(raw)}, err
}

// Problem reads an RFC 9457 body.
func (a Answer) Problem(t testing.TB) (slug, detail string) {
	t.Helper()
	var p struct {
		Type, Detail string
		Status       int
	}
	if err := json.Unmarshal([]byte(a.Body), &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("not a problem: %d %v %q", a.Status, a.Header, a.Body)
	}
	if p.Status != a.Status {
		t.Errorf("status %d in the body of a %d", p.Status, a.Status)
	}
	return strings.TrimPrefix(p.Type, "urn:message-api:problem:"), p.Detail
}

// Page is what http_get answers in JSON.
type Page struct {
	Items []struct {
		ID       string
		Content  string
		Encoding string
		Headers  map[string][]any
		Metadata map[string]any
	}
	Gap        *struct{ Reason, Detail string }
	Pagination struct{ NextCursor, Limit string }
}

// Page decodes the answer.
func (a Answer) Page(t testing.TB) Page {
	t.Helper()
	var p Page
	if err := json.Unmarshal([]byte(a.Body), &p); err != nil || a.Status != http.StatusOK {
		t.Fatalf("not a page: %d %q: %v", a.Status, a.Body, err)
	}
	return p
}

// Event is one Server-Sent Event, or a comment block (then Type is empty).
type Event struct {
	Type, ID, Data string
	Retry          string
	Comments       []string
}

// Events is an open SSE stream.
type Events struct {
	Answer Answer
	LastID string

	resp   *http.Response
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// OpenEvents opens an SSE stream; a status other than 200 is returned as an answer whose
// stream is closed.
func OpenEvents(t testing.TB, client *http.Client, url string, headers ...string) *Events {
	t.Helper()
	e, err := TryEvents(client, url, headers...)
	if err != nil {
		t.Fatalf("opening %s: %v", url, err)
	}
	t.Cleanup(e.Close)
	return e
}

// TryEvents is OpenEvents for streams that may fail to open.
func TryEvents(client *http.Client, url string, headers ...string) (*Events, error) {
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	e := &Events{resp: resp, lines: bufio.NewReaderSize(resp.Body, 64<<10), cancel: cancel}
	e.Answer = Answer{Status: resp.StatusCode, Header: resp.Header}
	if resp.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(resp.Body)
		e.Answer.Body = string(raw)
		e.Close()
	}
	return e, nil
}

// Close hangs up.
func (e *Events) Close() {
	e.cancel()
	_ = e.resp.Body.Close()
}

// Next reads up to the end of the next block.
func (e *Events) Next() (Event, error) {
	var ev Event
	var data []string
	for {
		line, err := e.lines.ReadString('\n')
		if err != nil {
			return ev, err
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			ev.Data = strings.Join(data, "\n")
			return ev, nil
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "":
			ev.Comments = append(ev.Comments, value)
		case "id":
			ev.ID, e.LastID = value, value
		case "event":
			ev.Type = value
		case "data":
			data = append(data, value)
			if ev.Type == "" {
				ev.Type = "message"
			}
		case "retry":
			ev.Retry = value
		default:
			return ev, fmt.Errorf("unknown field in %q", line)
		}
	}
}

// Message reads up to the next event that is no heartbeat and no retry.
func (e *Events) Message() (Event, error) {
	for {
		ev, err := e.Next()
		if err != nil || ev.Type != "" {
			return ev, err
		}
	}
}

// MustMessage is Message for streams that must go on.
func (e *Events) MustMessage(t testing.TB) Event {
	t.Helper()
	type result struct {
		ev  Event
		err error
	}
	c := make(chan result, 1)
	go func() {
		ev, err := e.Message()
		c <- result{ev, err}
	}()
	select {
	case r := <-c:
		if r.err != nil {
			t.Fatalf("the stream ended: %v", r.err)
		}
		return r.ev
	case <-time.After(20 * time.Second):
		e.Close()
		t.Fatal("no event within 20 s")
		return Event{}
	}
}

// OpenSocket opens a WebSocket.
func OpenSocket(t testing.TB, g *Gateway, url string, protocols []string, headers ...string) *websocket.Conn {
	t.Helper()
	conn, resp, err := TrySocket(g, url, protocols, headers...)
	for try := 0; err != nil && resp == nil && try < 20; try++ { // no connection came about, as in a reload
		conn, resp, err = TrySocket(g, url, protocols, headers...)
	}
	if err != nil {
		body := ""
		if resp != nil {
			raw, _ := io.ReadAll(resp.Body)
			body = resp.Status + " " + string(raw)
		}
		t.Fatalf("opening %s: %v %s", url, err, body)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TrySocket is OpenSocket for handshakes that may be refused.
func TrySocket(g *Gateway, url string, protocols []string, headers ...string) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{Subprotocols: protocols, HandshakeTimeout: 15 * time.Second}
	if strings.HasPrefix(url, "https") {
		d.TLSClientConfig = g.CA()
	}
	h := make(http.Header)
	for i := 0; i < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	return d.Dial("ws"+strings.TrimPrefix(url, "http"), h)
}
