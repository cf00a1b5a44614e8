package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// series are the gateway's own metrics at one moment, by name and labels.
type series map[string]float64

func readMetrics(t *testing.T, url string) series {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := gateway.TryDo(client, "GET", url, "")
	for try := 0; err != nil && notConnected(err) && try < 20; try++ { // as in a reload
		a, err = gateway.TryDo(client, "GET", url, "")
	}
	if err != nil || a.Status != http.StatusOK {
		t.Fatalf("%s: %d %s %v", url, a.Status, a.Body, err)
	}
	all := make(series)
	for line := range strings.Lines(a.Body) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		name, ours := strings.CutPrefix(name, "caddy_message_api_")
		if !ours || !found {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all[name+"}"] = v
	}
	return all
}

// The gateway's metrics are in Caddy's registry, follow the traffic, and go on over a
// reload that the sessions do not notice.
func TestObserveMetrics(t *testing.T) {
	config := func(generation int) string {
		return site(api("/observed", playground), api("/other", fmt.Sprintf("name generation-%d\n%s", generation, playground)), "metrics /metrics")
	}
	g := gateway.Start(t, "metrics", config(0))
	admin := fmt.Sprintf("http://127.0.0.1:%d/metrics", g.AdminPort)
	before := readMetrics(t, admin)
	// Other tests of this process have counted too.
	expect := func(when string, want series) {
		t.Helper()
		for name, n := range want {
			var got float64
			gateway.Eventually(t, 10*time.Second, when+": "+name, func() bool {
				got = readMetrics(t, admin)[name] - before[name]
				return got >= n
			})
			if got != n {
				t.Errorf("%s: %s grew by %v, want %v", when, name, got, n)
			}
		}
	}
	client := g.Client(0)
	ev := openEvents(t, client, g.URL("/observed"))
	publish := func(n int) {
		for i := range n {
			if err := post(client, g.URL("/observed"), fmt.Sprint("12345", i)); err != nil {
				t.Fatal(err)
			}
			ev.MustMessage(t)
		}
	}
	posts, stream := `{api="observed",entrypoint="http_post"}`, `{api="observed",entrypoint="sse"}`
	stored := `messages_published_total{api="observed",entrypoint="http_post",outcome="stored"}`
	publish(3)
	expect("after three messages", series{
		"messages_received_total" + posts: 3, "received_bytes_total" + posts: 18, stored: 3,
		"messages_sent_total" + stream: 3, "sessions" + stream: 1, "sessions" + posts: 0,
	})
	if sent := readMetrics(t, admin)["sent_bytes_total"+stream] - before["sent_bytes_total"+stream]; sent < 18 {
		t.Errorf("%v bytes were sent", sent)
	}
	if err := g.Load("metrics", config(1)); err != nil {
		t.Fatal(err)
	}
	expect("after a reload", series{"messages_received_total" + posts: 3, "messages_sent_total" + stream: 3, "sessions" + stream: 1})
	publish(2)
	expect("after two more", series{
		"messages_received_total" + posts: 5, stored: 5, "messages_sent_total" + stream: 5, "sessions" + stream: 1,
	})
	// What a site shows with Caddy's own handler is the same.
	if onSite := readMetrics(t, g.URL("/metrics")); onSite["messages_sent_total"+stream]-before["messages_sent_total"+stream] != 5 {
		t.Errorf("on the site: %v", onSite)
	}
	endSession(t, g, "observed", "sse")
	expect("after the end", series{`sessions_ended_total{api="observed",entrypoint="sse",reason="operator"}`: 1})
	gateway.Eventually(t, 10*time.Second, "no open session", func() bool {
		return readMetrics(t, admin)["sessions"+stream] == before["sessions"+stream]
	})
}

// endSession ends the only session of an API's entrypoint through the admin endpoint.
func endSession(t *testing.T, g *gateway.Gateway, id, entrypoint string) (session uint64) {
	t.Helper()
	var rows []struct {
		ID         uint64
		Entrypoint string
	}
	g.AdminList("/message_api/sessions?api="+id, &rows)
	for _, row := range rows {
		if row.Entrypoint == entrypoint {
			session = row.ID
		}
	}
	if status := g.Admin("DELETE", fmt.Sprint("/message_api/sessions/", session), nil); status != http.StatusNoContent {
		t.Fatalf("ending session %d of %+v: %d", session, rows, status)
	}
	return session
}

// logLine waits for the line of a JSON log that is meant.
func logLine(t *testing.T, file string, meant func(map[string]any) bool) (line map[string]any) {
	t.Helper()
	gateway.Eventually(t, 10*time.Second, "the line in "+filepath.Base(file), func() bool {
		raw, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		for text := range bytes.Lines(raw) {
			line = make(map[string]any)
			if json.Unmarshal(text, &line) == nil && meant(line) {
				return true
			}
		}
		return false
	})
	return line
}

func checkFields(t *testing.T, line map[string]any, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if fmt.Sprint(line[name]) != fmt.Sprint(value) {
			t.Errorf("%s is %v, want %v, in %v", name, line[name], value, line)
		}
	}
}

// The access log says what an exchange was; requests of other handlers are as ever.
func TestObserveAccessLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "access.log")
	accessLog := "log {\noutput file " + file + " {\nroll_disabled\n}\nformat json\n}"
	g := gateway.Start(t, "", site(accessLog, api("/observed", playground), "respond /free 418"))
	client := g.Client(0)
	ev := gateway.OpenEvents(t, client, g.URL("/observed"), "X-Gravitee-Request-Id", "the-stream", "X-Gravitee-Client-Identifier", "job")
	for range 2 {
		gateway.Do(t, client, "POST", g.URL("/observed"), "x", "X-Gravitee-Request-Id", "the-post", "X-Gravitee-Transaction-Id", "t1")
		ev.MustMessage(t)
	}
	gateway.Do(t, client, "GET", g.URL("/free"), "")
	endSession(t, g, "observed", "sse")
	by := func(id string) func(map[string]any) bool {
		return func(line map[string]any) bool { return line["request_id"] == id }
	}
	post := logLine(t, file, by("the-post"))
	checkFields(t, post, map[string]any{
		"message_api": "observed", "message_api_entrypoint": "http_post", "message_api_plan": "keyless", "transaction_id": "t1",
		"messages_received": 1, "messages_sent": 0, "status": 202, "end_reason": nil,
	})
	stream := logLine(t, file, by("the-stream"))
	checkFields(t, stream, map[string]any{
		"message_api": "observed", "message_api_entrypoint": "sse", "messages_sent": 2, "messages_received": 0,
		"end_reason": "operator", "status": 200,
	})
	if id := fmt.Sprint(stream["client_identifier"]); !strings.HasSuffix(id, "-job") || strings.TrimSuffix(id, "-job") != post["client_identifier"] {
		t.Errorf("client identifiers %v and %v", stream["client_identifier"], post["client_identifier"])
	}
	if stream["message_api_session"] == post["message_api_session"] || stream["message_api_session"] == nil {
		t.Errorf("sessions %v and %v", stream["message_api_session"], post["message_api_session"])
	}
	free := logLine(t, file, func(line map[string]any) bool { return fmt.Sprint(line["status"]) == "418" })
	if _, there := free["message_api"]; there {
		t.Errorf("a request of another handler: %v", free)
	}
}

// Every stream leaves one line when it is over, which says why and what it came to.
func TestObserveSessionEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "caddy.log")
	g := gateway.Start(t, "log watched {\noutput file "+file+" {\nroll_disabled\n}\nformat json\n}", site(api("/observed", playground)))
	client := g.Client(0)
	ev := gateway.OpenEvents(t, client, g.URL("/observed"), "X-Gravitee-Request-Id", "ended-by-operator")
	gateway.Do(t, client, "POST", g.URL("/observed"), "12345")
	ev.MustMessage(t)
	session := endSession(t, g, "observed", "sse")
	ended := func(id string) func(map[string]any) bool {
		return func(line map[string]any) bool { return line["msg"] == "session ended" && line["request_id"] == id }
	}
	line := logLine(t, file, ended("ended-by-operator"))
	checkFields(t, line, map[string]any{
		"level": "info", "api": "observed", "plan": "keyless", "session": session, "reason": "operator", "sent": 1, "received": 0,
		"client": ev.Answer.Header.Get("X-Gravitee-Client-Identifier"),
	})
	if bytes, _ := line["sent_bytes"].(float64); bytes < 5 || line["duration"] == nil {
		t.Errorf("%v", line)
	}
	if logger := fmt.Sprint(line["logger"]); !strings.HasSuffix(logger, ".message_api.sse") {
		t.Errorf("the logger is %s", logger)
	}
	// A client that hangs up is a reason like any other.
	gone := gateway.OpenEvents(t, client, g.URL("/observed"), "X-Gravitee-Request-Id", "hung-up")
	gone.Close()
	checkFields(t, logLine(t, file, ended("hung-up")), map[string]any{"reason": "client", "sent": 0})
}

// spanCollector receives spans as OTLP over HTTP.
type spanCollector struct {
	t *testing.T

	mu    sync.Mutex
	spans []*trace.Span
}

func (c *spanCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			c.t.Errorf("%v", err)
			return
		}
		body = unzipped
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		c.t.Errorf("%v", err)
		return
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &request); err != nil {
		c.t.Errorf("%s: %v", r.URL, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// named waits for the span of a name.
func (c *spanCollector) named(name string) (span *trace.Span) {
	c.t.Helper()
	gateway.Eventually(c.t, 15*time.Second, "span "+name, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.spans {
			if s.Name == name {
				span = s
			}
		}
		return span != nil
	})
	return span
}

func attributesOf(list []*common.KeyValue) map[string]string {
	m := make(map[string]string)
	for _, kv := range list {
		m[kv.Key] = kv.Value.GetStringValue()
	}
	return m
}

// Under Caddy's tracing every exchange is a span of its own, below Caddy's, with the ids.
func TestObserveTracing(t *testing.T) {
	c := &spanCollector{t: t}
	server := httptest.NewServer(c)
	defer server.Close()
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": server.URL,
		"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_TRACES_SAMPLER": "always_on",
	} {
		t.Setenv(name, value)
	}
	t.Run("gateway", func(t *testing.T) { // which is stopped before the collector
		g := gateway.Start(t, "", site("tracing {\nspan caddy-site\n}", api("/observed", playground)))
		client := g.Client(0)
		const traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
		ev := gateway.OpenEvents(t, client, g.URL("/observed"), "X-Gravitee-Request-Id", "traced",
			"traceparent", "00-"+traceID+"-00f067aa0ba902b7-01")
		gateway.Do(t, client, "POST", g.URL("/observed"), "x")
		ev.MustMessage(t)
		endSession(t, g, "observed", "sse")

		post, stream := c.named("message_api http_post"), c.named("message_api sse")
		for _, span := range []*trace.Span{post, stream} {
			attrs := attributesOf(span.Attributes)
			if attrs["message_api.id"] != "observed" || attrs["message_api.plan"] != "keyless" || len(attrs["messaging.client.id"]) != 64 {
				t.Errorf("%s has %v", span.Name, attrs)
			}
			if len(span.ParentSpanId) == 0 || span.Status.GetCode() == trace.Status_STATUS_CODE_ERROR {
				t.Errorf("%s: parent %x, status %v", span.Name, span.ParentSpanId, span.Status)
			}
		}
		if attrs := attributesOf(stream.Attributes); attrs["message_api.request_id"] != "traced" || attrs["message_api.end_reason"] != "operator" {
			t.Errorf("the stream's span has %v", attrs)
		}
		// The client's trace goes on through Caddy's span to ours.
		if got := fmt.Sprintf("%x", stream.TraceId); got != traceID {
			t.Errorf("the stream is in trace %s", got)
		}
		gateway.Eventually(t, 15*time.Second, "Caddy's span above", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, s := range c.spans {
				if bytes.Equal(s.SpanId, stream.ParentSpanId) {
					return s.Name == "caddy-site" && fmt.Sprintf("%x", s.ParentSpanId) == "00f067aa0ba902b7"
				}
			}
			return false
		})
	})
}
