package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// model is a worker among everything that can happen to it, and what must hold all the
// same: nothing is lost, order is kept, and nobody is called more than allowed.
type model struct {
	*testing.T
	*broker
	random *rand.Rand // guarded by lock
	moves  *rand.Rand // the player's
	lock   sync.Mutex
	opt    Options
	last   *entrypoints.Progress
	calm   bool // nothing goes wrong any more

	messages map[string]*fated
	scopes   map[string][]*fated // by what order holds in
	sending  map[string]int
	flying   int
	failures int
}

// fated is a message and what became of it.
type fated struct {
	text      string
	scope     string
	place     int // in the scope
	poison    entrypoints.Outcome
	resolved  bool // delivered, dead, or skipped by policy
	delivered int
	sends     map[*loan]int // by delivery
	skip      bool          // it may be acknowledged without
}

func (m *model) once() bool { return m.opt.QoS == message.AtMostOnce }

func (m *model) chance(share float64) bool { return !m.calm && m.random.Float64() < share }

func newModel(t *testing.T, seed uint64) *model {
	random := rand.New(rand.NewPCG(seed, 77))
	b := newBroker(1+random.IntN(4), []int{1, 3, 10, 40, 200}[random.IntN(5)])
	b.random = rand.New(rand.NewPCG(seed, 78))
	b.ordered = random.IntN(3) == 0
	b.batch = 1 + random.IntN(30)
	if random.IntN(4) == 0 {
		b.hold = time.Minute
	}
	m := &model{T: t, broker: b, random: random, moves: rand.New(rand.NewPCG(seed, 79)), messages: map[string]*fated{}, scopes: map[string][]*fated{}, sending: map[string]int{}}
	pick := func(a ...Action) Action { return a[random.IntN(len(a))] }
	m.opt = Options{
		Settles: true, Window: message.Window{Messages: b.window, Bytes: 1 << 20},
		Capabilities: message.Capabilities{OrderedSettle: b.ordered, MaxHold: b.hold},
		HoldsAll:     random.IntN(6) == 0,
		Concurrency:  []int{1, 2, 4, 16}[random.IntN(4)], Order: Order(random.IntN(3)),
		Retry:         Retry{Strategy: Strategy(random.IntN(3)), Attempts: 1 + random.IntN(5), Delay: time.Second, MaxDelay: 20 * time.Second, Jitter: 0.3},
		OnClientError: pick(Stop, DeadLetter, Skip), OnExhausted: pick(Stop, DeadLetter, DeadLetter), Timeout: 5 * time.Second,
		Identity: func(d *message.Delivery) (string, string) { return string(d.Payload), "id " + string(d.Payload) },
		Send:     m.send, DeadLetter: m.bury,
		Keep: func(p *entrypoints.Progress) {
			m.lock.Lock()
			defer m.lock.Unlock()
			m.last = p
		},
	}
	if random.IntN(6) == 0 {
		m.opt.QoS, m.opt.Capabilities.OrderedSettle, b.ordered = message.AtMostOnce, false, false
	}
	b.settled, b.published = m.acknowledged, m.know
	return m
}

func (m *model) scope(d *brokerLane, msg *message.Message) string {
	switch {
	case m.opt.Concurrency == 1, m.opt.Order == ByLane, msg.Key == nil && m.opt.Order == ByKey:
		return d.name
	case m.opt.Order == ByKey:
		return d.name + "/" + string(msg.Key)
	}
	return string(msg.Payload)
}

func (m *model) publishSome(n int) {
	for range n {
		m.publish(m.moves.IntN(len(m.lanes)), []string{"", "a", "b", "c", "d"}[m.moves.IntN(5)])
	}
}

// know notes a message that is published.
func (m *model) know(l *brokerLane, msg *message.Message) {
	f := &fated{text: string(msg.Payload), scope: m.scope(l, msg), sends: map[*loan]int{}}
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.chance(0.05) {
		f.poison = []entrypoints.Outcome{entrypoints.ServerError, entrypoints.ClientError, entrypoints.Unsendable}[m.random.IntN(3)]
	}
	f.place = len(m.scopes[f.scope])
	m.messages[f.text] = f
	m.scopes[f.scope] = append(m.scopes[f.scope], f)
}

func (m *model) send(ctx context.Context, d *message.Delivery, id string, number int) Result {
	m.lock.Lock()
	f := m.messages[string(d.Payload)]
	m.begin(f, d)
	r, latency := m.answer(f)
	m.lock.Unlock()
	timer := time.NewTimer(latency)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		r = answer(entrypoints.Unreachable, 0)
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	if os.Getenv("MODEL_TRACE") != "" {
		m.Logf("%v %s #%d epoch %d delivery %d: %s", time.Now().Format("04:05.000"), f.text, number, d.Epoch, d.Attempt, r.Outcome)
	}
	m.sending[f.scope]--
	m.flying--
	if r.Outcome == entrypoints.Delivered {
		m.resolve(f)
		f.delivered++
	}
	if r.Outcome == entrypoints.ClientError || r.Outcome == entrypoints.Unsendable {
		f.skip = m.opt.OnClientError == Skip
	}
	return r
}

// begin checks that a call may be made. m.lock is held.
func (m *model) begin(f *fated, d *message.Delivery) {
	m.flying++
	m.sending[f.scope]++
	if m.flying > m.opt.Concurrency {
		m.Errorf("%d calls at once", m.flying)
	}
	if m.sending[f.scope] > 1 && (m.opt.Order != None || m.opt.Concurrency == 1) {
		m.Errorf("two calls at once within %s", f.scope)
	}
	l := d.Handle.(*loan)
	f.sends[l]++
	if limit := m.opt.Retry.limit(); f.sends[l] > limit {
		m.Errorf("%s: attempt %d for one delivery, of %d", f.text, f.sends[l], limit)
	}
	if m.once() && (len(f.sends) > 1 || f.sends[l] > 1) {
		m.Errorf("%s was sent twice", f.text)
	}
}

// answer decides what the client says. m.lock is held.
func (m *model) answer(f *fated) (Result, time.Duration) {
	r := ok()
	latency := time.Duration(m.random.IntN(int(100 * time.Millisecond)))
	switch {
	case f.poison != "" && !m.calm:
		r = answer(f.poison, 0)
	case m.chance(0.02):
		r = answer(entrypoints.TimedOut, 0)
		latency = m.opt.Timeout
	case m.chance(0.1):
		r = answer([]entrypoints.Outcome{entrypoints.ServerError, entrypoints.Unreachable, entrypoints.AuthFailed}[m.random.IntN(3)], 0)
	case m.chance(0.02):
		r = answer(entrypoints.Throttled, 429)
		r.RetryAfter = time.Duration(m.random.IntN(3)) * time.Second
	}
	return r, latency
}

// resolve notes that a message is done with, for the first time perhaps, and checks that
// all before it are. m.lock is held.
func (m *model) resolve(f *fated) {
	if f.resolved {
		return
	}
	f.resolved = true
	for _, before := range m.scopes[f.scope][:f.place] {
		if m.once() {
			break // what was not delivered then is gone
		}
		if !before.resolved && !before.skip {
			m.Errorf("%s is done with before %s", f.text, before.text)
		}
	}
}

func (m *model) bury(ctx context.Context, l entrypoints.Letter) error {
	m.lock.Lock()
	f := m.messages[string(l.Message.Payload)]
	away, refused := m.chance(0.3), m.chance(0.05)
	m.lock.Unlock()
	switch {
	case away:
		return message.Errorf(message.Unavailable, "away")
	case refused:
		return message.Errorf(message.Denied, "refused")
	}
	m.lock.Lock()
	defer m.lock.Unlock()
	m.resolve(f)
	return nil
}

// acknowledged checks that a message may be forgotten.
func (m *model) acknowledged(msg *message.Message) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if f := m.messages[string(msg.Payload)]; !f.resolved && !f.skip && !m.once() {
		m.Errorf("%s was acknowledged, and is lost", f.text)
	}
}

// run is one worker, until it ends or is ended.
func (m *model) run(d time.Duration) {
	ctx, cancel := context.WithCancelCause(context.Background())
	opt := m.opt
	opt.Stream = m.open()
	m.lock.Lock()
	opt.Progress = m.last
	m.lock.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := Run(ctx, opt); err != nil {
			m.failures++
		}
	}()
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		select {
		case <-ended:
			cancel(nil)
			return
		case <-time.After(time.Duration(m.moves.IntN(int(2 * time.Second)))):
		}
		if m.calm {
			continue
		}
		m.disturb()
	}
	if m.moves.IntN(2) == 0 && !m.calm {
		cancel(entrypoints.ErrFenced)
	} else {
		cancel(nil)
	}
	<-ended
}

func (m *model) disturb() {
	switch m.moves.IntN(12) {
	case 0:
		m.reconnect()
	case 1:
		m.revoke(m.moves.IntN(len(m.lanes)), time.Duration(m.moves.IntN(int(5*time.Second))))
	case 2:
		m.refusing(fmt.Errorf("the broker is busy"))
	case 3, 4:
		m.refusing(nil)
	case 5, 6, 7:
		m.publishSome(m.moves.IntN(20))
	}
}

func (m *model) play() {
	m.Logf("%d lanes, window %d, ordered %v, hold %v, all %v, concurrency %d, order %v, %+v, client error %v, exhausted %v", len(m.lanes), m.window,
		m.ordered, m.hold, m.opt.HoldsAll, m.opt.Concurrency, m.opt.Order, m.opt.Retry, m.opt.OnClientError, m.opt.OnExhausted)
	m.publishSome(100)
	for range 6 {
		m.run(time.Duration(1+m.moves.IntN(30)) * time.Second)
	}
	m.refusing(nil)
	m.lock.Lock()
	m.calm = true
	m.lock.Unlock()
	for begin := time.Now(); m.unsettled() > 0; {
		if time.Since(begin) > 2*time.Hour {
			m.Errorf("%d messages are still there", m.unsettled())
			return
		}
		m.run(time.Minute)
	}
	delivered := 0
	for _, f := range m.messages {
		if !f.resolved && !f.skip && !m.once() {
			m.Errorf("%s was lost", f.text)
		}
		delivered += f.delivered
	}
	m.Logf("%d messages, %d delivered, %d failures, %+v", len(m.messages), delivered, m.failures, m.last)
}

func TestModel(t *testing.T) {
	seeds := 150
	if os.Getenv("MESSAGE_API_SOAK") == "1" {
		seeds = 5000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newModel(t, uint64(seed)).play() })
		})
		if t.Failed() {
			return
		}
	}
}
