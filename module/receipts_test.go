package module

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints/endpointtest"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// lender is a unit whose endpoint only lends, and the sessions of its client.
type lender struct {
	t    *testing.T
	fake *endpointtest.Fake
	unit *unit
	wait time.Duration
}

func newLender(t *testing.T) *lender {
	caps := endpointtest.FakeCapabilities
	caps.Positions, caps.Copy = false, false
	fake := endpointtest.NewFake(caps)
	l := &lender{t: t, fake: fake, unit: testUnit(unique("lender")), wait: time.Hour}
	t.Cleanup(l.unit.receipts.close)
	return l
}

// payload is an Encoder that writes nothing but contents.
type payload struct{}

func (payload) Format() string    { return "payload" }
func (payload) WantsCursor() bool { return false }
func (payload) Append(dst []byte, d *message.Delivery, _ []byte) []byte {
	return append(append(dst, d.Payload...), ' ')
}

// get is a request of the client: what it was given, and the receipt for it. Its answer is
// written unless cut.
func (l *lender) get(client, cursor string, n int, cut bool) (got []string, receipt string, err error) {
	l.t.Helper()
	needs := entrypoints.Needs{
		Type: "http_get", Subscribe: true, QoS: message.AtLeastOnce, Levels: message.Levels[:], Resume: true, Acks: true,
	}
	s := testSession(l.t, l.unit, &way{needs: needs, sub: fakeEndpoint("fake", l.fake)}, plans.Principal{API: "lender"})
	defer s.close(nil)
	s.identity.Client = client
	wake := make(chan struct{}, 1)
	feed, err := s.Subscribe(l.t.Context(), entrypoints.Want{
		Cursor: cursor, Resuming: cursor != "", Encoder: payload{}, Brief: true, Limit: 100, AckWait: l.wait,
		Wake: func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err := feed.Close(l.t.Context()); err != nil {
			l.t.Error(err)
		}
	}()
	for len(got) < n {
		burst, err := feed.Poll(n - len(got))
		if err != nil {
			l.t.Fatal(err)
		}
		if burst.Gap != nil {
			l.t.Fatalf("a gap: %+v", burst.Gap)
		}
		for _, f := range burst.Frames {
			got = append(got, strings.Fields(string(f))...)
		}
		if burst.Empty() {
			receive(l.t, wake, fmt.Sprintf("%d messages, after %v", n, got))
		}
	}
	receipt = string(feed.Cursor(nil))
	if !cut {
		if err := feed.Written(l.t.Context()); err != nil {
			l.t.Fatal(err)
		}
	}
	return got, receipt, nil
}

func (l *lender) want(client, cursor string, want ...string) (receipt string) {
	l.t.Helper()
	got, receipt, err := l.get(client, cursor, len(want), false)
	if err != nil {
		l.t.Fatal(err)
	}
	slices.Sort(got) // the fake has partitions
	if !slices.Equal(got, want) {
		l.t.Errorf("got %v, want %v", got, want)
	}
	return receipt
}

func (l *lender) produce(payloads ...string) {
	for _, p := range payloads {
		l.fake.Produce(&message.Message{Payload: []byte(p)})
	}
}

func (l *lender) kept() (total, counted int) {
	rs := l.unit.receipts
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return len(rs.kept), rs.total
}

func TestReceiptConfirms(t *testing.T) {
	l := newLender(t)
	l.fake.From = message.StartEarliest
	l.produce("a", "b", "c")
	first := l.want("alice", "", "a", "b", "c")
	if !isReceipt(first) {
		t.Fatalf("%q is no receipt", first)
	}
	l.produce("d")
	second := l.want("alice", first, "d")
	if second == first {
		t.Error("a receipt was given twice")
	}
	l.produce("e")
	third := l.want("alice", second, "e")
	l.want("alice", third) // nothing more, and nothing to confirm
	if kept, counted := l.kept(); kept != 0 || counted != 0 {
		t.Errorf("%d receipts are kept, %d counted", kept, counted)
	}
}

func TestWhatIsNotConfirmedComesAgain(t *testing.T) {
	l := newLender(t)
	l.fake.From = message.StartEarliest
	l.wait = 20 * time.Millisecond
	l.produce("a", "b")
	receipt := l.want("alice", "", "a", "b")
	l.want("alice", "", "a", "b") // waits for as long as they are lent
	l.wait = time.Hour
	// Its time is over, and so it confirms nothing; that is neither an error nor a gap.
	eventually(t, "the second is given back", func() bool { kept, _ := l.kept(); return kept == 0 })
	receipt = l.want("alice", receipt, "a", "b")
	l.produce("c")
	l.want("alice", receipt, "c")
}

func TestAnAnswerThatWasNotWrittenIsGivenBackAtOnce(t *testing.T) {
	l := newLender(t)
	l.fake.From = message.StartEarliest
	l.produce("a")
	if _, _, err := l.get("alice", "", 1, true); err != nil {
		t.Fatal(err)
	}
	l.want("alice", "", "a")
}

func TestAReceiptIsNobodyElses(t *testing.T) {
	l := newLender(t)
	l.fake.From = message.StartEarliest
	l.produce("a")
	receipt := l.want("alice", "", "a")
	for _, foreign := range []string{receipt, "r.", "r.AAAAAAAAAAAAAAAAAAAAAA", receiptPrefix + strings.Repeat("x", 100_000)} {
		if _, _, err := l.get("mallory", foreign, 0, false); err != nil {
			t.Errorf("%.30s: %v", foreign, err)
		}
	}
	if kept, _ := l.kept(); kept != 1 {
		t.Error("somebody else's request confirmed it")
	}
	l.want("alice", receipt)
}

func TestReceiptsAreBounded(t *testing.T) {
	l := newLender(t)
	l.fake.From = message.StartEarliest
	var last string
	for i := range maxReceiptsPerClient {
		p := fmt.Sprintf("m%02d", i)
		l.produce(p)
		last = l.want("alice", "", p)
	}
	_, _, err := l.get("alice", "", 0, false)
	if message.KindOf(err) != message.Busy {
		t.Fatalf("over the bound: %v", err)
	}
	l.want("bob", "") // others are not concerned
	l.produce("next")
	l.want("alice", last, "next")
}

func TestClosingGivesEverythingBack(t *testing.T) {
	l := newLender(t)
	l.fake.From = message.StartEarliest
	l.produce("a")
	receipt := l.want("alice", "", "a")
	l.unit.receipts.close()
	// Also what would be kept afterwards.
	l.want("alice", receipt, "a")
	l.want("alice", receipt, "a")
	if kept, counted := l.kept(); kept != 0 || counted != 0 {
		t.Errorf("%d receipts are kept, %d counted", kept, counted)
	}
}

// What was fetched for a response and did not go into it is not kept with it.
func TestWhatWasNotGivenGoesToOthers(t *testing.T) {
	l := newLender(t)
	l.fake.From = message.StartEarliest
	for _, p := range []string{"a", "b", "c", "d", "e"} {
		l.fake.Produce(&message.Message{Key: []byte("one lane"), Payload: []byte(p)})
	}
	receipt := l.want("alice", "", "a", "b")
	l.want("alice", "", "c", "d", "e")
	l.want("alice", receipt)
	if kept, _ := l.kept(); kept != 1 {
		t.Errorf("%d receipts are kept, want that of the second response", kept)
	}
}

// A client that has its response can present the receipt before the session that gave it
// is over.
func TestAReceiptCanBePresentedAtOnce(t *testing.T) {
	l := newLender(t)
	rs := l.unit.receipts
	h := holder{client: "alice"}
	held := make(chan struct{})
	f := &slowToHold{settled: make(chan int, 1), hold: held}
	if err := rs.reserve(h, time.Hour); err != nil {
		t.Fatal(err)
	}
	lent := rs.lend(f, h, time.Hour)
	if _, err := lent.Poll(0); err != nil {
		t.Fatal(err)
	}
	receipt := string(lent.Cursor(nil))
	if err := lent.Written(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := lent.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { rs.redeem(t.Context(), receipt, h) })
	select {
	case <-f.settled:
		t.Error("it was settled while its session was still in the feed")
	case <-time.After(20 * time.Millisecond):
	}
	close(held)
	if n := receive(t, f.settled, "the settlement"); n != 2 {
		t.Errorf("%d messages were settled", n)
	}
	wg.Wait()
}

// slowToHold is a feed of two messages.
type slowToHold struct {
	hold    chan struct{}
	settled chan int
}

func (f *slowToHold) Poll(int) (entrypoints.Burst, error) {
	return entrypoints.Burst{Messages: 2, First: 1}, nil
}
func (f *slowToHold) Written(context.Context) error { return nil }
func (f *slowToHold) Cursor(dst []byte) []byte      { return dst }
func (f *slowToHold) Close(context.Context) error   { return nil }
func (f *slowToHold) Hold(context.Context) error {
	<-f.hold
	return nil
}

func (f *slowToHold) Settle(_ context.Context, _ message.Settlement, seqs ...uint64) error {
	f.settled <- len(seqs)
	return nil
}

// Presenting a receipt, its expiry and the end of the API can coincide.
func TestReceiptsRace(t *testing.T) {
	for range 50 {
		l := newLender(t)
		l.fake.From = message.StartEarliest
		l.wait = time.Millisecond
		l.produce("a", "b")
		receipt := l.want("alice", "", "a", "b")
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { l.unit.receipts.redeem(t.Context(), receipt, holder{}) })
		}
		wg.Go(l.unit.receipts.close)
		wg.Wait()
		eventually(t, "nothing is left", func() bool { kept, counted := l.kept(); return kept == 0 && counted == 0 })
	}
}
