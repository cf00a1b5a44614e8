package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const (
	matrixBegin = "<!-- matrix:begin -->\n"
	matrixEnd   = "<!-- matrix:end -->"
)

// The matrix of docs/qos.md is what the gateway accepts; `go test -update` writes it.
func TestDocumentedMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("loads a configuration for each cell")
	}
	g := gateway.Start(t, "", site("respond 200"))
	entrypoints := []string{"http_get", "http_post", "sse", "websocket", "webhook"}
	var b strings.Builder
	fmt.Fprintf(&b, "| endpoint | %s |\n|%s\n", strings.Join(entrypoints, " | "), strings.Repeat("---|", len(entrypoints)+1))
	for _, e := range []struct{ name, block string }{
		{"mock", "endpoint mock"},
		{"mock with `loopback`", "endpoint mock {\nloopback\n}"},
		{"kafka", "endpoint kafka {\nbrokers localhost:9092\nproducer {\ntopics orders\n}\nconsumer {\ntopics orders\n}\n}"},
		{"rabbitmq, an exchange", rabbitmqBlock("exchange orders topic")},
		{"rabbitmq, a queue, `shared`", rabbitmqBlock("queue orders\nshared")},
		{"rabbitmq, a stream", rabbitmqBlock("queue orders {\ntype stream\n}")},
		{"azure_service_bus, `shared`", `endpoint azure_service_bus {
			connection_string "Endpoint=sb://localhost;SharedAccessKeyName=n;SharedAccessKey=a2V5"
			producer {
				queue orders
			}
			consumer {
				queue orders
				shared
			}
		}`},
		{"solace, topics", solaceBlock("topics orders")},
		{"solace, topics, `delivery direct`", strings.Replace(solaceBlock("topics orders"), "producer {", "producer {\ndelivery direct", 1)},
		{"solace, a queue, `shared`", solaceBlock("queue orders\nshared")},
		{"mqtt5", "endpoint mqtt5 {\nserver localhost\nproducer {\ntopic orders\n}\nconsumer {\ntopic orders\n}\n}"},
	} {
		fmt.Fprintf(&b, "| %s |", e.name)
		for _, entry := range entrypoints {
			var levels []string
			for _, qos := range message.Levels {
				if accepted(t, g, entry, qos, e.block) {
					levels = append(levels, qos.String())
				}
			}
			fmt.Fprintf(&b, " %s |", strings.Join(levels, ", "))
		}
		b.WriteString("\n")
	}
	const file = "../../docs/qos.md"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), matrixBegin)
	old, after, closed := strings.Cut(rest, matrixEnd)
	if !ok || !closed {
		t.Fatalf("%s has no place for the matrix", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+matrixBegin+b.String()+matrixEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != b.String() {
		t.Errorf("%s says\n%s\nbut the gateway accepts\n%s", file, old, b.String())
	}
}

func rabbitmqBlock(consumer string) string {
	return "endpoint rabbitmq {\nserver localhost:5672\nproducer {\nexchange orders topic\n}\nconsumer {\n" + consumer + "\n}\n}"
}

func solaceBlock(consumer string) string {
	return "endpoint solace {\nurl tcp://localhost\nproducer {\ntopics orders\n}\nconsumer {\n" + consumer + "\n}\n}"
}

func accepted(t *testing.T, g *gateway.Gateway, entry string, qos message.QoS, endpoint string) bool {
	t.Helper()
	cfg, err := g.Adapt("", site(api("/x", "entrypoint "+entry+" {\nqos "+qos.String()+"\n}\n"+endpoint+"\nplan keyless")))
	if err != nil && strings.Contains(err.Error(), "qos \""+qos.String()+"\": use ") {
		return false // the entrypoint has no such level
	}
	if err != nil {
		t.Fatal(err)
	}
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(cfg, &c); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(&c) == nil
}
