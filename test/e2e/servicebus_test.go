package e2e

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/endpoints/servicebus/servicebustest"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// bus is a peer that behaves as a Service Bus namespace, with a queue.
type bus struct {
	*servicebustest.Server
	t *testing.T
}

const busQueue = "jobs"

func newBus(t *testing.T, queue servicebustest.Entity) *bus {
	t.Helper()
	s, err := servicebustest.Listen("127.0.0.1:0", servicebustest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Queue(busQueue, queue)
	return &bus{Server: s, t: t}
}

// api is an API at /b on the queue; options go into its entrypoints that read.
func (b *bus) api(consumer string, options ...string) string {
	return api("/b", fmt.Sprintf(`
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
		endpoint azure_service_bus {
			connection_string "%[2]s"
			producer {
				queue %[3]s
			}
			consumer {
				queue %[3]s
				shared
				%[4]s
			}
		}
		plan keyless`, strings.Join(options, "\n"), b.ConnectionString(), busQueue, consumer))
}

// put has the peer store messages, as another client of the namespace would.
func (b *bus) put(messages ...*amqp.Message) {
	b.t.Helper()
	if err := b.Put(busQueue, messages...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bus) numbers(n int) {
	b.t.Helper()
	for i := range n {
		b.put(amqp.NewMessage(fmt.Append(nil, i)))
	}
}

// take is the next message of the queue.
func (b *bus) take() *amqp.Message {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	messages, err := b.Take(ctx, busQueue, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	return messages[0]
}

func (b *bus) await(what string, ok func(servicebustest.Counts) bool) servicebustest.Counts {
	b.t.Helper()
	var counts servicebustest.Counts
	gateway.Eventually(b.t, 20*time.Second, what, func() bool {
		counts = b.Counts(busQueue)
		return ok(counts)
	})
	return counts
}

func empty(c servicebustest.Counts) bool { return c.Active == 0 }

// The main job: what others send reaches GET, SSE and WebSocket, which compete for it, and
// what is POSTed is there for others.
func TestServiceBusMainJob(t *testing.T) {
	b := newBus(t, servicebustest.Entity{})
	g := gateway.Start(t, "", site(withSSE(b.api(""))))
	b.put(&amqp.Message{
		Data: [][]byte{[]byte("for GET")}, ApplicationProperties: map[string]any{"trace": "abc"},
		Properties: &amqp.MessageProperties{MessageID: "m-1", ContentType: new("text/x-test")},
	})
	page := gateway.Do(t, g.Client(0), "GET", g.URL("/b?limit=1"), "").Page(t)
	if len(page.Items) != 1 || page.Items[0].ID != "m-1" || page.Items[0].Content != "for GET" ||
		fmt.Sprint(page.Items[0].Headers["trace"]) != "[abc]" || page.Items[0].Metadata["queue"] != busQueue {
		t.Errorf("GET: %+v", page.Items)
	}
	b.await("GET settled its message", empty)

	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/b"))
	b.put(amqp.NewMessage([]byte("for SSE")))
	if e := ev.MustMessage(t); e.Data != "for SSE" || !strings.Contains(strings.Join(e.Comments, "\n"), "sequence_number: ") {
		t.Errorf("SSE: %+v", e)
	}
	b.await("SSE settled its message", empty)
	ev.Close()
	b.await("the stream has ended", func(c servicebustest.Counts) bool { return c.Receivers == 0 })

	ws := gateway.OpenSocket(t, g, g.URL("/b"), nil)
	b.put(amqp.NewMessage([]byte("for WebSocket")))
	if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "for WebSocket" {
		t.Errorf("WebSocket: %q %v", payload, err)
	}
	b.await("the WebSocket settled its message", empty)
	_ = ws.Close()
	b.await("the WebSocket has ended", func(c servicebustest.Counts) bool { return c.Receivers == 0 })

	a := gateway.Do(t, g.Client(0), "POST", g.URL("/b"), "from curl\x00\xff", "X-Trace", "t1", "Content-Type", "application/x-odd")
	if a.Status != 202 {
		t.Fatalf("POST: %d %s", a.Status, a.Body)
	}
	m := b.take()
	if string(m.GetData()) != "from curl\x00\xff" || m.ApplicationProperties["X-Trace"] != "t1" ||
		m.Properties == nil || m.Properties.ContentType == nil || *m.Properties.ContentType != "application/x-odd" {
		t.Errorf("the queue got %q, %v, %+v", m.GetData(), m.ApplicationProperties, m.Properties)
	}
}

// What is published by WebSocket is there for others.
func TestServiceBusPublishByWebSocket(t *testing.T) {
	b := newBus(t, servicebustest.Entity{})
	conf := strings.Replace(b.api(""), "entrypoint websocket {", "entrypoint websocket {\nsubscriber off", 1)
	g := gateway.Start(t, "", site(conf))
	ws := gateway.OpenSocket(t, g, g.URL("/b"), nil)
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("by WebSocket")); err != nil {
		t.Fatal(err)
	}
	if m := b.take(); string(m.GetData()) != "by WebSocket" {
		t.Errorf("the queue got %q", m.GetData())
	}
}

// What the namespace says is told, and none of it names a secret.
func TestServiceBusProblems(t *testing.T) {
	b := newBus(t, servicebustest.Entity{MaxMessageBytes: 64 << 10})
	g := gateway.Start(t, "", site(b.api("")))
	var mu sync.Mutex
	var fault *servicebustest.Fault
	b.OnFault(func(op servicebustest.Op, _ string) *servicebustest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if op != servicebustest.OpSend {
			return nil
		}
		return fault
	})
	post := func(name, body string, f *servicebustest.Fault, status int, slug string) {
		t.Helper()
		mu.Lock()
		fault = f
		mu.Unlock()
		a := gateway.Do(t, g.Client(0), "POST", g.URL("/b"), body)
		if a.Status != status {
			t.Errorf("%s: %d %s, want %d", name, a.Status, a.Body, status)
			return
		}
		if status == 202 {
			return
		}
		got, detail := a.Problem(t)
		if got != slug || detail == "" || strings.Contains(a.Body, "SharedAccessKey") {
			t.Errorf("%s: %s, want %s", name, a.Body, slug)
		}
	}
	post("good", "x", nil, 202, "")
	post("too large", strings.Repeat("x", 70<<10), nil, 413, "too-large")
	post("throttled", "x", &servicebustest.Fault{Condition: "com.microsoft:server-busy", Description: "The request was terminated because the entity is being throttled."}, 429, "busy")
	post("full", "x", &servicebustest.Fault{Condition: "amqp:resource-limit-exceeded", Description: "The maximum entity size has been reached or exceeded."}, 429, "busy")
	post("denied", "x", &servicebustest.Fault{Condition: "amqp:unauthorized-access", Description: "Unauthorized access. 'Send' claim(s) are required."}, 502, "broker-denied")
	post("cut after the write", "x", &servicebustest.Fault{Drop: true}, 504, "outcome-unknown")
	post("good again", "x", nil, 202, "")
	b.Pause()
	post("down", "x", nil, 503, "broker-unavailable")
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	gateway.Eventually(t, 10*time.Second, "publishing again", func() bool {
		return gateway.Do(t, g.Client(0), "POST", g.URL("/b"), "x").Status == 202
	})
	b.Delete(busQueue)
	post("deleted", "x", nil, 404, "channel-not-found")
}

// A client that acknowledges nothing holds its window and no more. Its locks are renewed
// for as long as it is there, and then others get what it held.
func TestServiceBusStalledClient(t *testing.T) {
	const total, window = 500, 50
	b := newBus(t, servicebustest.Entity{LockDuration: 2 * time.Second})
	g := gateway.Start(t, "", site(b.api(fmt.Sprint("prefetch ", window), "qos at_least_once")))
	stalled := gateway.OpenSocket(t, g, g.URL("/b"), []string{protocol})
	b.numbers(total)
	held := b.await("the window", func(c servicebustest.Counts) bool { return c.Locked > 0 && c.Renewed > 2*window }).Locked
	if held > window {
		t.Errorf("a client that acknowledges nothing holds %d", held)
	}
	other := gateway.OpenSocket(t, g, g.URL("/b"), []string{protocol})
	seen := make(map[string]int)
	for len(seen) < total-held {
		ackNext(t, other, seen)
	}
	counts := b.await("only what the stalled one holds", func(c servicebustest.Counts) bool { return c.Active == held && c.Locked == held })
	if counts.Expired > 0 {
		t.Errorf("%d locks expired while their clients were there", counts.Expired)
	}
	_ = stalled.Close()
	for len(seen) < total {
		ackNext(t, other, seen)
	}
	b.await("empty", empty)
	for text, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times to the second client", text, n)
		}
	}
}

// GET at at_least_once: a receipt settles its response, and its locks are renewed until
// then; without it the messages come again after ack_wait.
func TestServiceBusReceipts(t *testing.T) {
	b := newBus(t, servicebustest.Entity{LockDuration: time.Second})
	conf := strings.Replace(b.api("", "qos at_least_once"), "duration_limit 1s", "duration_limit 1s\nack_wait 3s", 1)
	g := gateway.Start(t, "", site(conf))
	get := func(cursor string) (contents string, next string) {
		page := gateway.Do(t, g.Client(0), "GET", g.URL("/b?limit=3&cursor="+cursor), "").Page(t)
		for _, item := range page.Items {
			contents += item.Content + " "
		}
		return contents, page.Pagination.NextCursor
	}
	b.numbers(5)
	first, receipt := get("")
	if first != "0 1 2 " {
		t.Fatalf("got %q", first)
	}
	b.await("renewed locks", func(c servicebustest.Counts) bool { return c.Renewed >= 6 })
	second, receipt := get(receipt)
	if second != "3 4 " {
		t.Fatalf("got %q", second)
	}
	b.await("the first response settled", func(c servicebustest.Counts) bool { return c.Active == 2 && c.Completed == 3 })
	b.await("the second response given back", func(c servicebustest.Counts) bool { return c.Active == 2 && c.Locked == 0 })
	again, receipt := get(receipt)
	if again != "3 4 " {
		t.Fatalf("got %q", again)
	}
	get(receipt)
	b.await("empty", empty)
}

// Each Service Bus session is read in its order, and sessions side by side.
func TestServiceBusSessions(t *testing.T) {
	const sessions, each = 4, 50
	b := newBus(t, servicebustest.Entity{Sessions: true})
	conf := strings.Replace(b.api("sessions on", "qos at_least_once"), "producer {", "producer {\nsession_id {http.request.header.X-Session}", 1)
	g := gateway.Start(t, "", site(conf))
	for i := range each {
		for s := range sessions {
			a := gateway.Do(t, g.Client(0), "POST", g.URL("/b"), fmt.Sprint(s*1000+i), "X-Session", fmt.Sprint("s", s))
			if a.Status != 202 {
				t.Fatalf("POST: %d %s", a.Status, a.Body)
			}
		}
	}
	ws := gateway.OpenSocket(t, g, g.URL("/b"), []string{protocol})
	seen := make(map[string]int)
	next := make(map[int]int)
	for len(seen) < sessions*each {
		before := len(seen)
		text := ackNext(t, ws, seen)
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil || len(seen) == before || n%1000 != next[n/1000] {
			t.Fatalf("got %q when %v was next, %v", text, next, err)
		}
		next[n/1000]++
	}
	b.await("empty", empty)
}

// A hundred reloads with clients leave nothing behind: no goroutine, and no connection or
// link at the namespace.
func TestServiceBusReloadsLeaveNothingBehind(t *testing.T) {
	reloads := 100
	if testing.Short() {
		reloads = 10
	}
	b := newBus(t, servicebustest.Entity{})
	g := gateway.Start(t, "", site("respond 200"))
	base := settled(t, g)
	round := func(i int) {
		// Another endpoint each time, because an unchanged one would stay.
		if err := g.Load("", site(withSSE(b.api(fmt.Sprint("prefetch ", 10+i))))); err != nil {
			t.Fatal(err)
		}
		ev := openEvents(t, g.Client(0), g.URL("/b"))
		if err := post(g.Client(0), g.URL("/b"), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if e := ev.MustMessage(t); e.Data != fmt.Sprint(i) {
			t.Fatalf("round %d got %+v", i, e)
		}
		ev.Close()
		// What was written and not settled would come again in the next round.
		b.await("settled and left", func(c servicebustest.Counts) bool { return empty(c) && c.Receivers == 0 })
	}
	for i := range reloads {
		round(i)
	}
	if err := g.Load("", site("respond 200")); err != nil {
		t.Fatal(err)
	}
	gateway.Eventually(t, 20*time.Second, "the connections to end", func() bool { return b.Connections() == 0 })
	if n := b.Counts(busQueue).Receivers; n > 0 {
		t.Errorf("%d receivers are left", n)
	}
	gateway.Eventually(t, 20*time.Second, "goroutines back to the base line", func() bool { return runtime.NumGoroutine() <= base+5 })
}
