package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// html is the page that all tests use: it only writes down what the browser's own objects
// say. A Log hands it out in order, and waits where nothing has come yet.
const html = `<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>page</title>
<script>
class Log {
	items = []; waiting = [];
	put(item) { const next = this.waiting.shift(); next ? next(item) : this.items.push(item); }
	next() { return this.items.length ? Promise.resolve(this.items.shift()) : new Promise((r) => this.waiting.push(r)); }
	async take(n) { const all = []; while (all.length < n) all.push(await this.next()); return all; }
	async until(type) { const all = []; do all.push(await this.next()); while (all.at(-1).type !== type); return all; }
}

function watch(url) {
	const source = new EventSource(url), log = new Log();
	for (const type of ["open", "message", "message-base64", "gap", "goaway", "error"]) {
		source.addEventListener(type, (e) => log.put({ type, data: e.data ?? "", id: e.lastEventId ?? "", state: source.readyState }));
	}
	return { source, log };
}

function dial(url, protocols = []) {
	const socket = new WebSocket(url, protocols), log = new Log();
	socket.binaryType = "arraybuffer";
	socket.onopen = () => log.put({ type: "open", data: socket.protocol });
	socket.onmessage = ({ data }) => log.put(typeof data === "string" ? { type: "text", data }
		: { type: "binary", data: Array.from(new Uint8Array(data)).join() });
	socket.onerror = () => log.put({ type: "error" });
	socket.onclose = (e) => log.put({ type: "close", code: e.code, data: e.reason });
	return { socket, log };
}

async function post(url, body, headers = {}) {
	const response = await fetch(url, { method: "POST", body, headers });
	return { status: response.status, data: await response.text() };
}
</script>
`

// event is what a Log has written down.
type event struct {
	Type, Data, ID string
	State, Code    int
}

// what is an event without what differs from run to run.
func (e event) what() string { return strings.TrimSpace(e.Type + " " + e.Data) }

// serve starts a gateway with some APIs and, on every other path, the page. More sites may
// follow.
func serve(t *testing.T, apis, more string) *gateway.Gateway {
	t.Helper()
	chromium(t) // before anything is begun
	return gateway.Start(t, "", site("http://localhost:PORT", pages(t), apis)+more)
}

// pages is the folder with the page.
func pages(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(html), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func site(address, folder, apis string) string {
	return address + " {\n" + apis + "\nroot * " + folder + "\nfile_server\n}\n"
}

// playground is an API at a path where everybody sees what is published.
func playground(path string, options ...string) string {
	return "message_api " + path + " {\n" + strings.Join(options, "\n") + `
		entrypoint http_get {
			duration_limit 100ms
		}
		entrypoint http_post
		entrypoint sse
		entrypoint websocket
		endpoint mock {
			loopback
		}
		plan keyless
	}
	`
}

// orders is the API that the documentation uses, on a Kafka in this process.
func orders(t *testing.T) string {
	t.Helper()
	return ordersAt(kafka(t))
}

// kafka is the address of a Kafka in this process, with the topic orders.
func kafka(t *testing.T) string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()[0]
}

func ordersAt(addr string) string {
	return `message_api /orders {
		entrypoint http_get {
			from earliest
			duration_limit 1s
		}
		entrypoint http_post
		entrypoint sse
		entrypoint websocket
		endpoint kafka {
			brokers ` + addr + `
			producer {
				topics orders
			}
			consumer {
				topics orders
			}
		}
		plan keyless
	}
	`
}

// end ends the only session of an entrypoint, as an operator does.
func end(t *testing.T, g *gateway.Gateway, entrypoint string) {
	t.Helper()
	var rows, those []struct {
		ID         uint64
		Entrypoint string
	}
	g.AdminList("/message_api/sessions", &rows)
	for _, row := range rows {
		if row.Entrypoint == entrypoint {
			those = append(those, row)
		}
	}
	if len(those) != 1 {
		t.Fatalf("%d sessions of %s: %+v", len(those), entrypoint, rows)
	}
	if status := g.Admin("DELETE", fmt.Sprintf("/message_api/sessions/%d", those[0].ID), nil); status != 204 {
		t.Fatalf("ending session %d: %d", those[0].ID, status)
	}
}

var fences = regexp.MustCompile("(?s)```js\n(.*?)```")

// documented is the code in docs/javascript.md that holds some text, as it stands there.
func documented(t *testing.T, holds string) string {
	t.Helper()
	raw, err := os.ReadFile("../../docs/javascript.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, match := range fences.FindAllStringSubmatch(string(raw), -1) {
		if strings.Contains(match[1], holds) {
			found = append(found, match[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d pieces of code in docs/javascript.md hold %q", len(found), holds)
	}
	// A console is no module.
	return strings.ReplaceAll(found[0], "export ", "")
}
