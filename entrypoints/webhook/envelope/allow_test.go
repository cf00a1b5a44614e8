package envelope

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// never are names that no message may set, whatever is allowed.
var never = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "TE", "Trailer", "Transfer-Encoding",
	"Upgrade", "HTTP2-Settings", "Host", "Content-Length", "Expect", "Authorization", "Cookie", "Set-Cookie", "User-Agent",
	"webhook-id", "Webhook-Signature", "webhook-timestamp", "webhook-attempt", "webhook-tombstone", "webhook-later",
	"Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-Real-IP", "X-HTTP-Method-Override", "Via",
}

func TestWhatNeverComesFromAMessage(t *testing.T) {
	for _, events := range []*CloudEvents{nil, {Source: "/s", Type: "t"}} {
		var dropped []string
		opt := Options{Allow: []string{"*"}, CloudEvents: events, Dropped: func(name string) { dropped = append(dropped, name) }}
		m := &message.Message{Payload: []byte("x")}
		for _, name := range never {
			for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
				m.Headers = append(m.Headers, message.Header{Name: spelled, Value: "evil"})
			}
		}
		m.Headers = append(m.Headers, headersOf("traceparent", "evil", "tracestate", "evil", "content-type", "evil", "content-encoding", "e vil")...)
		r := request(t, opt, m)
		for name, values := range r.Header {
			for _, value := range values {
				if strings.Contains(value, "evil") {
					t.Errorf("%s: %s", name, value)
				}
			}
		}
		for _, name := range never {
			if !slices.Contains(dropped, name) {
				t.Errorf("nobody is told that %s is left out", name)
			}
		}
	}
}

func TestAllowList(t *testing.T) {
	var dropped []string
	opt := Options{
		Allow: []string{"X-Exact", "x-pre-*"}, Headers: http.Header{"X-Pre-Fixed": {"ours"}},
		Dropped: func(name string) { dropped = append(dropped, name) },
	}
	r := request(t, opt, &message.Message{Headers: headersOf(
		"x-exact", "1", "X-EXACTLY", "no", "X-PRE-A", "2", "x-pre", "no", "x-pre-", "3", "x-pre-fixed", "theirs", "other", "no",
		"x-pre-bad", "a\r\nb: c", "x-pre- bad", "x", "bad name", "not asked for", "x-pre-empty", "", "x-pre-utf", "Grüße",
	)})
	sameHeaders(t, r.Header, http.Header{
		"X-Exact": {"1"}, "X-Pre-A": {"2"}, "X-Pre-": {"3"}, "X-Pre-Fixed": {"ours"}, "X-Pre-Empty": {""}, "X-Pre-Utf": {"Grüße"},
		"Webhook-Id": {testID}, "Webhook-Timestamp": {"1795000000"}, "Webhook-Attempt": {"3"}, "User-Agent": {DefaultUserAgent},
		"Content-Type": {defaultType}, "Traceparent": r.Header["Traceparent"],
	})
	if want := []string{"x-pre-bad", "x-pre- bad"}; !slices.Equal(dropped, want) {
		t.Errorf("dropped %q, want %q", dropped, want)
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name       string
		n, size    int
		fixed      http.Header
		withEvents bool
	}{
		{name: "lines", n: 200, size: 1},
		{name: "bytes", n: 60, size: 1000},
		{name: "lines beside fixed ones", n: 200, size: 1, fixed: http.Header{"X-F": slices.Repeat([]string{"1"}, 20)}},
		{name: "bytes beside fixed ones", n: 60, size: 1000, fixed: http.Header{"X-F": {strings.Repeat("x", 4000), strings.Repeat("x", 4000)}}},
		{name: "lines of an event", n: 200, size: 1, withEvents: true},
		{name: "bytes of an event", n: 60, size: 1000, withEvents: true},
	} {
		dropped := 0
		opt := Options{
			Secrets: []Secret{testSecret(1), testSecret(2)}, Allow: []string{"x-*"}, Headers: c.fixed,
			Dropped: func(string) { dropped++ },
		}
		m := &message.Message{Payload: []byte("x")}
		for i := range c.n {
			m.Headers = append(m.Headers, message.Header{Name: fmt.Sprintf("x-%d", i), Value: strings.Repeat("v", c.size)})
		}
		if c.withEvents {
			opt.CloudEvents = &CloudEvents{Source: "/" + strings.Repeat("s", 1000), Type: strings.Repeat("t", 1000)}
			m.Headers = append(m.Headers, headersOf("ce_specversion", "1.0")...)
			for i := range c.n {
				m.Headers = append(m.Headers, message.Header{Name: fmt.Sprintf("ce_x%d", i), Value: strings.Repeat("v", c.size)})
			}
			m.Headers = append(m.Headers, headersOf("ce_id", "17")...)
		}
		r := request(t, opt, m)
		lines, size := 0, 0
		for name, values := range r.Header {
			for _, value := range values {
				lines++
				size += len(name) + len(value) + 4
			}
		}
		if lines > MaxHeaders || size > MaxHeaderBytes {
			t.Errorf("%s: %d lines, %d bytes", c.name, lines, size)
		}
		if c.size == 1 && lines < MaxHeaders || c.size > 1 && size < MaxHeaderBytes-2000 {
			t.Errorf("%s: %d lines and %d bytes are less than there is room for", c.name, lines, size)
		}
		if dropped == 0 {
			t.Errorf("%s: nobody is told", c.name)
		}
		if c.withEvents && r.Header.Get("ce-id") != "17" {
			t.Errorf("%s: the event has lost its id to %s", c.name, r.Header.Get("ce-id"))
		}
	}
}

// Publishers choose names, so what is remembered of them is bounded.
func TestNamesAreRememberedWithinBounds(t *testing.T) {
	a, err := newAllowList([]string{"x-*"}, false)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 2000 {
				name := fmt.Sprintf("x-%d-%d", g%2, i)
				if v := a.of(name); v.key != http.CanonicalHeaderKey(name) {
					t.Errorf("%s: %+v", name, v)
				}
			}
		})
	}
	all.Wait()
	if n := len(*a.known.Load()); n > maxKnown || n < maxKnown/2 {
		t.Errorf("%d names are remembered", n)
	}
	if v := a.of("x-" + strings.Repeat("y", 1000)); v.key == "" {
		t.Error("a long name is allowed, too")
	}
}

// FuzzWire writes requests as they go over the wire, and reads them as receivers do.
func FuzzWire(f *testing.F) {
	f.Add("x-a", "1", "content-type", "a/b", "ce_id", "1\r\n\r\nGET / HTTP/1.1", []byte("hello"), true)
	f.Add("x-a\r\nx-b", "1", "content-encoding", "gzip\nx: y", "tracestate", "a=\x00", []byte{}, false)
	f.Add("x-a", "\r\n b", "cloudEvents:specversion", "1.0", "cloudEvents:subject", "ä %\x7f", []byte{0}, true)
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2, n3, v3 string, payload []byte, events bool) {
		opt := Options{Secrets: []Secret{testSecret(1)}, Allow: []string{"*"}}
		if events {
			opt.CloudEvents = &CloudEvents{Source: "/s", Type: "t"}
		}
		m := &message.Message{
			Payload: payload, Headers: headersOf(n1, v1, n2, v2, n3, v3, "traceparent", "00-"+traceID+"-"+parentID+"-01", "ce_specversion", "1.0"),
			Metadata: []message.Field{message.Text("content_type", v1), message.Text("content_encoding", v2)},
		}
		r := request(t, opt, m)
		for name, values := range r.Header {
			for _, value := range values {
				if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || strings.ContainsAny(name+value, "\x00\r\n") {
					t.Fatalf("%q: %q", name, value)
				}
			}
		}
		var wire bytes.Buffer
		if err := r.Write(&wire); err != nil {
			t.Fatal(err)
		}
		got, err := http.ReadRequest(bufio.NewReader(&wire))
		if err != nil {
			t.Fatalf("%v\n%q", err, wire.String())
		}
		body, err := io.ReadAll(got.Body)
		if err != nil || !bytes.Equal(body, payload) || got.Method != http.MethodPost || got.Host != "example.com" || got.RequestURI != "/hook" {
			t.Fatalf("%v: %s %s, host %s, body %q", err, got.Method, got.RequestURI, got.Host, body)
		}
		got.Header.Del("Content-Length")
		sameHeaders(t, got.Header, r.Header)
		if want := Sign(testID, testTime, payload, opt.Secrets); got.Header.Get("webhook-signature") != want || got.Header.Get("webhook-id") != testID {
			t.Fatalf("%v", got.Header)
		}
		if rest, err := io.ReadAll(&wire); err != nil || len(rest) > 0 {
			t.Fatalf("a second request: %q", rest)
		}
	})
}
