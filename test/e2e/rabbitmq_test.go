package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const protocol = "message-api.v1+json"

// rabbit is a virtual host of the shared RabbitMQ for one test.
type rabbit struct {
	brokers.RabbitMQBroker
	t     *testing.T
	vhost string
}

func newRabbit(t *testing.T) *rabbit {
	b := brokers.SharedRabbitMQ(t)
	return &rabbit{RabbitMQBroker: b, t: t, vhost: b.Vhost(t)}
}

// api is an API at /r on this virtual host; options go into its entrypoints that read.
func (r *rabbit) api(endpoint string, options ...string) string {
	opt := strings.Join(options, "\n")
	return api("/r", fmt.Sprintf(`
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
		endpoint rabbitmq {
			server %[2]s
			virtual_host %[3]s
			auth %[4]s %[5]s
			%[6]s
		}
		plan keyless`, opt, r.Addr(), r.vhost, r.User(), r.Password(), endpoint))
}

// onExchange reads and writes a topic exchange.
const onExchange = `
	producer {
		exchange orders topic
		routing_key orders.new
	}
	consumer {
		exchange orders topic
		routing_key orders.#
	}`

// withSSE adds the entrypoint that not every level has.
func withSSE(api string) string {
	return strings.Replace(api, "entrypoint http_post", "entrypoint sse {\nheartbeat off\nmetadata_as_comment\n}\nentrypoint http_post", 1)
}

// call asks the management API, which is how others see the broker.
func (r *rabbit) call(method string, path []string, body any) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := r.Management().Call(ctx, method, rabbitmq.Path(path...), body, nil); err != nil {
		r.t.Fatalf("%s %v: %v", method, path, err)
	}
}

// declare makes a queue behind the gateway's back, bound to the exchange.
func (r *rabbit) declare(queue, exchange, key string, arguments map[string]any) {
	r.t.Helper()
	body := map[string]any{"durable": true}
	if arguments != nil {
		body["arguments"] = arguments
	}
	r.call("PUT", []string{"queues", r.vhost, queue}, body)
	if exchange != "" {
		r.call("POST", []string{"bindings", r.vhost, "e", exchange, "q", queue}, map[string]any{"routing_key": key})
	}
}

// The main job: what a foreign client publishes reaches GET, SSE and WebSocket, and what is
// POSTed is read back by the foreign client.
func TestRabbitMQMainJob(t *testing.T) {
	r := newRabbit(t)
	g := gateway.Start(t, "", site(withSSE(r.api(onExchange))))
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/r"))
	ws := gateway.OpenSocket(t, g, g.URL("/r"), nil)
	who := []string{"X-Gravitee-Client-Identifier", "reader"}
	gateway.Do(t, g.Client(0), "GET", g.URL("/r?limit=1"), "", who...) // makes the queue of the identity
	brokers.AMQPPublish(t, r.RabbitMQBroker, r.vhost, "orders", "orders.old", "from librabbitmq", "-H", "trace: abc", "-C", "text/x-test")
	page := gateway.Do(t, g.Client(0), "GET", g.URL("/r?limit=1"), "", who...).Page(t)
	if len(page.Items) != 1 || page.Items[0].Content != "from librabbitmq" || page.Items[0].Metadata["routing_key"] != "orders.old" ||
		page.Items[0].Metadata["content_type"] != "text/x-test" || fmt.Sprint(page.Items[0].Headers["trace"]) != "[abc]" {
		t.Errorf("GET: %+v", page.Items)
	}
	if e := ev.MustMessage(t); e.Data != "from librabbitmq" || !strings.Contains(strings.Join(e.Comments, "\n"), "routing_key: orders.old") {
		t.Errorf("SSE: %+v", e)
	}
	if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "from librabbitmq" {
		t.Errorf("WebSocket: %q %v", payload, err)
	}

	r.declare("foreign", "orders", "orders.new", nil)
	a := gateway.Do(t, g.Client(0), "POST", g.URL("/r"), "from curl\x00\xff", "X-Trace", "t1", "Content-Type", "application/x-odd")
	if a.Status != 202 {
		t.Fatalf("POST: %d %s", a.Status, a.Body)
	}
	if got := brokers.AMQPGet(t, r.RabbitMQBroker, r.vhost, "foreign"); got != "from curl\x00\xff" {
		t.Errorf("the foreign client got %q", got)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("by WebSocket")); err != nil {
		t.Fatal(err)
	}
	gateway.Eventually(t, 10*time.Second, "what was published by WebSocket", func() bool {
		return brokers.AMQPGet(t, r.RabbitMQBroker, r.vhost, "foreign") == "by WebSocket"
	})
}

// What nobody takes is not swallowed, and what the broker says is told.
func TestRabbitMQProblems(t *testing.T) {
	r := newRabbit(t)
	g := gateway.Start(t, "", site(r.api(onExchange)))
	post := func(url string) (int, string, string) {
		a, err := tryPost(g.Client(0), url, "x")
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == 202 {
			return a.Status, "", ""
		}
		slug, detail := a.Problem(t)
		return a.Status, slug, detail
	}
	if status, slug, detail := post(g.URL("/r")); status != 404 || slug != "channel-not-found" || !strings.Contains(detail, "orders.new") {
		t.Errorf("unroutable: %d %s %s", status, slug, detail)
	}
	gateway.Do(t, g.Client(0), "GET", g.URL("/r?limit=1"), "", "X-Gravitee-Client-Identifier", "reader")
	if status, _, detail := post(g.URL("/r")); status != 202 {
		t.Errorf("with a queue: %d %s", status, detail)
	}

	// A queue that is full and says so.
	r.declare("full", "", "", map[string]any{"x-max-length": 1, "x-overflow": "reject-publish"})
	if err := g.Load("", site(r.api("producer {\nexchange \"\"\nrouting_key full\n}\nconsumer {\nqueue full\nshared\n}"))); err != nil {
		t.Fatal(err)
	}
	post(g.URL("/r"))
	if status, slug, detail := post(g.URL("/r")); status != 503 && status != 429 {
		t.Errorf("full: %d %s %s", status, slug, detail)
	}

	// A declaration that clashes with what exists leaves others alone.
	r.call("PUT", []string{"exchanges", r.vhost, "clash"}, map[string]any{"type": "fanout", "durable": true})
	other := r.api(onExchange)
	clash := strings.Replace(r.api(strings.ReplaceAll(onExchange, "orders topic", "clash topic")), "/r ", "/clash ", 1)
	if err := g.Load("", site(other, clash)); err != nil {
		t.Fatal(err)
	}
	ws := gateway.OpenSocket(t, g, g.URL("/r"), nil)
	if status, slug, detail := post(g.URL("/clash")); status/100 != 5 || !strings.Contains(detail, "clash") {
		t.Errorf("a clash: %d %s %s", status, slug, detail)
	}
	if status, _, detail := post(g.URL("/r")); status != 202 {
		t.Errorf("beside a clash: %d %s", status, detail)
	}
	if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "x" {
		t.Errorf("beside a clash: %q %v", payload, err)
	}

	wrong := strings.Replace(r.api(onExchange), "auth "+r.User()+" "+r.Password(), "auth nobody wr0ng", 1)
	if err := g.Load("", site(wrong)); err != nil {
		t.Fatal(err)
	}
	if status, slug, detail := post(g.URL("/r")); status != 503 || slug != "broker-unavailable" || !strings.Contains(detail, r.Addr()) || strings.Contains(detail, "wr0ng") {
		t.Errorf("a wrong password: %d %s %s", status, slug, detail)
	}
}

// A client that acknowledges nothing holds its window and no more; what it holds and what
// it left go to another one of its identity.
func TestRabbitMQStalledClient(t *testing.T) {
	const total = 2000
	r := newRabbit(t)
	g := gateway.Start(t, "", site(r.api(strings.Replace(onExchange, "consumer {", "consumer {\nprefetch 100", 1), "qos at_least_once")))
	who := []string{"X-Gravitee-Client-Identifier", "worker"}
	stalled := gateway.OpenSocket(t, g, g.URL("/r"), []string{protocol}, who...)
	queue := r.onlyQueue()
	r.publish("orders", "orders.new", total)
	state := r.AwaitQueue(t, r.vhost, queue, "all published", func(q rabbitmq.QueueState) bool { return q.Messages == total && q.Unacked > 0 })
	if state.Unacked > 100 || state.Ready < total-100 {
		t.Errorf("a client that acknowledges nothing holds %d", state.Unacked)
	}

	other := gateway.OpenSocket(t, g, g.URL("/r"), []string{protocol}, who...)
	seen := make(map[string]int)
	for len(seen) < total-state.Unacked {
		ackNext(t, other, seen)
	}
	r.AwaitQueue(t, r.vhost, queue, "only what the stalled one holds", func(q rabbitmq.QueueState) bool {
		return q.Messages == state.Unacked && q.Unacked == state.Unacked
	})
	_ = stalled.Close()
	for len(seen) < total {
		ackNext(t, other, seen)
	}
	end := r.AwaitQueue(t, r.vhost, queue, "empty", func(q rabbitmq.QueueState) bool { return q.Messages == 0 })
	t.Logf("held %d of %d; delivered %d, redelivered %d, acked %d", state.Unacked, total, end.Counts.Delivered, end.Counts.Redelivered, end.Counts.Acked)
	for text, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times to the second client", text, n)
		}
	}
}

// onlyQueue is the one queue that there is.
func (r *rabbit) onlyQueue() string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	queues, err := r.Management().Queues(ctx, r.vhost)
	if err != nil || len(queues) != 1 {
		r.t.Fatalf("queues %+v, %v", queues, err)
	}
	return queues[0].Name
}

// publish has the foreign client publish numbers.
func (r *rabbit) publish(exchange, key string, n int) {
	r.t.Helper()
	brokers.RabbitMQPublishLines(r.t, r.RabbitMQBroker, r.vhost, exchange, key, numberLines(n))
}

func numberLines(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Itoa(i) + "\n")
	}
	return b.String()
}

// ackNext records and acknowledges a message, and returns its text.
func ackNext(t *testing.T, ws *websocket.Conn, seen map[string]int) string {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, payload, err := ws.ReadMessage()
	if err != nil {
		t.Fatalf("after %d messages: %v", len(seen), err)
	}
	var f struct {
		Type, Content string
		Seq           uint64
	}
	if err := json.Unmarshal(payload, &f); err != nil || f.Type != "message" {
		t.Fatalf("got %s, %v", payload, err)
	}
	text := strings.TrimSpace(f.Content)
	seen[text]++
	if err := ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","seq":%d}`, f.Seq)); err != nil {
		t.Fatal(err)
	}
	return text
}

// GET at at_least_once: a receipt settles its response, and without it the messages come
// again after ack_wait.
func TestRabbitMQReceipts(t *testing.T) {
	r := newRabbit(t)
	conf := strings.Replace(r.api(onExchange, "qos at_least_once"), "duration_limit 1s", "duration_limit 1s\nack_wait 2s", 1)
	g := gateway.Start(t, "", site(conf))
	get := func(cursor string) gateway.Page {
		return gateway.Do(t, g.Client(0), "GET", g.URL("/r?limit=3&cursor="+cursor), "", "X-Gravitee-Client-Identifier", "poller").Page(t)
	}
	contents := func(p gateway.Page) (s string) {
		for _, item := range p.Items {
			s += strings.TrimSpace(item.Content) + " "
		}
		return s
	}
	get("")
	queue := r.onlyQueue()
	r.publish("orders", "orders.new", 7)
	first := get("")
	second := get(first.Pagination.NextCursor)
	if contents(first) != "0 1 2 " || contents(second) != "3 4 5 " {
		t.Errorf("got %s and %s", contents(first), contents(second))
	}
	r.AwaitQueue(t, r.vhost, queue, "the first response settled", func(q rabbitmq.QueueState) bool { return q.Messages == 4 })
	// The second is not confirmed, and comes again when its time is over.
	r.AwaitQueue(t, r.vhost, queue, "the second response given back", func(q rabbitmq.QueueState) bool { return q.Messages == 4 && q.Unacked == 0 })
	again := get(second.Pagination.NextCursor)
	if contents(again) != "3 4 5 " {
		t.Errorf("got %s", contents(again))
	}
	last := get(again.Pagination.NextCursor)
	if contents(last) != "6 " {
		t.Errorf("got %s", contents(last))
	}
	get(last.Pagination.NextCursor)
	r.AwaitQueue(t, r.vhost, queue, "empty", func(q rabbitmq.QueueState) bool { return q.Messages == 0 })
}

// Clients of a shared queue compete, whoever they are.
func TestRabbitMQSharedQueue(t *testing.T) {
	const total = 300
	r := newRabbit(t)
	r.declare("jobs", "", "", map[string]any{"x-queue-type": "quorum"})
	g := gateway.Start(t, "", site(r.api("producer {\nrouting_key jobs\n}\nconsumer {\nqueue jobs\nshared\nprefetch 5\n}", "qos at_least_once")))
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := make([]map[string]int, 3)
	all := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range seen {
			n += len(s)
		}
		return n
	}
	var sockets []*websocket.Conn
	for i := range seen {
		seen[i] = make(map[string]int)
		ws := gateway.OpenSocket(t, g, g.URL("/r"), []string{protocol})
		sockets = append(sockets, ws)
		wg.Go(func() {
			for {
				_, payload, err := ws.ReadMessage()
				if err != nil {
					return
				}
				var f struct {
					Content string
					Seq     uint64
				}
				_ = json.Unmarshal(payload, &f)
				mu.Lock()
				seen[i][f.Content]++
				mu.Unlock()
				_ = ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","seq":%d}`, f.Seq))
			}
		})
	}
	r.publish("", "jobs", total)
	gateway.Eventually(t, 20*time.Second, "all jobs", func() bool { return all() == total })
	r.AwaitQueue(t, r.vhost, "jobs", "empty", func(q rabbitmq.QueueState) bool { return q.Messages == 0 && q.Counts.Acked == total })
	for _, ws := range sockets {
		_ = ws.Close()
	}
	wg.Wait()
	for i, s := range seen {
		if len(s) == 0 {
			t.Errorf("client %d got nothing", i)
		}
	}
}

// A stream queue has positions: SSE resumes, GET pages by cursor, and reading begins where
// it is told to.
func TestRabbitMQStream(t *testing.T) {
	total, cuts := 5_000, 40
	if testing.Short() {
		total, cuts = 1_000, 10
	}
	r := newRabbit(t)
	conf := site(withSSE(r.api(`
		producer {
			exchange log fanout
		}
		consumer {
			exchange log fanout
			queue events {
				type stream
			}
		}`, "from client")))
	conf = strings.Replace(conf, "heartbeat off", "heartbeat off\nqos at_least_once\nfrom client", 1)
	nodes := []string{gateway.Start(t, "", conf).URL("/r"), gateway.Run(t, "", conf).URL("/r")}
	client := plainClient(t)
	cursor := gateway.Do(t, client, "GET", nodes[0]+"?limit=1", "").Page(t).Pagination.NextCursor
	if cursor == "" {
		t.Fatal("the first GET gave no cursor")
	}
	r.publish("log", "", total)
	l := newLedger("stream")
	read := func(text string) { l.take(strings.TrimSpace(text)) }
	for i := range cuts {
		most := 1 + (i*37)%(2*total/cuts)
		if i%4 == 3 {
			page := gateway.Do(t, client, "GET", fmt.Sprintf("%s?limit=%d&cursor=%s", nodes[i%2], most, cursor), "").Page(t)
			for _, item := range page.Items {
				read(item.Content)
			}
			cursor = page.Pagination.NextCursor
			continue
		}
		cursor = resumeLines(t, client, nodes[i%2], cursor, most, read)
	}
	for len(l.seen) < total {
		before := len(l.seen)
		cursor = resumeLines(t, client, nodes[0], cursor, total, read)
		if len(l.seen) == before {
			break
		}
	}
	l.report(t, total)
	page := gateway.Do(t, client, "GET", nodes[1]+"?limit=2&from=earliest", "").Page(t)
	if len(page.Items) != 2 || strings.TrimSpace(page.Items[0].Content) != "0" {
		t.Errorf("from the start: %+v", page.Items)
	}
}

// resumeLines reads some events behind the cursor and hangs up.
func resumeLines(t *testing.T, client *http.Client, node, cursor string, most int, read func(string)) string {
	t.Helper()
	ev, err := gateway.TryEvents(client, node, "Last-Event-ID", cursor)
	if err != nil || ev.Answer.Status != 200 {
		t.Fatalf("resuming: %+v %v", ev, err)
	}
	defer ev.Close()
	timer := time.AfterFunc(time.Second, ev.Close)
	defer timer.Stop()
	for range most {
		e, err := ev.Message()
		if err != nil {
			break // nothing more came for a while
		}
		if e.Type != "message" {
			t.Fatalf("got %+v", e)
		}
		read(e.Data)
		cursor = e.ID
	}
	return cursor
}

// A thousand SSE clients cost the broker one consumer.
func TestRabbitMQBroadcastCostsOneConsumer(t *testing.T) {
	clients := 1000
	if testing.Short() {
		clients = 50
	}
	r := newRabbit(t)
	g := gateway.Start(t, "", site(withSSE(r.api(onExchange))))
	streams := openMany(t, g, g.URL("/r"), clients)
	queue := r.onlyQueue()
	state := r.AwaitQueue(t, r.vhost, queue, "consumers", func(q rabbitmq.QueueState) bool { return q.Consumers > 0 })
	if state.Consumers != 1 || !state.Exclusive {
		t.Errorf("%d clients cost %+v", clients, state)
	}
	r.publish("orders", "orders.new", 20)
	readNumbers(t, streams, 20)
}

// openMany opens SSE streams, some at a time.
func openMany(t *testing.T, g *gateway.Gateway, url string, n int) []*gateway.Events {
	t.Helper()
	streams := make([]*gateway.Events, n)
	client := g.Client(0)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range next {
				ev, err := gateway.TryEvents(client, url)
				if err != nil {
					t.Errorf("stream %d: %v", i, err)
					continue
				}
				streams[i] = ev
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	t.Cleanup(func() {
		for _, ev := range streams {
			if ev != nil {
				ev.Close()
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return streams
}

// readNumbers reads 0, 1, 2 … from each stream.
func readNumbers(t *testing.T, streams []*gateway.Events, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, ev := range streams {
		wg.Go(func() {
			timer := time.AfterFunc(30*time.Second, ev.Close)
			defer timer.Stop()
			for want := range n {
				e, err := ev.Message()
				if err != nil || strings.TrimSpace(e.Data) != strconv.Itoa(want) {
					t.Errorf("stream %d: %+v, %v instead of %d", i, e, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}
