package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
)

// rig is a worker on a broker, with a client that does what a test says.
type rig struct {
	*testing.T
	*broker
	opt    Options
	stream *loanStream
	cancel context.CancelCauseFunc
	result chan error

	lock    sync.Mutex
	calls   []call
	letters []entrypoints.Letter
	kept    []*entrypoints.Progress
	keptAt  []time.Time
}

type call struct {
	payload, id string
	number      int
	at          time.Time
}

// ok and the like are what clients answer.
func answer(o entrypoints.Outcome, status int) Result {
	return Result{Attempt: entrypoints.Attempt{Outcome: o, Status: status, At: time.Now()}}
}

func ok() Result { return answer(entrypoints.Delivered, 204) }

func newRig(t *testing.T, b *broker) *rig {
	r := &rig{T: t, broker: b}
	r.opt = Options{
		Settles: true, QoS: message.Auto, Window: message.Window{Messages: b.window, Bytes: 1 << 20},
		Capabilities: message.Capabilities{OrderedSettle: b.ordered, MaxHold: b.hold, ManualSettle: true},
		Concurrency:  1, Retry: Retry{Attempts: 5, Delay: time.Second, MaxDelay: time.Minute}, Timeout: 10 * time.Second,
		Identity: func(d *message.Delivery) (string, string) {
			return "f " + string(d.Payload), "msg " + string(d.Payload)
		},
		Keep: func(p *entrypoints.Progress) {
			r.lock.Lock()
			defer r.lock.Unlock()
			r.kept, r.keptAt = append(r.kept, p), append(r.keptAt, time.Now())
		},
	}
	r.opt.Send = r.client(func(*message.Delivery, int) Result { return ok() })
	return r
}

// client notes calls, and answers as f says.
func (r *rig) client(f func(d *message.Delivery, number int) Result) func(context.Context, *message.Delivery, string, int) Result {
	return func(_ context.Context, d *message.Delivery, id string, number int) Result {
		r.note(d, id, number)
		return f(d, number)
	}
}

func (r *rig) note(d *message.Delivery, id string, number int) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.calls = append(r.calls, call{string(d.Payload), id, number, time.Now()})
}

// bury takes dead letters.
func (r *rig) bury(_ context.Context, l entrypoints.Letter) error {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.letters = append(r.letters, l)
	return nil
}

// start runs the worker.
func (r *rig) start() {
	var ctx context.Context
	ctx, r.cancel = context.WithCancelCause(context.Background())
	r.stream = r.open()
	r.opt.Stream = r.stream
	r.result = make(chan error, 1)
	opt := r.opt
	go func() { r.result <- Run(ctx, opt) }()
	synctest.Wait()
}

// stop ends the worker.
func (r *rig) stop() error {
	r.cancel(nil)
	return <-r.result
}

// resume starts a worker with what the last one kept.
func (r *rig) resume() {
	r.opt.Progress = r.last()
	r.start()
}

// last is what was kept last.
func (r *rig) last() *entrypoints.Progress {
	r.lock.Lock()
	defer r.lock.Unlock()
	if len(r.kept) == 0 {
		return new(entrypoints.Progress)
	}
	return r.kept[len(r.kept)-1]
}

// wait lets time pass, and everything come to rest.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) made() []call {
	r.lock.Lock()
	defer r.lock.Unlock()
	return slices.Clone(r.calls)
}

func (r *rig) buried() []entrypoints.Letter {
	r.lock.Lock()
	defer r.lock.Unlock()
	return slices.Clone(r.letters)
}

func (r *rig) keeps() []*entrypoints.Progress {
	r.lock.Lock()
	defer r.lock.Unlock()
	return slices.Clone(r.kept)
}

func (r *rig) payloads() (all []string) {
	r.lock.Lock()
	defer r.lock.Unlock()
	for _, c := range r.calls {
		all = append(all, c.payload)
	}
	return all
}

func (r *rig) called(payload string) (all []call) {
	r.lock.Lock()
	defer r.lock.Unlock()
	for _, c := range r.calls {
		if c.payload == payload {
			all = append(all, c)
		}
	}
	return all
}

func (r *rig) want(what string, got, want any) {
	r.Helper()
	if got != want {
		r.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func (r *rig) wantCalls(want ...string) {
	r.Helper()
	if got := r.payloads(); !slices.Equal(got, want) {
		r.Errorf("called with %q, want %q", got, want)
	}
}

// failure is what Run must have returned.
func (r *rig) failure() *entrypoints.Failure {
	r.Helper()
	f, ok := errors.AsType[*entrypoints.Failure](<-r.result)
	if !ok {
		r.Fatal("the worker did not end with a failure")
	}
	return f
}
