package webhooks

import (
	"context"
	"encoding/base64"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/test/webhooks/ledger"
	"github.com/caddy-message-api/caddy-message-api/test/webhooks/receiver"
)

// flow is one subscription with its messages, from the broker to the receiver.
type flow struct {
	name string
	// subscription and api are ids, the first of which may be known only when the gateway runs.
	subscription, api string
	ordered           bool
	rates             receiver.Rates
	concurrency       int
	plan              []ledger.Message
	source, dead      interface {
		produce(context.Context, *ledger.Ledger, int) error
		letters(context.Context, *ledger.Ledger) error
	}
	// again is how much may be delivered once more after something has broken.
	again int
	// left is how many messages are not settled when everything is over.
	left func(*testing.T) int64
	// position checks that of a dead letter.
	position func(ledger.Message, string) error

	books    *ledger.Ledger
	receiver *receiver.Receiver
	revision int
}

const (
	// attempts is how often a message is tried, timeout how long one may take. What is held is
	// held for longer.
	attempts = 8
	timeout  = "1s"
	held     = 10 * time.Second
	// mostAhead is how many messages may be produced of which nothing is known yet.
	mostAhead = 2000
)

// hookSecret signs what the receiver gets.
var hookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret of thirty-two characters"))

func number(m ledger.Message) string { return strconv.Itoa(m.N) }

// open starts the receiver.
func (f *flow) open(t *testing.T) {
	t.Helper()
	f.books = ledger.New(f.plan)
	var err error
	f.receiver, err = receiver.Start(receiver.Options{
		Ledger: f.books, Secret: hookSecret, Rates: f.rates, Seed: 6, Hold: held, Kept: "X-History", Value: number,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.receiver.Close(); err != nil {
			t.Errorf("%s: closing the receiver: %v", f.name, err)
		}
	})
}

// run produces and reads dead letters until stop is called, which returns when both are over.
func (f *flow) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.source.produce(ctx, f.books, mostAhead); err != nil && ctx.Err() == nil {
			t.Errorf("%s: producing: %v", f.name, err)
		}
	})
	wg.Go(func() {
		if err := f.dead.letters(ctx, f.books); err != nil && ctx.Err() == nil {
			t.Errorf("%s: reading dead letters: %v", f.name, err)
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
}

// over says that of every message is known what became of it.
func (f *flow) over() bool {
	n, _ := f.books.Accounted()
	return n == len(f.plan)
}

// report prints and asserts the counts of a run that was interrupted so often, and stopped so often
// because dead letters could not be stored. Whoever is interrupted before the dead letter of a
// message is confirmed tries it once more, and who has it retried begins its attempts anew.
func (f *flow) report(t *testing.T, interruptions, stops int) {
	t.Helper()
	sums := f.books.Check(ledger.Rules{
		Subscription: f.subscription, API: f.api, Ordered: f.ordered, Attempts: attempts, Most: attempts*(1+stops) + interruptions, Position: f.position,
		Kept: map[string]func(ledger.Message) string{keptHeader: number},
	})
	t.Logf("%s: %s", f.name, sums)
	t.Logf("%s: the receiver did: %s; at most %d at once", f.name, f.receiver.Failures(), f.receiver.MostAtOnce())
	words, wrong := f.books.Flaws()
	for _, flaw := range words {
		t.Errorf("%s: %s", f.name, flaw)
	}
	if wrong > len(words) {
		t.Errorf("%s: and %d more", f.name, wrong-len(words))
	}
	// Or a gateway that buries everything would be a good one.
	if sums.Spoilt > len(f.plan)/100 {
		t.Errorf("%s: %d of %d messages died that another attempt would have saved", f.name, sums.Spoilt, len(f.plan))
	}
	if most := interruptions*f.again + len(f.plan)/20; sums.Repeated > most { // the latter for half responses
		t.Errorf("%s: %d messages were delivered again in %d interruptions; more than %d must not be", f.name, sums.Repeated, interruptions, most)
	}
	if most := f.receiver.MostAtOnce(); most > 2*f.concurrency { // a node that was killed leaves requests behind
		t.Errorf("%s: %d requests at once, with a concurrency of %d", f.name, most, f.concurrency)
	}
}

// inBatches hands out the plan in batches, as far ahead of what is known as is allowed.
func inBatches(ctx context.Context, l *ledger.Ledger, ahead int, do func([]ledger.Message) error) error {
	const size = 100
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for plan := l.Plan(); len(plan) > 0; {
		batch := plan[:min(size, len(plan))]
		for l.Ahead()+len(batch) > ahead {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for _, m := range batch {
			l.Producing(m)
		}
		if err := do(batch); err != nil {
			return err
		}
		plan = plan[len(batch):]
	}
	return nil
}
