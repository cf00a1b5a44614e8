package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// onKafka runs a test on Apache Kafka and on the in-process kfake.
func onKafka(t *testing.T, f func(t *testing.T, addr string)) {
	t.Run("kfake", func(t *testing.T) {
		c, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		f(t, c.ListenAddrs()[0])
	})
	t.Run("kafka", func(t *testing.T) {
		if brokers.WithoutKafka() {
			t.Skip("NOT RUN on Apache Kafka: MESSAGE_API_NO_KAFKA=1")
		}
		f(t, brokers.SharedKafka(t).Plain)
	})
}

// kafkaAPI is an API on one topic; options go into its entrypoints.
func kafkaAPI(addr, topic string, options ...string) string {
	opt := strings.Join(options, "\n")
	return api("/k", `
		entrypoint http_get {
			duration_limit 1s
			metadata_in_payload
			headers_in_payload
			`+opt+`
		}
		entrypoint http_post {
			request_headers_to_message
		}
		entrypoint sse {
			heartbeat off
			metadata_as_comment
			`+opt+`
		}
		entrypoint websocket {
			`+opt+`
		}
		endpoint kafka {
			brokers `+addr+`
			producer {
				topics `+topic+`
			}
			consumer {
				topics `+topic+`
			}
		}
		plan keyless`)
}

// numbered is the input for kcat: keys that spread over the partitions, values that count.
func numbered(from, to int) []byte {
	var b bytes.Buffer
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "k%d:%d\n", i%97, i)
	}
	return b.Bytes()
}

// ledger checks that every number comes once, and per key in order: a key is in one
// partition.
type ledger struct {
	name string
	seen map[int]bool
	last map[int]int
	errs []string
}

func newLedger(name string) *ledger {
	return &ledger{name: name, seen: make(map[int]bool), last: make(map[int]int)}
}

func (l *ledger) take(text string) {
	n, err := strconv.Atoi(text)
	if err != nil {
		l.errs = append(l.errs, fmt.Sprintf("%q", text))
		return
	}
	if l.seen[n] {
		l.errs = append(l.errs, fmt.Sprintf("%d again", n))
	}
	l.seen[n] = true
	key := n % 97
	if last, ok := l.last[key]; ok && last > n {
		l.errs = append(l.errs, fmt.Sprintf("%d after %d", n, last))
	}
	l.last[key] = n
}

func (l *ledger) report(t *testing.T, want int) {
	t.Helper()
	if len(l.seen) != want || len(l.errs) > 0 {
		t.Errorf("%s: %d of %d records; %d wrong: %.300s", l.name, len(l.seen), want, len(l.errs), strings.Join(l.errs, ", "))
	}
}

// The main job: what a foreign client produces reaches GET, SSE and WebSocket, and what is
// POSTed is read back by the foreign client.
func TestKafkaMainJob(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 3)
		g := gateway.Start(t, "", site(kafkaAPI(addr, topic)))
		ev := gateway.OpenEvents(t, g.Client(0), g.URL("/k"))
		ws := gateway.OpenSocket(t, g, g.URL("/k"), nil)
		var page gateway.Page
		var wg sync.WaitGroup
		wg.Go(func() { page = gateway.Do(t, g.Client(0), "GET", g.URL("/k"), "").Page(t) })
		time.Sleep(300 * time.Millisecond) // the GET shows what comes while it waits
		brokers.KcatProduce(t, addr, topic, []byte("key1:from kcat\n"), "-K:", "-H", "trace=abc")
		wg.Wait()
		if len(page.Items) != 1 || page.Items[0].Content != "from kcat" || page.Items[0].Metadata["topic"] != topic ||
			page.Items[0].Metadata["key"] != "key1" || fmt.Sprint(page.Items[0].Headers["trace"]) != "[abc]" {
			t.Errorf("GET: %+v", page.Items)
		}
		if e := ev.MustMessage(t); e.Data != "from kcat" || e.ID == "" || !strings.Contains(strings.Join(e.Comments, "\n"), "key: key1") {
			t.Errorf("SSE: %+v", e)
		}
		if _, payload, err := ws.ReadMessage(); err != nil || string(payload) != "from kcat" {
			t.Errorf("WebSocket: %q %v", payload, err)
		}
		a := gateway.Do(t, g.Client(0), "POST", g.URL("/k"), "from curl\x00\xff", "X-Trace", "t1", "Prefer", "return=representation")
		var stored struct {
			Items []struct {
				ID       string
				Status   int
				Metadata map[string]any
			}
		}
		if err := json.Unmarshal([]byte(a.Body), &stored); err != nil || a.Status != 202 || len(stored.Items) != 1 || stored.Items[0].Metadata["topic"] != topic {
			t.Fatalf("POST: %d %s", a.Status, a.Body)
		}
		found := false
		for _, r := range brokers.KcatConsume(t, addr, topic) {
			if string(r.Value) == "from curl\x00\xff" && strings.Contains(r.Headers, "t1") {
				found = true
			}
		}
		if !found {
			t.Errorf("kcat does not find what was POSTed")
		}
	})
}

// 100,000 records over 6 partitions arrive on every stream exactly once, and in order per
// partition.
func TestKafkaEveryRecordOnce(t *testing.T) {
	total := 100_000
	if testing.Short() {
		total = 10_000
	}
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 6)
		g := gateway.Start(t, "", site(kafkaAPI(addr, topic)))
		var wg sync.WaitGroup
		var ledgers []*ledger
		for i := range 3 {
			l := newLedger(fmt.Sprint("SSE ", i))
			ledgers = append(ledgers, l)
			ev := gateway.OpenEvents(t, g.Client(0), g.URL("/k"))
			wg.Go(func() { readEvents(ev, l, total) })
		}
		for i := range 2 {
			l := newLedger(fmt.Sprint("WebSocket ", i))
			ledgers = append(ledgers, l)
			ws := gateway.OpenSocket(t, g, g.URL("/k"), nil)
			wg.Go(func() {
				for len(l.seen) < total {
					_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
					_, payload, err := ws.ReadMessage()
					if err != nil {
						l.errs = append(l.errs, err.Error())
						return
					}
					l.take(string(payload))
				}
			})
		}
		brokers.KcatProduce(t, addr, topic, numbered(0, total), "-K:")
		wg.Wait()
		for _, l := range ledgers {
			l.report(t, total)
		}
	})
}

func readEvents(ev *gateway.Events, l *ledger, total int) {
	timer := time.AfterFunc(60*time.Second, ev.Close)
	defer timer.Stop()
	for len(l.seen) < total {
		e, err := ev.Message()
		if err != nil {
			l.errs = append(l.errs, err.Error())
			return
		}
		if e.Type != "message" {
			l.errs = append(l.errs, e.Type+" "+e.Data)
			return
		}
		l.take(e.Data)
	}
}

// Cut at random and resumed 200 times, by Last-Event-ID and by GET cursor, on two nodes in
// turn, a client sees every record once.
func TestKafkaResume(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a topic from each of its positions")
	}
	cuts, total := 200, 20_000
	if testing.Short() {
		cuts, total = 30, 3_000
	}
	for _, qos := range []string{"auto", "at_least_once"} {
		t.Run(qos, func(t *testing.T) {
			onKafka(t, func(t *testing.T, addr string) {
				topic := brokers.Topic(t, addr, 6)
				conf := site(kafkaAPI(addr, topic, "qos "+qos))
				nodes := []string{gateway.Start(t, "", conf).URL("/k"), gateway.Run(t, "", conf).URL("/k")}
				var wg sync.WaitGroup
				l := newLedger("client")
				client := plainClient(t)
				cursor := gateway.Do(t, client, "GET", nodes[0]+"?limit=1", "").Page(t).Pagination.NextCursor
				if cursor == "" {
					t.Fatal("the first GET gave no cursor")
				}
				wg.Go(func() {
					for at := 0; at < total; at += total / 20 {
						brokers.KcatProduce(t, addr, topic, numbered(at, at+total/20), "-K:")
					}
				})
				for i := range cuts {
					node := nodes[rand.IntN(2)]
					most := 1 + rand.IntN(2*total/cuts)
					if i%5 == 4 {
						cursor = resumeGET(t, client, node, cursor, min(most, 500), l)
					} else {
						cursor = resumeSSE(t, client, node, cursor, most, l, total)
					}
				}
				wg.Wait()
				for len(l.seen) < total {
					before := len(l.seen)
					cursor = resumeGET(t, client, nodes[0], cursor, 500, l)
					if len(l.seen) == before {
						break
					}
				}
				l.report(t, total)
			})
		})
	}
}

func resumeGET(t *testing.T, client *http.Client, node, cursor string, limit int, l *ledger) string {
	t.Helper()
	page := gateway.Do(t, client, "GET", fmt.Sprintf("%s?cursor=%s&limit=%d", node, cursor, limit), "").Page(t)
	if page.Gap != nil {
		t.Fatalf("gap %+v", page.Gap)
	}
	for _, item := range page.Items {
		l.take(item.Content)
	}
	return page.Pagination.NextCursor
}

// resumeSSE reads some events and hangs up in the middle of what follows.
func resumeSSE(t *testing.T, client *http.Client, node, cursor string, most int, l *ledger, total int) string {
	t.Helper()
	ev, err := gateway.TryEvents(client, node, "Last-Event-ID", cursor)
	if err != nil || ev.Answer.Status != 200 {
		t.Fatalf("resuming: %+v %v", ev, err)
	}
	defer ev.Close()
	timer := time.AfterFunc(300*time.Millisecond, ev.Close)
	defer timer.Stop()
	for range most {
		if len(l.seen) == total {
			break
		}
		e, err := ev.Message()
		if err != nil {
			break // nothing more came for a while
		}
		if e.Type != "message" {
			t.Fatalf("got %+v", e)
		}
		l.take(e.Data)
		cursor = e.ID
	}
	return cursor
}

// Two members of one identity share the work; whoever comes and goes, nothing is lost.
func TestKafkaRebalance(t *testing.T) {
	total := 20_000
	if testing.Short() {
		total = 4_000
	}
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 6)
		g := gateway.Start(t, "", site(kafkaAPI(addr, topic)))
		var mu sync.Mutex
		seen := make(map[string]int)
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
		member := func() func() {
			ws := gateway.OpenSocket(t, g, g.URL("/k"), nil, "X-Gravitee-Client-Identifier", "workers")
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					_, payload, err := ws.ReadMessage()
					if err != nil {
						return
					}
					mu.Lock()
					seen[string(payload)]++
					mu.Unlock()
				}
			}()
			return func() { _ = ws.Close(); <-done }
		}
		first := member()
		gateway.Eventually(t, 30*time.Second, "the first member to be served", func() bool {
			brokers.KcatProduce(t, addr, topic, []byte("k:-1\n"), "-K:")
			return count() > 0
		})
		for at := 0; at < total; at += total / 4 {
			brokers.KcatProduce(t, addr, topic, numbered(at, at+total/4), "-K:")
			second := member()
			gateway.Eventually(t, 60*time.Second, "the records", func() bool { return count() >= at/2 })
			second()
		}
		gateway.Eventually(t, 60*time.Second, "all records", func() bool { return count() == total+1 })
		first()
		repeated := 0
		for _, n := range seen {
			repeated += n - 1
		}
		t.Logf("sent %d, received %d, lost %d, repeated %d", total, len(seen)-1, total+1-len(seen), repeated)
	})
}

// What can't work is told at once, with the address and the cause.
func TestKafkaUnavailable(t *testing.T) {
	g := gateway.Start(t, "", site(kafkaAPI("127.0.0.1:1", "orders"), "message_api_health /healthz"))
	check := func(what string, a gateway.Answer, took time.Duration) {
		t.Helper()
		slug, detail := a.Problem(t)
		if a.Status != 503 || slug != "broker-unavailable" || !strings.Contains(detail, "127.0.0.1:1") || !strings.Contains(detail, "refused") {
			t.Errorf("%s: %d %s: %s", what, a.Status, slug, detail)
		}
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", what)
		}
		if took > 5*time.Second {
			t.Errorf("%s took %s", what, took)
		}
	}
	began := time.Now()
	check("POST", gateway.Do(t, g.Client(0), "POST", g.URL("/k"), "x"), time.Since(began))
	began = time.Now()
	check("GET", gateway.Do(t, g.Client(0), "GET", g.URL("/k"), ""), time.Since(began))
	began = time.Now()
	check("SSE", gateway.OpenEvents(t, g.Client(0), g.URL("/k")).Answer, time.Since(began))
	if a := gateway.Do(t, g.Client(0), "GET", g.URL("/healthz"), ""); a.Status != 503 || !strings.Contains(a.Body, "127.0.0.1:1") {
		t.Errorf("health: %d %s", a.Status, a.Body)
	}
	var eps []struct{ Name, State, Error string }
	g.AdminList("/message_api/endpoints", &eps)
	if len(eps) != 1 || eps[0].State != "down" || eps[0].Error == "" {
		t.Errorf("endpoints: %+v", eps)
	}
}

func TestKafkaUnknownTopic(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		g := gateway.Start(t, "", site(kafkaAPI(addr, "no-such-topic")))
		for what, a := range map[string]gateway.Answer{
			"POST": gateway.Do(t, g.Client(0), "POST", g.URL("/k"), "x"),
			"GET":  gateway.Do(t, g.Client(0), "GET", g.URL("/k"), ""),
		} {
			if slug, detail := a.Problem(t); a.Status != 404 || slug != "channel-not-found" || !strings.Contains(detail, "no-such-topic") {
				t.Errorf("%s: %d %s: %s", what, a.Status, slug, detail)
			}
		}
	})
}

// An API may publish to one endpoint and read from another, and name a stand-in for the
// time in which the first is down.
func TestTwoEndpointTypesViaAndFallback(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 1)
		g := gateway.Start(t, "", site(api("/mixed", `
			entrypoint http_post {
				via trial
			}
			entrypoint sse {
				via orders
			}
			endpoint mock trial
			endpoint kafka orders {
				brokers `+addr+`
				consumer {
					topics `+topic+`
				}
			}
			plan keyless`), api("/fallback", `
			entrypoint http_post {
				fallback standby
			}
			endpoint kafka first {
				brokers 127.0.0.1:1
				producer {
					topics orders
				}
			}
			endpoint kafka standby {
				brokers `+addr+`
				producer {
					topics `+topic+`
				}
			}
			plan keyless`)))
		ev := gateway.OpenEvents(t, g.Client(0), g.URL("/mixed"))
		if a := gateway.Do(t, g.Client(0), "POST", g.URL("/mixed"), "to the mock"); a.Status != 202 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		if a := gateway.Do(t, g.Client(0), "POST", g.URL("/fallback"), "to the standby"); a.Status != 202 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		if e := ev.MustMessage(t); e.Data != "to the standby" {
			t.Errorf("%+v", e)
		}
	})
}

// GET with `from earliest` shows what is there, and pages through it by cursor.
func TestKafkaFromEarliest(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		topic := brokers.Topic(t, addr, 4)
		brokers.KcatProduce(t, addr, topic, numbered(0, 1000), "-K:")
		g := gateway.Start(t, "", site(kafkaAPI(addr, topic, "from earliest")))
		l := newLedger("pages")
		page := gateway.Do(t, g.Client(0), "GET", g.URL("/k?limit=300"), "").Page(t)
		for len(page.Items) > 0 {
			for _, item := range page.Items {
				l.take(item.Content)
			}
			page = gateway.Do(t, g.Client(0), "GET", g.URL("/k?limit=300&cursor="+page.Pagination.NextCursor), "").Page(t)
		}
		l.report(t, 1000)
	})
}

// A cursor of another channel, and one whose records are gone, are told as gaps.
func TestKafkaGaps(t *testing.T) {
	onKafka(t, func(t *testing.T, addr string) {
		one, two := brokers.Topic(t, addr, 1), brokers.Topic(t, addr, 1)
		brokers.KcatProduce(t, addr, one, numbered(0, 100), "-K:")
		brokers.KcatProduce(t, addr, two, numbered(0, 100), "-K:")
		g := gateway.Start(t, "", site(kafkaAPI(addr, one, "from earliest"),
			strings.Replace(kafkaAPI(addr, two, "from earliest"), "/k", "/two", 1)))
		cursor := gateway.Do(t, g.Client(0), "GET", g.URL("/k?limit=10"), "").Page(t).Pagination.NextCursor
		page := gateway.Do(t, g.Client(0), "GET", g.URL("/two?limit=10&cursor="+cursor), "").Page(t)
		if page.Gap == nil || page.Gap.Reason != "foreign" || len(page.Items) != 10 {
			t.Errorf("foreign: %+v", page)
		}
		ev := gateway.OpenEvents(t, g.Client(0), g.URL("/two"), "Last-Event-ID", cursor)
		if e := ev.MustMessage(t); e.Type != "gap" || !strings.Contains(e.Data, "foreign") {
			t.Errorf("foreign by SSE: %+v", e)
		}
		ev = gateway.OpenEvents(t, g.Client(0), g.URL("/k"), "Last-Event-ID", "garbled!")
		if e := ev.MustMessage(t); e.Type != "gap" {
			t.Errorf("garbled by SSE: %+v", e)
		}
		brokers.DeleteRecords(t, addr, one, 0, 50)
		page = gateway.Do(t, g.Client(0), "GET", g.URL("/k?limit=10&cursor="+cursor), "").Page(t)
		if page.Gap == nil || page.Gap.Reason != "expired" || len(page.Items) != 10 || page.Items[0].Content != "50" {
			t.Errorf("expired: %+v", page)
		}
	})
}
