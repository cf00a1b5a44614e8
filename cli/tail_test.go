package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	ws "github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/cli"
)

// script answers the n-th GET with the n-th handler, the last one for ever.
func script(t *testing.T, handlers ...http.HandlerFunc) *httptest.Server {
	t.Helper()
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[min(int(n.Add(1)), len(handlers))-1](w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// stream answers with an event stream, and hangs up after it.
func stream(check func(*http.Request) error, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := check(r); err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, text)
	}
}

func asked(wantID, wantQuery string) func(*http.Request) error {
	return func(r *http.Request) error {
		if id := r.Header.Get("Last-Event-ID"); id != wantID || r.URL.RawQuery != wantQuery {
			return fmt.Errorf("asked for %q and %q, want %q and %q", id, r.URL.RawQuery, wantID, wantQuery)
		}
		return nil
	}
}

func anything(*http.Request) error { return nil }

// A stream that breaks off goes on where it was, without a message lost or repeated.
func TestTailResumes(t *testing.T) {
	t.Parallel()
	s := script(t,
		stream(asked("", "a=b&from=earliest"), "retry: 5\n\nid: c1\nevent: message\ndata: one\ndata: two\n:k: v\n\nid: c2\nevent: message-base64\ndata: /w==\n\nid: c3\nevent: message\ndata: half"),
		stream(asked("c2", "a=b"), ":\n\nid: c3\nevent: message\ndata: three\n\nretry: 7\nevent: goaway\ndata: {\"reason\":\"rotate\",\"detail\":\"old\"}\n\n"),
		refuse(503, "broker-unavailable", "down", "Retry-After", "1"),
		stream(asked("c3", "a=b"), "event: gap\ndata: {\"reason\":\"expired\",\"detail\":\"gone\"}\n\nid: c4\nevent: message\ndata: four\n\n"),
	)
	r := call{args: []string{"tail", s.URL + "?a=b", "--from", "earliest", "-n", "4"}}.run(t)
	if r.failed != nil || r.out != "one\ntwo\n\xff\nthree\nfour\n" {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{
		"the connection was lost: the other side closed it; coming back in 1.",
		"the gateway ended the session (rotate): old; coming back in 7ms\n",
		"broker-unavailable (503): down; coming back in 1s\n",
		"gap (expired): gone\n",
	} {
		if !strings.Contains(r.err, want) {
			t.Errorf("%q is not in %q", want, r.err)
		}
	}
	if strings.Contains(r.err, "unresumable") {
		t.Errorf("it could resume: %s", r.err)
	}
}

func TestTailJSON(t *testing.T) {
	s := script(t, stream(anything, "id: c1\nevent: message\ndata: one\ndata: two\n:topic: orders\n\nevent: gap\ndata: {\"reason\":\"slow_client\",\"detail\":\"late\"}\n\nevent: later\ndata: unknown\n\nevent: message-base64\ndata: /w==\n\n"))
	r := call{args: []string{"tail", s.URL, "--sse", "--json", "-n", "2"}}.run(t)
	want := `{"type":"message","content":"one\ntwo","comments":["topic: orders"],"cursor":"c1"}
{"type":"gap","reason":"slow_client","detail":"late"}
{"type":"message","content":"/w==","encoding":"base64"}
`
	if r.failed != nil || r.out != want || r.err != "gap (slow_client): late\n" {
		t.Errorf("%+v", r)
	}
}

// Without a cursor nobody can say what was missed, and so it is told.
func TestTailWithoutCursor(t *testing.T) {
	t.Parallel()
	one := stream(asked("", ""), "event: message\ndata: one\n\n")
	r := call{args: []string{"tail", script(t, one).URL, "-n", "2"}}.run(t)
	if r.failed != nil || r.out != "one\none\n" || !strings.Contains(r.err, "gap (unresumable)") {
		t.Errorf("%+v", r)
	}
}

// Where coming back makes no sense, tail ends and says why.
func TestTailEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		handlers []http.HandlerFunc
		want     string
	}{
		{[]http.HandlerFunc{stream(anything, "event: goaway\ndata: {\"reason\":\"revoked\",\"detail\":\"the key was revoked\"}\n\n")},
			"Error: the gateway ended the session (revoked): the key was revoked\n"},
		{[]http.HandlerFunc{stream(anything, "retry: 5\n\nevent: goaway\ndata: {\"reason\":\"api_stopped\"}\n\n")},
			"Error: the gateway ended the session (api_stopped)\n"},
		{[]http.HandlerFunc{refuse(401, "unauthorized", "no key")}, "Error: unauthorized (401): no key\n"},
		{[]http.HandlerFunc{refuse(503, "broker-unavailable", "down")}, "Error: broker-unavailable (503): down\n"},
		{[]http.HandlerFunc{stream(anything, "id: 1\ndata: x\n\n"), refuse(403, "forbidden", "paused")}, "Error: forbidden (403): paused\n"},
		{[]http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }}, "no event stream: is it the URL of a message API?"},
		{[]http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }}, "a redirect to /login"},
	} {
		r := call{args: []string{"tail", script(t, c.handlers...).URL + "?api-key=s3cret"}}.run(t)
		if r.failed == nil || !strings.Contains(r.err, c.want) || strings.Contains(r.err, "s3cret") {
			t.Errorf("%+v, want %q", r, c.want)
		}
	}
}

func TestTailRefusesInput(t *testing.T) {
	for want, args := range map[string][]string{
		"choose one":                        {"--sse", "--get"},
		"--count -1":                        {"--count", "-1"},
		"--header takes":                    {"-H", "x"},
		"arguments are too few or too many": {"second"},
		"no answer within --timeout":        nil,
		"MESSAGE_API_KEY and MESSAGE_API":   nil,
	} {
		if args != nil {
			if got := refused(t, append([]string{"tail", "localhost:1"}, args...)...); !strings.Contains(got, want) {
				t.Errorf("%v: %s", args, got)
			}
		}
	}
	r := call{args: []string{"tail", "localhost:1"}, env: map[string]string{"MESSAGE_API_KEY": "a", "MESSAGE_API_TOKEN": "b"}}.run(t)
	if r.failed == nil || !strings.Contains(r.err, "MESSAGE_API_KEY and MESSAGE_API_TOKEN are two credentials") {
		t.Errorf("%+v", r)
	}
	silent := script(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if got := refused(t, "tail", silent.URL, "--timeout", "30ms"); !strings.Contains(got, "no answer within --timeout") {
		t.Error(got)
	}
}

// What comes from a broker can't steer a terminal.
func TestTailOnATerminal(t *testing.T) {
	s := script(t, stream(anything, "data: a\x1b[2J\tb\n\nevent: message-base64\ndata: /w==\n\n"))
	r := call{args: []string{"tail", s.URL, "-n", "2"}, terminal: true}.run(t)
	if want := "a\ufffd[2J\tb\n(1 bytes that are no text: /w==)\n"; r.out != want {
		t.Errorf("%q, want %q", r.out, want)
	}
}

func TestTailInterrupted(t *testing.T) {
	s := script(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	p := call{args: []string{"tail", s.URL}}.start(t)
	p.sees(t, p.out, "one\n")
	if r := p.interrupt(t); r.failed != nil || r.err != "" {
		t.Errorf("%+v", r)
	}
}

func TestTailWithoutReader(t *testing.T) {
	s := script(t, stream(anything, "data: one\n\n"))
	cmd := cli.NewCommand(nil, nil, false)
	cmd.SetArgs([]string{"message-api", "tail", s.URL})
	cmd.SetOut(brokenPipe{})
	cmd.SetErr(new(buffer))
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "writing what was read: broken pipe") {
		t.Errorf("%v", err)
	}
}

// pages answers GETs with these pages, and says what was asked.
func TestTailByGET(t *testing.T) {
	t.Parallel()
	answer := func(query, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != query || r.Header.Get("Accept") != "application/json" {
				http.Error(w, "asked for "+r.URL.RawQuery, http.StatusTeapot)
				return
			}
			fmt.Fprint(w, body)
		}
	}
	s := script(t,
		answer("from=earliest&limit=4", `{"items":[{"id":"1","content":"one"},{"content":"/w==","encoding":"base64","headers":{"a":["b"]}}],"pagination":{"nextCursor":"c1","limit":"4"}}`),
		answer("cursor=c1&limit=2", `{"items":[],"pagination":{"nextCursor":"c2"}}`),
		refuse(503, "broker-unavailable", "down", "Retry-After", "1"),
		answer("cursor=c2&limit=2", `{"items":[{"content":"three"},{"content":"four"}],"gap":{"reason":"expired","detail":"gone","before":1},"pagination":{}}`),
	)
	r := call{args: []string{"tail", s.URL, "--get", "--json", "--from", "earliest", "-n", "4"}}.run(t)
	want := `{"type":"message","id":"1","content":"one"}
{"type":"message","content":"/w==","encoding":"base64","headers":{"a":["b"]}}
{"type":"message","content":"three"}
{"type":"gap","reason":"expired","detail":"gone"}
{"type":"message","content":"four"}
`
	if r.failed != nil || r.out != want || !strings.Contains(r.err, "gap (expired): gone") || !strings.Contains(r.err, "gives no cursor") {
		t.Errorf("%+v", r)
	}
}

// socket answers with a WebSocket that sends frames, and then does what end says.
func socket(check func(*http.Request) error, frames []string, end func(*ws.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := check(r); err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
			return
		}
		up := ws.Upgrader{Subprotocols: []string{"message-api.v1+json"}}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for _, f := range frames {
			if conn.WriteMessage(ws.TextMessage, []byte(f)) != nil {
				return
			}
		}
		end(conn)
	}
}

func closeWith(code int, text string) func(*ws.Conn) {
	return func(conn *ws.Conn) {
		_ = conn.WriteMessage(ws.CloseMessage, ws.FormatCloseMessage(code, text))
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
		}
	}
}

func TestTailByWebSocket(t *testing.T) {
	t.Parallel()
	acked := make(chan string, 100)
	readAcks := func(conn *ws.Conn) {
		for {
			_, raw, err := conn.ReadMessage()
			if err != nil {
				close(acked)
				return
			}
			acked <- string(raw)
		}
	}
	s := script(t,
		socket(asked("", ""), []string{`{"type":"message","id":"1","content":"one","headers":{"a":["b"]},"metadata":{"n":1},"cursor":"c1"}`, `{"type":"gap","reason":"expired","detail":"gone"}`,
			`{"type":"goaway","reason":"shutdown","detail":"bye","reconnect":true,"retry_ms":3}`}, closeWith(1001, "shutdown")),
		socket(asked("", "cursor=c1"), []string{`{"type":"message","content":"two","cursor":"c2"}`}, func(*ws.Conn) {}),
		socket(asked("", "cursor=c2"), []string{`{"type":"error","detail":"not outstanding"}`, `{"type":"message","seq":1,"content":"three"}`, `{"type":"message","seq":2,"content":"/w==","encoding":"base64"}`}, readAcks),
	)
	r := call{args: []string{"tail", s.URL, "--websocket", "--json", "-n", "4"}}.run(t)
	want := `{"type":"message","id":"1","content":"one","headers":{"a":["b"]},"metadata":{"n":1},"cursor":"c1"}
{"type":"gap","reason":"expired","detail":"gone"}
{"type":"message","content":"two","cursor":"c2"}
{"type":"message","content":"three"}
{"type":"message","content":"/w==","encoding":"base64"}
`
	if r.failed != nil || r.out != want {
		t.Errorf("%+v", r)
	}
	for _, text := range []string{"(shutdown): bye; coming back in 3ms", "the connection was lost", "the gateway says: not outstanding"} {
		if !strings.Contains(r.err, text) {
			t.Errorf("%q is not in %q", text, r.err)
		}
	}
	last := ""
	for a := range acked {
		last = a
	}
	if last != `{"type":"ack","upto":2}` {
		t.Errorf("the last acknowledgement was %q", last)
	}
}

// Without the sub-protocol there are contents alone, and a gap closes the connection.
func TestTailRawWebSocket(t *testing.T) {
	t.Parallel()
	raw := func(kind int, content string, end func(*ws.Conn)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, err := new(ws.Upgrader).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer conn.Close()
			if conn.WriteMessage(kind, []byte(content)) == nil {
				end(conn)
			}
		}
	}
	s := script(t,
		raw(ws.TextMessage, "<one>", closeWith(1013, "gap: slow_client: too late")),
		raw(ws.BinaryMessage, "\xff", closeWith(1000, "")),
	)
	r := call{args: []string{"tail", s.URL, "--websocket", "--json", "-n", "2"}}.run(t)
	want := `{"type":"message","content":"<one>"}
{"type":"gap","reason":"slow_client","detail":"too late"}
{"type":"message","content":"/w==","encoding":"base64"}
`
	if r.failed != nil || r.out != want || !strings.Contains(r.err, "closed the WebSocket with 1013 gap: slow_client: too late; coming back") {
		t.Errorf("%+v", r)
	}
}

func TestTailWebSocketEnds(t *testing.T) {
	for _, c := range []struct {
		handler http.HandlerFunc
		want    string
	}{
		{socket(anything, nil, closeWith(1008, "revoked: the key was revoked")), "Error: the gateway closed the WebSocket with 1008 revoked: the key was revoked\n"},
		{socket(anything, []string{`{"type":"goaway","reason":"operator","detail":"ended"}`}, closeWith(1008, "operator")), "Error: the gateway ended the session (operator): ended\n"},
		{socket(anything, []string{`nonsense`}, func(*ws.Conn) {}), "no JSON"},
		{refuse(403, "origin-refused", "no"), "Error: origin-refused (403): no\n"},
	} {
		if got := refused(t, "tail", script(t, c.handler).URL, "--websocket"); !strings.Contains(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// An API without an event stream is read by what it has.
func TestTailFindsAWay(t *testing.T) {
	notAcceptable := refuse(406, "not-acceptable", "it has websocket")
	r := call{args: []string{"tail", script(t, notAcceptable, socket(anything, []string{`{"type":"message","content":"one"}`}, func(conn *ws.Conn) {
		_, _, _ = conn.ReadMessage()
	})).URL, "-n", "1"}}.run(t)
	if r.failed != nil || r.out != "one\n" || r.err != "" {
		t.Errorf("%+v", r)
	}
	r = call{args: []string{"tail", script(t, notAcceptable, notAcceptable, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[{"content":"one"}],"pagination":{"nextCursor":"c"}}`)
	}).URL, "-n", "1"}}.run(t)
	if r.failed != nil || r.out != "one\n" || r.err != "" {
		t.Errorf("%+v", r)
	}
	if got := refused(t, "tail", script(t, notAcceptable).URL); got != "Error: not-acceptable (406): it has websocket\n" {
		t.Error(got)
	}
}
