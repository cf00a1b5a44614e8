package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// call is what a receiver got.
type call struct {
	header http.Header
	path   string
	body   string
}

// receiver is a consumer's server. It answers with the status that was set last.
type receiver struct {
	*httptest.Server
	t      testing.TB
	status atomic.Int64
	calls  chan call
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{t: t, calls: make(chan call, 10_000)}
	r.status.Store(200)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body) // a client that vanishes comes again
		r.calls <- call{req.Header, req.URL.Path, string(body)}
		w.WriteHeader(int(r.status.Load()))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) next() call {
	r.t.Helper()
	select {
	case c := <-r.calls:
		return c
	case <-time.After(15 * time.Second):
		r.t.Fatal("nothing was delivered within 15s")
		return call{}
	}
}

// drain forgets what has come until now.
func (r *receiver) drain() {
	for len(r.calls) > 0 {
		<-r.calls
	}
}

// until waits for a call whose body is as wanted.
func (r *receiver) until(body string) call {
	r.t.Helper()
	for {
		if c := r.next(); c.body == body {
			return c
		}
	}
}

const local = "allow_http\nallow_networks loopback\n"

func hookAPI(options, endpoint, rest string) string {
	return api("/hooks", "entrypoint http_post {\n via main\n request_headers_to_message\n}\nentrypoint webhook {\n via main\n"+local+options+"\n}\n"+endpoint+"\n"+rest)
}

func (o *owner) state(id, want string) (d admin.Delivery) {
	o.t.Helper()
	gateway.Eventually(o.t, 15*time.Second, "delivery "+want+" of "+id, func() bool {
		var err error
		d, err = o.Delivery(context.Background(), id)
		return err == nil && d.State == want
	})
	return d
}

// A subscription of the Caddyfile needs nothing else: it is delivered from the start, goes on
// over a reload, and is drained and started anew when it has changed.
func TestWebhookFromOneFile(t *testing.T) {
	r := newReceiver(t)
	config := func(path string) string {
		return site(api("/hooks", "entrypoint webhook {\n qos at_least_once\n"+local+"}\nendpoint mock {\n message_interval 20ms\n message_content tick\n}\n"+
			"subscription audit {\n callback "+r.URL+path+"\n secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=\n header X-For audit\n}\n"))
	}
	g := gateway.Start(t, "", config("/one"))
	o := operator(t, g)
	c := r.next()
	for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "Traceparent"} {
		if c.header.Get(name) == "" {
			t.Errorf("without %s: %v", name, c.header)
		}
	}
	if c.body != "tick" || c.path != "/one" || c.header.Get("X-For") != "audit" {
		t.Errorf("delivered: %+v", c)
	}
	session := func() uint64 {
		for s, err := range o.Sessions(context.Background(), admin.SessionQuery{API: "hooks"}) {
			if err == nil && s.Entrypoint == "webhook" {
				return s.ID
			}
		}
		return 0
	}
	before := session()
	if before == 0 {
		t.Error("a worker is no session")
	}
	if err := g.Load("message_api {\n sync_interval 1s\n}\n", config("/one")); err != nil {
		t.Fatal(err)
	}
	r.drain()
	r.next()
	if after := session(); after != before {
		t.Errorf("a reload without a change made another worker: %d, %d", before, after)
	}
	if err := g.Load("", config("/two")); err != nil {
		t.Fatal(err)
	}
	for r.next().path != "/two" {
	}
	if d := o.state("hooks.audit", admin.DeliveryRunning); !d.Static || !d.Here || d.Delivered == 0 || d.Callback != r.URL+"/two" {
		t.Errorf("delivery: %+v", d)
	}
	if a := gateway.Do(t, http.DefaultClient, "GET", g.URL("/hooks"), ""); a.Status != 404 {
		t.Errorf("calling an API that calls: %d %s", a.Status, a.Body)
	}
	if err := g.Load("", site("respond 200")); err != nil {
		t.Fatal(err)
	}
	gateway.Eventually(t, 10*time.Second, "the worker's end", func() bool { return session() == 0 })
	r.drain()
}

// The life of a consumer's subscription: created, accepted, changed with consent, paused,
// failed, retried, tested, ended by the client.
func TestWebhookSubscription(t *testing.T) {
	r := newReceiver(t)
	g := gateway.Start(t, "message_api {\n sync_interval 200ms\n}\n",
		site(hookAPI("retry none", hookTopics(t), "plan push {\n validation manual\n}\nplan keyless")))
	o, ctx := operator(t, g), context.Background()
	post := func(body string) {
		t.Helper()
		if a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/hooks"), body); a.Status != 202 {
			t.Fatalf("POST: %d %s", a.Status, a.Body)
		}
	}
	consumer := func(text string, args ...any) json.RawMessage { return json.RawMessage(fmt.Sprintf(text, args...)) }
	sub := must[admin.Subscription](t)(o.Subscribe(ctx, admin.SubscribeRequest{API: "hooks", Plan: "push", Application: o.application("shop", ""),
		Consumer: consumer(`{"callback":%q}`, r.URL+"/one")}))
	if !strings.Contains(string(sub.Consumer), "whsec_") {
		t.Errorf("no secret was made: %s", sub.Consumer)
	}
	if again := must[admin.Subscription](t)(o.Subscription(ctx, sub.ID)); strings.Contains(string(again.Consumer), "whsec_") {
		t.Errorf("a secret is shown: %s", again.Consumer)
	}
	if d := o.state(sub.ID, admin.DeliveryStopped); !strings.Contains(d.Cause, "pending") {
		t.Errorf("a pending subscription: %+v", d)
	}
	must[admin.Subscription](t)(o.Accept(ctx, sub.ID, admin.AcceptRequest{}, ""))
	o.state(sub.ID, admin.DeliveryRunning)
	post("a")
	if c := r.until("a"); c.path != "/one" {
		t.Errorf("delivered to %s", c.path)
	}

	must[admin.Subscription](t)(o.UpdateSubscription(ctx, sub.ID, admin.SubscriptionPatch{Consumer: admin.Some(consumer(`{"callback":%q}`, r.URL+"/two"))}, ""))
	post("b")
	if c := r.until("b"); c.path != "/one" {
		t.Errorf("a proposal is in force: %s", c.path)
	}
	must[admin.Subscription](t)(o.Accept(ctx, sub.ID, admin.AcceptRequest{}, ""))
	gateway.Eventually(t, 10*time.Second, "the accepted change", func() bool {
		post("c")
		return r.until("c").path == "/two"
	})

	must[admin.Subscription](t)(o.Pause(ctx, sub.ID, admin.Write{}))
	o.state(sub.ID, admin.DeliveryStopped)
	post("d")
	must[admin.Subscription](t)(o.Resume(ctx, sub.ID, admin.Write{}))
	r.until("d") // it waited meanwhile
	o.state(sub.ID, admin.DeliveryRunning)

	r.status.Store(500)
	post("e")
	r.until("e")
	if d := o.state(sub.ID, admin.DeliveryFailed); !strings.Contains(d.Cause, "500") {
		t.Errorf("failed: %+v", d)
	}
	if a := must[admin.Attempt](t)(o.TestDelivery(ctx, sub.ID, admin.TestRequest{Payload: json.RawMessage(`"hello"`)})); a.Outcome != "server_error" || a.Status != 500 {
		t.Errorf("test: %+v", a)
	}
	r.until("hello")
	r.status.Store(200)
	must[admin.Delivery](t)(o.RetryDelivery(ctx, sub.ID, admin.Write{}))
	if c := r.until("e"); c.header.Get("Webhook-Attempt") != "2" {
		d, _ := o.Delivery(ctx, sub.ID)
		t.Errorf("after a retry attempts begin at %s: %+v", c.header.Get("Webhook-Attempt"), d.Recent)
	}
	o.state(sub.ID, admin.DeliveryRunning)
	if _, err := o.RetryDelivery(ctx, sub.ID, admin.Write{}); err == nil || !strings.Contains(err.Error(), "not failed") {
		t.Errorf("retrying what has not failed: %v", err)
	}

	r.status.Store(410)
	post("f")
	r.until("f")
	gateway.Eventually(t, 10*time.Second, "the subscription's end by 410", func() bool {
		s, err := o.Subscription(ctx, sub.ID)
		return err == nil && s.Status == "closed"
	})
	if file := storedIn(t, g, "whsec_"); file != "" {
		t.Errorf("a secret stands in %s", file)
	}
	if !testing.Short() { // every five seconds
		gateway.Eventually(t, 15*time.Second, "the record of its worker to go", func() bool {
			status, err := o.Client.Store(ctx)
			return err == nil && status.Records["worker"] == 0
		})
	}
}

// hookTopics are endpoints "main" and "dead" on a Kafka in this process, which keeps what it is
// given.
func hookTopics(t *testing.T) string {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "hooks", "dead-hooks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	const kafka = "endpoint kafka %s {\n brokers %s\n producer {\n topics %[3]s\n}\n consumer {\n topics %[3]s\n auto_offset_reset earliest\n}\n}\n"
	addr := c.ListenAddrs()[0]
	return fmt.Sprintf(kafka, "main", addr, "hooks") + fmt.Sprintf(kafka, "dead", addr, "dead-hooks")
}

// onWebhookBrokers are endpoints "main" and "dead" that keep what they are given.
func onWebhookBrokers(t *testing.T, f func(t *testing.T, endpoints string)) {
	t.Run("kfake", func(t *testing.T) { f(t, hookTopics(t)) })
	t.Run("rabbitmq", func(t *testing.T) {
		b := brokers.SharedRabbitMQ(t)
		queue := "endpoint rabbitmq %s {\n server " + b.Addr() + "\n virtual_host " + b.Vhost(t) + "\n auth " + b.User() + " " + b.Password() +
			"\n producer {\n routing_key %[2]s\n}\n consumer {\n queue %[2]s {\n type quorum\n}\n shared\n}\n}\n"
		f(t, fmt.Sprintf(queue, "main", "hooks")+fmt.Sprintf(queue, "dead", "dead-hooks"))
	})
}

// What a client refuses for good becomes a dead letter with its story, does not hold up what
// comes behind it, and can be delivered again.
func TestWebhookDeadLetters(t *testing.T) {
	if testing.Short() {
		t.Skip("looks for dead letters for seconds, in the integration stage")
	}
	onWebhookBrokers(t, func(t *testing.T, endpoints string) {
		r := newReceiver(t)
		var refused atomic.Int64
		r.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if strings.HasPrefix(string(body), "poison") && r.status.Load() == 200 {
				w.WriteHeader(422)
				refused.Add(1)
				return
			}
			r.calls <- call{req.Header, req.URL.Path, string(body)}
		})
		g := gateway.Start(t, "", site(hookAPI("dead_letter dead\nmessage_headers X-*", endpoints,
			"plan keyless\nsubscription audit {\n callback "+r.URL+"\n}\n")))
		o, ctx := operator(t, g), context.Background()
		o.state("hooks.audit", admin.DeliveryRunning)
		post := func(body string) {
			t.Helper()
			gateway.Eventually(t, 15*time.Second, "POST "+body, func() bool { // until the queue is declared
				return gateway.Do(t, http.DefaultClient, "POST", g.URL("/hooks"), body, "X-Trace", body, "Content-Type", "text/x-test").Status == 202
			})
		}
		post("one")
		post("poison 1")
		post("poison 2")
		post("two")
		if c := r.until("one"); c.header.Get("X-Trace") != "one" || c.header.Get("Content-Type") != "text/x-test" {
			t.Errorf("headers: %v", c.header)
		}
		r.until("two")
		gateway.Eventually(t, 15*time.Second, "two refusals", func() bool { return refused.Load() == 2 })
		var letters []admin.DeadLetter // each look for them takes seconds
		gateway.Eventually(t, 20*time.Second, "the dead letters", func() bool {
			var err error
			letters, err = o.DeadLetters(ctx, "hooks.audit", 0)
			return err == nil && len(letters) == 2
		})
		if l := letters[0]; l.Reason != "client_error" || l.Status != 422 || l.Attempts != 1 || l.Position == "" || l.ID == "" || l.Size != 8 {
			t.Errorf("a dead letter: %+v", l)
		}
		none := func(admin.Redelivered) error { return nil }
		report := must[admin.RedeliveryReport](t)(o.Redeliver(ctx, "hooks.audit", admin.RedeliverRequest{All: true, Rate: "100/1s"}, none))
		if report.Failed != 2 || report.Delivered != 0 {
			t.Errorf("redelivered to a client that refuses: %+v", report)
		}
		r.status.Store(299) // it has learnt
		report = must[admin.RedeliveryReport](t)(o.Redeliver(ctx, "hooks.audit", admin.RedeliverRequest{IDs: []string{letters[1].ID}}, none))
		if report.Delivered != 1 || report.Failed != 0 {
			t.Errorf("redelivered one: %+v", report)
		}
		c := r.next()
		if !strings.HasPrefix(c.body, "poison") || c.header.Get("Webhook-Id") != letters[1].ID || c.header.Get("Webhook-Attempt") != "2" || c.header.Get("X-Trace") != c.body {
			t.Errorf("redelivered: %+v", c)
		}
		for name := range c.header {
			if strings.HasPrefix(name, "Dead-Letter") {
				t.Errorf("the client sees %s", name)
			}
		}
		left := 2
		if strings.Contains(endpoints, "rabbitmq") {
			left = 1 // a queue gives away, a topic keeps
		}
		if letters, err := o.DeadLetters(ctx, "hooks.audit", 0); err != nil || len(letters) != left {
			t.Errorf("left: %v, %v", letters, err)
		}
		gateway.Eventually(t, 10*time.Second, "the metrics", func() bool {
			text := gateway.Do(t, http.DefaultClient, "GET", fmt.Sprintf("http://127.0.0.1:%d/metrics", g.AdminPort), "").Body
			return strings.Contains(text, `caddy_message_api_deliveries{api="hooks",state="running"} 1`) &&
				strings.Contains(text, `caddy_message_api_undelivered_total{api="hooks",entrypoint="webhook",what="dead_letter"} `)
		})
		if d, err := o.Delivery(ctx, "hooks.audit"); err != nil || d.Dead != 2 || d.Delivered < 2 || d.Backlog == nil {
			t.Errorf("delivery: %+v %v", d, err)
		}
	})
}

// How often a message was tried is kept: a gateway that comes back goes on counting, and keeps
// the message's id.
func TestWebhookAttemptsOutliveTheGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("the caddy command is built for this in the integration stage")
	}
	r := newReceiver(t)
	r.status.Store(500)
	p := gateway.Run(t, "", site(hookAPI("retry linear {\n attempts unlimited\n delay 100ms\n jitter 0\n}", hookTopics(t),
		"plan keyless\nsubscription audit {\n callback "+r.URL+"\n}\n")))
	if a := gateway.Do(t, http.DefaultClient, "POST", p.URL("/hooks"), "stubborn"); a.Status != 202 {
		t.Fatalf("POST: %d %s", a.Status, a.Body)
	}
	attempt := func(c call) (n int) {
		if _, err := fmt.Sscan(c.header.Get("Webhook-Attempt"), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := r.until("stubborn")
	for attempt(r.next()) < 5 {
	}
	p.Terminate(10 * time.Second)
	r.drain()
	p.Restart()
	again := r.until("stubborn")
	if n := attempt(again); n < 6 {
		t.Errorf("after a restart it is attempt %d", n)
	}
	if id := again.header.Get("Webhook-Id"); id != first.header.Get("Webhook-Id") {
		t.Errorf("after a restart it has the id %s, before %s", id, first.header.Get("Webhook-Id"))
	}
	r.status.Store(204)
	for before := attempt(again); ; before++ {
		c := r.next()
		if attempt(c) > before+1 {
			t.Errorf("attempt %d follows %d", attempt(c), before)
		}
		if len(r.calls) == 0 {
			break
		}
	}
}
