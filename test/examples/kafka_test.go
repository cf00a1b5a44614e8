package examples

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// The Kafka example on Apache Kafka, with kcat at the other end: as its README and the
// README of the repository say.
func TestKafka(t *testing.T) {
	for page, section := range map[string]string{"examples/kafka/README.md": "", "README.md": "Kafka"} {
		t.Run(page, func(t *testing.T) {
			addr := brokers.SharedKafka(t).Plain
			topic := brokers.Topic(t, addr, 6)
			t.Setenv("KAFKA_BROKERS", addr)
			g := serve(t, "kafka", ":8080 {", ":PORT {", "topics orders", "topics "+topic)
			kafka(t, read(t, g, page, section), addr, topic)
		})
	}
}

func kafka(t *testing.T, d *doc, addr, topic string) {
	t.Helper()
	var lines strings.Builder
	for i := range 10 {
		fmt.Fprintf(&lines, "order %d\n", i)
	}
	brokers.KcatProduce(t, addr, topic, []byte(lines.String()))
	page := gateway.Answer{Status: http.StatusOK, Body: d.run("curl 'http://localhost:8080/orders?limit=10'")}.Page(t)
	seen := make(map[string]bool)
	for _, item := range page.Items {
		seen[item.Content] = true
	}
	if len(seen) != 10 || !seen["order 0"] || !seen["order 9"] {
		t.Errorf("from the start of the topic came %+v", page)
	}

	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/orders")
	watch.expect(commandTimeout, "retry: ")
	a := d.answer(`curl -i -H 'Prefer: return=representation' -d '{"n":1}' http://localhost:8080/orders`)
	var answer struct {
		Items []struct {
			Status   int
			ID       string
			Metadata struct {
				Topic     string
				Partition int
				Offset    int64
			}
		}
	}
	if err := json.Unmarshal([]byte(a.Body), &answer); err != nil || a.Status != 202 || len(answer.Items) != 1 {
		t.Fatalf("posting: %+v: %v", a, err)
	}
	where := answer.Items[0]
	if where.Status != 202 || where.Metadata.Topic != topic || where.ID != fmt.Sprintf("%s@%d#%d", topic, where.Metadata.Partition, where.Metadata.Offset) {
		t.Errorf("the message is at %+v", where)
	}
	watch.expect(commandTimeout, "data: {\"n\":1}\n\n")
	if strings.Contains(watch.stdout.String(), "order") {
		t.Errorf("the stream did not begin with what comes from then on: %s", &watch.stdout)
	}
	brokers.KcatProduce(t, addr, topic, []byte("by kcat\n"))
	watch.expect(commandTimeout, "data: by kcat\n\n")

	found := false
	for _, record := range brokers.KcatConsume(t, addr, topic) {
		found = found || string(record.Value) == `{"n":1}` && record.Partition == where.Metadata.Partition && record.Offset == where.Metadata.Offset
	}
	if !found {
		t.Errorf("kcat does not find the message at %+v", where)
	}
	if command := "curl http://localhost:8080/healthz"; d.has(command) {
		healthy(t, d.run(command), "orders", "kafka")
	}
}

// The routing example on Apache Kafka: what is posted to the trial is taken and gone, what
// is posted to the orders comes out of the trial's stream.
func TestRouting(t *testing.T) {
	addr := brokers.SharedKafka(t).Plain
	topic := brokers.Topic(t, addr, 3)
	t.Setenv("KAFKA_BROKERS", addr)
	t.Setenv("STANDBY_BROKERS", addr)
	g := serve(t, "routing", ":8080 {", ":PORT {", "topics orders", "topics "+topic)
	d := read(t, g, "examples/routing/README.md", "")
	watch := d.start("curl -N -H 'Accept: text/event-stream' http://localhost:8080/trial")
	watch.expect(commandTimeout, "retry: ")
	for _, command := range []string{`curl -i -d '{"n":1}' http://localhost:8080/trial`, `curl -i -d '{"n":2}' http://localhost:8080/orders`} {
		if a := d.answer(command); a.Status != 202 {
			t.Fatalf("%s: %+v", command, a)
		}
	}
	watch.expect(commandTimeout, "data: {\"n\":2}\n\n")
	if strings.Contains(watch.stdout.String(), `{"n":1}`) {
		t.Errorf("what was posted to the trial came to the stream: %s", &watch.stdout)
	}
	if records := brokers.KcatConsume(t, addr, topic); len(records) != 1 || string(records[0].Value) != `{"n":2}` {
		t.Errorf("in the topic are %+v", records)
	}
}

// While the cluster of the routing example is down, posts go to the standby, and to it
// alone.
func TestRoutingFallsBack(t *testing.T) {
	standby, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	t.Setenv("KAFKA_BROKERS", fmt.Sprintf("127.0.0.1:%d", gateway.FreePort(t))) // nobody is there
	t.Setenv("STANDBY_BROKERS", standby.ListenAddrs()[0])
	g := serve(t, "routing", ":8080 {", ":PORT {")
	client := g.Client(0)
	a := gateway.Do(t, client, "POST", g.URL("/orders"), "rescued", "Prefer", "return=representation")
	if a.Status != 202 || !strings.Contains(a.Body, `"id":"orders@0#0"`) {
		t.Errorf("with the first cluster down: %+v", a)
	}
	if a := gateway.Do(t, client, "POST", g.URL("/trial"), "as ever"); a.Status != 202 {
		t.Errorf("the trial: %+v", a)
	}
	events := gateway.OpenEvents(t, client, g.URL("/trial"))
	if slug, detail := events.Answer.Problem(t); slug != "broker-unavailable" || !strings.Contains(detail, "can't be reached") {
		t.Errorf("a stream from the cluster that is down: %s: %s", slug, detail)
	}
}
