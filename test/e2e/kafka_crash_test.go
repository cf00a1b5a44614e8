package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// A POST that was answered 2xx is in the log after `kill -9` of the broker, every time;
// open streams survive it, and go on within ten seconds of the broker's return.
func TestKafkaKilled(t *testing.T) {
	if brokers.WithoutKafka() {
		t.Skip("NOT RUN on Apache Kafka: MESSAGE_API_NO_KAFKA=1")
	}
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	server := brokers.Kafka(t)
	topic := brokers.Topic(t, server.Addr(), 3)
	g := gateway.Start(t, "", site(kafkaAPI(server.Addr(), topic)))
	tally := newTally()
	streams := tally.watch(t, g, 3)
	for round := range rounds {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for caller := range 8 {
			wg.Go(func() { tally.post(g, fmt.Sprintf("r%d-c%d", round, caller), stop) })
		}
		before := tally.confirmed.Load()
		gateway.Eventually(t, 20*time.Second, "confirmed posts", func() bool { return tally.confirmed.Load() > before+500 })
		server.Kill()
		began := time.Now()
		a := gateway.Do(t, g.Client(0), "POST", g.URL("/k"), "while it is down")
		if took := time.Since(began); a.Status < 500 || took > 6*time.Second {
			t.Errorf("POST while the broker is down: %d %s after %s", a.Status, a.Body, took)
		}
		server.Restart()
		accepting := time.Now()
		close(stop)
		wg.Wait()
		mark := fmt.Sprintf("mark-%d", round)
		gateway.Eventually(t, 10*time.Second, "a POST after the restart", func() bool {
			return gateway.Do(t, g.Client(0), "POST", g.URL("/k"), mark).Status == 202
		})
		gateway.Eventually(t, 20*time.Second, "the mark on every stream", func() bool { return tally.sawOn(mark) == len(streams) })
		if took := time.Since(accepting); took > 10*time.Second {
			t.Errorf("round %d: the first record came %s after the broker accepted connections", round, took)
		} else {
			t.Logf("round %d: first record on all streams %s after the broker accepted connections", round, took)
		}
	}
	tally.compare(t, server.Addr(), topic)
}

// tally is what was posted with which outcome, and what the streams saw.
type tally struct {
	confirmed atomic.Int64

	mu      sync.Mutex
	posted  map[string]int // status by body
	seen    []map[string]int
	strange []string
}

func newTally() *tally { return &tally{posted: make(map[string]int)} }

func (y *tally) post(g *gateway.Gateway, name string, stop chan struct{}) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		body := fmt.Sprintf("%s-%d", name, i)
		a, err := gateway.TryDo(client, "POST", g.URL("/k"), body)
		y.mu.Lock()
		y.posted[body] = a.Status
		if err != nil || a.Status != 202 && a.Status != 503 && a.Status != 504 {
			y.strange = append(y.strange, fmt.Sprint(body, a.Status, a.Body, err))
		}
		y.mu.Unlock()
		if a.Status == 202 {
			y.confirmed.Add(1)
		}
	}
}

// watch opens SSE streams whose clients reconnect like an EventSource.
func (y *tally) watch(t *testing.T, g *gateway.Gateway, n int) []*gateway.Events {
	var streams []*gateway.Events
	for i := range n {
		ev := gateway.OpenEvents(t, g.Client(0), g.URL("/k"))
		streams = append(streams, ev)
		y.seen = append(y.seen, make(map[string]int))
		go func() {
			for {
				e, err := ev.Message()
				if err != nil {
					return
				}
				y.mu.Lock()
				if e.Type != "message" {
					y.strange = append(y.strange, fmt.Sprintf("stream %d: %+v", i, e))
				}
				y.seen[i][e.Data]++
				y.mu.Unlock()
			}
		}()
	}
	return streams
}

func (y *tally) sawOn(body string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := 0
	for _, seen := range y.seen {
		if seen[body] > 0 {
			n++
		}
	}
	return n
}

// compare holds what was confirmed against what kcat finds in the log and what the streams
// saw.
func (y *tally) compare(t *testing.T, addr, topic string) {
	inLog := make(map[string]int)
	for _, r := range brokers.KcatConsume(t, addr, topic) {
		inLog[string(r.Value)]++
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	outcomes := make(map[int]int)
	lost, refusedButThere := 0, 0
	for body, status := range y.posted {
		outcomes[status]++
		if status == 202 && inLog[body] != 1 {
			lost++
		}
		if status == 503 && inLog[body] > 0 {
			refusedButThere++
		}
	}
	t.Logf("outcomes %v; %d records in the log; %d confirmed and not there exactly once; %d refused and yet there",
		outcomes, len(inLog), lost, refusedButThere)
	if lost > 0 || refusedButThere > 0 {
		t.Errorf("outcomes were not what they said")
	}
	for i, seen := range y.seen {
		missing, again := 0, 0
		for body := range inLog {
			switch n := seen[body]; {
			case n == 0:
				missing++
			case n > 1:
				again++
			}
		}
		if missing > 0 || again > 0 {
			t.Errorf("stream %d misses %d records and saw %d again", i, missing, again)
		}
	}
	if len(y.strange) > 0 {
		t.Errorf("strange: %.500s", strings.Join(y.strange, "\n"))
	}
}
