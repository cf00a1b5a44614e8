package kafka

import (
	"context"
	"slices"
	"sync"
	"time"
)

// watchInterval is how often the topics of running streams are looked at for new
// partitions, new topics and new leaders when nobody complains.
const watchInterval = 3 * time.Second

// watcher keeps running streams informed about their topics. All streams of an endpoint
// share one goroutine and one metadata request, and both end with the last stream.
type watcher struct {
	c    *client
	poke chan struct{}

	mu   sync.Mutex
	subs map[*watched]struct{}
	stop context.CancelFunc
}

// watched is one stream's interest.
type watched struct {
	spec *spec
	// update is called, from the watcher's goroutine, with every new view. It must not block.
	update func(*topology)
}

func (w *watcher) init(c *client) {
	w.c, w.poke, w.subs = c, make(chan struct{}, 1), make(map[*watched]struct{})
}

func (w *watcher) add(s *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subs[s] = struct{}{}
	if w.stop == nil {
		var ctx context.Context
		ctx, w.stop = context.WithCancel(w.c.ctx)
		go w.run(ctx)
	}
}

func (w *watcher) remove(s *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.subs, s)
	if len(w.subs) == 0 && w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// hurry asks for a new view now: somebody met a leader that is none.
func (w *watcher) hurry() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (w *watcher) run(ctx context.Context) {
	failures := 0
	for {
		wait, poke := watchInterval, w.poke
		if failures > 0 {
			// Nobody can hurry a cluster that does not answer.
			wait, poke = backoff(failures, 100*time.Millisecond, 2*time.Second), nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-poke:
			// Several complaints about one event are one question.
			if !pause(ctx, 50*time.Millisecond) {
				timer.Stop()
				return
			}
		case <-timer.C:
		}
		timer.Stop()
		if w.look(ctx) {
			failures = 0
		} else {
			failures++
		}
	}
}

func (w *watcher) look(ctx context.Context) bool {
	names, all, subs := w.interests()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	t, err := w.c.metadata(ctx, names, all)
	if err != nil {
		return false // the client's status tells; the streams wait
	}
	for _, s := range subs {
		s.update(t)
	}
	return true
}

func (w *watcher) interests() (names []string, all bool, subs []*watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.subs {
		subs = append(subs, s)
		all = all || s.spec.pattern != nil
		names = append(names, s.spec.topics...)
	}
	slices.Sort(names)
	return slices.Compact(names), all, subs
}
