package sse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// client is an open event stream.
type client struct {
	t      *testing.T
	resp   *http.Response
	reader *bufio.Reader
	served chan error
	cancel context.CancelFunc
	text   strings.Builder
}

// connect serves one request by e over HTTP/1.1 or HTTP/2.
func connect(t *testing.T, e *Entrypoint, s *entrypointtest.Session, h2 bool, change func(*http.Request)) *client {
	t.Helper()
	served := make(chan error, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := e.Serve(w, r, s)
		if _, begun := entrypoints.EndOf(err); begun {
			served <- err
			return
		}
		if p, ok := errors.AsType[*entrypoints.Problem](err); ok {
			p.Write(w, "")
		} else if m, ok := errors.AsType[*message.Error](err); ok {
			entrypoints.AsProblem(m).Write(w, "")
		}
		served <- err
	}))
	srv.EnableHTTP2 = h2
	if h2 {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	ctx, cancel := context.WithTimeout(t.Context(), entrypointtest.Patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	if change != nil {
		change(r)
	}
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &client{t: t, resp: resp, reader: bufio.NewReader(resp.Body), served: served, cancel: cancel}
}

// block reads up to the next blank line.
func (c *client) block() string {
	c.t.Helper()
	var block strings.Builder
	for {
		line, err := c.reader.ReadString('\n')
		block.WriteString(line)
		if err != nil {
			c.t.Fatalf("after %q: %v", block.String(), err)
		}
		if line == "\n" {
			c.text.WriteString(block.String())
			return block.String()
		}
	}
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.block(); got != want {
		c.t.Errorf("got %q, want %q", got, want)
	}
}

// expectEnd reads to the orderly end of the response.
func (c *client) expectEnd(reason entrypoints.EndReason) {
	c.t.Helper()
	if rest, err := io.ReadAll(c.reader); err != nil || len(rest) > 0 {
		c.t.Errorf("the end is %q, %v", rest, err)
	}
	if end, _ := entrypoints.EndOf(<-c.served); end.Reason != reason {
		c.t.Errorf("Serve returned %+v, want %s", end, reason)
	}
}

func (c *client) hello() {
	c.t.Helper()
	p := parseStream(c.block())
	if len(p.retry) != 1 || p.retry[0] < 1000 || p.retry[0] >= 5000 || len(p.events) != 0 {
		c.t.Errorf("the first chunk is %q", c.text.String())
	}
}

func bothProtocols(t *testing.T, f func(t *testing.T, h2 bool)) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%t", h2), func(t *testing.T) { f(t, h2) })
	}
}

func TestStream(t *testing.T) {
	bothProtocols(t, func(t *testing.T, h2 bool) {
		s := entrypointtest.NewSession(t)
		s.Feed.Resumable = true
		c := connect(t, provisioned(t, nil), s, h2, nil)
		h := c.resp.Header
		if c.resp.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" ||
			h.Get("X-Accel-Buffering") != "no" || h.Get("Connection") != "" {
			t.Errorf("%d %v", c.resp.StatusCode, h)
		}
		c.hello()
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		c.expect("id: " + entrypointtest.Cursor(0) + "\nevent: message\ndata: zero\n\n")
		s.Feed.Deliver(entrypointtest.Delivery(1, "one\ntwo"), entrypointtest.Delivery(2, strings.Repeat("x", 100_000)))
		c.expect("id: " + entrypointtest.Cursor(1) + "\nevent: message\ndata: one\ndata: two\n\n")
		c.expect("id: " + entrypointtest.Cursor(2) + "\nevent: message\ndata: " + strings.Repeat("x", 100_000) + "\n\n")
		s.Feed.Gap(message.GapExpired, "too old", entrypointtest.Delivery(9, "nine"))
		c.expect("event: gap\ndata: {\"reason\":\"expired\",\"detail\":\"too old\"}\n\n")
		c.expect("id: " + entrypointtest.Cursor(9) + "\nevent: message\ndata: nine\n\n")
		entrypointtest.Await(t, "four written", func() bool { return s.Feed.WrittenCount() == 4 })
		s.End(entrypoints.End{Reason: entrypoints.EndChanged, Detail: "redeployed", Retry: 1234 * time.Millisecond})
		c.expect("retry: 1234\nevent: goaway\ndata: {\"reason\":\"api_changed\",\"detail\":\"redeployed\"}\n\n")
		c.expectEnd(entrypoints.EndChanged)
		want := []string{"poll 1", "written 1", "poll 2", "written 3", "gap expired", "poll 1", "written 4", "close"}
		if got := s.Feed.Calls(); !slices.Equal(got, want) {
			t.Errorf("calls %q", got)
		}
		if n := s.SentCount(); n.Messages != 4 || n.Bytes != len(c.text.String())-retryBytes(c.text.String()) {
			t.Errorf("counted %+v", n)
		}
	})
}

// retryBytes is the length of what is not a message.
func retryBytes(text string) (n int) {
	for block := range strings.SplitAfterSeq(text, "\n\n") {
		if !strings.Contains(block, "event: message\n") {
			n += len(block)
		}
	}
	return n
}

func TestStreamWithoutPositionsHasNoIds(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
	c := connect(t, provisioned(t, nil), s, false, nil)
	c.hello()
	c.expect("event: message\ndata: zero\n\n")
	c.cancel()
	<-c.served
}

func TestStreamEndsByAnError(t *testing.T) {
	bothProtocols(t, func(t *testing.T, h2 bool) {
		s := entrypointtest.NewSession(t)
		c := connect(t, provisioned(t, nil), s, h2, nil)
		c.hello()
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		s.Feed.Fail(message.Errorf(message.NotFound, "topic orders was deleted"))
		c.expect("event: message\ndata: zero\n\n")
		c.expect("event: error\ndata: {\"type\":\"urn:message-api:problem:channel-not-found\",\"detail\":\"topic orders was deleted\"}\n\n")
		c.expectEnd(entrypoints.EndBroker)
	})
}

func TestEndBeforeTheStreamBegan(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.End(entrypoints.End{Reason: entrypoints.EndRevoked})
	c := connect(t, provisioned(t, nil), s, false, nil)
	c.hello()
	c.expect("event: goaway\ndata: {\"reason\":\"revoked\",\"detail\":\"\"}\n\n")
	c.expectEnd(entrypoints.EndRevoked)
}

func TestEndComesBetweenBursts(t *testing.T) {
	// A stream that always has something to write is ended all the same.
	s := entrypointtest.NewSession(t)
	ended := false
	s.Feed.Deliver(entrypointtest.Deliveries(0, 9)...)
	c := connect(t, provisioned(t, nil), s, false, nil)
	c.hello()
	for n := 10; ; n++ {
		s.Feed.Deliver(entrypointtest.Delivery(n, "more"))
		block := c.block()
		if strings.HasPrefix(block, "event: goaway") {
			break
		}
		if !ended {
			s.End(entrypoints.End{Reason: entrypoints.EndShutdown})
			ended = true
		}
	}
	c.expectEnd(entrypoints.EndShutdown)
}

func TestClientLeaves(t *testing.T) {
	bothProtocols(t, func(t *testing.T, h2 bool) {
		s := entrypointtest.NewSession(t)
		c := connect(t, provisioned(t, nil), s, h2, nil)
		c.hello()
		c.cancel()
		if end, _ := entrypoints.EndOf(<-c.served); end.Reason != entrypoints.EndClient {
			t.Errorf("Serve returned %+v", end)
		}
		if got := s.Feed.Calls(); !slices.Equal(got, []string{"close"}) {
			t.Errorf("calls %q", got)
		}
	})
}

func TestSubscribeFails(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.SubscribeFunc = func(context.Context, entrypoints.Want) error {
		return &message.Error{Kind: message.Unavailable, Detail: "kafka:9092 refused", RetryAfter: time.Second}
	}
	c := connect(t, provisioned(t, nil), s, false, nil)
	<-c.served
	if c.resp.StatusCode != 503 || c.resp.Header.Get("Content-Type") != "application/problem+json" || c.resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", c.resp.StatusCode, c.resp.Header)
	}
}

func TestGarbledLastEventID(t *testing.T) {
	garbled := func(_ context.Context, want entrypoints.Want) error {
		if want.Resuming {
			return message.Errorf(message.BadInput, "cursor is not one that this gateway made")
		}
		return nil
	}
	t.Run("header", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.SubscribeFunc = garbled
		c := connect(t, provisioned(t, nil), s, false, func(r *http.Request) { r.Header.Set("Last-Event-ID", "?!") })
		c.hello()
		c.expect("event: gap\ndata: {\"reason\":\"foreign\",\"detail\":\"Last-Event-ID: cursor is not one that this gateway made\"}\n\n")
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		c.expect("event: message\ndata: zero\n\n")
		wants := s.Wants()
		if len(wants) != 2 || wants[0].Cursor != "?!" || !wants[0].Resuming || wants[1].Cursor != "" || wants[1].Resuming {
			t.Errorf("%+v", wants)
		}
		c.cancel()
		<-c.served
	})
	t.Run("query", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.SubscribeFunc = garbled
		c := connect(t, provisioned(t, nil), s, false, func(r *http.Request) { r.URL.RawQuery = "cursor=%3F!" })
		<-c.served
		if c.resp.StatusCode != 400 || len(s.Wants()) != 1 {
			t.Errorf("%d, %d subscribes", c.resp.StatusCode, len(s.Wants()))
		}
	})
	t.Run("not the id alone", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.SubscribeFunc = func(context.Context, entrypoints.Want) error {
			return message.Errorf(message.BadInput, "from is not allowed here")
		}
		c := connect(t, provisioned(t, nil), s, false, func(r *http.Request) { r.Header.Set("Last-Event-ID", "?!") })
		<-c.served
		if c.resp.StatusCode != 400 || len(s.Wants()) != 2 {
			t.Errorf("%d, %d subscribes", c.resp.StatusCode, len(s.Wants()))
		}
	})
}

func TestResumeByHeader(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.Feed.Resumable = true
	c := connect(t, provisioned(t, nil), s, false, func(r *http.Request) { r.Header.Set("Last-Event-ID", entrypointtest.Cursor(4)) })
	c.hello()
	s.Feed.Deliver(entrypointtest.Delivery(5, "five"))
	c.expect("id: " + entrypointtest.Cursor(5) + "\nevent: message\ndata: five\n\n")
	if want := s.Wants()[0]; want.Cursor != entrypointtest.Cursor(4) || !want.Resuming {
		t.Errorf("%+v", want)
	}
	c.cancel()
	<-c.served
}

func TestHeartbeatOnlyInSilence(t *testing.T) {
	bothProtocols(t, func(t *testing.T, h2 bool) {
		s := entrypointtest.NewSession(t)
		c := connect(t, provisioned(t, nil), s, h2, nil)
		c.hello()
		entrypointtest.Await(t, "the clock", func() bool { return slices.Equal(s.Intervals(), []time.Duration{1250 * time.Millisecond}) })
		s.Tick(time.Now().Add(3 * time.Second)) // not yet
		s.Tick(time.Now().Add(5 * time.Second))
		c.expect(":\n\n")
		s.Tick(time.Now().Add(3 * time.Second)) // the heartbeat itself broke the silence
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		c.expect("event: message\ndata: zero\n\n")
		s.Tick(time.Now().Add(2 * time.Second))
		s.Feed.Deliver(entrypointtest.Delivery(1, "one"))
		c.expect("event: message\ndata: one\n\n")
		c.cancel()
		<-c.served
	})
}

func TestHeartbeatOff(t *testing.T) {
	s := entrypointtest.NewSession(t)
	c := connect(t, provisioned(t, func(e *Entrypoint) { e.Heartbeat = new(caddy.Duration) }), s, false, nil)
	c.hello()
	s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
	c.expect("event: message\ndata: zero\n\n")
	if got := s.Intervals(); len(got) != 0 {
		t.Errorf("the clock runs every %v", got)
	}
	c.cancel()
	<-c.served
}

func TestSweep(t *testing.T) {
	start := time.Unix(1000, 0)
	sig := &signals{wake: make(chan struct{}, 1)}
	sig.lastWrite.Store(start.UnixNano())
	clock := sweep{signals: sig, heartbeat: 8 * time.Second, rotateAt: start.Add(time.Minute)}
	for _, c := range []struct {
		after time.Duration
		pulse bool
	}{{0, false}, {6900 * time.Millisecond, false}, {7 * time.Second, true}, {8 * time.Second, true}} {
		clock.check(start.Add(c.after))
		if got := sig.pulse.Swap(false); got != c.pulse {
			t.Errorf("after %s: %t", c.after, got)
		}
	}
	if sig.end.Load() != nil {
		t.Error("rotated too early")
	}
	clock.check(start.Add(time.Minute))
	if end := sig.end.Load(); end == nil || end.Reason != entrypoints.EndRotate || end.Retry < time.Second {
		t.Errorf("%+v", end)
	}
	for _, c := range []struct {
		sweep sweep
		want  time.Duration
	}{
		{sweep{}, 0},
		{sweep{heartbeat: 5 * time.Second}, 1250 * time.Millisecond},
		{sweep{heartbeat: 5 * time.Second, rotateAt: start}, time.Second},
		{sweep{heartbeat: time.Second, rotateAt: start}, 250 * time.Millisecond},
		{sweep{rotateAt: start}, time.Second},
	} {
		if got := c.sweep.interval(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.sweep, got, c.want)
		}
	}
}

func TestRotate(t *testing.T) {
	s := entrypointtest.NewSession(t)
	c := connect(t, provisioned(t, func(e *Entrypoint) { e.Rotate = caddy.Duration(time.Hour) }), s, false, nil)
	c.hello()
	entrypointtest.Await(t, "the clock", func() bool { return slices.Equal(s.Intervals(), []time.Duration{time.Second}) })
	s.Tick(time.Now().Add(47 * time.Minute)) // before 80 %: a heartbeat, but no end
	c.expect(":\n\n")
	s.Tick(time.Now().Add(time.Hour))
	p := parseStream(c.block())
	if len(p.events) != 1 || p.events[0].name != "goaway" || !strings.Contains(p.events[0].data, `"reason":"rotate"`) || len(p.retry) != 1 {
		t.Errorf("%+v", p)
	}
	c.expectEnd(entrypoints.EndRotate)
}

func TestSettlingFails(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.Feed.WrittenErr = errors.New("broker is away")
	c := connect(t, provisioned(t, nil), s, false, nil)
	c.hello()
	for n := range 3 {
		s.Feed.Deliver(entrypointtest.Delivery(n, "x"))
		c.expect("event: message\ndata: x\n\n")
	}
	c.cancel()
	<-c.served
	if n := s.Logs.FilterMessage("messages that were delivered could not be settled").Len(); n != 1 {
		t.Errorf("%d log lines, want one", n)
	}
}

func TestSlowClientIsCut(t *testing.T) {
	s := entrypointtest.NewSession(t)
	e := provisioned(t, nil)
	e.writeTimeout = 300 * time.Millisecond
	served := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { served <- e.Serve(w, r, s) }))
	defer srv.Close()
	var burst []message.Delivery
	for n := range 64 { // more than the kernel's buffers hold
		burst = append(burst, entrypointtest.Delivery(n, strings.Repeat("x", 1<<20)))
	}
	s.Feed.Deliver(burst...)
	conn, err := net.Dial("tcp", strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-served:
		if !errors.Is(err, entrypoints.ErrSlowClient) {
			t.Errorf("Serve returned %v", err)
		}
	case <-time.After(entrypointtest.Patience):
		t.Fatal("a client that reads nothing is kept")
	}
	if n := s.Feed.WrittenCount(); n != 0 {
		t.Errorf("%d messages count as written", n)
	}
}
