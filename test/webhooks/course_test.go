package webhooks

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/test/gateway"
)

func TestMain(m *testing.M) { gateway.Main(m) }

// soak says that the long runs are wanted.
var soak = os.Getenv("MESSAGE_API_SOAK") == "1"

// course is one run: two nodes, the flows through them, and what breaks meanwhile.
type course struct {
	*testing.T
	flows []*flow
	// site is the Caddyfile without the global options.
	site func() string
	// change gives a flow another consumer configuration, without a reload. Nil: it stands in
	// the site, which looks at the flow's revision.
	change func(*course, *flow)
	broker interface {
		Kill()
		Stop()
		Restart()
	}
	faults []fault

	nodes     [2]*node
	unrelated int // changes that concern nobody
	kills     int
	taken     []time.Duration // how long each take-over took

	mu       sync.Mutex
	failures map[string]int // cause → how often somebody had to have it retried
}

// run starts the nodes, breaks things, and counts. prepare is done when the nodes run.
func (c *course) run(prepare func()) {
	c.Helper()
	began := time.Now()
	storage := "file_system " + c.TempDir()
	for i := range c.nodes {
		c.nodes[i] = startNode(c.T, string(rune('A'+i)), storage, c.site())
	}
	c.Cleanup(c.explain)
	if prepare != nil {
		prepare()
	}
	var stops []func()
	for _, f := range c.flows {
		stops = append(stops, f.run(c.T))
		defer stops[len(stops)-1]()
	}
	stopRetrying := c.operate()
	defer stopRetrying()
	c.breakThings(began)
	for _, f := range c.flows {
		c.await(2*time.Minute, f.name+": an end", f.over)
	}
	c.Logf("%s: everything is taken or dead", since(began))
	for _, f := range c.flows {
		c.awaitSettled(f)
	}
	stopRetrying()
	for _, n := range c.nodes {
		c.Logf("%s ended within %s", n.name, n.Terminate(20*time.Second).Round(time.Millisecond))
	}
	for _, f := range c.flows {
		if left := f.left(c.T); left != 0 {
			c.Errorf("%s: %d messages are not settled, although they were taken or are dead", f.name, left)
		}
	}
	for _, stop := range stops {
		stop()
	}
	c.report(began)
}

// explain tells how it stands with everything when the test has failed.
func (c *course) explain() {
	if !c.Failed() {
		return
	}
	for _, f := range c.flows {
		n, last := f.books.Accounted()
		c.Logf("%s: %d of %d messages are accounted for, the last %s ago; %d are under way; the receiver did: %s",
			f.name, n, len(f.plan), since(last), f.books.Ahead(), f.receiver.Failures())
		for _, n := range c.nodes {
			var d json.RawMessage
			err := n.try(http.MethodGet, "/subscriptions/"+f.subscription+"/delivery", nil, &d)
			c.Logf("%s says of %s: %.3000s %v", n.name, f.subscription, d, err)
		}
	}
}

func since(began time.Time) string { return time.Since(began).Round(time.Millisecond).String() }

// awaitSettled waits until the broker knows that everything is over. What comes again of a message
// that waits for its next attempt may take as long as those do.
func (c *course) awaitSettled(f *flow) {
	for deadline := time.Now().Add(30 * time.Second); f.left(c.T) > 0 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
}

// breakThings spreads the faults over the run.
func (c *course) breakThings(began time.Time) {
	total := 0
	for _, f := range c.flows {
		total += len(f.plan)
	}
	for i, fault := range c.faults {
		mark := total * (i + 1) / (len(c.faults) + 2)
		c.await(2*time.Minute, fmt.Sprintf("%d messages, for the %s", mark, fault.name), func() bool { return c.accounted() >= mark })
		f := c.flows[i%len(c.flows)]
		broken, before := time.Now(), c.repeated()
		fault.do(c, f)
		c.goesOn(broken)
		c.Logf("%s: %s, at message %d: went on after %s, and repeated %d", since(began), fault.name, mark, since(broken), c.repeated()-before)
	}
}

func (c *course) accounted() (sum int) {
	for _, f := range c.flows {
		n, _ := f.books.Accounted()
		sum += n
	}
	return sum
}

func (c *course) repeated() (sum int) {
	for _, f := range c.flows {
		sum += f.books.Repeated()
	}
	return sum
}

// goesOn waits until something comes of every flow after a fault.
func (c *course) goesOn(broken time.Time) {
	c.Helper()
	for _, f := range c.flows {
		c.await(takeOver+patience, f.name+": to go on", func() bool { return f.comes(broken) })
	}
}

func (c *course) await(limit time.Duration, what string, ok func() bool) {
	c.Helper()
	gateway.Eventually(c.T, limit, what, ok)
}

// owner waits until a node says that it works for the flow.
func (c *course) owner(f *flow) (owner *node) {
	c.Helper()
	for deadline := time.Now().Add(2 * takeOver); ; time.Sleep(20 * time.Millisecond) {
		for _, n := range c.nodes {
			if d, err := n.delivery(f.subscription); err == nil && d.Here && (d.State == admin.DeliveryRunning || d.State == admin.DeliveryTrouble) {
				return n
			}
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s: nobody works for it", f.name)
		}
	}
}

// other is the node that n is not.
func (c *course) other(n *node) *node {
	if n == c.nodes[0] {
		return c.nodes[1]
	}
	return c.nodes[0]
}

// operate has what has failed retried, as an operator does, until it is stopped.
func (c *course) operate() (stop func()) {
	c.failures = make(map[string]int)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
				c.retry()
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
}

func (c *course) retry() {
	for _, f := range c.flows {
		for _, n := range c.nodes {
			d, err := n.delivery(f.subscription)
			if err != nil || d.State != admin.DeliveryFailed {
				continue // it does not run, or there is nothing to do
			}
			if err := n.try(http.MethodPost, "/subscriptions/"+f.subscription+"/retry", map[string]string{"reason": "the broker is back"}, nil); err == nil {
				c.mu.Lock()
				c.failures[f.name+": "+d.Cause]++
				c.mu.Unlock()
			}
			break
		}
	}
}

// report prints and asserts the counts.
func (c *course) report(began time.Time) {
	c.Helper()
	stops := 0
	for _, n := range c.failures {
		stops += n
	}
	for _, f := range c.flows {
		f.report(c.T, len(c.faults)+stops, stops)
	}
	for _, cause := range slices.Sorted(maps.Keys(c.failures)) {
		c.Logf("failed and retried by hand, %d times: %s", c.failures[cause], cause)
		if !strings.Contains(cause, "dead") { // only that a dead letter can't be stored stops a worker here
			c.Errorf("it stopped without need: %s", cause)
		}
	}
	slices.Sort(c.taken)
	var longest time.Duration
	if len(c.taken) > 0 {
		longest = c.taken[len(c.taken)-1]
	}
	c.Logf("%d kills, %d take-overs, the longest within %s; all in %s", c.kills, len(c.taken), longest.Round(time.Millisecond), since(began))
	if longest > takeOver {
		c.Errorf("a take-over took %s, and may take %s", longest, takeOver)
	}
}
