package redisstorage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/redis/go-redis/v9"
)

// lockPoll is how often one that waits for a lock asks for it.
const lockPoll = 20 * time.Millisecond

// errLost says that a lock was lost before it was given back: Redis could not be reached for
// longer than LockTTL, and somebody else may have held it meanwhile.
var errLost = errors.New("the lock was lost before it was given back")

// The lock belongs to who knows the token in it.
var (
	extend  = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("PEXPIRE", KEYS[1], ARGV[2]) end return 0`)
	release = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end return 0`)
)

// lease is a lock that this process holds.
type lease struct {
	token  string
	cancel context.CancelFunc
	done   chan struct{} // closed when it is renewed no more
}

func (s *Storage) lock(name string) string { return s.options.Prefix + ":lock:" + name }

// Lock implements certmagic.Locker.
func (s *Storage) Lock(ctx context.Context, name string) error {
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		if ok, err := s.TryLock(ctx, name); ok || err != nil {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return s.wrap(ctx, "waiting for the lock", name, ctx.Err())
		}
	}
}

// TryLock implements certmagic.TryLocker.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	key, token := s.lock(name), rand.Text()
	ok, err := s.client.SetNX(ctx, key, token, s.options.LockTTL).Result()
	if err != nil {
		// It may have come about all the same; if this fails too, it ends with its time.
		s.giveBack(key, token)
		return false, s.wrap(ctx, "locking", name, err)
	}
	if ok {
		s.keep(key, token)
	}
	return ok, nil
}

// keep renews the lock until it is given back.
func (s *Storage) keep(key, token string) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &lease{token: token, cancel: cancel, done: make(chan struct{})}
	s.mu.Lock()
	lost := s.held[key]
	s.held[key] = l
	s.mu.Unlock()
	if lost != nil { // by another goroutine here, whose Unlock will find this one
		lost.end()
	}
	go func() {
		defer close(l.done)
		renew := time.NewTicker(s.options.LockTTL / 3)
		defer renew.Stop()
		for {
			select {
			case <-renew.C:
				// What fails now may succeed the next time. Unlock tells if it did not.
				_ = extend.Run(ctx, s.client, []string{key}, token, s.options.LockTTL.Milliseconds()).Err()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// Unlock implements certmagic.Locker.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	key := s.lock(name)
	s.mu.Lock()
	l := s.held[key]
	delete(s.held, key)
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("unlocking %q: nobody here holds it", name)
	}
	l.end()
	deleted, err := release.Run(ctx, s.client, []string{key}, l.token).Int()
	if err == nil && deleted == 0 {
		err = errLost
	}
	return s.wrap(ctx, "unlocking", name, err)
}

func (l *lease) end() {
	l.cancel()
	<-l.done
}

// giveBack deletes a lock of which nobody knows whether it was got, if that is soon done.
func (s *Storage) giveBack(key, token string) {
	ctx, cancel := context.WithTimeout(context.Background(), lockPoll)
	defer cancel()
	_ = release.Run(ctx, s.client, []string{key}, token).Err()
}

// letGo ends the renewal of all locks. They end with their time.
func (s *Storage) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, l := range s.held {
		l.end()
		delete(s.held, key)
	}
}

// Interface guards.
var (
	_ certmagic.Locker    = (*Storage)(nil)
	_ certmagic.TryLocker = (*Storage)(nil)
)
