package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/brokers"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

// A thousand SSE and a thousand WebSocket clients at `none` cost the broker as many
// connections as one does.
func TestBroadcastCostsOneReader(t *testing.T) {
	if brokers.WithoutKafka() {
		t.Skip("NOT RUN on Apache Kafka: MESSAGE_API_NO_KAFKA=1")
	}
	each := 1000
	if testing.Short() {
		each = 50
	}
	server := brokers.Kafka(t)
	proxy := server.Proxied()
	topic := brokers.Topic(t, server.Addr(), 6)
	g := gateway.Start(t, "", site(kafkaAPI(proxy.Addr(), topic, "qos none")))
	first := gateway.OpenEvents(t, g.Client(0), g.URL("/k"))
	one := proxy.Connections()
	client := g.Client(0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := 0
	open := make(chan struct{}, 50) // so many at a time
	for i := range 2 * each {
		open <- struct{}{}
		wg.Go(func() {
			var read func() (string, error)
			if i%2 == 0 {
				ev, err := gateway.TryEvents(client, g.URL("/k"))
				<-open
				if err != nil {
					t.Errorf("SSE %d: %v", i, err)
					return
				}
				defer ev.Close()
				read = func() (string, error) { e, err := ev.Message(); return e.Data, err }
			} else {
				ws, _, err := gateway.TrySocket(g, g.URL("/k"), nil)
				<-open
				if err != nil {
					t.Errorf("WebSocket %d: %v", i, err)
					return
				}
				defer ws.Close()
				read = func() (string, error) { _, p, err := ws.ReadMessage(); return string(p), err }
			}
			mu.Lock()
			got++
			mu.Unlock()
			for want := range 100 {
				if text, err := read(); err != nil || text != strconv.Itoa(want) {
					t.Errorf("client %d got %q, %v instead of %d", i, text, err, want)
					return
				}
			}
		})
	}
	gateway.Eventually(t, 60*time.Second, "all clients", func() bool { mu.Lock(); defer mu.Unlock(); return got == 2*each })
	all := proxy.Connections()
	t.Logf("connections to the broker: %d for one client, %d for %d", one, all, 2*each+1)
	if all > one+1 || all > 8 {
		t.Errorf("%d clients cost %d connections, one costs %d", 2*each+1, all, one)
	}
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "k:%d\n", i) // one key, so one order
	}
	brokers.KcatProduce(t, server.Addr(), topic, []byte(b.String()), "-K:")
	wg.Wait()
	first.Close()
}

// Clients that stop reading while ten thousand messages a second flow cost no more than
// the log and 64 KiB each, are told or cut, and the others notice nothing.
func TestClientsThatStopReading(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time, which needs the machine to itself")
	}
	const phase, stalled = 10 * time.Second, 100
	const logSize = 4 << 20
	p := gateway.Run(t, "", site(api("/p", `
		log_size 4MiB
		entrypoint sse {
			qos none
			metadata_as_comment
		}
		endpoint mock {
			message_interval 100us
			message_content `+strings.Repeat("x", 200)+`
		}
		plan keyless`)))
	healthy := make([]*latencies, 5)
	for i := range healthy {
		healthy[i] = watchLatency(t, p)
	}
	gateway.Eventually(t, 20*time.Second, "the stream to settle", func() bool { return healthy[0].count() > 20_000 })
	// What the machine does beside is in every measurement: the best of three counts.
	var alone, among time.Duration
	for range 3 {
		alone, among = besideStalled(t, p, healthy, phase, stalled, logSize)
		// Timestamps are in milliseconds, so that is how exact the comparison can be.
		if among <= alone*12/10+2*time.Millisecond {
			return
		}
	}
	t.Errorf("p99 of healthy clients went from %s to %s, and twice before too", alone, among)
}

// besideStalled measures the healthy clients alone, and beside some that stop reading.
func besideStalled(t *testing.T, p *gateway.Process, healthy []*latencies, phase time.Duration, stalled, logSize int) (alone, among time.Duration) {
	t.Helper()
	alone = measure(healthy, phase)
	before := rss(t, p.PID())
	var conns []net.Conn
	for range stalled {
		conns = append(conns, openStalled(t, p.Port))
	}
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	time.Sleep(phase / 5) // their buffers fill
	among = measure(healthy, phase)
	after := rss(t, p.PID())
	bound := int64(logSize + stalled*64<<10)
	t.Logf("p99 %s alone, %s beside %d stalled clients; memory grew by %d KiB, bound %d KiB",
		alone, among, stalled, (after-before)>>10, bound>>10)
	if after-before > bound {
		t.Errorf("memory grew by %d KiB, more than %d KiB", (after-before)>>10, bound>>10)
	}
	return alone, among
}

// A client that was slow for a while is told of a gap when it reads on, or is ended where
// the API says so.
func TestSlowClientIsTold(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until a socket is full")
	}
	for policy, want := range map[string]string{"gap": `event: gap`, "close": `event: goaway`} {
		t.Run(policy, func(t *testing.T) {
			g := gateway.Start(t, "", site(api("/p", `
				log_size 64KiB
				slow_client `+policy+`
				entrypoint sse {
					qos none
				}
				endpoint mock {
					message_interval 50us
					message_content `+strings.Repeat("x", 1000)+`
				}
				plan keyless`)))
			conn := openStalled(t, g.Port)
			defer conn.Close()
			time.Sleep(4 * time.Second) // the kernel's buffers and the log overflow, the write deadline does not
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				if strings.HasPrefix(lines.Text(), "event: ") && lines.Text() != "event: message" {
					break
				}
			}
			if lines.Text() != want {
				t.Fatalf("got %q, %v", lines.Text(), lines.Err())
			}
			if lines.Scan(); !strings.Contains(lines.Text(), `"slow_client"`) {
				t.Errorf("got %q", lines.Text())
			}
		})
	}
}

// latencies are what one healthy client measures.
type latencies struct {
	mu   sync.Mutex
	seen int
	list []time.Duration
}

func watchLatency(t *testing.T, p *gateway.Process) *latencies {
	t.Helper()
	l := new(latencies)
	ev := gateway.OpenEvents(t, plainClient(t), p.URL("/p"))
	go func() {
		for {
			e, err := ev.Message()
			if err != nil {
				return
			}
			for _, c := range e.Comments {
				text, ok := strings.CutPrefix(c, "sourceTimestamp: ")
				if ms, err := strconv.ParseInt(text, 10, 64); ok && err == nil {
					l.mu.Lock()
					l.seen++
					l.list = append(l.list, time.Since(time.UnixMilli(ms)))
					l.mu.Unlock()
				}
			}
		}
	}()
	return l
}

func (l *latencies) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// measure returns the p99 of all clients over a while.
func measure(all []*latencies, d time.Duration) time.Duration {
	for _, l := range all {
		l.mu.Lock()
		l.list = l.list[:0]
		l.mu.Unlock()
	}
	time.Sleep(d) // the measurement
	var list []time.Duration
	for _, l := range all {
		l.mu.Lock()
		list = append(list, l.list...)
		l.mu.Unlock()
	}
	slices.Sort(list)
	if len(list) == 0 {
		return 0
	}
	return list[len(list)*99/100]
}

// rss is the resident memory of a process, in bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
