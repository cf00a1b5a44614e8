package httpget

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints/entrypointtest"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// response is the JSON form, as a client reads it.
type response struct {
	Items []struct{ ID, Content, Encoding string }
	Gap   *struct {
		Reason, Detail string
		Before         int
	}
	Gaps       []json.RawMessage
	Error      *struct{ Type, Detail string }
	Pagination *struct{ NextCursor, Limit string }
}

// serve runs one request without a network. Under synctest its time is that of the bubble.
func serve(t *testing.T, e *Entrypoint, s *entrypointtest.Session, r *http.Request) (*httptest.ResponseRecorder, error) {
	t.Helper()
	w := httptest.NewRecorder()
	err := e.Serve(w, r, s)
	if err == nil && w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
		t.Errorf("Content-Length %s for %d bytes", w.Header().Get("Content-Length"), w.Body.Len())
	}
	return w, err
}

func read(t *testing.T, w *httptest.ResponseRecorder) (r response) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return r
}

func get(target string) *http.Request { return httptest.NewRequest("GET", target, nil) }

func TestLimitEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.Resumable = true
		s.Feed.Deliver(entrypointtest.Deliveries(0, 9)...)
		start := time.Now()
		w, err := serve(t, provisioned(t, nil), s, get("/?limit=3"))
		if err != nil || time.Since(start) != 0 {
			t.Fatalf("%v after %s", err, time.Since(start))
		}
		r := read(t, w)
		if w.Code != 200 || len(r.Items) != 3 || r.Items[2].ID != "2" || r.Pagination.Limit != "3" ||
			r.Pagination.NextCursor != entrypointtest.Cursor(2) || r.Gap != nil || r.Error != nil {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		h := w.Header()
		if h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("Vary") != "Accept" {
			t.Errorf("%v", h)
		}
		if got := s.Feed.Calls(); !slices.Equal(got, []string{"poll 3", "written 3", "close"}) {
			t.Errorf("calls %q", got)
		}
		if n := s.SentCount(); n.Messages != 3 || n.Bytes == 0 {
			t.Errorf("counted %+v", n)
		}
		if want := s.Wants()[0]; want.Resuming || !want.Brief {
			t.Errorf("%+v", want)
		}
	})
}

func TestMockGivesFourMessagesInFiveSeconds(t *testing.T) {
	// As with the mock, whose clock starts a moment after the request came.
	synctest.Test(t, func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.SubscribeFunc = func(context.Context, entrypoints.Want) error {
			go func() {
				for n := range 6 {
					time.Sleep(time.Second)
					s.Feed.Deliver(entrypointtest.Delivery(n, "mock message"))
				}
			}()
			return nil
		}
		start := time.Now()
		w, err := serve(t, provisioned(t, nil), s, get("/"))
		if took := time.Since(start); err != nil || took != 5*time.Second {
			t.Fatalf("%v after %s", err, took)
		}
		if r := read(t, w); len(r.Items) != 4 || r.Pagination != nil {
			t.Errorf("%s", w.Body)
		}
		time.Sleep(5 * time.Second) // let the clock run down
	})
}

func TestWindowIncludesSubscribing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.SubscribeFunc = func(context.Context, entrypoints.Want) error {
			time.Sleep(3 * time.Second)
			return nil
		}
		start := time.Now()
		if _, err := serve(t, provisioned(t, nil), s, get("/")); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestOverdueRequestStillTakesWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		s.SubscribeFunc = func(context.Context, entrypoints.Want) error {
			time.Sleep(6 * time.Second)
			return nil
		}
		w, err := serve(t, provisioned(t, nil), s, get("/"))
		if err != nil || len(read(t, w).Items) != 1 {
			t.Errorf("%v %s", err, w.Body)
		}
	})
}

func TestEmptyResultHasACursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.Resumable = true
		w, err := serve(t, provisioned(t, nil), s, get("/?cursor="+entrypointtest.Cursor(4)))
		if err != nil {
			t.Fatal(err)
		}
		if r := read(t, w); len(r.Items) != 0 || r.Pagination == nil || r.Pagination.NextCursor != entrypointtest.Cursor(4) {
			t.Errorf("%s", w.Body)
		}
		if want := s.Wants()[0]; !want.Resuming || want.Cursor != entrypointtest.Cursor(4) {
			t.Errorf("%+v", want)
		}
		if got := s.Feed.Calls(); !slices.Equal(got, []string{"close"}) {
			t.Errorf("calls %q", got)
		}
	})
}

func TestSessionEndReturnsWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.Deliver(entrypointtest.Deliveries(0, 1)...)
		time.AfterFunc(2*time.Second, func() { s.End(entrypoints.End{Reason: entrypoints.EndShutdown}) })
		start := time.Now()
		w, err := serve(t, provisioned(t, nil), s, get("/"))
		if err != nil || time.Since(start) != 2*time.Second || len(read(t, w).Items) != 2 {
			t.Errorf("%v after %s: %s", err, time.Since(start), w.Body)
		}
	})
}

func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		start := time.Now()
		w, err := serve(t, provisioned(t, nil), s, get("/").WithContext(ctx))
		if !errors.Is(err, context.Canceled) || time.Since(start) != 2*time.Second || w.Body.Len() > 0 {
			t.Errorf("%v after %s: %s", err, time.Since(start), w.Body)
		}
		if got := s.Feed.Calls(); !slices.Equal(got, []string{"poll 1", "close"}) {
			t.Errorf("what nobody got counts as written: %q", got)
		}
	})
}

// broken is a connection that fails when it is written to.
type broken struct{ *httptest.ResponseRecorder }

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestWriteFails(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
	err := provisioned(t, nil).Serve(broken{httptest.NewRecorder()}, get("/?limit=1"), s)
	if !errors.Is(err, entrypoints.ErrClientGone) {
		t.Errorf("%v", err)
	}
	if got := s.Feed.Calls(); !slices.Equal(got, []string{"poll 1", "close"}) {
		t.Errorf("what nobody got counts as written: %q", got)
	}
}

func TestErrors(t *testing.T) {
	down := &message.Error{Kind: message.Unavailable, Detail: "kafka:9092 refused", RetryAfter: time.Second}
	t.Run("on subscribing", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.SubscribeFunc = func(context.Context, entrypoints.Want) error { return down }
		if _, err := serve(t, provisioned(t, nil), s, get("/")); !errors.Is(err, down) {
			t.Errorf("%v", err)
		}
	})
	t.Run("with nothing collected", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.Fail(down)
		if _, err := serve(t, provisioned(t, nil), s, get("/")); !errors.Is(err, down) {
			t.Errorf("%v", err)
		}
	})
	t.Run("with something collected", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.Resumable = true
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		s.Feed.Fail(down)
		w, err := serve(t, provisioned(t, nil), s, get("/"))
		if err != nil {
			t.Fatal(err)
		}
		r := read(t, w)
		if w.Code != 200 || len(r.Items) != 1 || r.Error == nil || r.Error.Detail != "kafka:9092 refused" ||
			r.Error.Type != "urn:message-api:problem:broker-unavailable" || r.Pagination.NextCursor != entrypointtest.Cursor(0) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	t.Run("not acceptable", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		r := get("/")
		r.Header.Set("Accept", "text/event-stream")
		w, err := serve(t, provisioned(t, nil), s, r)
		p := entrypoints.AsProblem(err)
		if p.Status != 406 || !strings.Contains(p.Detail, "application/xml") || w.Header().Get("Vary") != "Accept" || len(s.Wants()) != 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("bad query", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		if _, err := serve(t, provisioned(t, nil), s, get("/?limit=0")); entrypoints.AsProblem(err).Slug != "bad-limit" || len(s.Wants()) != 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("settling", func(t *testing.T) {
		s := entrypointtest.NewSession(t)
		s.Feed.WrittenErr, s.Feed.CloseErr = errors.New("away"), errors.New("away")
		s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
		if _, err := serve(t, provisioned(t, nil), s, get("/?limit=1")); err != nil || s.Logs.Len() != 2 {
			t.Errorf("%v, %d log lines", err, s.Logs.Len())
		}
	})
}

func TestGaps(t *testing.T) {
	s := entrypointtest.NewSession(t)
	s.Feed.Deliver(entrypointtest.Delivery(0, "zero"))
	s.Feed.Gap(message.GapExpired, "old", entrypointtest.Delivery(5, "five"))
	w, err := serve(t, provisioned(t, nil), s, get("/?limit=2"))
	if err != nil {
		t.Fatal(err)
	}
	if r := read(t, w); len(r.Items) != 2 || r.Gap == nil || r.Gap.Reason != "expired" || r.Gap.Detail != "old" || r.Gap.Before != 1 || r.Gaps != nil {
		t.Errorf("%s", w.Body)
	}
}

func TestEndlessGapsEndTheResponse(t *testing.T) {
	s := entrypointtest.NewSession(t)
	for n := range 100 {
		s.Feed.Gap(message.GapConnection, "", entrypointtest.Delivery(n, "x"))
	}
	w, err := serve(t, provisioned(t, nil), s, get("/"))
	if err != nil {
		t.Fatal(err)
	}
	if r := read(t, w); len(r.Gaps) != maxGaps || len(r.Items) != maxGaps {
		t.Errorf("%d gaps, %d items", len(r.Gaps), len(r.Items))
	}
}

func TestResponseIsBounded(t *testing.T) {
	s := entrypointtest.NewSession(t)
	for n := range 60 {
		s.Feed.Deliver(entrypointtest.Delivery(n, strings.Repeat("x", 500_000)))
	}
	w, err := serve(t, provisioned(t, nil), s, get("/?limit=60"))
	if err != nil {
		t.Fatal(err)
	}
	// One burst of the fake has no bound in bytes, so that of the poll decides.
	if got := len(read(t, w).Items); got != 60 {
		t.Errorf("%d items", got)
	}
	s = entrypointtest.NewSession(t)
	e := provisioned(t, nil)
	e.maxBytes = 1000
	s.Feed.Deliver(entrypointtest.Deliveries(0, 499)...)
	if w, err = serve(t, e, s, get("/")); err != nil {
		t.Fatal(err)
	}
	if got := len(read(t, w).Items); got != pollAtMost {
		t.Errorf("%d items", got)
	}
}

func TestFormatsByAccept(t *testing.T) {
	for accept, contentType := range map[string]string{
		"application/xml": "application/xml", "text/plain": "text/plain; charset=utf-8", "*/*": "application/json",
	} {
		s := entrypointtest.NewSession(t)
		s.Feed.Joined = true
		s.Feed.Deliver(entrypointtest.Deliveries(0, 2)...)
		r := get("/?limit=3")
		r.Header.Set("Accept", accept)
		e := provisioned(t, func(e *Entrypoint) { e.HeadersInPayload = true })
		w, err := serve(t, e, s, r)
		if err != nil || w.Header().Get("Content-Type") != contentType || !strings.Contains(w.Body.String(), "eaders") {
			t.Errorf("%s: %v %s", accept, err, w.Body)
		}
	}
}

func TestOverTheNetwork(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%t", h2), func(t *testing.T) {
			s := entrypointtest.NewSession(t)
			s.RealTime = true
			e := provisioned(t, func(e *Entrypoint) { e.DurationLimit = caddy.Duration(200 * time.Millisecond) })
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := e.Serve(w, r, s); err != nil {
					t.Error(err)
				}
			}))
			srv.EnableHTTP2 = h2
			if h2 {
				srv.StartTLS()
			} else {
				srv.Start()
			}
			defer srv.Close()
			s.Feed.Deliver(entrypointtest.Delivery(0, strings.Repeat("x", 300_000)))
			resp, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || int64(len(body)) != resp.ContentLength || len(body) < 300_000 || !json.Valid(body) {
				t.Errorf("%d bytes of %d, %v", len(body), resp.ContentLength, err)
			}
		})
	}
}

func BenchmarkServe(b *testing.B) {
	e := provisioned(b, nil)
	delivery := entrypointtest.Delivery(0, "mock message")
	b.ReportAllocs()
	for b.Loop() {
		s := ready{delivery: &delivery}
		if err := e.Serve(discard{http.Header{}}, get1, &s); err != nil {
			b.Fatal(err)
		}
	}
}

var get1 = get("/?limit=1")
