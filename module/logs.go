package module

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/module/feed"
)

const (
	// maxChannels bounds the shared logs of one API.
	maxChannels = 256
	// logIdle is how long a shared log stays when nobody follows it.
	logIdle = 5 * time.Minute
	// handOver is how long a new generation waits for the old one's reader to drain.
	handOver = 10 * time.Second
	// closeTimeout bounds the closing of broker subscriptions.
	closeTimeout = 10 * time.Second
)

// logs are the shared logs of an API, one per endpoint and channel.
type logs struct {
	unit *unit

	mu     sync.Mutex
	byKey  map[string]*sharedLog
	closed bool
	sweep  func() // stops the idle sweep; nil while there is no log
}

// sharedLog is a log, or one in the making.
type sharedLog struct {
	ready   chan struct{} // closed when log or err is set
	log     *feed.Log
	err     error
	release func()
	unused  time.Time // since when nobody follows; zero while somebody does
}

func newLogs(u *unit) *logs { return &logs{unit: u, byKey: make(map[string]*sharedLog)} }

// get returns the shared log of a channel, made when it is the first time. Sessions that
// come at the same moment wait for one and the same subscription.
func (l *logs) get(ctx context.Context, e *endpoint, ch endpoints.Channel) (*feed.Log, error) {
	key := logKey(e, ch)
	for {
		s, mine, err := l.entry(key)
		if err != nil {
			return nil, err
		}
		if mine {
			go l.open(s, key, e, ch) // others wait for it too, and may be more patient
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if s.err != nil {
			return nil, s.err
		}
		if s.log.Err() == nil {
			return s.log, nil
		}
		l.drop(key, s) // it ended by itself: make a new one
	}
}

// has says whether a channel's shared log runs.
func (l *logs) has(e *endpoint, ch endpoints.Channel) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.byKey[logKey(e, ch)]
	if !ok {
		return false
	}
	select {
	case <-s.ready:
		return s.log != nil
	default:
		return false
	}
}

func (l *logs) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byKey)
}

func logKey(e *endpoint, ch endpoints.Channel) string { return e.key + "\x00" + ch.Key }

func (l *logs) entry(key string) (s *sharedLog, mine bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, false, message.Errorf(message.Unavailable, "this API is being redeployed: try again")
	}
	if s, ok := l.byKey[key]; ok {
		s.unused = time.Time{} // whoever asks is about to follow
		return s, false, nil
	}
	if len(l.byKey) >= maxChannels {
		return nil, false, &message.Error{Kind: message.Busy, RetryAfter: time.Minute, Detail: fmt.Sprintf(
			"this API reads %d channels already, which is its bound", maxChannels)}
	}
	s = &sharedLog{ready: make(chan struct{})}
	l.byKey[key] = s
	if l.sweep == nil {
		l.sweep = wheel.every(logIdle/10, func(now time.Time) { go l.closeIdle(now) })
	}
	return s, true, nil
}

// open subscribes, once the reader of an earlier generation has let go.
func (l *logs) open(s *sharedLog, key string, e *endpoint, ch endpoints.Channel) {
	ctx, cancel := context.WithTimeout(context.Background(), handOver)
	defer cancel()
	defer close(s.ready)
	release, err := slots.acquire(ctx, l.unit.def.ID+"\x00"+e.name+"\x00"+ch.Key)
	if err != nil {
		s.err = message.Errorf(message.Unavailable, "the earlier definition of this API still reads the channel: try again: %w", err)
		l.drop(key, s)
		return
	}
	stream, err := e.sub.Subscribe(ctx, ch, message.Subscription{
		Mode: message.Broadcast, QoS: message.None, From: message.Start{Kind: message.StartLatest},
	})
	if err != nil {
		s.err = err
		release()
		l.drop(key, s)
		return
	}
	s.log, s.release = feed.NewLog(stream, int(l.unit.def.LogSize)), release
}

// drop forgets a log that failed or ended.
func (l *logs) drop(key string, s *sharedLog) {
	l.mu.Lock()
	mine := l.byKey[key] == s
	if mine {
		delete(l.byKey, key)
	}
	l.mu.Unlock()
	if mine && s.log != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := s.end(ctx); err != nil {
			l.unit.log.Debug("closing an ended subscription", zap.Error(err))
		}
	}
}

func (s *sharedLog) end(ctx context.Context) error {
	err := s.log.Close(ctx)
	s.release()
	return err
}

// closeIdle closes the logs that nobody has followed for a while.
func (l *logs) closeIdle(now time.Time) {
	var idle []*sharedLog
	l.mu.Lock()
	for key, s := range l.byKey {
		select {
		case <-s.ready:
		default:
			continue
		}
		switch {
		case s.log == nil || s.log.Sessions() > 0:
			s.unused = time.Time{}
		case s.unused.IsZero():
			s.unused = now
		case now.Sub(s.unused) >= logIdle:
			delete(l.byKey, key)
			idle = append(idle, s)
		}
	}
	if len(l.byKey) == 0 && l.sweep != nil {
		l.sweep()
		l.sweep = nil
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for _, s := range idle {
		if err := s.end(ctx); err != nil {
			l.unit.log.Debug("closing an unused subscription", zap.Error(err))
		}
	}
}

// close ends all logs.
func (l *logs) close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	all := l.byKey
	l.byKey = make(map[string]*sharedLog)
	if l.sweep != nil {
		l.sweep()
		l.sweep = nil
	}
	l.mu.Unlock()
	var errs []error
	for _, s := range all {
		<-s.ready
		if s.log != nil {
			errs = append(errs, s.end(ctx))
		}
	}
	return errors.Join(errs...)
}
