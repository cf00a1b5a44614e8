package httppost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

func ndjson(body io.Reader) *http.Request {
	return chunked(body, "Content-Type", "application/x-ndjson")
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"id":"%d","content":"%d"}`+"\n", i, i)
	}
	return b.String()
}

func TestBatch(t *testing.T) {
	s := entrypointtest.NewSession(t)
	w, err := serve(provisioned(t, nil), s, ndjson(strings.NewReader(
		"\n"+`{"id":"a","key":"k","content":"one","headers":{"h":["1","2"]}}`+"\r\n \t\n"+`{"content":"//4=","encoding":"base64"}`)))
	if err != nil {
		t.Fatal(err)
	}
	if w.Code != 202 || w.Body.String() != `{"items":[{"status":202,"id":"a"},{"status":202}]}`+"\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p := s.Published()
	if len(p) != 2 || string(p[0].Key) != "k" || string(p[0].Payload) != "one" || len(p[0].Headers) != 2 || string(p[1].Payload) != "\xff\xfe" {
		t.Errorf("%+v", p)
	}
	if n := s.ReceivedCount(); n.Messages != 2 || n.Bytes != 5 {
		t.Errorf("counted %+v", n)
	}
}

func TestBatchWithABadLineInTheMiddle(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
		var results []message.Result
		for _, m := range messages {
			switch m.ID {
			case "refused":
				results = append(results, message.Result{Status: message.Refused, Err: message.Errorf(message.TooLarge, "too big for the broker")})
			case "unknown":
				results = append(results, message.Result{})
			default:
				results = append(results, message.Result{Status: message.Stored, ID: m.ID, Metadata: []message.Field{message.Number("offset", 7)}})
			}
		}
		return results, nil
	}
	e := provisioned(t, func(e *Entrypoint) { e.MaxBody = 50 })
	r := ndjson(strings.NewReader(`{"id":"a","content":""}
{"id":"bad"}
{"id":"refused","content":""}
{"id":"long","content":"` + strings.Repeat("x", 100) + `"}
{"id":"unknown","content":""}
{"id":"z","content":""}
`))
	r.Header.Set("Prefer", "return=representation")
	w, err := serve(e, s, r)
	if err != nil {
		t.Fatal(err)
	}
	got := items(t, w)
	if w.Code != 207 || len(got) != 6 || w.Header().Get("Preference-Applied") == "" || w.Header().Get("Connection") != "" {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	for i, want := range []struct {
		status int
		word   string
	}{{202, ""}, {400, "bad-line"}, {413, "too-large"}, {413, "too-large"}, {504, "outcome-unknown"}, {202, ""}} {
		if got[i].Status != want.status || !strings.HasSuffix(got[i].Type, want.word) || (want.word != "") != (got[i].Detail != "") {
			t.Errorf("item %d: %+v, want %+v", i, got[i], want)
		}
	}
	if got[5].ID != "z" || got[5].Metadata["offset"] != 7.0 {
		t.Errorf("%+v", got[5])
	}
	if len(s.Published()) != 4 {
		t.Errorf("published %d", len(s.Published()))
	}
}

func TestBatchAllFailed(t *testing.T) {
	s := entrypointtest.NewSession(t)
	w, err := serve(provisioned(t, nil), s, ndjson(strings.NewReader("x\ny\n")))
	if err != nil || w.Code != 207 || len(items(t, w)) != 2 || len(s.Published()) != 0 {
		t.Errorf("%v %d %s", err, w.Code, w.Body)
	}
}

func TestBatchEmpty(t *testing.T) {
	for _, body := range []string{"", "\n", " \r\n\n"} {
		_, err := serve(provisioned(t, nil), entrypointtest.NewSession(t), ndjson(strings.NewReader(body)))
		if p := entrypoints.AsProblem(err); err == nil || p.Status != 400 || p.Slug != "empty-body" {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestBatchIsPublishedInParts(t *testing.T) {
	s := entrypointtest.NewSession(t)
	var parts []int
	s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
		parts = append(parts, len(messages))
		results := make([]message.Result, len(messages))
		for i, m := range messages {
			results[i] = message.Result{Status: message.Stored, ID: m.ID}
		}
		return results, nil
	}
	w, err := serve(provisioned(t, nil), s, ndjson(strings.NewReader(numbered(1234))))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(parts, []int{500, 500, 234}) {
		t.Errorf("parts %v", parts)
	}
	for i, item := range items(t, w) {
		if item.ID != fmt.Sprint(i) {
			t.Fatalf("item %d is %+v", i, item)
		}
	}
	parts = nil
	large := fmt.Sprintf(`{"content":"%s"}`+"\n", strings.Repeat("x", 600_000))
	if _, err = serve(provisioned(t, nil), s, ndjson(strings.NewReader(strings.Repeat(large, 3)))); err != nil || !slices.Equal(parts, []int{2, 1}) {
		t.Errorf("%v, parts of large messages: %v", err, parts)
	}
}

func TestBatchTooLong(t *testing.T) {
	s := entrypointtest.NewSession(t)
	w, err := serve(provisioned(t, nil), s, ndjson(strings.NewReader(numbered(MaxBatch+7))))
	if err != nil {
		t.Fatal(err)
	}
	got := items(t, w)
	if last := got[len(got)-1]; w.Code != 207 || len(got) != MaxBatch+1 || last.Status != 413 || !strings.HasSuffix(last.Type, "batch-too-long") ||
		len(s.Published()) != MaxBatch || w.Header().Get("Connection") != "close" {
		t.Errorf("%d, %d items, published %d, last %+v", w.Code, len(got), len(s.Published()), last)
	}
	s = entrypointtest.NewSession(t)
	if w, err = serve(provisioned(t, nil), s, ndjson(strings.NewReader(numbered(MaxBatch)))); err != nil || w.Code != 202 {
		t.Errorf("as long as allowed: %v, %d", err, w.Code)
	}
}

// endless yields the same bytes for ever.
type endless []byte

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

func TestBatchWithoutEnd(t *testing.T) {
	for name, filler := range map[string]string{"a line": "x", "blank lines": "\n"} {
		t.Run(name, func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			e := provisioned(t, func(e *Entrypoint) { e.MaxBody = 1000 })
			w, err := serve(e, s, ndjson(io.MultiReader(strings.NewReader(numbered(2)), endless(filler))))
			if err != nil {
				t.Fatal(err)
			}
			if got := items(t, w); w.Code != 207 || len(got) != 3 || got[2].Status != 413 || w.Header().Get("Connection") != "close" {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestBatchBreaksOff(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{{io.ErrUnexpectedEOF, 400}, {os.ErrDeadlineExceeded, 408}} {
		t.Run("before anything was published", func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			w, err := serve(provisioned(t, nil), s, ndjson(io.MultiReader(strings.NewReader(numbered(5)+`{"content":"ha`), failing{c.err})))
			if p := entrypoints.AsProblem(err); err == nil || p.Status != c.status || len(s.Published()) != 0 || w.Header().Get("Connection") != "close" {
				t.Errorf("%v, published %d", err, len(s.Published()))
			}
		})
		t.Run("after the first part", func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			w, err := serve(provisioned(t, nil), s, ndjson(io.MultiReader(strings.NewReader(numbered(partMessages+5)+"bad\n"+`{"content":"ha`), failing{c.err})))
			if err != nil {
				t.Fatal(err)
			}
			got := items(t, w)
			if w.Code != 207 || len(got) != partMessages+7 || len(s.Published()) != partMessages {
				t.Fatalf("%d, %d items, published %d", w.Code, len(got), len(s.Published()))
			}
			for i, item := range got {
				want := 202
				switch {
				case i == partMessages+5:
					want = 400 // the bad line
				case i >= partMessages:
					want = c.status
				}
				if item.Status != want {
					t.Errorf("item %d: %+v", i, item)
				}
			}
		})
	}
}

func TestBatchBrokerDown(t *testing.T) {
	down := message.Errorf(message.Unavailable, "kafka:9092 refused")
	t.Run("from the start", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.PublishFunc = func(context.Context, []*message.Message) ([]message.Result, error) { return nil, down }
		w, err := serve(provisioned(t, nil), s, ndjson(strings.NewReader("bad\n"+numbered(3))))
		if p := entrypoints.AsProblem(err); p.Status != 503 || p.RetryAfter != retryAfter || w.Header().Get("Connection") != "" {
			t.Errorf("%v", err)
		}
	})
	for name, failed := range map[string]func(int) ([]message.Result, error){
		"in the middle": func(int) ([]message.Result, error) { return nil, down },
		"in the middle, by results": func(n int) ([]message.Result, error) {
			return slices.Repeat([]message.Result{{Status: message.Refused, Err: down}}, n), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			calls := 0
			s.PublishFunc = func(_ context.Context, messages []*message.Message) ([]message.Result, error) {
				if calls++; calls == 2 {
					return failed(len(messages))
				}
				return slices.Repeat([]message.Result{{Status: message.Stored}}, len(messages)), nil
			}
			w, err := serve(provisioned(t, nil), s, ndjson(strings.NewReader(numbered(3*partMessages))))
			if err != nil || w.Code != 207 || calls != 2 {
				t.Fatalf("%v, %d after %d calls", err, w.Code, calls)
			}
			got := items(t, w)
			for i, item := range got {
				if want := map[bool]int{true: 202, false: 503}[i < partMessages]; item.Status != want {
					t.Fatalf("item %d: %+v", i, item)
				}
			}
			if len(got) != 3*partMessages {
				t.Errorf("%d items", len(got))
			}
		})
	}
}

func TestBatchHeaders(t *testing.T) {
	s := entrypointtest.NewSession(t)
	e := provisioned(t, func(e *Entrypoint) { e.RequestHeadersToMessage = true })
	r := ndjson(strings.NewReader(`{"content":"a","headers":{"x-a":"own"}}` + "\n" + `{"content":"b"}` + "\n"))
	r.Header.Set("X-A", "request")
	if _, err := serve(e, s, r); err != nil {
		t.Fatal(err)
	}
	p := s.Published()
	if !slices.Equal(p[0].Headers, []message.Header{{Name: "x-a", Value: "own"}}) || !slices.Equal(p[1].Headers, []message.Header{{Name: "X-A", Value: "request"}}) {
		t.Errorf("%v %v", p[0].Headers, p[1].Headers)
	}
	r = ndjson(strings.NewReader(`{"content":"a"}`))
	r.Header["X-A"] = make([]string, maxHeaders+1)
	if _, err := serve(e, s, r); entrypoints.AsProblem(err).Status != 431 {
		t.Errorf("%v", err)
	}
}

func TestOverTheNetwork(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%t", h2), func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			e := provisioned(t, nil)
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := e.Serve(w, r, s); err != nil {
					entrypoints.AsProblem(err).Write(w, "")
				}
			}))
			srv.EnableHTTP2 = h2
			if h2 {
				srv.StartTLS()
			} else {
				srv.Start()
			}
			defer srv.Close()
			send := func(contentType string, body io.Reader) (int, string) {
				resp, err := srv.Client().Post(srv.URL, contentType, body)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return resp.StatusCode, string(text)
			}
			if status, text := send("text/plain", strings.NewReader("x")); status != 202 || text != "" {
				t.Errorf("%d %s", status, text)
			}
			if status, text := send("application/x-ndjson", strings.NewReader(numbered(3000))); status != 202 || strings.Count(text, "202") < 3000 {
				t.Errorf("%d %s", status, text)
			}
			if status, text := send("text/plain", bytes.NewReader(make([]byte, 3<<20))); status != 413 || !strings.Contains(text, "too-large") {
				t.Errorf("%d %s", status, text)
			}
		})
	}
}

// FuzzBatch compares with a plain reading: one item per line that is not blank, good ones
// published, in order.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(numbered(3)), 0)
	f.Add([]byte("{\"content\":\"a\"}\r\n\n \nbad\n{\"content\":\"b\"}"), 40)
	f.Add([]byte(strings.Repeat("x", 300)+"\n"+numbered(1)), 5)
	f.Fuzz(func(t *testing.T, body []byte, limit int) {
		limit = 1 + int(math.Abs(float64(limit%200)))
		var want []int
		var contents []string
		for _, line := range bytes.Split(body, []byte("\n")) {
			trimmed := bytes.Trim(line, " \t\r")
			if len(line) > skipFactor*limit {
				return // ends early, by a rule that has its own test
			}
			if len(trimmed) == 0 && len(line) < limit {
				continue
			}
			m, err := decodeLine(trimmed)
			switch {
			case len(line) >= limit && len(line) <= limit+2:
				return // whether the line end counts is not promised
			case len(line) > limit:
				want = append(want, 413)
			case err != nil:
				want = append(want, 400)
			default:
				want = append(want, 202)
				contents = append(contents, string(m.Payload))
			}
		}
		s := entrypointtest.NewSession(t)
		w, err := serve(&Entrypoint{MaxBody: int64(limit)}, s, ndjson(bytes.NewReader(body)))
		if len(want) == 0 {
			if entrypoints.AsProblem(err).Slug != "empty-body" {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, item := range items(t, w) {
			got = append(got, item.Status)
		}
		var published []string
		for _, m := range s.Published() {
			published = append(published, string(m.Payload))
		}
		if !slices.Equal(got, want) || !slices.Equal(published, contents) {
			t.Fatalf("%q with limit %d: %v, want %v; published %q, want %q", body, limit, got, want, published, contents)
		}
	})
}

var errInterrupted = errors.New("interrupted")

func TestLinesPassErrorsOn(t *testing.T) {
	for _, head := range []string{"", "abc", strings.Repeat("x", 70_000)} {
		l := newLines(io.MultiReader(strings.NewReader(head), failing{errInterrupted}), 10_000)
		if _, err := l.next(); !errors.Is(err, errInterrupted) {
			t.Errorf("after %d bytes: %v", len(head), err)
		}
		l.close()
	}
}
