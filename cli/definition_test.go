package cli_test

import (
	"strings"
	"testing"

	_ "github.com/caddy-message-api/caddy-message-api" // the directive

	"github.com/caddy-message-api/caddy-message-api/cli"
)

const orders = `# orders of the shop
message_api /orders /bestellungen {
	entrypoint sse
	endpoint mock
	plan keyless
}
`

const ordersJSON = `{"endpoints":[{"endpoint":{"type":"mock"},"name":"mock"}],"entrypoints":[{"type":"sse"}],"paths":["/orders","/bestellungen"],"plans":[{"name":"keyless","plan":{"type":"keyless"}}]}`

func TestDefinitions(t *testing.T) {
	for _, c := range []struct{ text, adapter, want string }{
		{orders, "", ordersJSON},
		{orders, "caddyfile", ordersJSON},
		{"message_api /a {\n\tid b\n\tendpoint mock\n}", "", `{"endpoints":[{"endpoint":{"type":"mock"},"name":"mock"}],"id":"b","paths":["/a"]}`},
		{` {"paths":["/x"]}`, "", ` {"paths":["/x"]}`},
		{`{"paths":["/x"]}`, "json", `{"paths":["/x"]}`},
	} {
		got, err := cli.DefinitionOf("orders.txt", []byte(c.text), c.adapter)
		if err != nil || string(got) != c.want {
			t.Errorf("%q: %s, %v; want %s", c.text, got, err, c.want)
		}
	}
}

func TestDefinitionErrors(t *testing.T) {
	for _, c := range []struct{ text, adapter, want string }{
		{"", "", "orders.txt is empty"},
		{"# nothing\n", "", "orders.txt is empty"},
		{":8080 {\n" + orders + "}", "", "orders.txt:1: write the block `message_api ... { ... }` alone"},
		{"\n# here\n{\n\tadmin off\n}\n", "", "orders.txt:3: write the block"},
		{strings.Replace(orders, "sse", "ssse", 1), "", `unknown entrypoint "ssse": use http_get, http_post, sse, webhook, websocket, at orders.txt:3`},
		{strings.Replace(orders, "/orders", "", 1) + "}\n", "", "orders.txt:7: this } closes nothing"},
		{strings.TrimSuffix(orders, "}\n"), "", "a } is missing at the end"},
		{strings.Replace(orders, "/orders ", "@internal ", 1), "", "@internal"},
		{strings.Replace(orders, "/orders ", "@in ", 1) + "@in remote_ip 10.0.0.0/8\n", "", "an API that is saved can't have a matcher"},
		{orders + "respond hello\n", "", `only message_api can be saved, and not "static_response"`},
		{orders + "basic_auth {\n\tbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n", "", "only message_api can be saved"},
		{orders + strings.ReplaceAll(orders, "/", "/other-"), "", "orders.txt has 2 APIs"},
		{"{\n\t\"paths\": [\n\t\t\"/x\",\n\t]\n}", "", "orders.txt:4: this is no JSON"},
		{"[]", "json", "orders.txt is no JSON object"},
		{orders, "nonsense", `there is no config adapter "nonsense"`},
	} {
		got, err := cli.DefinitionOf("orders.txt", []byte(c.text), c.adapter)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %s, %v; want %q", c.text, got, err, c.want)
		}
	}
}

func TestPlans(t *testing.T) {
	for text, want := range map[string]string{
		"plan keyless":                `{"name":"gold","plan":{"type":"keyless"}}`,
		"# free\nplan keyless gold":   `{"name":"gold","plan":{"type":"keyless"}}`,
		"plan keyless {\n}\n":         `{"name":"gold","plan":{"type":"keyless"}}`,
		`{"plan":{"type":"keyless"}}`: `{"plan":{"type":"keyless"}}`,
	} {
		got, err := cli.PlanOf("plan.txt", []byte(text), "", "gold")
		if err != nil || string(got) != want {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"plan keyless silver":                "the plan in plan.txt is called silver, and not gold",
		"plan keyless\nplan keyless b":       "must have one plan and nothing else",
		"plan keyless\nentrypoint sse":       "must have one plan and nothing else",
		"plan keyless\nid x":                 "must have one plan and nothing else",
		"endpoint mock":                      "plan.txt:1: write the block `plan ... { ... }` alone",
		"plan nonsense":                      `plan.txt:1`,
		"plan keyless\n}\n}\n:80 {\nrespond": "plan.txt:2: this } closes nothing",
	} {
		if got, err := cli.PlanOf("plan.txt", []byte(text), "", "gold"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v; want %q", text, got, err, want)
		}
	}
}

func TestIDs(t *testing.T) {
	for definition, want := range map[string]string{
		`{"id":"a","paths":["/b"]}`:        "a",
		`{"paths":["/Shop/Orders/","/b"]}`: "shop-orders",
		`{"paths":["/"]}`:                  "root",
		`{"paths":["/\u00e4\u00f6"]}`:      "root",
		`{"id":1}`:                         "!",
		`{}`:                               "!",
	} {
		got, err := cli.IDOf([]byte(definition))
		if (err != nil) != (want == "!") || err == nil && got != want {
			t.Errorf("%s: %q, %v", definition, got, err)
		}
	}
}
