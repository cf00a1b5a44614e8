package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// inbox is a receiver that writes down what comes, and answers as it is told.
type inbox struct {
	t      testing.TB
	answer func(n int, r *http.Request, body string) int

	mu    sync.Mutex
	calls []call
}

type call struct {
	body   string
	header http.Header
}

func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		i.t.Error(err)
	}
	i.mu.Lock()
	i.calls = append(i.calls, call{string(body), r.Header})
	n := len(i.calls)
	i.mu.Unlock()
	if i.answer != nil {
		w.WriteHeader(i.answer(n, r, string(body)))
	}
}

func (i *inbox) got() []call {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.calls)
}

func (i *inbox) bodies() (all []string) {
	for _, c := range i.got() {
		all = append(all, c.body)
	}
	return all
}

// signed checks a signature by what Standard Webhooks say, and not by our own code.
func signed(t testing.TB, c call, secret string) {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", c.header.Get("webhook-id"), c.header.Get("webhook-timestamp"), c.body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if !slices.Contains(strings.Fields(c.header.Get("webhook-signature")), want) {
		t.Errorf("%s is not among the signatures %q", want, c.header.Get("webhook-signature"))
	}
	seconds, err := strconv.ParseInt(c.header.Get("webhook-timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute {
		t.Errorf("timestamp %q", c.header.Get("webhook-timestamp"))
	}
}

func numbers(n int) (deliveries []message.Delivery, bodies []string) {
	for i := range n {
		d := one(strconv.Itoa(i))
		d.Headers = []message.Header{{Name: "trace", Value: "t" + strconv.Itoa(i)}, {Name: "secret-thing", Value: "geheim"}}
		deliveries = append(deliveries, d)
		bodies = append(bodies, strconv.Itoa(i))
	}
	return deliveries, bodies
}

func TestDeliver(t *testing.T) {
	e := localEntrypoint(t, `"message_headers":["trace"]`)
	in := &inbox{t: t}
	deliveries, want := numbers(200)
	p := newPush(t, e, receiver(t, in.ServeHTTP, `"secrets":["`+secretB+`","`+secretA+`"]`, `"headers":{"X-Shop":["7"]}`), newQueue(deliveries...))
	stop := p.start(e)
	eventually(t, "all are settled", func() bool { return len(p.source.settled()) == len(want) })
	if err := stop(); err != nil {
		t.Errorf("after draining: %v", err)
	}
	if !slices.Equal(in.bodies(), want) {
		t.Errorf("out of order: %q", in.bodies())
	}
	ids := make(map[string]bool)
	for i, c := range in.got() {
		signed(t, c, secretA)
		signed(t, c, secretB)
		ids[c.header.Get("webhook-id")] = true
		if c.header.Get("webhook-attempt") != "1" || c.header.Get("X-Shop") != "7" || c.header.Get("trace") != "t"+strconv.Itoa(i) || c.header.Get("secret-thing") != "" {
			t.Errorf("%v", c.header)
		}
	}
	if len(ids) != len(want) || p.sent != len(want) || p.Progress().Delivered != int64(len(want)) || p.Progress().Failed != 0 {
		t.Errorf("%d ids, %d counted, %+v", len(ids), p.sent, p.Progress())
	}
	if p.source.left() != 0 || p.source.opened != 1 {
		t.Errorf("%d are left, %d streams", p.source.left(), p.source.opened)
	}
}

// Attempts for a message share its id, and are numbered and signed anew.
func TestRetries(t *testing.T) {
	e := localEntrypoint(t)
	in := &inbox{t: t, answer: func(n int, _ *http.Request, _ string) int {
		if n <= 2 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	}}
	p := newPush(t, e, receiver(t, in.ServeHTTP, `"secrets":["`+secretA+`"]`), newQueue(one("a"), one("b")))
	stop := p.start(e)
	eventually(t, "all are settled", func() bool { return len(p.source.settled()) == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	calls := in.got()
	if !slices.Equal(in.bodies(), []string{"a", "a", "a", "b"}) {
		t.Fatalf("%q", in.bodies())
	}
	for i, c := range calls[:3] {
		signed(t, c, secretA)
		if c.header.Get("webhook-id") != calls[0].header.Get("webhook-id") || c.header.Get("webhook-attempt") != strconv.Itoa(i+1) {
			t.Errorf("attempt %d: %v", i+1, c.header)
		}
	}
	now := p.Progress()
	if now.Failed != 2 || now.Delivered != 2 || now.Trouble != "" || len(now.Recent) < 2 || !strings.Contains(now.Recent[0].Error, "500 Internal") {
		t.Errorf("%+v", now)
	}
}

func TestThrottled(t *testing.T) {
	e := localEntrypoint(t)
	var first, second time.Time
	in := &inbox{t: t}
	asked := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		if first.IsZero() {
			first = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		second = time.Now()
		in.ServeHTTP(w, r)
	})
	p := newPush(t, e, asked, newQueue(one("a")))
	stop := p.start(e)
	eventually(t, "it is settled", func() bool { return len(p.source.settled()) == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if waited := second.Sub(first); waited < 950*time.Millisecond {
		t.Errorf("tried again after %s, although Retry-After was a second", waited)
	}
}

// How a worker ends that can't go on, and what is left at the broker then.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		options string
		gone    bool
		cause   string
	}{
		"gone":         {410, ``, true, "no more"},
		"client error": {404, ``, false, "404 Not Found"},
		"exhausted":    {500, ``, false, "500"},
	} {
		e := localEntrypoint(t)
		in := &inbox{t: t, answer: func(int, *http.Request, string) int { return c.status }}
		p := newPush(t, e, receiver(t, in.ServeHTTP), newQueue(one("a"), one("b")))
		failure, ok := errors.AsType[*entrypoints.Failure](p.ends(e))
		if !ok || failure.Gone != c.gone || !strings.Contains(failure.Cause, c.cause) || strings.Contains(failure.Cause, "geheim") {
			t.Errorf("%s: %+v", name, failure)
		}
		if p.source.left() != 2 || len(p.source.settled()) != 0 || slices.Contains(in.bodies(), "b") {
			t.Errorf("%s: %d are left at the broker, and %q were sent", name, p.source.left(), in.bodies())
		}
	}
}

func TestDeadLetters(t *testing.T) {
	e := localEntrypoint(t, `"dead_letter":"dead"`)
	status := map[string]int{"bad": 400, "down": 503}
	in := &inbox{t: t, answer: func(_ int, _ *http.Request, body string) int {
		if s := status[body]; s != 0 {
			return s
		}
		return 200
	}}
	bad := one("bad")
	bad.Key = []byte("k")
	bad.Headers = []message.Header{{Name: "trace", Value: "t"}, {Name: "dead-letter-id", Value: "forged"}}
	p := newPush(t, e, receiver(t, in.ServeHTTP), newQueue(bad, one("good"), one("down"), one("good")))
	p.dead = &grave{queue: newQueue()}
	stop := p.start(e)
	eventually(t, "all are settled", func() bool { return len(p.source.settled()) == 4 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if now := p.Progress(); now.Dead != 2 || now.Delivered != 2 || now.Failed != 4 {
		t.Errorf("%+v", now)
	}
	letters := readLetters(t, e, p, entrypoints.LetterStays)
	if len(letters) != 2 || p.dead.left() != 2 {
		t.Fatalf("%d letters, %d left", len(letters), p.dead.left())
	}
	l := letters[0]
	if string(l.Message.Payload) != "bad" || string(l.Message.Key) != "k" || l.Status != 400 || l.Attempts != 1 || l.Reason != "client_error" ||
		l.Subscription != "sub-1" || l.Position == "" || time.Since(l.Time) > time.Minute || !strings.Contains(l.Error, "400 Bad Request") {
		t.Errorf("%+v", l)
	}
	if want := []message.Header{{Name: "trace", Value: "t"}}; !slices.Equal(l.Message.Headers, want) || !strings.HasPrefix(l.ID, "msg_") {
		t.Errorf("%s, %v", l.ID, l.Message.Headers)
	}
	if letters[1].Reason != "exhausted:server_error" || letters[1].Attempts != 3 || letters[1].Status != 503 {
		t.Errorf("%+v", letters[1])
	}
	// The receiver is mended, and takes what it missed under the ids that it has seen.
	clear(status)
	before := len(in.got())
	err := e.Letters(t.Context(), p, func(l entrypoints.Letter) (entrypoints.LetterFate, error) {
		a, err := e.Try(t.Context(), p, l)
		if err != nil || a.Outcome != entrypoints.Delivered || a.ID != l.ID || a.Number != l.Attempts+1 {
			t.Errorf("%+v, %v", a, err)
		}
		return entrypoints.LetterRemoved, nil
	})
	again := in.got()[before:]
	if err != nil || len(again) != 2 || again[0].header.Get("webhook-id") != letters[0].ID || again[1].header.Get("webhook-attempt") != "4" {
		t.Errorf("%v, %v", again, err)
	}
	if p.dead.left() != 0 || len(p.dead.settled()) != 2 {
		t.Errorf("%d letters are left", p.dead.left())
	}
}

// A dead letter that can't be put away stops the worker, and the message stays at the broker.
func TestDeadLetterFails(t *testing.T) {
	e := localEntrypoint(t, `"dead_letter":"dead"`)
	in := &inbox{t: t, answer: func(int, *http.Request, string) int { return 400 }}
	p := newPush(t, e, receiver(t, in.ServeHTTP), newQueue(one("a")))
	p.dead = &grave{queue: newQueue(), broken: message.Errorf(message.Denied, "no rights to write there")}
	failure, ok := errors.AsType[*entrypoints.Failure](p.ends(e))
	if !ok || !strings.Contains(failure.Cause, "no rights to write there") || p.source.left() != 1 || len(p.source.settled()) != 0 {
		t.Errorf("%+v, %d left", failure, p.source.left())
	}
}

// While the broker is away the subscription is in trouble and not failed, and it goes on by
// itself.
func TestBrokerComesAndGoes(t *testing.T) {
	e := localEntrypoint(t)
	in := &inbox{t: t}
	q := newQueue(one("a"))
	q.refuse = []error{
		message.Errorf(message.Unavailable, "broker:5672 is down"), message.Errorf(message.NotFound, "no queue yet"),
	}
	q.fail = []error{errors.New("the channel was closed")}
	p := newPush(t, e, receiver(t, in.ServeHTTP), q)
	var troubles []string
	var mu sync.Mutex
	recorded := &recorder{push: p, keep: func(now *entrypoints.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if now.Trouble != "" && now.Since.IsZero() {
			t.Error("trouble since never")
		}
		if n := len(troubles); n == 0 || troubles[n-1] != now.Trouble {
			troubles = append(troubles, now.Trouble)
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Deliver(ctx, recorded) }()
	eventually(t, "it is settled", func() bool { return len(q.settled()) == 1 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(troubles, "|")
	if !strings.Contains(all, "broker:5672 is down") || !strings.Contains(all, "no queue yet") || !strings.Contains(all, "the channel was closed") || troubles[len(troubles)-1] != "" {
		t.Errorf("%q", troubles)
	}
	if q.opened != 4 {
		t.Errorf("%d streams", q.opened)
	}
}

type recorder struct {
	*push
	keep func(*entrypoints.Progress)
}

func (r *recorder) Keep(p *entrypoints.Progress) {
	r.keep(p)
	r.push.Keep(p)
}

// Ending begins nothing and cuts nothing: what is under way is delivered and settled.
func TestDrain(t *testing.T) {
	e := localEntrypoint(t, `"concurrency":4`, `"order":"none"`)
	arrived, release := make(chan struct{}, 16), make(chan struct{})
	in := &inbox{t: t, answer: func(int, *http.Request, string) int {
		arrived <- struct{}{}
		<-release
		return 200
	}}
	deliveries, _ := numbers(10)
	p := newPush(t, e, receiver(t, in.ServeHTTP), newQueue(deliveries...))
	stop := p.start(e)
	for range 4 {
		<-arrived
	}
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	<-p.source.stopped
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(p.source.settled()) != 4 || p.source.left() != 6 {
		t.Errorf("%d settled, %d left", len(p.source.settled()), p.source.left())
	}
}

func TestFenced(t *testing.T) {
	e := localEntrypoint(t)
	arrived := make(chan struct{})
	asked := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
	}, `"timeout":"2s"`)
	p := newPush(t, e, asked, newQueue(one("a")))
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Deliver(ctx, p) }()
	<-arrived
	began := time.Now()
	cancel(entrypoints.ErrFenced)
	if err := <-done; err != nil || time.Since(began) > time.Second || len(p.source.settled()) != 0 {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestPaced(t *testing.T) {
	e := localEntrypoint(t)
	in := &inbox{t: t}
	deliveries, _ := numbers(3)
	p := newPush(t, e, receiver(t, in.ServeHTTP), newQueue(deliveries...))
	p.pace = make(chan struct{})
	stop := p.start(e)
	for n := 1; n <= 3; n++ {
		p.pace <- struct{}{}
		eventually(t, "one more is there", func() bool { return len(in.got()) == n })
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Whatever happens, no secret gets into logs, progress or the cause of a failure.
func TestSecretsStayInside(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	e := localEntrypoint(t)
	var calls int
	in := &inbox{t: t, answer: func(int, *http.Request, string) int {
		calls++
		return []int{500, 401, 404}[min(calls, 3)-1]
	}}
	asked := receiver(t, in.ServeHTTP, `"secrets":["`+secretA+`"]`, `"auth":{"type":"basic","username":"u","password":"geheim"}`)
	p := newPush(t, e, asked, newQueue(one("a")))
	p.source.refuse = []error{message.Errorf(message.Unavailable, "down")}
	p.log = zap.New(core)
	err := p.ends(e)
	text := fmt.Sprintf("%v %+v", err, p.Progress())
	for _, entry := range logs.All() {
		text += entry.Message + fmt.Sprint(entry.ContextMap())
	}
	for _, secret := range []string{"geheim", secretA, "dTpnZWhlaW0="} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is told in %s", secret, text)
		}
	}
	if err == nil || logs.Len() == 0 {
		t.Errorf("%v, %d logs", err, logs.Len())
	}
}

// What the operator has narrowed since holds for subscriptions that were accepted before.
func TestNarrowed(t *testing.T) {
	wide := localEntrypoint(t, `"concurrency":16`, `"dead_letter":"dead"`)
	asked := receiver(t, func(http.ResponseWriter, *http.Request) {}, `"concurrency":16`, `"timeout":"2s"`, `"retry":{"attempts":3}`)
	p := newPush(t, wide, asked, newQueue())
	narrow := localEntrypoint(t, `"concurrency":2`)
	narrow.defaults.retry.Attempts, narrow.defaults.timeout = 2, time.Second
	c, err := narrow.couriers.lend(p.API(), p.Consumer())
	if err != nil {
		t.Fatal(err)
	}
	defer narrow.couriers.giveBack(c)
	if s := c.settings; s.concurrency != 2 || s.timeout != time.Second || s.retry.Attempts != 2 || c.timeout != time.Second {
		t.Errorf("%+v", s)
	}
	p = newPush(t, wide, asked[:len(asked)-1]+`,"on_exhausted":"dead_letter"}`, newQueue(one("a")))
	if failure, ok := errors.AsType[*entrypoints.Failure](p.ends(narrow)); !ok || !strings.Contains(failure.Cause, "no dead_letter any more") {
		t.Errorf("%v", failure)
	}
}
