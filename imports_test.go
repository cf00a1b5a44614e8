package messageapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const project = "github.com/caddy-message-api/caddy-message-api"

// contracts are the rooms whose guests know only them, the vocabulary and the Caddyfile
// helpers: never each other, and never the gateway.
var contracts = []string{"entrypoints", "endpoints", "plans", "store"}

// helpers are packages in those rooms that are no guests: what is said once for several.
var helpers = []string{"entrypoints/entrypointtest", "endpoints/endpointtest", "endpoints/link", "endpoints/options", "plans/limits", "store/storetest"}

// testRooms hold no part of the gateway. They may know everything, and nothing of the
// gateway may know them.
var testRooms = []string{
	"test", "bench", "entrypoints/entrypointtest", "endpoints/endpointtest",
	"endpoints/servicebus/servicebustest", "endpoints/solace/smftest", "store/storetest",
}

// noCaddy are the rooms of what is kept at run time. They can be used, and tested, without a
// Caddy.
var noCaddy = []string{"store", "workers", "subscriptions", "lifecycle", "admin", "plans", "plans/limits",
	"entrypoints/webhook/envelope",
}

// clients are libraries that speak one protocol, and the only rooms in the gateway that may
// know each, with a blank between. An empty room is none: they are for tests.
var clients = map[string]string{
	"github.com/segmentio/kafka-go":       "endpoints/kafka",
	"github.com/twmb/franz-go":            "",
	"github.com/eclipse/paho.golang":      "endpoints/mqtt5",
	"github.com/rabbitmq/amqp091-go":      "endpoints/rabbitmq",
	"solace.dev/go/messaging":             "endpoints/solace",
	"github.com/Azure/azure-sdk-for-go":   "endpoints/servicebus",
	"github.com/Azure/go-amqp":            "endpoints/servicebus",
	"github.com/gorilla/websocket":        "entrypoints/websocket endpoints/mqtt5 endpoints/servicebus cli",
	"github.com/coder/websocket":          "",
	"github.com/go-jose/go-jose":          "plans/jwt",
	"github.com/golang-jwt/jwt":           "",
	"github.com/redis/go-redis":           "",
	"golang.org/x/time":                   "plans/limits",
	"github.com/spf13/cobra":              "cli",
	"github.com/chromedp/chromedp":        "",
	"go.uber.org/goleak":                  "",
	"github.com/stretchr/testify":         "",
	"github.com/standard-webhooks":        "",
	"golang.org/x/oauth2":                 "entrypoints/webhook/egress",
	"github.com/Shopify/toxiproxy":        "",
	"github.com/mochi-mqtt/server":        "",
	"github.com/twmb/franz-go/pkg/kfake":  "",
	"github.com/prometheus/client_golang": "module",
}

// pkg is a package as go list tells of it, without its tests.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// in reports whether path is room or below it.
func in(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }

// local is the package's path inside the project, "." for the root.
func local(path string) (string, bool) {
	if path == project {
		return ".", true
	}
	return strings.CutPrefix(path, project+"/")
}

// violations are the arrows of p that point the wrong way.
func violations(p pkg) []string {
	here, ok := local(p.ImportPath)
	if !ok {
		return nil
	}
	var found []string
	complain := func(what, why string) { found = append(found, here+" imports "+what+": "+why) }
	isTest := slices.ContainsFunc(testRooms, func(room string) bool { return in(here, room) })
	for _, path := range p.Imports {
		if rooms, known := clientRooms(path); known && !isTest && !slices.ContainsFunc(rooms, func(room string) bool { return in(here, room) }) {
			complain(path, clientRule(rooms))
		}
		there, ours := local(path)
		if !ours {
			continue
		}
		if why := wrongWay(here, there); why != "" {
			complain(there, why)
		}
		if !isTest && slices.ContainsFunc(testRooms, func(room string) bool { return in(there, room) }) {
			complain(there, "the gateway knows nothing of its tests")
		}
	}
	for _, path := range p.Deps {
		there, ours := local(path)
		switch {
		case in(here, "message") && strings.HasPrefix(path, "github.com/caddyserver/"):
			complain(path, "message knows no Caddy, not even by others")
		case slices.Contains(noCaddy, here) && strings.HasPrefix(path, "github.com/caddyserver/caddy/"):
			complain(path, "what is kept, and its rules, know Caddy's storage and no Caddy, not even by others")
		case (here == "." || in(here, "cmd")) && strings.HasPrefix(path, "solace.dev/"):
			complain(path, "what is built by default needs no cgo, and is free of proprietary code")
		case in(here, "module") && ours && isGuest(there):
			complain(there, "the gateway knows guests only by interface, not even by others")
		}
	}
	return found
}

// clientRooms finds the rule of the longest prefix.
func clientRooms(path string) (rooms []string, known bool) {
	longest := ""
	for library, r := range clients {
		if in(path, library) && len(library) > len(longest) {
			longest, rooms, known = library, strings.Fields(r), true
		}
	}
	return rooms, known
}

func clientRule(rooms []string) string {
	if len(rooms) == 0 {
		return "it is for tests"
	}
	return "only " + strings.Join(rooms, " and ") + " may know it"
}

// isGuest reports whether a package is, or belongs to, one entrypoint, endpoint or plan.
func isGuest(path string) bool {
	room, _, below := strings.Cut(path, "/")
	return below && slices.Contains(contracts, room) && !slices.Contains(helpers, path)
}

// wrongWay says why here may not import there, both inside the project.
func wrongWay(here, there string) string {
	switch room, guest, below := strings.Cut(here, "/"); {
	case in(here, "message"):
		if !in(there, "message") {
			return "message knows nothing of the project"
		}
	case here == "caddyfile/parse":
		return "the helpers of the Caddyfile are a leaf"
	case slices.Contains(contracts, room):
		guest, _, _ = strings.Cut(guest, "/")
		own := below && in(there, room+"/"+guest)
		helper := slices.Contains(helpers, there) && in(there, room)
		if !in(there, "message") && there != "caddyfile/parse" && there != room && !own && !helper {
			return room + " know only message, caddyfile/parse and their own contract"
		}
	case here == "subscriptions" || here == "lifecycle":
		if there != "store" && there != "plans" {
			return here + " stands on the store, and knows of plans no more than their contract"
		}
	case here == "workers":
		if there != "store" {
			return "workers stand on the store alone"
		}
	case here == "admin":
		if there != "store" && there != "plans" && there != "subscriptions" && there != "lifecycle" {
			return "the admin API stands on what is kept, and knows nobody who serves it"
		}
	case room == "cli":
		if there != "admin" {
			return "the command line asks the admin API"
		}
	case room == "module":
		if isGuest(there) || there == "caddyfile" || there == "." {
			return "module knows no guests and nobody above it"
		}
	}
	return ""
}

func TestImportsPointOneWay(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 10 {
		t.Fatalf("go list tells of %d packages: the rule was not tested", len(packages))
	}
	for _, p := range packages {
		for _, v := range violations(p) {
			t.Error(v)
		}
	}
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var packages []pkg
	for decoder := json.NewDecoder(&stdout); ; {
		var p pkg
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestTheImportRuleBites(t *testing.T) {
	for _, c := range []struct {
		here, imports string
		deps          string
		wrong         bool
	}{
		{here: "message", imports: "errors"},
		{here: "subscriptions", imports: project + "/store"},
		{here: "subscriptions", imports: project + "/lifecycle", wrong: true},
		{here: "workers", imports: project + "/store"},
		{here: "workers", imports: project + "/entrypoints", wrong: true},
		{here: "workers", deps: "github.com/caddyserver/caddy/v2", wrong: true},
		{here: "admin", imports: project + "/module", wrong: true},
		{here: "lifecycle", deps: "github.com/caddyserver/caddy/v2", wrong: true},
		{here: "cli", imports: project + "/store", wrong: true},
		{here: "message", imports: project + "/plans", wrong: true},
		{here: "message", deps: "github.com/caddyserver/caddy/v2", wrong: true},
		{here: "caddyfile/parse", imports: "github.com/caddyserver/caddy/v2"},
		{here: "caddyfile/parse", imports: project + "/message", wrong: true},
		{here: "endpoints/kafka", imports: project + "/message"},
		{here: "endpoints/kafka", imports: project + "/endpoints"},
		{here: "endpoints/kafka", imports: project + "/endpoints/kafka/wire"},
		{here: "endpoints/kafka", imports: project + "/caddyfile/parse"},
		{here: "endpoints/kafka", imports: "github.com/segmentio/kafka-go/sasl"},
		{here: "endpoints/kafka", imports: "github.com/twmb/franz-go/pkg/kgo", wrong: true},
		{here: "endpoints/kafka", imports: project + "/endpoints/mock", wrong: true},
		{here: "endpoints/kafka", imports: project + "/endpoints/kafkaesque", wrong: true},
		{here: "endpoints/kafka", imports: project + "/endpoints/endpointtest", wrong: true},
		{here: "endpoints/servicebus", imports: project + "/endpoints/servicebus/servicebustest", wrong: true},
		{here: "endpoints/servicebus/servicebustest", imports: "github.com/Azure/go-amqp"},
		{here: "endpoints/kafka", imports: "github.com/Azure/go-amqp", wrong: true},
		{here: ".", deps: "solace.dev/go/messaging", wrong: true},
		{here: "endpoints/kafka", imports: project + "/entrypoints", wrong: true},
		{here: "endpoints/kafka", imports: project + "/module", wrong: true},
		{here: "endpoints/kafka", imports: project + "/caddyfile", wrong: true},
		{here: "endpoints/endpointtest", imports: project + "/endpoints"},
		{here: "plans/keyless", imports: project + "/plans/limits"},
		{here: "plans/keyless", imports: project + "/plans/jwt", wrong: true},
		{here: "plans", imports: project + "/plans/jwt", wrong: true},
		{here: "entrypoints/websocket", imports: "github.com/gorilla/websocket"},
		{here: "endpoints/mqtt5", imports: "github.com/gorilla/websocket"},
		{here: "endpoints/kafka", imports: "github.com/gorilla/websocket", wrong: true},
		{here: "entrypoints/sse", imports: "github.com/gorilla/websocket", wrong: true},
		{here: "module", imports: project + "/entrypoints"},
		{here: "module/feed", imports: project + "/endpoints/mock", wrong: true},
		{here: "module", deps: project + "/endpoints/mock", wrong: true},
		{here: "module", imports: "github.com/segmentio/kafka-go", wrong: true},
		{here: "module", imports: project + "/test/brokers", wrong: true},
		{here: "test/brokers", imports: "github.com/twmb/franz-go/pkg/kgo"},
		{here: "test/e2e", imports: project + "/module"},
		{here: ".", imports: project + "/endpoints/kafka"},
	} {
		p := pkg{ImportPath: strings.TrimSuffix(project+"/"+c.here, "/.")}
		if c.imports != "" {
			p.Imports, p.Deps = []string{c.imports}, []string{c.imports}
		}
		if c.deps != "" {
			p.Deps = append(p.Deps, c.deps)
		}
		if found := violations(p); (len(found) > 0) != c.wrong {
			t.Errorf("%s with %s%s: %q, want wrong = %v", c.here, c.imports, c.deps, found, c.wrong)
		}
	}
}
