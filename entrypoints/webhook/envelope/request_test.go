package envelope

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/message"
)

func TestRequest(t *testing.T) {
	secrets := []Secret{testSecret(1), testSecret(2)}
	opt := Options{API: "orders", Secrets: secrets, Allow: []string{"X-Tenant", "App-*"}, Headers: http.Header{"x-fixed": {"1", "2"}}}
	r := request(t, opt, &message.Message{Payload: []byte("hello"), Headers: headersOf(
		"CONTENT-TYPE", "text/plain; charset=utf-8", "Content-encoding", "gzip", "x-tenant", " acme ", "app-a", "1", "app-a", "2", "other", "no",
	)})
	want := http.Header{
		"Webhook-Id": {testID}, "Webhook-Timestamp": {"1795000000"}, "Webhook-Attempt": {"3"},
		"Webhook-Signature": {Sign(testID, testTime, []byte("hello"), secrets)},
		"User-Agent":        {"caddy-message-api"}, "Content-Type": {"text/plain; charset=utf-8"}, "Content-Encoding": {"gzip"},
		"X-Tenant": {"acme"}, "App-A": {"1", "2"}, "X-Fixed": {"1", "2"}, "Traceparent": r.Header["Traceparent"],
	}
	sameHeaders(t, r.Header, want)
	if r.Method != http.MethodPost || r.URL.String() != "https://example.com/hook" || r.Host != "example.com" || r.ContentLength != 5 {
		t.Errorf("%s %s, host %s, %d bytes", r.Method, r.URL, r.Host, r.ContentLength)
	}
	for range 2 { // as on a connection that turns out to be closed
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "hello" {
			t.Errorf("body %q, %v", body, err)
		}
		if r.Body, err = r.GetBody(); err != nil {
			t.Fatal(err)
		}
	}
}

func sameHeaders(t *testing.T, got, want http.Header) {
	t.Helper()
	for name, values := range want {
		if !slices.Equal(got[name], values) {
			t.Errorf("%s: %q, want %q", name, got[name], values)
		}
	}
	for name, values := range got {
		if want[name] == nil {
			t.Errorf("%s: %q, which nobody wants", name, values)
		}
	}
}

func TestRequestCarriesItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := mustNew(t, Options{})
	r, err := e.Request(ctx, mustURL(t, "http://x/"), &message.Delivery{Message: new(message.Message)}, testID, 1, testTime)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if r.Context().Err() == nil || e.request.Context().Err() != nil {
		t.Error("the context is not that of the request")
	}
}

func TestUnsigned(t *testing.T) {
	r := request(t, Options{}, &message.Message{Payload: []byte("x")})
	if r.Header["Webhook-Signature"] != nil || r.Header.Get("webhook-timestamp") == "" {
		t.Errorf("%v", r.Header)
	}
}

func TestEmptyAndTombstone(t *testing.T) {
	for _, c := range []struct {
		name string
		m    message.Message
		want []string
	}{
		{"nil", message.Message{}, nil},
		{"empty", message.Message{Payload: []byte{}}, nil},
		{"tombstone", message.Message{Metadata: []message.Field{message.Flag(message.TombstoneField, true)}}, []string{"true"}},
		{"no tombstone", message.Message{Metadata: []message.Field{message.Flag(message.TombstoneField, false)}}, nil},
	} {
		r := request(t, Options{Secrets: []Secret{testSecret(1)}}, &c.m)
		if !slices.Equal(r.Header["Webhook-Tombstone"], c.want) {
			t.Errorf("%s: webhook-tombstone %q", c.name, r.Header["Webhook-Tombstone"])
		}
		if r.Body != http.NoBody || r.ContentLength != 0 || r.GetBody == nil {
			t.Errorf("%s: there is a body", c.name)
		}
		if got, want := r.Header.Get("webhook-signature"), Sign(testID, testTime, nil, []Secret{testSecret(1)}); got != want {
			t.Errorf("%s: signed %s, want %s", c.name, got, want)
		}
		var wire bytes.Buffer
		if err := r.Write(&wire); err != nil || !strings.Contains(wire.String(), "\r\nContent-Length: 0\r\n") {
			t.Errorf("%s: %v\n%s", c.name, err, wire.String())
		}
	}
}

func TestContentType(t *testing.T) {
	property := func(name, value string) []message.Field { return []message.Field{message.Text(name, value)} }
	for _, c := range []struct {
		name    string
		opt     Options
		m       message.Message
		want    string
		dropped []string
	}{
		{name: "none", want: "application/octet-stream"},
		{name: "header", m: message.Message{Headers: headersOf("Content-type", "application/json")}, want: "application/json"},
		{name: "property", m: message.Message{Metadata: property("content_type", "application/json")}, want: "application/json"},
		{name: "header before property", m: message.Message{Headers: headersOf("content-type", "a/b"), Metadata: property("content_type", "c/d")}, want: "a/b"},
		{name: "empty header", m: message.Message{Headers: headersOf("content-type", ""), Metadata: property("content_type", "c/d")}, want: "c/d"},
		{name: "the first one", m: message.Message{Headers: headersOf("content-type", "a/b", "content-type", "c/d")}, want: "a/b"},
		{name: "parameters", m: message.Message{Headers: headersOf("content-type", `multipart/mixed; boundary="a b"`)}, want: `multipart/mixed; boundary="a b"`},
		{name: "no media type", m: message.Message{Headers: headersOf("Content-Type", "json")}, want: defaultType, dropped: []string{"Content-Type"}},
		{name: "injection", m: message.Message{Headers: headersOf("Content-Type", "a/b\r\nx: y")}, want: defaultType, dropped: []string{"Content-Type"}},
		{name: "injection in a parameter", m: message.Message{Headers: headersOf("Content-Type", "a/b; c=\"d\r\nx: y\"")}, want: defaultType, dropped: []string{"Content-Type"}},
		{name: "wrong header, right property", m: message.Message{Headers: headersOf("content-type", "?"), Metadata: property("content_type", "c/d")}, want: "c/d", dropped: []string{"content-type"}},
		{name: "too long", m: message.Message{Headers: headersOf("content-type", "a/"+strings.Repeat("b", 2000))}, want: defaultType, dropped: []string{"content-type"}},
		{name: "fixed", opt: Options{Headers: http.Header{"Content-Type": {"text/csv"}}}, m: message.Message{Headers: headersOf("content-type", "a/b")}, want: "text/csv"},
		{name: "asked for", opt: Options{Allow: []string{"content-type", "*"}}, m: message.Message{Headers: headersOf("content-type", "a/b")}, want: "a/b"},
	} {
		var dropped []string
		c.opt.Dropped = func(name string) { dropped = append(dropped, name) }
		r := request(t, c.opt, &c.m)
		if got := r.Header["Content-Type"]; len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if !slices.Equal(dropped, c.dropped) {
			t.Errorf("%s: dropped %q, want %q", c.name, dropped, c.dropped)
		}
	}
}

// What was one content type is not that of the next message.
func TestContentTypesChange(t *testing.T) {
	e := mustNew(t, Options{})
	for i := range 6 {
		m := &message.Message{}
		want := defaultType
		if i%3 != 0 {
			want = fmt.Sprintf("a/b%d", i%3)
			m.Headers = headersOf("content-type", want)
		}
		r, err := e.Request(t.Context(), mustURL(t, "http://x/"), &message.Delivery{Message: m}, testID, 1, testTime)
		if err != nil || r.Header.Get("content-type") != want {
			t.Errorf("%v, %v, want %s", r.Header, err, want)
		}
	}
}

func TestContentEncoding(t *testing.T) {
	for _, c := range []struct{ value, want string }{
		{"gzip", "gzip"}, {" br ", "br"}, {"gzip, br", "gzip, br"}, {"", ""},
		{"gzip br", ""}, {"gzip,", ""}, {"gz\x00ip", ""}, {"gzip\r\nx: y", ""}, {"gzip;q=1", ""},
	} {
		for _, m := range []*message.Message{
			{Headers: headersOf("content-encoding", c.value)},
			{Metadata: []message.Field{message.Text("content_encoding", c.value)}},
		} {
			dropped := 0
			r := request(t, Options{Dropped: func(string) { dropped++ }}, m)
			if got := r.Header.Get("content-encoding"); got != c.want {
				t.Errorf("%q: %q", c.value, got)
			}
			if told := dropped == 1; told != (c.want == "" && c.value != "") {
				t.Errorf("%q: %d dropped", c.value, dropped)
			}
		}
	}
}

func TestRequestErrors(t *testing.T) {
	e := mustNew(t, Options{})
	d := &message.Delivery{Message: new(message.Message)}
	if _, err := e.Request(t.Context(), nil, d, testID, 1, testTime); err == nil {
		t.Error("no callback is an error")
	}
	if _, err := e.Request(t.Context(), mustURL(t, "/hook"), d, testID, 1, testTime); err == nil {
		t.Error("a callback without a host is an error")
	}
	if _, err := e.Request(t.Context(), mustURL(t, "http://x/"), d, "msg_1.2", 1, testTime); err == nil || !strings.Contains(err.Error(), "webhook-id") {
		t.Errorf("an id with a dot: %v", err)
	}
}

func TestNewErrors(t *testing.T) {
	many := http.Header{}
	for i := range 21 {
		many.Add(fmt.Sprintf("x-%d", i), "1")
	}
	long := http.Header{}
	for i := range 4 {
		long.Add(fmt.Sprintf("x-%d", i), strings.Repeat("x", 4000))
	}
	for _, c := range []struct {
		opt   Options
		wants string
	}{
		{Options{Secrets: []Secret{testSecret(1), testSecret(2), testSecret(3)}}, "at most two"},
		{Options{Secrets: []Secret{make([]byte, 10)}}, "10 bytes: it needs 24 to 64"},
		{Options{UserAgent: "a\r\nb: c"}, "user agent"},
		{Options{Allow: []string{"a b"}}, "a name is wanted"},
		{Options{Allow: []string{""}}, "a name is wanted"},
		{Options{Allow: []string{"a*b"}}, "a name is wanted"},
		{Options{Allow: []string{"a**"}}, "a name is wanted"},
		{Options{Allow: []string{"a b*"}}, "a name is wanted"},
		{Options{Allow: []string{"authorization"}}, "credentials"},
		{Options{Allow: []string{"x-forwarded-for"}}, "their own proxy"},
		{Options{Allow: []string{"webhook-id"}}, "Standard Webhooks"},
		{Options{Headers: http.Header{"Host": {"x"}}}, "belongs to the connection"},
		{Options{Headers: many}, "21 headers are fixed: at most 20"},
		{Options{Headers: long}, "at most 8192"},
		{Options{Headers: http.Header{"Content-Type": {"a/b", "c/d"}}}, "fixed twice"},
		{Options{CloudEvents: &CloudEvents{Type: "t"}}, "source is missing"},
		{Options{CloudEvents: &CloudEvents{Source: "/s"}}, "type is missing"},
		{Options{CloudEvents: &CloudEvents{Source: "/s", Type: "a\x00"}}, "control characters"},
		{Options{CloudEvents: &CloudEvents{Source: "http://[::1", Type: "t"}}, "no URI"},
		{Options{CloudEvents: &CloudEvents{Source: "/s", Type: strings.Repeat("ä", 300)}}, "1,024 bytes"},
	} {
		if _, err := New(c.opt); err == nil || !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%v, want %q", err, c.wants)
		}
	}
}

func TestCheckHeader(t *testing.T) {
	for _, c := range []struct{ name, value, wants string }{
		{"X-Tenant", "acme", ""}, {"x_y", "", ""}, {"Accept", "*/*", ""}, {"Content-Type", "application/json", ""}, {"X-Utf", "Grüße", ""},
		{"", "x", "no name"}, {"a b", "x", "no name"}, {"a:", "x", "no name"}, {"ä", "x", "no name"}, {"a\r\nb", "x", "no name"},
		{"X-A", "a\nb", "control characters"}, {"X-A", "a\rb", "control characters"}, {"X-A", "a\x00b", "control characters"},
		{"X-A", strings.Repeat("x", 5000), "longer than 4096"},
		{"content-type", "json", "media type"}, {"content-type", "", "media type"}, {"content-encoding", "gzip", "only the message"},
		{"host", "x", "connection"}, {"Content-Length", "1", "connection"}, {"transfer-encoding", "chunked", "connection"},
		{"Connection", "close", "connection"}, {"upgrade", "h2c", "connection"}, {"Expect", "100-continue", "connection"},
		{"TE", "trailers", "connection"}, {"trailer", "x", "connection"}, {"keep-alive", "1", "connection"}, {"HTTP2-Settings", "x", "connection"},
		{"Proxy-Authorization", "x", "proxies"}, {"proxy-connection", "x", "proxies"},
		{"authorization", "x", "use auth"}, {"Cookie", "x", "use auth"}, {"set-cookie", "x", "use auth"},
		{"webhook-anything", "x", "Standard Webhooks"}, {"WEBHOOK-ID", "x", "Standard Webhooks"},
		{"traceparent", "x", "trace"}, {"TraceState", "x", "trace"}, {"user-agent", "x", "the gateway sets it"}, {"ce-type", "x", "use cloudevents"},
	} {
		err := CheckHeader(c.name, c.value)
		if (err == nil) != (c.wants == "") || err != nil && !strings.Contains(err.Error(), c.wants) {
			t.Errorf("%q: %.20q: %v, want %q", c.name, c.value, err, c.wants)
		}
	}
}
