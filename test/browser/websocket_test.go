package browser

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// A WebSocket without a sub-protocol: each message is a frame, both ways, text or binary.
// The page is the health check, from whose console `make run` says to open one.
func TestWebSocketRaw(t *testing.T) {
	g := serve(t, playground("/playground")+"message_api_health /healthz", "")
	p := open(t, g.URL("/healthz"))
	p.do(`ws = new WebSocket("ws://" + location.host + "/playground"); ws.binaryType = "arraybuffer";
		got = []; ws.onmessage = (e) => got.push(typeof e.data === "string" ? e.data : new Uint8Array(e.data).join());`)
	await[any](p, "new Promise((r) => { ws.onopen = () => r(1); if (ws.readyState === 1) r(1); })")
	p.do(`ws.send("from the page\nünïcödé 🚲"); ws.send(new Uint8Array([255, 0, 7]));`)
	gateway.Eventually(t, callTimeout, "what was sent to come back", func() bool { return await[int](p, "got.length") == 2 })
	if got := await[[]string](p, "got"); got[0] != "from the page\nünïcödé 🚲" || got[1] != "255,0,7" {
		t.Errorf("came back as %q", got)
	}
	if a := gateway.Do(t, http.DefaultClient, "POST", g.URL("/playground"), "posted"); a.Status != 202 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	gateway.Eventually(t, callTimeout, "what was posted", func() bool { return await[string](p, "got.at(-1)") == "posted" })
	p.do(`over = new Promise((r) => { ws.onclose = (e) => r({ type: "close", code: e.code, data: e.reason }); })`)
	end(t, g, "websocket")
	if got := await[event](p, "over"); got.Code != 1008 {
		t.Errorf("closed with %+v", got)
	}
}

// The client of the documentation, as it stands there: it publishes and hears where the
// message is, comes back where it was when told so, and stays away when told so.
func TestWebSocketClientOfTheDocumentation(t *testing.T) {
	chromium(t)
	addr, folder := kafka(t), pages(t)
	api := ordersAt(addr)
	g := gateway.Start(t, "", site("http://localhost:PORT", folder, api))
	p := open(t, g.URL("/"))
	p.do(documented(t, "function connect(url"))
	// The page's own WebSocket, of which the test sees every one that the client makes.
	p.do(`sockets = []; seen = new Log(); gaps = [];
		const Native = WebSocket;
		window.WebSocket = class extends Native { constructor(...args) { super(...args); sockets.push(this); } };
		client = connect("ws://" + location.host + "/orders", (m) => seen.put(m), (...gap) => gaps.push(gap))`)
	opened := func(n int) {
		t.Helper()
		gateway.Eventually(t, callTimeout, fmt.Sprint(n, " sockets"), func() bool {
			return await[int](p, "sockets.length") == n && await[int](p, "sockets.at(-1).readyState") == 1
		})
	}
	type frame struct {
		ID, Content, Status, Cursor, Ref string
		Headers                          map[string][]string
		Metadata                         map[string]any
	}
	opened(1)
	stored := await[frame](p, `client.publish("hello", { key: "customer-1", headers: { trace: "a1" } })`)
	message := await[frame](p, "seen.next()")
	if stored.Status != "stored" || stored.ID == "" || stored.ID != message.ID || stored.Metadata["topic"] != "orders" {
		t.Errorf("published as %+v", stored)
	}
	if message.Content != "hello" || message.Cursor == "" || fmt.Sprint(message.Headers["trace"]) != "[a1]" {
		t.Errorf("seen as %+v", message)
	}
	if refused := await[string](p, `client.publish("!", { encoding: "base64" }).then(() => "published", (problem) => problem.type)`); refused != "urn:message-api:problem:bad-input" {
		t.Errorf("what is no base64 was answered by %q", refused)
	}

	changed := strings.Replace(api, "message_api /orders {", "message_api /orders {\ndescription changed", 1)
	if err := g.Load("", site("http://localhost:PORT", folder, changed)); err != nil {
		t.Fatal(err)
	}
	produce(t, addr, "0", "1", "2") // while the client is away, or about to go
	opened(2)
	for want := map[string]bool{"0": true, "1": true, "2": true}; len(want) > 0; {
		got := await[frame](p, "seen.next()")
		if !want[got.Content] {
			t.Fatalf("%+v, while waiting for %v", got, want)
		}
		delete(want, got.Content)
	}
	if gaps := await[[]any](p, "gaps"); len(gaps) != 0 {
		t.Errorf("gaps: %v", gaps)
	}
	staysAway(t, g, p)
}

// produce writes to the topic past the gateway, which a reload may just keep from answering.
func produce(t *testing.T, addr string, contents ...string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, content := range contents {
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(content)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// staysAway ends the client's session as an operator does. What a client does about it is
// decided in one place, so the timer that it does not set is what tells.
func staysAway(t *testing.T, g *gateway.Gateway, p *page) {
	t.Helper()
	p.do(`timers = []; window.setTimeout = (f, ms) => { timers.push(ms); return 0; };
		last = sockets.at(-1); gone = new Promise((r) => last.addEventListener("close", (e) => r(e.code)))`)
	end(t, g, "websocket")
	if code := await[int](p, "gone"); code != 1008 {
		t.Errorf("closed with %d", code)
	}
	if timers := await[[]int](p, "timers"); len(timers) != 0 {
		t.Errorf("the client means to come back after %v ms", timers)
	}
}

// Acknowledging needs an identity. A page can't name itself, and is refused; where the site
// does it for the page, what was acknowledged does not come again, and the rest does.
func TestWebSocketAcknowledges(t *testing.T) {
	g := serve(t, `request_header /named X-Gravitee-Client-Identifier page-7
	message_api /named {
		entrypoint websocket {
			qos at_least_once
		}
		endpoint mock {
			message_interval 50ms
		}
		plan keyless
	}
	message_api /nameless {
		entrypoint websocket {
			qos at_least_once
		}
		endpoint mock
		plan keyless
	}`, "")
	p := open(t, g.URL("/"))
	p.do(`w = dial("ws://" + location.host + "/nameless", "message-api.v1+json")`)
	if got := await[[]event](p, `w.log.until("close")`); got[0].Type != "error" || got[len(got)-1].Code != 1006 {
		t.Errorf("without a name: %+v", got)
	}

	dial := func() {
		p.do(`w = dial("ws://" + location.host + "/named", "message-api.v1+json")`)
		if got := await[event](p, "w.log.next()"); got.what() != "open message-api.v1+json" {
			t.Fatalf("at first %+v", got)
		}
	}
	ids := `w.log.take(4).then((all) => all.map((e) => JSON.parse(e.data)).map((m) => m.seq + ":" + m.id).join(" "))`
	dial()
	if got := await[string](p, ids); got != "1:0 2:1 3:2 4:3" {
		t.Fatalf("got %s", got)
	}
	p.do(`w.socket.send(JSON.stringify({ type: "ack", seq: [1, 3] }));
		w.socket.send(JSON.stringify({ type: "ack", seq: 4711, ref: "wrong" }))`)
	// Commands are taken in their order, so the answer to the second tells that the first was.
	wrong := await[string](p, `(async () => { for (;;) { const { data } = await w.log.next(), f = JSON.parse(data); if (f.type === "error") return data; } })()`)
	if !strings.Contains(wrong, `"ref":"wrong"`) || !strings.Contains(wrong, "4711") {
		t.Errorf("a wrong acknowledgement was answered by %s", wrong)
	}
	p.do(`w.socket.close(1000)`)
	if got := await[[]event](p, `w.log.until("close")`); got[len(got)-1].Code != 1000 {
		t.Errorf("closed with %+v", got[len(got)-1])
	}
	gone(t, g)
	dial()
	if got := await[string](p, ids); !strings.HasPrefix(got, "1:1 2:3 3:4") {
		t.Errorf("at the second time %s", got)
	}
	p.do(`w.socket.close(1000)`)
}

// Over TLS the page, fetch and more event streams than HTTP/1.1 allows share one HTTP/2
// connection, while the browser opens its WebSocket with HTTP/1.1.
func TestOverTLS(t *testing.T) {
	chromium(t)
	g := gateway.Start(t, "", site("https://localhost:TLSPORT", pages(t), playground("/playground")))
	g.CA() // waits for the certificate
	// Whether the certificate is one to trust is not what is tested here.
	p := open(t, g.TLS("/"), chromedp.Flag("ignore-certificate-errors", true))
	const streams = 12
	p.do(`all = Array.from({ length: 12 }, () => watch("/playground")); w = dial("wss://" + location.host + "/playground")`)
	for i := range streams {
		if got := await[event](p, fmt.Sprintf("all[%d].log.next()", i)); got.Type != "open" {
			t.Fatalf("stream %d: %+v", i, got)
		}
	}
	if got := await[event](p, "w.log.next()"); got.Type != "open" {
		t.Fatalf("the WebSocket: %+v", got)
	}
	if got := await[event](p, `post("/playground", "hello")`); got.Data != "" {
		t.Fatalf("posting: %+v", got)
	}
	for i := range streams {
		if got := await[event](p, fmt.Sprintf("all[%d].log.next()", i)); got.what() != "message hello" {
			t.Errorf("stream %d: %+v", i, got)
		}
	}
	if got := await[event](p, "w.log.next()"); got.what() != "text hello" {
		t.Errorf("the WebSocket: %+v", got)
	}
	protocol := await[string](p, `performance.getEntriesByType("resource").find((e) => e.name.endsWith("/playground") && e.initiatorType === "fetch").nextHopProtocol`)
	if protocol != "h2" && protocol != "h3" {
		t.Errorf("the POST went by %q", protocol)
	}
	p.do(`for (const { source } of all) source.close(); w.socket.close()`)
	gone(t, g)
}
