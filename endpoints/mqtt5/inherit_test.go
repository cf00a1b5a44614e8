package mqtt5

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/test/brokers"
)

// process is the gateway as one process has it: with a registry of its own, and a line
// that can be cut for ever.
type process struct {
	*MQTT5
	line *line
}

func newProcess(t testing.TB, addr, topic string) *process {
	l := &line{}
	return &process{line: l, MQTT5: provision(t, &MQTT5{
		Servers: []string{addr}, Consumer: &Consumer{Topics: []string{topic}},
		SessionExpiry: caddy.Duration(10 * time.Minute), KeepAlive: caddy.Duration(10 * time.Second),
		dial: l.dial, identities: newRegistry(),
	})}
}

// crash ends the process as kill -9 does: the broker hears nothing more.
func (p *process) crash() { p.line.cut() }

func (p *process) member(t testing.TB, window int) message.Stream {
	return subscribe(t, p.MQTT5, message.Subscription{
		Mode: message.Member, QoS: message.AtLeastOnce, Name: "api.client", Window: message.Window{Messages: window, Bytes: 1 << 20},
	})
}

// onBrokers runs a test on a peer, with and without assignments to sessions that are not
// connected, and on Mosquitto.
func onBrokers(t *testing.T, run func(t *testing.T, addr string)) {
	for _, offline := range []bool{false, true} {
		t.Run(fmt.Sprintf("peer/offline %v", offline), func(t *testing.T) {
			p := newPeer(t)
			p.offline = offline
			run(t, p.addr())
		})
	}
	t.Run("mosquitto", func(t *testing.T) { run(t, brokers.SharedMosquitto(t).Plain) })
}

// receive takes what comes until n messages are there.
func receive(t testing.TB, s message.Stream, n int) (all []message.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	for len(all) < n {
		batch, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("%d of %d messages came: %v", len(all), n, err)
		}
		all = append(all, batch.Deliveries...)
	}
	return all
}

func ack(t testing.TB, s message.Stream, deliveries ...message.Delivery) {
	t.Helper()
	if err := s.Settle(context.Background(), message.Ack, deliveries...); err != nil {
		t.Fatal(err)
	}
}

func numbered(from, to int) (messages []*message.Message) {
	for i := from; i < to; i++ {
		messages = append(messages, &message.Message{Payload: fmt.Append(nil, i)})
	}
	return messages
}

// gather receives and acknowledges until all of want have come, and returns how often
// each did.
func gather(t testing.TB, s message.Stream, want map[string]int) map[string]int {
	t.Helper()
	seen := make(map[string]int)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for len(want) > 0 {
		batch, err := s.Receive(ctx)
		if err != nil {
			t.Fatalf("%v did not come: %v", slices.Sorted(maps.Keys(want)), err)
		}
		for _, d := range batch.Deliveries {
			seen[string(d.Payload)]++
			delete(want, string(d.Payload))
		}
		if err := s.Settle(ctx, message.Ack, batch.Deliveries...); err != nil && !errors.Is(err, message.ErrStale) {
			t.Fatal(err)
		}
	}
	return seen
}

func payloads(deliveries ...[]message.Delivery) map[string]int {
	all := make(map[string]int)
	for _, some := range deliveries {
		for _, d := range some {
			all[string(d.Payload)]++
		}
	}
	return all
}

func wants(from, to int) map[string]int {
	all := make(map[string]int)
	for _, m := range numbered(from, to) {
		all[string(m.Payload)]++
	}
	return all
}

// What a stream leaves goes to one that runs beside it, whichever of the two came first.
func TestWhatAStreamLeavesGoesToItsSibling(t *testing.T) {
	for _, leaver := range []int{0, 1} {
		t.Run(fmt.Sprintf("leaver %d", leaver), func(t *testing.T) {
			onBrokers(t, func(t *testing.T, addr string) {
				topic := brokers.UniqueName(t)
				gateway := newProcess(t, addr, topic)
				feed := connectForeign(t, addr, topic, false, nil)
				streams := []message.Stream{gateway.member(t, 100), gateway.member(t, 100)}
				feed.produce(t, topic, numbered(0, 20)...)
				held := []message.Delivery{}
				for _, s := range streams {
					held = append(held, receive(t, s, 10)...)
				}
				closeStream(t, streams[leaver])
				feed.produce(t, topic, numbered(20, 40)...)
				stays := streams[1-leaver]
				// What it held itself it still holds, and is not sent again.
				want := wants(0, 40)
				for _, d := range held {
					if d.Handle.(*incoming).session.stream == stays {
						delete(want, string(d.Payload))
						ack(t, stays, d)
					}
				}
				if seen := gather(t, stays, want); len(seen) > 33 { // some when they began to share
					t.Errorf("the stream that stays received %v", seen)
				}
			})
		})
	}
}

// Streams that ran beside each other leave nothing behind that the next one does not get.
func TestTheNextStreamGetsWhatAllLeft(t *testing.T) {
	onBrokers(t, func(t *testing.T, addr string) {
		topic := brokers.UniqueName(t)
		gateway := newProcess(t, addr, topic)
		feed := connectForeign(t, addr, topic, false, nil)
		var streams []message.Stream
		for range 4 {
			streams = append(streams, gateway.member(t, 5))
		}
		feed.produce(t, topic, numbered(0, 100)...)
		for _, s := range streams {
			all := receive(t, s, 5)
			if len(all) != 5 {
				t.Errorf("%d messages with a window of 5", len(all))
			}
		}
		for _, i := range rand.Perm(len(streams)) {
			closeStream(t, streams[i])
		}
		feed.produce(t, topic, numbered(100, 120)...)
		seen := gather(t, gateway.member(t, 7), wants(0, 120))
		if len(seen) != 120 {
			t.Errorf("%d different messages", len(seen))
		}
	})
}

// A process that died leaves several sessions, which the next process finds.
func TestTheNextProcessFindsWhatACrashLeft(t *testing.T) {
	onBrokers(t, func(t *testing.T, addr string) {
		topic := brokers.UniqueName(t)
		first := newProcess(t, addr, topic)
		feed := connectForeign(t, addr, topic, false, nil)
		var streams []message.Stream
		for range 3 {
			streams = append(streams, first.member(t, 5))
		}
		feed.produce(t, topic, numbered(0, 60)...)
		for _, s := range streams {
			receive(t, s, 5)
		}
		first.crash()
		feed.produce(t, topic, numbered(60, 90)...)
		seen := gather(t, newProcess(t, addr, topic).member(t, 10), wants(0, 90))
		if len(seen) != 90 {
			t.Errorf("%d different messages", len(seen))
		}
	})
}

// When all is read, one session per identity is left, subscribed, for the client's return.
func TestOneSessionIsLeft(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("crash %v", crash), func(t *testing.T) {
			p := newPeer(t)
			p.offline = true
			gateway := newProcess(t, p.addr(), "topic")
			for range 3 {
				gateway.member(t, 5)
			}
			if len(p.ids()) < 3 {
				t.Fatalf("sessions %v with three streams", p.ids())
			}
			if crash {
				gateway.crash()
				gateway = newProcess(t, p.addr(), "topic")
			}
			s := gateway.member(t, 5)
			if !crash {
				for other := range gateway.client.streams {
					if other != s {
						closeStream(t, other)
					}
				}
			}
			var ids []string
			for deadline := time.Now().Add(10 * time.Second); len(ids) != 1; time.Sleep(5 * time.Millisecond) {
				if ids = p.ids(); time.Now().After(deadline) {
					t.Fatalf("sessions %v are left", ids)
				}
			}
			closeStream(t, s)
			ids = p.ids()
			if len(ids) != 1 || strings.Contains(ids[0], "~") {
				t.Errorf("sessions %v are left", ids)
			}
			if filters := p.filtersOf(ids[0]); len(filters) != 1 || filters[0] != "topic" {
				t.Errorf("the session that is left is subscribed to %v", filters)
			}
			if len(gateway.client.identities.groups) != 0 {
				t.Errorf("the process remembers %v", gateway.client.identities.groups)
			}
		})
	}
}

// A session that is alone has a plain subscription, and several share, with never a moment
// without any.
func TestSubscriptionsAreSharedWhenNeeded(t *testing.T) {
	p := newPeer(t)
	feed := connectForeign(t, p.addr(), "feed", false, nil)
	gateway := newProcess(t, p.addr(), "topic")
	first := gateway.member(t, 1000)
	subscribed := func(want map[string]string) func() bool {
		return func() bool {
			got := make(map[string]string)
			for _, id := range p.ids() {
				if filters := p.filtersOf(id); len(filters) > 0 { // else it is read to its end
					got[id] = fmt.Sprint(filters)
				}
			}
			return maps.Equal(got, want)
		}
	}
	const plain, shared = "[topic]", "[$share/api.client/topic]"
	id := gateway.client.identity("api.client", gateway.spec)
	waitFor(t, "alone", subscribed(map[string]string{id: plain}))

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fed, n := make(chan struct{}), 0
	go func() {
		defer close(fed)
		for ; ctx.Err() == nil; n++ {
			feed.produce(t, "topic", numbered(n, n+1)...)
			time.Sleep(200 * time.Microsecond)
		}
	}()
	var mu sync.Mutex
	seen := make(map[string]int)
	var readers sync.WaitGroup
	read := func(s message.Stream) message.Stream {
		readers.Go(func() {
			for {
				batch, err := s.Receive(context.Background())
				if err != nil {
					return // it was closed
				}
				if s.Settle(context.Background(), message.Ack, batch.Deliveries...) == nil {
					mu.Lock()
					for k, times := range payloads(batch.Deliveries) {
						seen[k] += times
					}
					mu.Unlock()
				}
			}
		})
		return s
	}
	read(first)
	second := read(gateway.member(t, 1000))
	waitFor(t, "two", subscribed(map[string]string{id: shared, id + "~1": shared}))
	closeStream(t, second)
	waitFor(t, "alone again", subscribed(map[string]string{id: plain}))
	waitFor(t, "the second is read to its end", func() bool { return len(p.ids()) == 1 })
	third := read(gateway.member(t, 1000))
	waitFor(t, "two again", subscribed(map[string]string{id: shared, id + "~1": shared}))
	closeStream(t, first)
	waitFor(t, "moved down", subscribed(map[string]string{id: plain}))
	closeStream(t, third)
	cancel()
	<-fed
	readers.Wait()
	waitFor(t, "at rest", subscribed(map[string]string{id: plain}))
	want := wants(0, n)
	for k := range seen {
		delete(want, k)
	}
	for k, times := range gather(t, gateway.member(t, 1000), want) {
		seen[k] += times
	}
	repeated := 0
	for _, times := range seen {
		repeated += times - 1
	}
	if repeated > n/10+10 {
		t.Errorf("%d of %d messages came twice", repeated, n)
	}
}

// Who says so shares always; at_most_once always does, apart from the durable sessions; a
// channel of several filters shares apart from those of one.
func TestShares(t *testing.T) {
	p := newPeer(t)
	for name, c := range map[string]struct {
		consumer Consumer
		sub      message.Subscription
		want     string
	}{
		"alone":        {Consumer{}, message.Subscription{Mode: message.Member, Name: "api.c/d"}, "[one two]"},
		"always":       {Consumer{Share: "always"}, message.Subscription{Mode: message.Member, Name: "api.c/d"}, "[$share/api.c=2Fd.H/one $share/api.c=2Fd.H/two]"},
		"at most once": {Consumer{}, message.Subscription{Mode: message.Member, QoS: message.AtMostOnce, Name: "x"}, "[$share/x.H~0/one $share/x.H~0/two]"},
		"broadcast":    {Consumer{Share: "always"}, message.Subscription{Mode: message.Broadcast}, "[one two]"},
	} {
		c.consumer.Topics = []string{"one", "two"}
		gateway := provision(t, &MQTT5{Servers: []string{p.addr()}, Consumer: &c.consumer, identities: newRegistry()})
		s, _ := subscribe(t, gateway, c.sub).(*stream)
		waitFor(t, name, func() bool {
			return fmt.Sprint(p.filtersOf(s.home.id)) == strings.ReplaceAll(c.want, "H", gateway.spec.hash)
		})
		closeStream(t, s)
	}
}

// Two processes with one identity: the newer takes the session over, and the older moves
// on instead of taking it back. With `share always` they divide the messages; without it
// each gets all of them, and none is lost.
func TestTakeOverByAnotherProcess(t *testing.T) {
	for _, silent := range []bool{false, true} {
		for _, share := range []string{"auto", "always"} {
			t.Run(fmt.Sprintf("silent %v/share %s", silent, share), func(t *testing.T) {
				t.Parallel()
				takeOver(t, silent, share)
			})
		}
	}
}

func takeOver(t *testing.T, silent bool, share string) {
	p := newPeer(t)
	p.offline, p.silentTakeOver = true, silent
	feed := connectForeign(t, p.addr(), "feed", false, nil)
	one, two := newProcess(t, p.addr(), "topic"), newProcess(t, p.addr(), "topic")
	one.client.alwaysShare, two.client.alwaysShare = share == "always", share == "always"
	streams := []message.Stream{one.member(t, 100), two.member(t, 100)}
	// They come to rest: nobody dials any more.
	for calm, last := 0, int64(-1); calm < 20; time.Sleep(50 * time.Millisecond) {
		now := one.line.dials.Load() + two.line.dials.Load()
		if calm++; now != last {
			calm = 0
		}
		last = now
		if now > 60 {
			t.Fatal("they take the session from each other for ever")
		}
	}
	feed.produce(t, "topic", numbered(0, 50)...)
	each := map[string]int{"auto": 50, "always": 25}[share]
	got := make(map[string]int)
	for i, s := range streams {
		some := receive(t, s, each)
		if len(some) != each {
			t.Errorf("stream %d received %d of 50 messages, want %d", i, len(some), each)
		}
		maps.Copy(got, payloads(some))
	}
	if len(got) != 50 {
		t.Errorf("%d different messages came", len(got))
	}
}

// Clients that come and go, overlapping, settle some and not others; processes crash. In
// the end everything has come.
func TestNothingIsLostBetweenPolls(t *testing.T) {
	onBrokers(t, func(t *testing.T, addr string) {
		const n = 600
		topic := brokers.UniqueName(t)
		feed := connectForeign(t, addr, topic, false, nil)
		gateway := newProcess(t, addr, topic)
		closeStream(t, gateway.member(t, 5)) // the identity exists
		var fed sync.WaitGroup
		fed.Go(func() {
			for i := range n {
				feed.produce(t, topic, numbered(i, i+1)...)
				time.Sleep(time.Millisecond)
			}
		})
		var mu sync.Mutex
		acked := make(map[string]int)
		poll := func(gateway *process, r *rand.Rand) {
			s := gateway.member(t, 1+r.IntN(20))
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(150))*time.Millisecond)
			defer cancel()
			for ctx.Err() == nil {
				batch, err := s.Receive(ctx)
				if err != nil {
					break
				}
				some := batch.Deliveries[:r.IntN(len(batch.Deliveries)+1)]
				if s.Settle(context.Background(), message.Ack, some...) == nil {
					mu.Lock()
					for k, v := range payloads(some) {
						acked[k] += v
					}
					mu.Unlock()
				}
			}
			closeStream(t, s)
		}
		for round := range 3 {
			var pollers sync.WaitGroup
			for i := range 3 {
				pollers.Go(func() {
					r := rand.New(rand.NewPCG(uint64(round), uint64(i)))
					for range 5 {
						poll(gateway, r)
					}
				})
			}
			pollers.Wait()
			gateway.member(t, 5)
			gateway.member(t, 5)
			gateway.crash()
			gateway = newProcess(t, addr, topic)
		}
		fed.Wait()
		want := wants(0, n)
		for k := range acked {
			delete(want, k)
		}
		t.Logf("%d came while clients came and went, %d are left", n-len(want), len(want))
		gather(t, gateway.member(t, 50), want)
	})
}
