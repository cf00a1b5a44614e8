package websocket

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	ws "github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// upgradeRequest is a good handshake, changed.
func upgradeRequest(target string, change func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Header.Set("Connection", "keep-alive, Upgrade")
	r.Header.Set("Upgrade", "WebSocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", testKey)
	if change != nil {
		change(r)
	}
	return r
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"handshake", func(*http.Request) {}, 4},
		{"no Connection: it is told so", func(r *http.Request) { r.Header.Del("Connection") }, 4},
		{"plain GET", func(r *http.Request) { r.Header = http.Header{} }, 0},
		{"POST", func(r *http.Request) { r.Method = http.MethodPost }, 0},
		{"h2c upgrade", func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, 0},
		{"among others", func(r *http.Request) { r.Header.Set("Upgrade", "h2c, websocket") }, 4},
		{"HTTP/2 GET", func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 2, 0 }, 4},
		{"HTTP/2 plain", func(r *http.Request) { r.ProtoMajor, r.Header = 2, http.Header{} }, 0},
		{"RFC 8441", func(r *http.Request) {
			r.ProtoMajor, r.Method, r.Header = 2, http.MethodConnect, http.Header{":protocol": {"websocket"}}
		}, 4},
		{"RFC 9220", func(r *http.Request) {
			r.ProtoMajor, r.Method, r.Proto, r.Header = 3, http.MethodConnect, "websocket", http.Header{}
		}, 4},
		{"CONNECT", func(r *http.Request) { r.ProtoMajor, r.Method, r.Header = 2, http.MethodConnect, http.Header{} }, 0},
	} {
		if got := new(Entrypoint).Match(upgradeRequest("/", c.change)); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if m := new(Entrypoint).Methods(); !slices.Equal(m, []string{"GET"}) {
		t.Error(m)
	}
}

func TestHandshakeRefused(t *testing.T) {
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
	}
	publishOnly := func(e *Entrypoint) { e.Subscriber = new(bool) }
	for _, c := range []struct {
		name   string
		e      func(*Entrypoint)
		target string
		change func(*http.Request)
		status int
		slug   string
		detail string
	}{
		{"no Connection", nil, "/", set("Connection", "keep-alive"), 400, "websocket-handshake", "proxy"},
		{"no key", nil, "/", set("Sec-WebSocket-Key"), 400, "websocket-handshake", "16 bytes"},
		{"short key", nil, "/", set("Sec-WebSocket-Key", "c2hvcnQ="), 400, "websocket-handshake", "16 bytes"},
		{"two keys", nil, "/", set("Sec-WebSocket-Key", testKey, testKey), 400, "websocket-handshake", "more than once"},
		{"body", nil, "/", func(r *http.Request) { r.ContentLength = 3 }, 400, "websocket-handshake", "body"},
		{"version", nil, "/", set("Sec-WebSocket-Version", "8"), 426, "websocket-version", `must be 13, not "8"`},
		{"HTTP/1.0", nil, "/", func(r *http.Request) { r.Proto, r.ProtoMinor = "HTTP/1.0", 0 }, 426, "websocket-version", "HTTP/1.0"},
		{"HTTP/2", nil, "/", func(r *http.Request) { r.ProtoMajor = 2 }, 501, "websocket-version", "HTTP/1.1"},
		{"HTTP/3", nil, "/", func(r *http.Request) { r.ProtoMajor = 3 }, 501, "websocket-version", "HTTP/3"},
		{"no protocol", qos(message.AtLeastOnce), "/", nil, 400, "subprotocol-required", Protocol},
		{"other protocol", qos(message.AtMostOnce), "/", set("Sec-WebSocket-Protocol", "mqtt"), 400, "subprotocol-required", Protocol},
		{"two cursors", nil, "/?cursor=a&cursor=b", nil, 400, "bad-query", "2 times"},
		{"two froms", nil, "/?from=latest&from=latest", nil, 400, "bad-query", "2 times"},
		{"unreadable query", nil, "/?a=%zz", nil, 400, "bad-query", "can't be read"},
		{"cursor to nowhere", publishOnly, "/?cursor=a", nil, 400, "bad-query", "only publishes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, w := entrypointtest.NewSession(t), httptest.NewRecorder()
			err := provisioned(t, c.e).Serve(w, upgradeRequest(c.target, c.change), s)
			p, ok := errors.AsType[*entrypoints.Problem](err)
			if !ok || p.Status != c.status || p.Slug != c.slug || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("got %+v, want %d %s %q", err, c.status, c.slug, c.detail)
			}
			if c.status == 426 && (w.Header().Get("Upgrade") != "websocket" || w.Header().Get("Sec-Websocket-Version") != "13") {
				t.Errorf("426 without what is required: %v", w.Header())
			}
			if len(s.Wants()) != 0 {
				t.Error("a refused client is subscribed")
			}
		})
	}
}

func TestSubscribeFailsBeforeUpgrade(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	srv.s.SubscribeFunc = func(context.Context, entrypoints.Want) error {
		return &message.Error{Kind: message.Unavailable, Detail: "broker 192.0.2.1:9092: refused", RetryAfter: 3 * time.Second}
	}
	_, resp, err := ws.DefaultDialer.DialContext(t.Context(), "ws://"+srv.address(), nil)
	if err == nil || resp == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "3" {
		t.Fatalf("%v %v", resp, err)
	}
	var p struct{ Detail string }
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || !strings.Contains(p.Detail, "192.0.2.1:9092") {
		t.Errorf("detail %q %v", p.Detail, err)
	}
	<-srv.over
}

func TestHandshakeAccepted(t *testing.T) {
	for _, c := range []struct{ name, offer, want string }{
		{"none", "", ""}, {"ours", Protocol, Protocol}, {"among others", "mqtt, " + Protocol, Protocol}, {"others", "mqtt", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := serve(t, provisioned(t, nil))
			header := http.Header{}
			if c.offer != "" {
				header.Set("Sec-WebSocket-Protocol", c.offer)
			}
			d := ws.Dialer{EnableCompression: true}
			conn, resp, err := d.DialContext(t.Context(), "ws://"+srv.address()+"/?cursor=abc&from=latest", header)
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Sec-Websocket-Protocol"); got != c.want {
				t.Errorf("protocol %q", got)
			}
			if resp.Header.Get("Sec-Websocket-Extensions") != "" {
				t.Error("compression was agreed on")
			}
			if resp.Header.Get("X-Gravitee-Request-Id") != srv.s.ID.RequestID {
				t.Errorf("headers set before are missing: %v", resp.Header)
			}
			bye(t, conn)
			srv.waitOver(t)
			want := srv.s.Wants()[0]
			if want.Cursor != "abc" || !want.Resuming || want.From != "latest" {
				t.Errorf("want: %+v", want)
			}
		})
	}
}

func TestEmptyQueryValuesCountAsAbsent(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	bye(t, srv.dial(t, "?cursor=&from="))
	srv.waitOver(t)
	if want := srv.s.Wants()[0]; want.Resuming || want.Cursor != "" || want.From != "" {
		t.Errorf("want: %+v", want)
	}
}

// Under Caddy the ResponseWriter is no Hijacker, and the access log needs the status.
func TestThroughCaddysWriters(t *testing.T) {
	status := make(chan int, 1)
	srv := serveWith(t, provisioned(t, nil), func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := caddyhttp.NewResponseRecorder(w, nil, nil)
			h.ServeHTTP(&caddyhttp.ResponseWriterWrapper{ResponseWriter: rec}, r)
			status <- rec.Status()
		})
	})
	srv.s.Feed.Deliver(entrypointtest.Delivery(0, "hello"))
	conn := srv.dial(t, "")
	if got := next(t, conn); got != "hello" {
		t.Errorf("got %q", got)
	}
	bye(t, conn)
	srv.waitOver(t)
	if got := <-status; got != http.StatusSwitchingProtocols {
		t.Errorf("the log would say %d", got)
	}
}

// A client may send as soon as it has the 101, or even before.
func TestFramesRightBehindTheHandshake(t *testing.T) {
	srv := serve(t, provisioned(t, nil))
	c := srv.rawWith(t, "", slices.Concat(masked(textFrame, "early"), masked(textFrame, strings.Repeat("x", 9000))))
	c.write(masked(closeFrame, "\x03\xe8"))
	c.wantFrame(closeFrame, "\x03\xe8")
	srv.waitOver(t)
	if got := srv.s.Published(); len(got) != 2 || string(got[0].Payload) != "early" || len(got[1].Payload) != 9000 {
		t.Errorf("published %d messages", len(got))
	}
}

type noHijack struct{ http.ResponseWriter }

type badHijack struct{ http.ResponseWriter }

func (badHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }

func TestUpgradeFails(t *testing.T) {
	for _, wrap := range []func(http.ResponseWriter) http.ResponseWriter{
		func(w http.ResponseWriter) http.ResponseWriter { return noHijack{w} },
		func(w http.ResponseWriter) http.ResponseWriter { return badHijack{w} },
	} {
		s := entrypointtest.NewSession(t)
		err := provisioned(t, nil).Serve(wrap(httptest.NewRecorder()), upgradeRequest("/", nil), s)
		if err != nil || s.Logs.FilterMessage("upgrade failed").Len() != 1 {
			t.Errorf("%v, logs %v", err, s.Logs.All())
		}
	}
}
