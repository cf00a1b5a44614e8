// Package examples runs what is in the folder examples: each Caddyfile as it is, but for
// ports, brokers and topics, and the commands that the README files say to type.
package examples

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	_ "github.com/caddy-message-api/caddy-message-api" // every module of the default set
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) { gateway.Main(m) }

// tested are the examples that have a test.
var tested = map[string]bool{
	"quickstart": true, "https": true, "kafka": true, "routing": true, "rabbitmq": true, "mqtt": true,
	"azure-service-bus": true, "solace": true, "api-keys": true, "jwt": true, "managed": true, "webhook": true,
}

// example reads a Caddyfile.
func example(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../examples", name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// serve starts an example. Replacements are given as old, new, …; each old must be there.
func serve(t *testing.T, name string, replacements ...string) *gateway.Gateway {
	t.Helper()
	text := example(t, name)
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(text, replacements[i]) {
			t.Fatalf("the example %s has no %q", name, replacements[i])
		}
		text = strings.ReplaceAll(text, replacements[i], replacements[i+1])
	}
	// The gateway has global options of its own, and there can be one block of them.
	globals := ""
	if before, block, ok := strings.Cut(text, "{\n\t"); ok && onlyComments(before) {
		var sites string
		globals, sites, _ = strings.Cut("\t"+block, "\n}\n")
		text = before + sites
	}
	return gateway.Start(t, globals, text)
}

func onlyComments(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return false
		}
	}
	return true
}

// Every example is formatted, loads without a warning, has a README, and has a test here.
func TestEveryExample(t *testing.T) {
	folders, err := os.ReadDir("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	missing := maps.Clone(tested)
	for _, folder := range folders {
		name := folder.Name()
		t.Run(name, func(t *testing.T) {
			if !tested[name] {
				t.Error("no test runs this example")
			}
			text := example(t, name)
			if string(caddyfile.Format([]byte(text))) != text {
				t.Error("not formatted: caddy fmt does it")
			}
			_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
			if err != nil || len(warnings) > 0 {
				t.Errorf("%v %v", err, warnings)
			}
			readme, err := os.ReadFile(filepath.Join("../../examples", name, "README.md"))
			if err != nil || !strings.Contains(string(readme), "bin/caddy run --config examples/"+name+"/Caddyfile") {
				t.Errorf("its README does not tell how to run it: %v", err)
			}
		})
		delete(missing, name)
	}
	for name := range missing {
		t.Errorf("there is no example %s any more", name)
	}
}
