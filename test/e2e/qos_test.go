package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const identity = "X-Gravitee-Client-Identifier"

// envelope is a frame of the sub-protocol.
type envelope struct {
	Type, Content, Ref, Reason string
	Seq                        uint64
}

func readEnvelope(t *testing.T, ws *websocket.Conn) envelope {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, raw, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return e
}

// At at_least_once over a WebSocket what was acknowledged never comes again, and what was
// not comes again to the next session of the identity.
func TestWebSocketAcks(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 1)
		brokers.KcatProduce(t, addr, topic, numbered(0, 10), "-K:")
		g := gateway.Start(t, "", site(kafkaAPI(addr, topic, "from earliest\nqos at_least_once")))
		open := func() *websocket.Conn {
			return gateway.OpenSocket(t, g, g.URL("/k"), []string{"message-api.v1+json"}, identity, "worker")
		}
		ws := open()
		for want := range 10 {
			e := readEnvelope(t, ws)
			if e.Type != "message" || e.Content != fmt.Sprint(want) || e.Seq != uint64(want+1) {
				t.Fatalf("got %+v, want message %d", e, want)
			}
		}
		if err := ws.WriteMessage(1, []byte(`{"type":"ack","seq":[1,2,3,4,5,6]}`)); err != nil {
			t.Fatal(err)
		}
		// A confirmed publish after the ack shows that the ack was taken.
		if err := ws.WriteMessage(1, []byte(`{"type":"publish","ref":"r1","content":"10"}`)); err != nil {
			t.Fatal(err)
		}
		for {
			if e := readEnvelope(t, ws); e.Type == "published" && e.Ref == "r1" {
				break
			}
		}
		closeSocket(t, ws)
		ws = open()
		if e := readEnvelope(t, ws); e.Content != "6" {
			t.Errorf("the second session begins with %+v, want 6", e)
		}
		closeSocket(t, ws)
	})
}

// closeSocket says goodbye and waits until the gateway has answered, and so has let go.
func closeSocket(t *testing.T, ws *websocket.Conn) {
	t.Helper()
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			_ = ws.Close()
			return
		}
	}
}

// At at_most_once nothing comes twice, however often a client breaks off.
func TestAtMostOnceNeverRepeats(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 2)
		brokers.KcatProduce(t, addr, topic, numbered(0, 3000), "-K:")
		g := gateway.Start(t, "", site(kafkaAPI(addr, topic, "from earliest\nqos at_most_once")))
		seen := make(map[string]int)
		for range 6 {
			ev := gateway.OpenEvents(t, g.Client(0), g.URL("/k"), identity, "once")
			for range 50 {
				e := ev.MustMessage(t)
				if e.Type != "message" || e.ID != "" {
					t.Fatalf("got %+v", e)
				}
				seen[e.Data]++
			}
			ev.Close()
			gateway.Eventually(t, 20*time.Second, "the session to end", func() bool {
				var rows []any
				g.AdminList("/message_api/sessions", &rows)
				return len(rows) == 0
			})
		}
		for data, n := range seen {
			if n > 1 {
				t.Errorf("%s came %d times", data, n)
			}
		}
		if len(seen) < 300 {
			t.Errorf("only %d different messages in 6 sessions of 50", len(seen))
		}
	})
}

// At at_least_once a client with an identity that polls without a cursor gets the same
// again, until it presents the cursor of what it got.
func TestBookmarks(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 1)
		brokers.KcatProduce(t, addr, topic, numbered(0, 30), "-K:")
		g := gateway.Start(t, "", site(kafkaAPI(addr, topic, "from earliest\nqos at_least_once")))
		get := func(query string) gateway.Page {
			return gateway.Do(t, g.Client(0), "GET", g.URL("/k?limit=10"+query), "", identity, "poller").Page(t)
		}
		first := get("")
		again := get("")
		if len(first.Items) != 10 || again.Items[0].Content != "0" {
			t.Fatalf("%d items; then from %s", len(first.Items), again.Items[0].Content)
		}
		second := get("&cursor=" + again.Pagination.NextCursor)
		if second.Items[0].Content != "10" {
			t.Errorf("after the cursor comes %s", second.Items[0].Content)
		}
		// Presenting the cursor said that 0 to 9 arrived; nothing was said of 10 to 19.
		if bookmarked := get(""); bookmarked.Items[0].Content != "10" {
			t.Errorf("the bookmark is at %s", bookmarked.Items[0].Content)
		}
	})
}

// A body that stops in the middle publishes nothing.
func TestHalfABody(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", playground)))
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/p"))
	conn, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", g.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf of it"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if raw, _ := io.ReadAll(conn); len(raw) > 0 && !strings.HasPrefix(string(raw), "HTTP/1.1 400") {
		t.Errorf("got %.80q", raw)
	}
	gateway.Do(t, g.Client(0), "POST", g.URL("/p"), "whole")
	if e := ev.MustMessage(t); e.Data != "whole" {
		t.Errorf("got %+v", e)
	}
}

// A batch is answered per line: the bad one in the middle, the others published in order.
func TestBatchThroughTheGateway(t *testing.T) {
	g := gateway.Start(t, "", site(api("/p", playground)))
	ev := gateway.OpenEvents(t, g.Client(0), g.URL("/p"))
	a := gateway.Do(t, g.Client(0), "POST", g.URL("/p"), "{\"content\":\"a\"}\n{oops\n{\"content\":\"b\"}\n", "Content-Type", "application/x-ndjson")
	var body struct{ Items []struct{ Status int } }
	if err := json.Unmarshal([]byte(a.Body), &body); err != nil || a.Status != 207 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	var statuses []int
	for _, i := range body.Items {
		statuses = append(statuses, i.Status)
	}
	if !slices.Equal(statuses, []int{202, 400, 202}) {
		t.Errorf("statuses %v", statuses)
	}
	if first, second := ev.MustMessage(t), ev.MustMessage(t); first.Data != "a" || second.Data != "b" {
		t.Errorf("got %+v, %+v", first, second)
	}
}
