package examples

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/brokers/rabbitmq"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const rabbitMQReadme = "examples/rabbitmq/README.md"

// rabbitMQ serves the example in a virtual host of its own.
func rabbitMQ(t *testing.T) (*gateway.Gateway, brokers.RabbitMQBroker, string) {
	t.Helper()
	broker := brokers.SharedRabbitMQ(t)
	vhost := broker.Vhost(t)
	t.Setenv("RABBITMQ_SERVER", broker.Addr())
	t.Setenv("RABBITMQ_VHOST", vhost)
	return serve(t, "rabbitmq", ":8080 {", ":PORT {"), broker, vhost
}

// The part of the README about the exchange: the broadcast, a client's own queue by GET and
// WebSocket, and RabbitMQ's management API as the other publisher.
func TestRabbitMQExchange(t *testing.T) {
	g, broker, vhost := rabbitMQ(t)
	d := read(t, g, rabbitMQReadme, "An exchange", "http://localhost:15672", broker.API(), "%2F", url.PathEscape(vhost))
	client := g.Client(0)
	a := gateway.Do(t, client, "POST", g.URL("/orders"), "{}", "X-Region", "eu")
	if a.Status != http.StatusNotFound {
		t.Errorf("before anybody has read, a post is answered %d %s", a.Status, a.Body)
	}

	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/orders")
	watch.expect(commandTimeout, "retry: ")
	if a := d.answer(`curl -i -H 'X-Region: eu' -d '{"n":1}' http://localhost:8080/orders`); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	watch.expect(commandTimeout, "data: {\"n\":1}\n\n")

	const get = "curl -H 'X-Gravitee-Client-Identifier: shop-1' 'http://localhost:8080/orders?limit="
	if p := page(t, d.run(get+"10'")); len(p.Items) != 0 {
		t.Errorf("in the new queue of shop-1 are %+v", p.Items)
	}
	ws := gateway.OpenSocket(t, g, g.URL("/orders"), []string{"message-api.v1+json"}, "X-Gravitee-Client-Identifier", "shop-2")
	if a := d.answer(`curl -i -H 'X-Region: eu' -d '{"n":2}' http://localhost:8080/orders`); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	if p := page(t, d.run(get+"1'")); len(p.Items) != 1 || p.Items[0].Content != `{"n":2}` {
		t.Errorf("to shop-1 came %+v", p.Items)
	}
	if m := frame(t, ws); m.Content != `{"n":2}` || m.Metadata["routing_key"] != "orders.eu" {
		t.Errorf("to shop-2 came %+v", m)
	} else {
		acknowledge(t, ws, m)
	}

	d.run(`curl -u guest:guest -d '{"routing_key":"orders.us","payload":"from elsewhere","payload_encoding":"string","properties":{}}' ` +
		`http://localhost:15672/api/exchanges/%2F/orders/publish`)
	watch.expect(commandTimeout, "data: from elsewhere\n\n")
	if m := frame(t, ws); m.Content != "from elsewhere" {
		t.Errorf("to shop-2 came %+v", m)
	}
}

// The part about the work queue: jobs are confirmed by receipts, and shared.
func TestRabbitMQWorkQueue(t *testing.T) {
	g, broker, vhost := rabbitMQ(t)
	d := read(t, g, rabbitMQReadme, "A work queue")
	const get = "curl 'http://localhost:8080/jobs?limit=1'"
	if p := page(t, d.run(get)); len(p.Items) != 0 {
		t.Errorf("in the new queue are %+v", p.Items)
	}
	for _, job := range []string{"one", "two"} {
		if a := d.answer("curl -i -d 'job " + job + "' http://localhost:8080/jobs"); a.Status != 202 {
			t.Fatalf("posting: %+v", a)
		}
	}
	first := page(t, d.run(get))
	if len(first.Items) != 1 || first.Items[0].Content != "job one" || !strings.HasPrefix(first.Pagination.NextCursor, "r.") {
		t.Fatalf("the first job is %+v", first)
	}
	broker.AwaitQueue(t, vhost, "jobs", "job one lent", func(q rabbitmq.QueueState) bool { return q.Unacked >= 1 && q.Messages == 2 })
	d.env = []string{"receipt=" + first.Pagination.NextCursor}
	second := page(t, d.run(`curl "http://localhost:8080/jobs?limit=1&cursor=$receipt"`))
	if len(second.Items) != 1 || second.Items[0].Content != "job two" {
		t.Fatalf("the second job is %+v", second)
	}
	broker.AwaitQueue(t, vhost, "jobs", "job one done", func(q rabbitmq.QueueState) bool { return q.Messages == 1 })
	ws := gateway.OpenSocket(t, g, g.URL("/jobs"), []string{"message-api.v1+json"})
	if a := gateway.Do(t, g.Client(0), "POST", g.URL("/jobs"), "job three"); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	m := frame(t, ws)
	if m.Content != "job three" {
		t.Errorf("by WebSocket came %+v", m)
	}
	acknowledge(t, ws, m)
	broker.AwaitQueue(t, vhost, "jobs", "job three done", func(q rabbitmq.QueueState) bool { return q.Messages == 1 })
}

// The part about the stream: it is read again from its start, and resumed.
func TestRabbitMQStream(t *testing.T) {
	g, _, _ := rabbitMQ(t)
	d := read(t, g, rabbitMQReadme, "A stream")
	const get = "curl 'http://localhost:8080/log?limit=1'"
	if p := page(t, d.run(get)); len(p.Items) != 0 {
		t.Errorf("in the new stream are %+v", p.Items)
	}
	for _, entry := range []string{"first", "second"} {
		if a := d.answer("curl -i -d '" + entry + "' http://localhost:8080/log"); a.Status != 202 {
			t.Fatalf("posting: %+v", a)
		}
	}
	first := page(t, d.run(get))
	if len(first.Items) != 1 || first.Items[0].Content != "first" {
		t.Fatalf("the start of the stream is %+v", first)
	}
	d.env = []string{"cursor=" + first.Pagination.NextCursor}
	watch := d.start(`curl -N -H 'Accept: text/event-stream' -H "Last-Event-ID: $cursor" http://localhost:8080/log`)
	watch.expect(commandTimeout, "data: second\n\n")
	if a := gateway.Do(t, g.Client(0), "POST", g.URL("/log"), "third"); a.Status != 202 {
		t.Fatalf("posting: %+v", a)
	}
	watch.expect(commandTimeout, "data: third\n\n")
	if strings.Contains(watch.stdout.String(), "first") || strings.Contains(watch.stdout.String(), "event: gap") {
		t.Errorf("the stream did not go on exactly there: %s", &watch.stdout)
	}
	healthy(t, d.run("curl http://localhost:8080/healthz"), "orders", "jobs", "log", "rabbitmq")
}
