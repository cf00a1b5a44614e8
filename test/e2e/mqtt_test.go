package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// mqttAPI is an API at /m on one topic and what is below it; options go into its
// entrypoints that read.
func mqttAPI(addr, topic string, options ...string) string {
	return mqttAPIAt("/m", addr, topic, options...)
}

func mqttAPIAt(path, addr, topic string, options ...string) string {
	return api(path, fmt.Sprintf(`
		entrypoint http_get {
			duration_limit 1s
			metadata_in_payload
			headers_in_payload
			%[1]s
		}
		entrypoint http_post {
			request_headers_to_message
		}
		entrypoint websocket {
			%[1]s
		}
		endpoint mqtt5 {
			server %[2]s
			producer {
				topic %[3]s/out
			}
			consumer {
				topic %[3]s/#
			}
		}
		plan keyless`, strings.Join(options, "\n"), addr, topic))
}

// The main job: what a foreign client publishes reaches GET, SSE and WebSocket, and what is
// POSTed reaches the foreign client.
func TestMQTTMainJob(t *testing.T) {
	m := brokers.SharedMosquitto(t)
	topic := brokers.UniqueName(t)
	g := gateway.Start(t, "", site(withSSE(mqttAPI(m.Plain, topic))))
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/m"))
	ws := gateway.OpenSocket(t, g, g.URL("/m"), nil)
	who := []string{"X-Gravitee-Client-Identifier", "reader"}
	gateway.Do(t, g.Client(0), "GET", g.URL("/m?limit=1"), "", who...) // makes the session of the identity
	brokers.MosquittoPub(t, m.Plain, topic+"/in", []byte("from mosquitto"), "-D", "publish", "user-property", "trace", "abc",
		"-D", "publish", "content-type", "text/x-test")
	page := gateway.Do(t, g.Client(0), "GET", g.URL("/m?limit=1"), "", who...).Page(t)
	if len(page.Items) != 1 || page.Items[0].Content != "from mosquitto" || page.Items[0].Metadata["topic"] != topic+"/in" ||
		page.Items[0].Metadata["content_type"] != "text/x-test" || fmt.Sprint(page.Items[0].Headers["trace"]) != "[abc]" {
		t.Errorf("GET: %+v", page.Items)
	}
	if e := ev.MustMessage(t); e.Data != "from mosquitto" || !strings.Contains(strings.Join(e.Comments, "\n"), "topic: "+topic+"/in") {
		t.Errorf("SSE: %+v", e)
	}
	if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "from mosquitto" {
		t.Errorf("WebSocket: %q %v", payload, err)
	}

	sub := brokers.MosquittoSub(t, m.Plain, topic+"/out")
	a := gateway.Do(t, g.Client(0), "POST", g.URL("/m"), "from curl\x00\xff", "X-Trace", "t1", "Content-Type", "application/x-odd")
	if a.Status != 202 {
		t.Fatalf("POST: %d %s", a.Status, a.Body)
	}
	got := sub.Next()
	if string(got.Payload) != "from curl\x00\xff" || got.QoS != 1 || got.ContentType != "application/x-odd" || !strings.Contains(got.UserProperties, "t1") {
		t.Errorf("the foreign client got %+v", got)
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte("by WebSocket")); err != nil {
		t.Fatal(err)
	}
	if got := sub.Next(); string(got.Payload) != "by WebSocket" {
		t.Errorf("the foreign client got %+v", got)
	}
}

// Every client of a broadcast gets the retained messages, not only the one that came first.
func TestMQTTRetained(t *testing.T) {
	m := brokers.SharedMosquitto(t)
	topic := brokers.UniqueName(t)
	g := gateway.Start(t, "", site(withSSE(mqttAPI(m.Plain, topic))))
	brokers.MosquittoPub(t, m.Plain, topic+"/lamp", []byte("on"), "-r")
	for i := range 3 {
		ev := gateway.OpenEvents(t, g.Client(0), g.URL("/m"))
		if e := ev.MustMessage(t); e.Data != "on" {
			t.Errorf("client %d got %+v", i, e)
		}
	}
	brokers.MosquittoPub(t, m.Plain, topic+"/lamp", []byte("off"), "-r")
	last := gateway.OpenEvents(t, g.Client(0), g.URL("/m"))
	for {
		if e := last.MustMessage(t); e.Data == "off" { // what was on its way may come before
			break
		}
	}
}

// A client that polls with pauses misses nothing that is published between its requests.
func TestMQTTPolling(t *testing.T) {
	for _, qos := range []string{"auto", "at_least_once"} {
		t.Run(qos, func(t *testing.T) {
			m := brokers.VolatileMosquitto(t).Listeners()
			topic := brokers.UniqueName(t)
			g := gateway.Start(t, "", site(mqttAPI(m.Plain, topic, "qos "+qos)))
			cursor, seen := "", make(map[string]int)
			poll := func() {
				page := gateway.Do(t, g.Client(0), "GET", g.URL("/m?limit=40&cursor="+cursor), "", "X-Gravitee-Client-Identifier", "poller").Page(t)
				for _, item := range page.Items {
					seen[item.Content]++
				}
				cursor = page.Pagination.NextCursor
			}
			poll()
			for i := range 10 {
				var lines strings.Builder
				for n := range 50 {
					fmt.Fprintf(&lines, "%d\n", i*50+n)
				}
				brokers.MosquittoPubLines(t, m.Plain, topic+"/in", []byte(lines.String()))
				poll()
			}
			for deadline := time.Now().Add(30 * time.Second); len(seen) < 500 && time.Now().Before(deadline); {
				poll()
			}
			again := 0
			for _, n := range seen {
				if n > 1 {
					again++
				}
			}
			t.Logf("%d of 500 messages, %d of them more than once", len(seen), again)
			if len(seen) != 500 {
				t.Errorf("%d of 500 messages came", len(seen))
			}
		})
	}
}

// A client that acknowledges nothing holds its window and no more; what it holds and what
// it left go to another one of its identity.
func TestMQTTStalledClient(t *testing.T) {
	const total = 2000
	m := brokers.VolatileMosquitto(t).Listeners()
	topic := brokers.UniqueName(t)
	conf := strings.Replace(mqttAPI(m.Plain, topic, "qos at_least_once"), "consumer {", "consumer {\nreceive_maximum 50", 1)
	g := gateway.Start(t, "", site(conf))
	who := []string{"X-Gravitee-Client-Identifier", "worker"}
	stalled := gateway.OpenSocket(t, g, g.URL("/m"), []string{protocol}, who...)
	brokers.MosquittoPubLines(t, m.Plain, topic+"/in", []byte(numberLines(total)))
	got := 0
	for {
		_ = stalled.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, _, err := stalled.ReadMessage(); err != nil {
			break
		}
		got++
	}
	t.Logf("a client that acknowledges nothing got %d of %d", got, total)
	if got > 50 {
		t.Errorf("it got %d, which is more than its window", got)
	}
	other := gateway.OpenSocket(t, g, g.URL("/m"), []string{protocol}, who...)
	_ = stalled.Close()
	seen := make(map[string]int)
	for len(seen) < total {
		ackNext(t, other, seen)
	}
}

// A thousand SSE clients cost the broker one connection.
func TestMQTTBroadcastCostsOneConnection(t *testing.T) {
	clients := 1000
	if testing.Short() {
		clients = 50
	}
	m := brokers.VolatileMosquitto(t).Listeners()
	proxy := brokers.NewProxy(t, m.Plain)
	topic := brokers.UniqueName(t)
	g := gateway.Start(t, "", site(withSSE(mqttAPI(proxy.Addr(), topic))))
	streams := openMany(t, g, g.URL("/m"), clients)
	if n := proxy.Connections(); n != 1 {
		t.Errorf("%d clients cost %d connections", clients, n)
	}
	brokers.MosquittoPubLines(t, m.Plain, topic+"/in", []byte(numberLines(20)))
	readNumbers(t, streams, 20)
}

// What the broker says is told.
func TestMQTTProblems(t *testing.T) {
	m := brokers.SharedMosquitto(t)
	topic := brokers.UniqueName(t)
	g := gateway.Start(t, "", site(mqttAPI("127.0.0.1:1", topic)))
	for _, method := range []string{"GET", "POST"} {
		began := time.Now()
		a := gateway.Do(t, g.Client(0), method, g.URL("/m"), "x")
		if slug, detail := a.Problem(t); a.Status != 503 || slug != "broker-unavailable" || !strings.Contains(detail, "127.0.0.1:1") ||
			a.Header.Get("Retry-After") == "" || time.Since(began) > 6*time.Second {
			t.Errorf("%s: %d %s after %s", method, a.Status, a.Body, time.Since(began))
		}
	}
	wrong := strings.Replace(mqttAPI(m.Auth, topic), "producer {", "auth nobody wr0ng\nproducer {", 1)
	if err := g.Load("", site(wrong)); err != nil {
		t.Fatal(err)
	}
	a := gateway.Do(t, g.Client(0), "POST", g.URL("/m"), "x")
	if slug, detail := a.Problem(t); a.Status != 503 || slug != "broker-unavailable" || strings.Contains(detail, "wr0ng") {
		t.Errorf("a wrong password: %d %s", a.Status, a.Body)
	}
	// Nobody subscribed is no error at MQTT: the broker has taken the message.
	if err := g.Load("", site(mqttAPI(m.Plain, topic))); err != nil {
		t.Fatal(err)
	}
	if a := gateway.Do(t, g.Client(0), "POST", g.URL("/m"), "x"); a.Status != 202 {
		t.Errorf("without subscribers: %d %s", a.Status, a.Body)
	}
	// A request can't widen the topic.
	dynamic := strings.ReplaceAll(mqttAPI(m.Plain, topic), topic+"/", topic+"/{http.request.header.X-Device}/")
	if err := g.Load("", site(dynamic)); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{"#", "+", "a/b", "", "$x"} {
		a := gateway.Do(t, g.Client(0), "POST", g.URL("/m"), "x", "X-Device", device)
		b := gateway.Do(t, g.Client(0), "GET", g.URL("/m"), "", "X-Device", device)
		if a.Status != 400 || b.Status != 400 {
			t.Errorf("%q: POST %d %s, GET %d %s", device, a.Status, a.Body, b.Status, b.Body)
		}
	}
}

// Reloads that change the API hand the identity's session from one generation to the next:
// nothing is lost, and they do not take the client id from each other again and again.
func TestMQTTReload(t *testing.T) {
	total, reloads := 4_000, 10
	if testing.Short() {
		total, reloads = 1_000, 3
	}
	m := brokers.VolatileMosquitto(t).Listeners()
	proxy := brokers.NewProxy(t, m.Plain)
	topic := brokers.UniqueName(t)
	conf := func(n int) string {
		return site(strings.Replace(mqttAPI(proxy.Addr(), topic, "qos at_least_once"), "duration_limit 1s", fmt.Sprintf("duration_limit %ds", n+1), 1))
	}
	g := gateway.Start(t, "", conf(0))
	var mu sync.Mutex
	seen := make(map[string]int)
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
	stop, done, ready := make(chan struct{}), make(chan struct{}), make(chan struct{})
	connections := 0
	go func() {
		defer close(done)
		for {
			ws, _, err := gateway.TrySocket(g, g.URL("/m"), []string{protocol}, "X-Gravitee-Client-Identifier", "worker")
			select {
			case <-stop:
				if err == nil {
					_ = ws.Close()
				}
				return
			default:
			}
			if err != nil {
				continue
			}
			if connections++; connections == 1 {
				close(ready)
			}
			leave := make(chan struct{})
			go func() {
				select {
				case <-stop:
					_ = ws.Close()
				case <-leave:
				}
			}()
			readAndAck(ws, func(text string) { mu.Lock(); seen[text]++; mu.Unlock() })
			close(leave)
			_ = ws.Close()
		}
	}()
	<-ready
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range 20 {
			var lines strings.Builder
			for n := range total / 20 {
				fmt.Fprintf(&lines, "%d\n", i*total/20+n)
			}
			brokers.MosquittoPubLines(t, m.Plain, topic+"/in", []byte(lines.String()))
			time.Sleep(50 * time.Millisecond) // spreads them over the reloads
		}
	}()
	for n := range reloads {
		if err := g.Load("", conf(n+1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	<-published
	gateway.Eventually(t, 30*time.Second, "all messages", func() bool { return count() == total })
	close(stop)
	<-done
	taken := strings.Count(g.Log(), "taken over")
	t.Logf("%d reloads, %d connections of the client, %d sessions taken over", reloads, connections, taken)
	if taken > reloads {
		t.Errorf("%d sessions were taken over in %d reloads", taken, reloads)
	}
}

// readAndAck records and acknowledges until the connection ends.
func readAndAck(ws *websocket.Conn, record func(string)) {
	for {
		_, payload, err := ws.ReadMessage()
		if err != nil {
			return
		}
		var f struct {
			Type, Content string
			Seq           uint64
		}
		if json.Unmarshal(payload, &f) != nil || f.Type != "message" {
			continue
		}
		record(f.Content)
		if ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","seq":%d}`, f.Seq)) != nil {
			return
		}
	}
}
