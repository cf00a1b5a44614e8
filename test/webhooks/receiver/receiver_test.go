package receiver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// sender is a client that signs.
type sender struct {
	client  *http.Client
	url     string
	tamper  func(*http.Request)
	attempt int
}

func (s *sender) send(ctx context.Context, m ledger.Message) (status int, body string, err error) {
	payload := m.Payload()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(payload))
	if err != nil {
		return 0, "", err
	}
	id, at := fmt.Sprintf("msg_%d", m.N), fmt.Sprint(time.Now().Unix())
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, payload)
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", at)
	req.Header.Set("webhook-signature", "v1,AAAA v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	req.Header.Set("webhook-attempt", fmt.Sprint(max(s.attempt, 1)))
	req.Header.Set("X-History", fmt.Sprint(m.N))
	if s.tamper != nil {
		s.tamper(req)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

// begin starts a receiver of messages that were all produced.
func begin(t testing.TB, rates Rates, plan []ledger.Message) (*Receiver, *ledger.Ledger, *sender) {
	t.Helper()
	l := ledger.New(plan)
	for _, m := range plan {
		l.Producing(m)
	}
	r, err := Start(Options{
		Ledger: l, Secret: secret, Rates: rates, Seed: 7, Hold: 10 * time.Second,
		Kept: "X-History", Value: func(m ledger.Message) string { return fmt.Sprint(m.N) },
	})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, l, &sender{client: &http.Client{Transport: transport}, url: r.URL()}
}

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		rates  Rates
		fate   string
		status int    // 0 is none
		err    string // of the request or of its body
		taken  bool
	}{
		{"nothing", Rates{}, "", 200, "", true},
		{"5xx", Rates{ServerError: 1}, "", 500, "", false},
		{"no answer", Rates{Hold: 1}, "", 0, "deadline exceeded", false},
		{"a reset", Rates{Reset: 1}, "", 0, "reset by peer", false},
		{"slow", Rates{Slow: 1}, "", 200, "", true},
		{"half a status line", Rates{CutStatus: 1}, "", 0, "malformed", false},
		{"half a body", Rates{CutBody: 1}, "", 200, "unexpected EOF", true},
		{"429", Rates{Throttle: 1}, "", 429, "", false},
		{"poison", Rates{}, ledger.Poison, 400, "", false},
		{"stubborn", Rates{}, ledger.Stubborn, 500, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, l, s := begin(t, tc.rates, []ledger.Message{{Key: "k", Fate: tc.fate}})
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			status, _, err := s.send(ctx, l.Plan()[0])
			if status != tc.status || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%d, %v; want %d and %q", status, err, tc.status, tc.err)
			}
			if n, _ := l.Accounted(); (n == 1) != tc.taken {
				t.Errorf("it is taken: %t", n == 1)
			}
			if words, _ := l.Flaws(); len(words) > 0 {
				t.Error(words)
			}
			if r.Failures() == "" {
				t.Error("it counts nothing")
			}
		})
	}
}

// What fails once succeeds later, and a run with the same seed is the same run.
func TestRates(t *testing.T) {
	plan := ledger.Plan(20_000, 10, 0, 0)
	rates := Everything
	var count [faults]int
	for _, m := range plan {
		f := rates.decide(1, m, 0)
		if rates.decide(1, m, 0) != f {
			t.Fatal("the same seed decides otherwise")
		}
		count[f]++
	}
	total := 0
	for f := err5xx; f < faults; f++ {
		if count[f] == 0 {
			t.Errorf("%s never happens", f)
		}
		total += count[f]
	}
	if total < 20_000/20 || total > 20_000/10 {
		t.Errorf("%d of 20000 fail: %v", total, count)
	}
	again := 0
	for _, m := range plan {
		if rates.decide(1, m, 0) != taken && rates.decide(1, m, 1) != taken {
			again++
		}
	}
	if again > total/5 {
		t.Errorf("%d of %d fail twice", again, total)
	}
	if twice := rates.Times(2); twice.Reset != 0.02 {
		t.Errorf("twice is %+v", twice)
	}
}

func TestWhatIsWrong(t *testing.T) {
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, tc := range map[string]struct {
		tamper func(*http.Request)
		want   string
	}{
		"no signature":       {func(r *http.Request) { r.Header.Del("webhook-signature") }, `the signature "" is not right`},
		"another signature":  {set("webhook-signature", "v1,AAAA"), "is not right"},
		"another id":         {set("webhook-id", "msg_other"), "is not right"},
		"an old timestamp":   {set("webhook-timestamp", "1000000000"), `webhook-timestamp is "1000000000"`},
		"no attempt":         {set("webhook-attempt", ""), "webhook-attempt"},
		"a header is gone":   {func(r *http.Request) { r.Header.Del("X-History") }, `message 0: the header X-History is ""`},
		"a GET":              {func(r *http.Request) { r.Method = http.MethodGet }, "a GET came"},
		"an invented thing":  {func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("{}")); r.ContentLength = 2 }, "invented"},
		"a damaged signee":   {func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("[]")); r.ContentLength = 2 }, "is not right"},
		"the wrong revision": {set(RevisionHeader, "3"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, l, s := begin(t, Rates{}, ledger.Plan(1, 1, 0, 0))
			s.tamper = tc.tamper
			if status, _, err := s.send(t.Context(), l.Plan()[0]); status/100 != 2 || err != nil {
				t.Errorf("%d, %v", status, err)
			}
			words, _ := l.Flaws()
			if tc.want == "" && len(words) > 0 || !strings.Contains(strings.Join(words, "\n"), tc.want) {
				t.Errorf("it says %q and not %q", words, tc.want)
			}
			if tc.want == "" && (r.Revision() != "3" || r.Revised() != 1) {
				t.Errorf("the revision is %q, after %d changes", r.Revision(), r.Revised())
			}
		})
	}
}

// Closing does not wait for what is held.
func TestClose(t *testing.T) {
	r, l, s := begin(t, Rates{Hold: 1}, ledger.Plan(1, 1, 0, 0))
	got := make(chan error, 1)
	go func() {
		_, _, err := s.send(context.Background(), l.Plan()[0])
		got <- err
	}()
	for r.MostAtOnce() == 0 {
		select {
		case err := <-got:
			t.Fatalf("it was not held: %v", err)
		default:
		}
	}
	_ = r.server.Close()
	if err := <-got; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the client is told %v", err)
	}
}

func BenchmarkReceiver(b *testing.B) {
	_, l, s := begin(b, Rates{}, ledger.Plan(b.N, 100, 0, 0))
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 64 {
		wg.Go(func() {
			for n := int(next.Add(1) - 1); n < b.N; n = int(next.Add(1) - 1) {
				if status, _, err := s.send(context.Background(), l.Plan()[n]); err != nil || status/100 != 2 {
					b.Errorf("%d, %v", status, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
