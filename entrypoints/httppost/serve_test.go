package httppost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// item is one entry of an answer, as a client reads it.
type item struct {
	Status       int
	ID           string
	Metadata     map[string]any
	Type, Detail string
}

func post(body string, header ...string) *http.Request {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// chunked makes a request whose length is not announced.
func chunked(body io.Reader, header ...string) *http.Request {
	r := post("", header...)
	r.Body, r.ContentLength = io.NopCloser(body), -1
	return r
}

func serve(e *Entrypoint, s entrypoints.Session, r *http.Request) (*httptest.ResponseRecorder, error) {
	w := httptest.NewRecorder()
	return w, e.Serve(w, r, s)
}

func items(t *testing.T, w *httptest.ResponseRecorder) []item {
	t.Helper()
	var body struct{ Items []item }
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Header().Get("Content-Type") != "application/json" ||
		w.Header().Get("Content-Length") != fmt.Sprint(w.Body.Len()) {
		t.Fatalf("%v %v in %q", err, w.Header(), w.Body)
	}
	return body.Items
}

// answering makes a PublishFunc that gives each message the same result.
func answering(result message.Result) func(context.Context, []*message.Message) ([]message.Result, error) {
	return func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
		return slices.Repeat([]message.Result{result}, len(messages)), nil
	}
}

func TestPublish(t *testing.T) {
	body := "payload \x00\xff\n" + strings.Repeat("x", 100_000)
	for name, r := range map[string]*http.Request{
		"length known": post(body, "X-A", "1", "Content-Encoding", "identity"), "length unknown": chunked(strings.NewReader(body)),
		"a JSON array": post(`[1,2]`, "Content-Type", "application/json"),
	} {
		t.Run(name, func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			w, err := serve(provisioned(t, nil), s, r)
			if err != nil {
				t.Fatal(err)
			}
			if w.Code != 202 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "0" {
				t.Errorf("%d %v %q", w.Code, w.Header(), w.Body)
			}
			want := body
			if name == "a JSON array" {
				want = "[1,2]"
			}
			p := s.Published()
			if len(p) != 1 || string(p[0].Payload) != want || p[0].Key != nil || p[0].Headers != nil {
				t.Errorf("published %+v", p)
			}
			if n := s.ReceivedCount(); n.Messages != 1 || n.Bytes != len(want) {
				t.Errorf("counted %+v", n)
			}
		})
	}
}

func TestPublishHeadersAndRepresentation(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.PublishFunc = answering(message.Result{Status: message.Stored, ID: "i\"1", Metadata: []message.Field{message.Text("topic", "orders"), message.Number("offset", 71)}})
	e := provisioned(t, func(e *Entrypoint) { e.RequestHeadersToMessage = true })
	w, err := serve(e, s, post("x", "X-A", "1", "Authorization", "secret", "Prefer", "return=representation"))
	if err != nil {
		t.Fatal(err)
	}
	if w.Code != 202 || w.Header().Get("Preference-Applied") != "return=representation" ||
		w.Body.String() != `{"items":[{"status":202,"id":"i\"1","metadata":{"topic":"orders","offset":71}}]}`+"\n" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	want := []message.Header{{Name: "Prefer", Value: "return=representation"}, {Name: "X-A", Value: "1"}}
	if got := s.Published()[0].Headers; !slices.Equal(got, want) {
		t.Errorf("headers %v", got)
	}
}

func TestHandedIsGoodToo(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.PublishFunc = answering(message.Result{Status: message.Handed})
	if w, err := serve(provisioned(t, nil), s, post("x")); err != nil || w.Code != 202 {
		t.Errorf("%d %v", w.Code, err)
	}
}

func TestRefusals(t *testing.T) {
	e := provisioned(t, func(e *Entrypoint) { e.MaxBody = 10 })
	for _, c := range []struct {
		name   string
		r      *http.Request
		status int
		slug   string
		closes bool
	}{
		{"empty", post(""), 400, "empty-body", false},
		{"empty, length unknown", chunked(strings.NewReader("")), 400, "empty-body", false},
		{"too large", post("01234567890"), 413, "too-large", true},
		{"too large, length unknown", chunked(strings.NewReader("01234567890")), 413, "too-large", true},
		{"compressed", post("x", "Content-Encoding", "gzip"), 415, "unsupported-encoding", true},
		{"compressed twice", post("x", "Content-Encoding", "identity, br"), 415, "unsupported-encoding", true},
		{"cut off", chunked(io.MultiReader(strings.NewReader("x"), failing{io.ErrUnexpectedEOF})), 400, "incomplete-body", true},
		{"too slow", chunked(io.MultiReader(strings.NewReader("x"), failing{os.ErrDeadlineExceeded})), 408, "body-timeout", true},
		{"bounded by Caddy", chunked(failing{&http.MaxBytesError{Limit: 5}}), 413, "too-large", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			w, err := serve(e, s, c.r)
			if p := entrypoints.AsProblem(err); err == nil || p.Status != c.status || p.Slug != c.slug {
				t.Errorf("%v", err)
			}
			if len(s.Published()) != 0 {
				t.Errorf("published %v", s.Published())
			}
			if closes := w.Header().Get("Connection") == "close"; closes != c.closes {
				t.Errorf("closes the connection: %t", closes)
			}
		})
	}
	t.Run("as large as allowed", func(t *testing.T) {
		for _, r := range []*http.Request{post("0123456789"), chunked(strings.NewReader("0123456789"))} {
			if w, err := serve(e, entrypointtest.NewSession(t), r); err != nil || w.Code != 202 {
				t.Errorf("%v", err)
			}
		}
	})
	t.Run("HTTP/2 keeps its connection", func(t *testing.T) {
		r := post("01234567890")
		r.ProtoMajor = 2
		if w, err := serve(e, entrypointtest.NewSession(t), r); err == nil || w.Header().Get("Connection") != "" {
			t.Errorf("%v %v", err, w.Header())
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAnnouncedLengthCostsNothing(t *testing.T) {
	r := chunked(failing{io.ErrUnexpectedEOF})
	r.ContentLength = 1 << 30
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := readBody(r, 1<<30); err == nil {
				b.Fatal("an incomplete body is taken")
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > trusted {
		t.Errorf("%d bytes for nothing but a promise", got)
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name       string
		publish    func(context.Context, []*message.Message) ([]message.Result, error)
		status     int
		slug       string
		retryAfter time.Duration
		detail     string
	}{
		{"broker down", func(context.Context, []*message.Message) ([]message.Result, error) {
			return nil, &message.Error{Kind: message.Unavailable, Detail: "kafka:9092 refused", RetryAfter: 3 * time.Second}
		}, 503, "broker-unavailable", 3 * time.Second, "kafka:9092 refused"},
		{"broker down, nobody knows how long", func(context.Context, []*message.Message) ([]message.Result, error) {
			return nil, message.Errorf(message.Unavailable, "refused")
		}, 503, "broker-unavailable", retryAfter, "refused"},
		{"refused as unavailable", answering(message.Result{Status: message.Refused, Err: message.Errorf(message.Unavailable, "no leader")}), 503, "broker-unavailable", retryAfter, "no leader"},
		{"too large for the broker", answering(message.Result{Status: message.Refused, Err: message.Errorf(message.TooLarge, "2 MB")}), 413, "too-large", 0, "2 MB"},
		{"no such topic", answering(message.Result{Status: message.Refused, Err: message.Errorf(message.NotFound, "orders")}), 404, "channel-not-found", 0, "orders"},
		{"not allowed", answering(message.Result{Status: message.Refused, Err: message.Errorf(message.Denied, "acl")}), 502, "broker-denied", 0, "acl"},
		{"limited", answering(message.Result{Status: message.Refused, Err: &message.Error{Kind: message.Busy, Detail: "slow down", RetryAfter: time.Second}}), 429, "busy", time.Second, "slow down"},
		{"refused without a word", answering(message.Result{Status: message.Refused}), 502, "broker-denied", 0, "refused the message"},
		{"refused by a bug", answering(message.Result{Status: message.Refused, Err: errors.New("secret")}), 500, "internal", 0, "its log says why"},
		{"unknown", answering(message.Result{Err: message.Errorf(message.OutcomeUnknown, "connection reset")}), 504, "outcome-unknown", 0, "may be stored, and sending it again may store it twice. Cause: connection reset"},
		{"unknown without a word", answering(message.Result{}), 504, "outcome-unknown", 0, "may be stored"},
		{"unknown by a bug", answering(message.Result{Err: errors.New("secret")}), 504, "outcome-unknown", 0, "may be stored"},
		{"no answer", func(context.Context, []*message.Message) ([]message.Result, error) { return nil, nil }, 504, "outcome-unknown", 0, "may be stored"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			s.PublishFunc = c.publish
			_, err := serve(provisioned(t, nil), s, post("x"))
			p := entrypoints.AsProblem(err)
			if err == nil || p.Status != c.status || p.Slug != c.slug || p.RetryAfter != c.retryAfter ||
				!strings.Contains(p.Detail, c.detail) || strings.Contains(p.Detail, "secret") {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestOutcomeDoesNotDependOnTheClient(t *testing.T) {
	s := entrypointtest.NewSession(t)
	ctx, hangUp := context.WithCancel(t.Context())
	s.PublishFunc = func(ctx context.Context, messages []*message.Message) ([]message.Result, error) {
		hangUp()
		deadline, bounded := ctx.Deadline()
		if ctx.Err() != nil || !bounded || time.Until(deadline) > PublishTimeout {
			t.Errorf("the publish runs under %v, %v", ctx.Err(), deadline)
		}
		return []message.Result{{Status: message.Stored}}, nil
	}
	if _, err := serve(provisioned(t, nil), s, post("x").WithContext(ctx)); err != nil {
		t.Error(err)
	}
}

func BenchmarkServe(b *testing.B) {
	e := provisioned(b, nil)
	s := entrypointtest.NewSession(b)
	s.PublishFunc = answering(message.Result{Status: message.Stored})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := serve(e, s, post("payload")); err != nil {
			b.Fatal(err)
		}
	}
}
