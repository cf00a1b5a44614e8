//go:build cgo && (linux || darwin)

package e2e

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	_ "github.com/caddy-message-api/caddy-message-api/endpoints/solace" // it is not in the default set
	"github.com/caddy-message-api/caddy-message-api/endpoints/solace/smftest"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// smf is a peer that speaks Solace's protocol.
type smf struct {
	*smftest.Server
	t *testing.T
}

func newSMF(t *testing.T) *smf {
	t.Helper()
	s, err := smftest.Listen("127.0.0.1:0", smftest.Options{Users: map[string]string{"gateway": "s3cret"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		for _, err := range s.Malformed() {
			t.Errorf("the client library sent what the peer does not understand: %v", err)
		}
	})
	return &smf{Server: s, t: t}
}

// onTopics publishes to one topic and reads all of its kind.
const onTopics = `
	producer {
		topics orders/new
	}
	consumer {
		topics orders/>
	}`

// onQueue drains a queue.
const onQueue = `
	producer {
		topics jobs/new
	}
	consumer {
		queue jobs
		shared
	}`

// api is an API at /s; options go into its entrypoints that read.
func (s *smf) api(endpoint string, options ...string) string {
	return api("/s", fmt.Sprintf(`
		entrypoint http_get {
			duration_limit 1s
			metadata_in_payload
			headers_in_payload
			%[1]s
		}
		entrypoint http_post {
			request_headers_to_message
		}
		entrypoint websocket {
			%[1]s
		}
		endpoint solace {
			url %[2]s
			auth gateway s3cret
			%[3]s
		}
		plan keyless`, strings.Join(options, "\n"), s.URL(), endpoint))
}

// publish has another client publish.
func (s *smf) publish(text string) {
	s.t.Helper()
	err := s.Publish("orders/old", true, smftest.Message{Payload: []byte(text)})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *smf) putNumbers(queue string, n int) {
	s.t.Helper()
	for i := range n {
		if err := s.Put(queue, smftest.Message{Payload: fmt.Append(nil, i)}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// published is the next message that a recorder has.
func (s *smf) published(r *smftest.Recorder) smftest.Message {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	messages, err := r.Take(ctx, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	return messages[0]
}

func (s *smf) await(queue, what string, ok func(smftest.Counts) bool) smftest.Counts {
	s.t.Helper()
	var counts smftest.Counts
	gateway.Eventually(s.t, 20*time.Second, what, func() bool {
		counts = s.Counts(queue)
		return ok(counts)
	})
	return counts
}

func drained(c smftest.Counts) bool { return c.Ready == 0 && c.Unacked == 0 }

// identityQueue is the only queue that there is.
func (s *smf) identityQueue() string {
	s.t.Helper()
	var names []string
	gateway.Eventually(s.t, 20*time.Second, "the queue of an identity", func() bool {
		names = s.Queues()
		return len(names) == 1
	})
	return names[0]
}

// The main job: what others publish reaches GET, SSE and WebSocket, and what is POSTed
// reaches others.
func TestSolaceMainJob(t *testing.T) {
	s := newSMF(t)
	g := gateway.Start(t, "", site(withSSE(s.api(onTopics))))
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/s"))
	ws := gateway.OpenSocket(t, g, g.URL("/s"), nil)
	who := []string{"X-Gravitee-Client-Identifier", "reader"}
	gateway.Do(t, g.Client(0), "GET", g.URL("/s?limit=1"), "", who...) // makes the queue of the identity
	err := s.Publish("orders/old", true, smftest.Message{
		Payload: []byte("from elsewhere"), ApplicationMessageID: "m-1", Properties: map[string]any{"trace": "abc"},
	})
	if err != nil {
		t.Fatal(err)
	}
	page := gateway.Do(t, g.Client(0), "GET", g.URL("/s?limit=1"), "", who...).Page(t)
	if len(page.Items) != 1 || page.Items[0].ID != "m-1" || page.Items[0].Content != "from elsewhere" ||
		page.Items[0].Metadata["destination"] != "orders/old" || fmt.Sprint(page.Items[0].Headers["trace"]) != "[abc]" {
		t.Errorf("GET: %+v", page.Items)
	}
	if e := ev.MustMessage(t); e.Data != "from elsewhere" || !strings.Contains(strings.Join(e.Comments, "\n"), "destination: orders/old") {
		t.Errorf("SSE: %+v", e)
	}
	if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "from elsewhere" {
		t.Errorf("WebSocket: %q %v", payload, err)
	}

	all := s.Record("orders/>")
	t.Cleanup(all.Close)
	a := gateway.Do(t, g.Client(0), "POST", g.URL("/s"), "from curl\x00\xff", "X-Trace", "t1", "Content-Type", "application/x-odd")
	if a.Status != 202 {
		t.Fatalf("POST: %d %s", a.Status, a.Body)
	}
	m := s.published(all)
	if string(m.Payload) != "from curl\x00\xff" || m.Topic != "orders/new" || !m.Persistent ||
		m.Properties["X-Trace"] != "t1" || m.HTTPContentType != "application/x-odd" {
		t.Errorf("others got %+v", m)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("by WebSocket")); err != nil {
		t.Fatal(err)
	}
	if m := s.published(all); string(m.Payload) != "by WebSocket" {
		t.Errorf("others got %+v", m)
	}
}

// What the broker says is told, and none of it names a secret.
func TestSolaceProblems(t *testing.T) {
	s := newSMF(t)
	g := gateway.Start(t, "", site(s.api(onTopics)))
	var mu sync.Mutex
	var fault *smftest.Fault
	s.OnFault(func(op smftest.Op, _ string) *smftest.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case op == smftest.OpPublish:
			return fault
		case op == smftest.OpLogin && fault != nil && fault.Drop:
			return &smftest.Fault{Delay: time.Second} // else the library may be back before we have left it
		}
		return nil
	})
	post := func(name string, f *smftest.Fault, status int, slug string) {
		t.Helper()
		mu.Lock()
		fault = f
		mu.Unlock()
		a := gateway.Do(t, g.Client(0), "POST", g.URL("/s"), "x")
		if a.Status != status {
			t.Errorf("%s: %d %s, want %d", name, a.Status, a.Body, status)
			return
		}
		if status == 202 {
			return
		}
		if got, detail := a.Problem(t); got != slug || detail == "" || strings.Contains(a.Body, "s3cret") {
			t.Errorf("%s: %s, want %s", name, a.Body, slug)
		}
	}
	post("good", nil, 202, "")
	post("full", &smftest.Fault{Code: 503, Text: "Spool Over Quota"}, 429, "busy")
	post("denied", &smftest.Fault{Code: 403, Text: "Publish ACL Denied"}, 502, "broker-denied")
	post("no queue", &smftest.Fault{Code: 503, Text: "No Subscription Match"}, 404, "channel-not-found")
	post("cut after the write", &smftest.Fault{Drop: true}, 504, "outcome-unknown")
	gateway.Eventually(t, 10*time.Second, "publishing again", func() bool {
		mu.Lock()
		fault = nil
		mu.Unlock()
		return gateway.Do(t, g.Client(0), "POST", g.URL("/s"), "x").Status == 202
	})
	s.Pause()
	gateway.Eventually(t, 10*time.Second, "the gateway to notice", func() bool {
		a := gateway.Do(t, g.Client(0), "POST", g.URL("/s"), "x")
		return a.Status == 503
	})
	post("down", nil, 503, "broker-unavailable")
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	gateway.Eventually(t, 10*time.Second, "publishing again", func() bool {
		return gateway.Do(t, g.Client(0), "POST", g.URL("/s"), "x").Status == 202
	})
	wrong := strings.Replace(s.api(onTopics), "auth gateway s3cret", "auth gateway wr0ng", 1)
	if err := g.Load("", site(wrong)); err != nil {
		t.Fatal(err)
	}
	a, err := tryPost(g.Client(0), g.URL("/s"), "x")
	if err != nil {
		t.Fatal(err)
	}
	if slug, detail := a.Problem(t); a.Status != 503 || slug != "broker-unavailable" || !strings.Contains(detail, s.Addr()) || strings.Contains(detail, "wr0ng") {
		t.Errorf("a wrong password: %d %s", a.Status, a.Body)
	}
}

// GET at at_least_once: a receipt settles its response; without it the messages come again
// after ack_wait.
func TestSolaceReceipts(t *testing.T) {
	s := newSMF(t)
	s.Queue("jobs", smftest.Queue{NonExclusive: true})
	conf := strings.Replace(s.api(onQueue, "qos at_least_once"), "duration_limit 1s", "duration_limit 1s\nack_wait 2s", 1)
	g := gateway.Start(t, "", site(conf))
	get := func(cursor string) (contents string, next string) {
		page := gateway.Do(t, g.Client(0), "GET", g.URL("/s?limit=3&cursor="+cursor), "").Page(t)
		for _, item := range page.Items {
			contents += item.Content + " "
		}
		return contents, page.Pagination.NextCursor
	}
	s.putNumbers("jobs", 5)
	first, receipt := get("")
	second, receipt := get(receipt)
	if first != "0 1 2 " || second != "3 4 " {
		t.Fatalf("got %q and %q", first, second)
	}
	s.await("jobs", "the second response given back", func(c smftest.Counts) bool { return c.Ready == 2 && c.Unacked == 0 })
	again, receipt := get(receipt)
	if again != "3 4 " {
		t.Fatalf("got %q", again)
	}
	get(receipt)
	s.await("jobs", "empty", drained)
}

// A client that acknowledges nothing leaves the rest to others of its identity, and what it
// held when it goes.
func TestSolaceStalledClient(t *testing.T) {
	const total = 2000
	s := newSMF(t)
	g := gateway.Start(t, "", site(s.api(strings.Replace(onTopics, "consumer {", "consumer {\nprefetch 50", 1), "qos at_least_once")))
	who := []string{"X-Gravitee-Client-Identifier", "worker"}
	stalled := gateway.OpenSocket(t, g, g.URL("/s"), []string{protocol}, who...)
	queue := s.identityQueue()
	s.putNumbers(queue, total)
	held := s.await(queue, "a window in hand", func(c smftest.Counts) bool { return c.Unacked >= 50 }).Unacked
	other := gateway.OpenSocket(t, g, g.URL("/s"), []string{protocol}, who...)
	seen := make(map[string]int)
	for len(seen) < total-held {
		ackNext(t, other, seen)
	}
	left := s.Counts(queue)
	t.Logf("a client that acknowledges nothing holds %d of %d", left.Ready+left.Unacked, total)
	_ = stalled.Close()
	for len(seen) < total {
		ackNext(t, other, seen)
	}
	s.await(queue, "empty", drained)
}

// A thousand SSE clients cost the broker one subscription.
func TestSolaceBroadcastCostsOneSubscription(t *testing.T) {
	clients := 1000
	if testing.Short() {
		clients = 50
	}
	s := newSMF(t)
	g := gateway.Start(t, "", site(withSSE(s.api(onTopics))))
	streams := openMany(t, g, g.URL("/s"), clients)
	gateway.Eventually(t, 20*time.Second, "the subscription", func() bool { return len(s.Subscriptions()) > 0 })
	if subscriptions := s.Subscriptions(); len(subscriptions) != 1 || subscriptions[0] != "orders/>" {
		t.Errorf("%d clients cost %q", clients, subscriptions)
	}
	for i := range 20 {
		s.publish(fmt.Sprint(i))
	}
	readNumbers(t, streams, 20)
}

// A hundred reloads with clients leave nothing behind: no goroutine, and nobody at the
// broker but the queue of an identity, which is meant to stay.
func TestSolaceReloadsLeaveNothingBehind(t *testing.T) {
	reloads := 100
	if testing.Short() {
		reloads = 10
	}
	s := newSMF(t)
	g := gateway.Start(t, "", site("respond 200"))
	base := settled(t, g)
	who := []string{"X-Gravitee-Client-Identifier", "reader"}
	for i := range reloads {
		// Another endpoint each time, because an unchanged one would stay.
		endpoint := strings.Replace(onTopics, "consumer {", fmt.Sprintf("consumer {\nprefetch %d", 10+i), 1)
		if err := g.Load("", site(withSSE(s.api(endpoint)))); err != nil {
			t.Fatal(err)
		}
		ev := openEvents(t, g.Client(0), g.URL("/s"))
		ws := gateway.OpenSocket(t, g, g.URL("/s"), nil, who...)
		if err := post(g.Client(0), g.URL("/s"), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if e := ev.MustMessage(t); e.Data != fmt.Sprint(i) {
			t.Fatalf("round %d got %+v", i, e)
		}
		if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != fmt.Sprint(i) {
			t.Fatalf("round %d got %q, %v", i, payload, err)
		}
		ev.Close()
		_ = ws.Close()
		// What was written and not settled would come again in the next round.
		s.await(s.identityQueue(), "settled and left", func(c smftest.Counts) bool { return drained(c) && c.Flows == 0 })
	}
	if err := g.Load("", site("respond 200")); err != nil {
		t.Fatal(err)
	}
	gateway.Eventually(t, 20*time.Second, "the clients to end", func() bool { return s.Clients() == 0 })
	if left := s.Subscriptions(); len(left) > 0 {
		t.Errorf("subscriptions %q are left", left)
	}
	gateway.Eventually(t, 20*time.Second, "goroutines back to the base line", func() bool { return runtime.NumGoroutine() <= base+5 })
}
