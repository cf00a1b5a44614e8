//go:build linux

package webhooks

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

const (
	// each is how many subscriptions there are of each kind.
	each = 100
	// leastRate and mostLatency are what the healthy keep of what they have by themselves.
	leastRate, mostLatency = 0.95, 1.2
	// It is measured without and with black holes in turn, each time in so many windows of which
	// the best counts: what else the machine does can only make it worse. Then the medians of at
	// least minPairs and at most maxPairs turns are compared.
	window, windows    = 400 * time.Millisecond, 4
	minPairs, maxPairs = 3, 7
)

// TestBlackHoles has 100 subscriptions whose callbacks never answer, half of which don't even take
// connections, beside 100 healthy ones of the same gateway. The healthy have the rate and the
// latency that they have alone. They are of another API, so that they are not begun anew in each turn.
func TestBlackHoles(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN with -short: it takes half a minute")
	}
	h := newHealthy(t)
	silent, closed := newSilent(t), newClosed(t)
	site := func(interval time.Duration, holes bool) string {
		text := pushAPI("healthy", interval, h.url)
		if holes {
			text += pushAPI("holes", time.Millisecond, func(i int) string {
				return "http://" + []string{silent.addr, closed.addr}[i%2] + "/"
			})
		}
		return "http://localhost:PORT {\n" + text + "}\n"
	}
	p := gateway.RunWith(t, gateway.Setup{Admin: true, Plain: true}, globals, site(time.Hour, false))
	measure := func(interval time.Duration, holes bool) figures {
		before := silent.taken.Load()
		p.Reload(globals, site(interval, holes))
		if holes {
			gateway.Eventually(t, 20*time.Second, "the black holes to be called", func() bool { return silent.taken.Load()-before >= each/2 })
		}
		h.awaitAll(t)
		return h.measure()
	}
	compare(t, "rate", func(holes bool) float64 {
		return measure(100*time.Microsecond, holes).rate
	}, func(alone, beside []float64) (float64, bool) {
		ratio := median(beside) / median(alone)
		return ratio, ratio >= leastRate
	})
	compare(t, "p99 in milliseconds", func(holes bool) float64 {
		return measure(100*time.Millisecond, holes).p99.Seconds() * 1e3
	}, func(alone, beside []float64) (float64, bool) {
		ratio := median(beside) / median(alone)
		return ratio, ratio <= mostLatency
	})
	t.Logf("the silent took %d connections, of which the gateway let go of %d", silent.taken.Load(), silent.gone.Load())
}

// pushAPI is an API whose messages are due at an interval, for each of its subscriptions.
func pushAPI(name string, interval time.Duration, url func(i int) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `message_api /%s {
		entrypoint webhook {
			timeout 1s
			connect_timeout 1s
			connections 1000
			retry exponential {
				attempts unlimited
				delay 1s
				max_delay 5s
			}
			cloudevents {
				source /test
				type tick
			}
			allow_http
			allow_networks loopback
		}
		endpoint mock {
			message_interval %s
		}
`, name, interval)
	for i := range each {
		fmt.Fprintf(&b, "subscription s%d {\ncallback %s\n}\n", i, url(i))
	}
	return b.String() + "}\n"
}

// compare measures in turn until it is as wanted, or the last turn is over.
func compare(t *testing.T, what string, measure func(holes bool) float64, judge func(alone, beside []float64) (float64, bool)) {
	t.Helper()
	var alone, beside []float64
	for pair := 1; ; pair++ {
		alone, beside = append(alone, measure(false)), append(beside, measure(true))
		ratio, ok := judge(alone, beside)
		if pair < minPairs || !ok && pair < maxPairs {
			continue
		}
		t.Logf("%s: alone %.3g, beside black holes %.3g: ratio %.3f", what, alone, beside, ratio)
		if !ok {
			t.Errorf("%s: the ratio is %.3f; %g is promised for the rate, and %g for p99", what, ratio, leastRate, mostLatency)
		}
		return
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// healthy is the receiver that answers at once.
type healthy struct {
	addr   string
	counts [each]atomic.Int64

	mu      sync.Mutex
	took    []time.Duration
	strange []string
}

// figures are the best of what is measured in several windows.
type figures struct {
	rate float64 // per second
	p99  time.Duration
}

func newHealthy(t *testing.T) *healthy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &healthy{addr: l.Addr().String()}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		for _, s := range h.strange {
			t.Error(s)
		}
	})
	return h
}

func (h *healthy) url(i int) string { return fmt.Sprintf("http://%s/%d", h.addr, i) }

// ServeHTTP takes a message, and looks how long ago it was due.
func (h *healthy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var i int
	_, err := fmt.Sscanf(r.URL.Path, "/%d", &i)
	due, dueErr := time.Parse(time.RFC3339Nano, r.Header.Get("Ce-Time"))
	h.mu.Lock()
	if err = errors.Join(err, dueErr); err != nil && len(h.strange) < 10 {
		h.strange = append(h.strange, err.Error())
	}
	h.took = append(h.took, time.Since(due))
	h.mu.Unlock()
	h.counts[i].Add(1)
	w.WriteHeader(http.StatusNoContent)
}

// awaitAll waits until every subscription delivers, under the configuration that is in force.
func (h *healthy) awaitAll(t *testing.T) {
	t.Helper()
	var before [each]int64
	for i := range h.counts {
		before[i] = h.counts[i].Load()
	}
	gateway.Eventually(t, 20*time.Second, "all healthy subscriptions to deliver", func() bool {
		for i := range h.counts {
			if h.counts[i].Load() < before[i]+2 {
				return false
			}
		}
		return true
	})
}

// measure returns the best of its windows, after one in which all who have just begun settle down.
func (h *healthy) measure() (best figures) {
	time.Sleep(window)
	for range windows {
		h.mu.Lock()
		h.took = h.took[:0]
		h.mu.Unlock()
		began := time.Now()
		time.Sleep(window)
		h.mu.Lock()
		best.rate = max(best.rate, float64(len(h.took))/time.Since(began).Seconds())
		slices.Sort(h.took)
		if n := len(h.took); n > 0 {
			if p99 := h.took[n*99/100]; best.p99 == 0 || p99 < best.p99 {
				best.p99 = p99
			}
		}
		h.mu.Unlock()
	}
	return best
}

// silent takes connections, and never says a word.
type silent struct {
	addr        string
	taken, gone atomic.Int64
}

func newSilent(t *testing.T) *silent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silent{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.taken.Add(1)
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				_, _ = io.Copy(io.Discard, conn) // until the gateway leaves
				s.gone.Add(1)
				_ = conn.Close()
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return s
}

// closed is an address whose queue of connections is full: whoever comes hears nothing at all.
type closed struct{ addr string }

func newClosed(t *testing.T) *closed {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socket", err))
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(os.NewSyscallError("bind", err))
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(os.NewSyscallError("listen", err))
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(os.NewSyscallError("getsockname", err))
	}
	c := &closed{addr: fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)}
	for range 10 { // two fill it
		conn, err := net.DialTimeout("tcp", c.addr, 300*time.Millisecond)
		if err != nil {
			return c
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("a queue of connections that can't be filled")
	return nil
}
