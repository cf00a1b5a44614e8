package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

var update = flag.Bool("update", false, "rewrite the checked-in tables")

func init() { caddy.RegisterModule(new(capable)) }

// capable is an endpoint that can do everything but what its configuration lacks. It is
// only ever loaded, never used.
type capable struct {
	Lacks []string `json:"lacks,omitempty"`
}

func (*capable) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: endpoints.Namespace + ".capable", New: func() caddy.Module { return new(capable) }}
}

func (c *capable) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return parse.Block(d, "endpoint capable", parse.Strings("lacks", &c.Lacks))
}

// abilities are the capabilities that decide about a cell.
var abilities = []string{
	"Publish", "Confirm", "Subscribe", "Copy", "PerSession", "Exclusive", "ManualSettle", "Positions", "Fenced",
}

func (c *capable) Capabilities() message.Capabilities {
	var caps message.Capabilities
	v := reflect.ValueOf(&caps).Elem()
	for _, name := range abilities {
		v.FieldByName(name).SetBool(true)
	}
	for _, name := range c.Lacks {
		if name == "Shared" {
			continue
		}
		v.FieldByName(name).SetBool(false)
	}
	for _, name := range c.Lacks {
		if name == "Shared" { // written as "lacks Shared": it is what a queue is declared with instead
			caps.Shared = true
		}
	}
	return caps
}

func (c *capable) Status() endpoints.Status { return endpoints.Status{State: endpoints.Idle} }

var errNeverUsed = errors.New("this endpoint is for configurations only")

func (c *capable) Publisher(endpoints.Values) (message.Publisher, error) { return nil, errNeverUsed }

func (c *capable) Channel(endpoints.Values) (endpoints.Channel, error) {
	return endpoints.Channel{}, errNeverUsed
}

func (c *capable) Subscribe(context.Context, endpoints.Channel, message.Subscription) (message.Stream, error) {
	return nil, errNeverUsed
}

// lacking are the endpoints of the table: complete, without each ability, and the kinds
// of channel that brokers have.
var lacking = []struct {
	name  string
	lacks []string
}{
	{"everything", nil},
	{"no Publish", []string{"Publish"}},
	{"no Confirm", []string{"Confirm"}},
	{"no Subscribe", []string{"Subscribe"}},
	{"no Copy", []string{"Copy"}},
	{"no PerSession", []string{"PerSession"}},
	{"no Exclusive", []string{"Exclusive"}},
	{"no ManualSettle", []string{"ManualSettle"}},
	{"no Positions", []string{"Positions"}},
	{"no Fenced", []string{"Fenced"}},
	{"a log (Kafka)", []string{"PerSession"}},
	{"topics (MQTT)", []string{"PerSession", "Positions"}},
	{"a queue", []string{"PerSession", "Positions", "Copy"}},
	{"a queue, shared", []string{"PerSession", "Positions", "Copy", "Exclusive", "Shared"}},
	{"a lone copy", []string{"PerSession", "Positions", "Exclusive", "ManualSettle", "Fenced"}},
}

// Every cell of entrypoint × level × capability is accepted or refused as the checked-in
// table says.
func TestCells(t *testing.T) {
	if testing.Short() {
		t.Skip("loads hundreds of configurations")
	}
	g := gateway.Start(t, "", site("respond 200"))
	var table strings.Builder
	for _, entry := range []string{"http_get", "http_post", "sse", "websocket", "webhook"} {
		for _, qos := range message.Levels {
			for _, l := range lacking {
				fmt.Fprintf(&table, "%-10s %-14s %-18s %s\n", entry, qos, l.name, cell(t, g, entry, qos, l.lacks))
			}
		}
	}
	golden(t, "testdata/cells.txt", table.String())
}

func cell(t *testing.T, g *gateway.Gateway, entry string, qos message.QoS, lacks []string) string {
	t.Helper()
	block := "endpoint capable"
	if len(lacks) > 0 {
		block += " {\nlacks " + strings.Join(lacks, " ") + "\n}"
	}
	cfg, err := g.Adapt("", site(api("/x", "entrypoint "+entry+" {\nqos "+qos.String()+"\n}\n"+block+"\nplan keyless")))
	if err != nil {
		return "refused by the Caddyfile: " + firstLine(err)
	}
	var c caddy.Config
	if err := caddy.StrictUnmarshalJSON(cfg, &c); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(&c); err != nil {
		_, why, _ := strings.Cut(err.Error(), "message API x: ")
		return "refused: " + why
	}
	return "ok"
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// golden compares with a checked-in file, which `go test -update` rewrites.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(raw), "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(want) || want[i] != line {
			old := "(nothing)"
			if i < len(want) {
				old = want[i]
			}
			t.Errorf("line %d of %s:\n got  %s\n want %s", i+1, file, line, old)
		}
	}
}
