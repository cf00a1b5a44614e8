package jwt

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	fetchTimeout = 5 * time.Second // of each request
	// refetchAfter is how often key ids that are unknown may lead to another fetch: anybody
	// can make up such ids.
	refetchAfter = 30 * time.Second
	firstRetry   = time.Second
	lastRetry    = time.Minute
)

// sourceID says where a key set comes from. Plans that say the same share it.
type sourceID struct {
	url       string
	discovery bool // url is that of an issuer, which tells where its keys are
	allowHTTP bool
	ca        string // PEM; "" is what the system trusts
}

// source has the keys of an issuer, fetched by one goroutine that begins when the first of
// them is needed.
type source struct {
	id      sourceID
	client  *http.Client
	timeout time.Duration

	current atomic.Pointer[fetchedSet] // nil until the first was fetched
	failure atomic.Pointer[error]      // of the latest fetch, nil if it went well
	fetched atomic.Int64               // when the latest fetch began, in Unix nanoseconds

	begin  sync.Once
	again  chan struct{}
	ctx    context.Context //nolint:containedctx // the life of the goroutine, which is longer than any call
	cancel context.CancelFunc
}

// fetchedSet is a key set and until when it is fresh.
type fetchedSet struct {
	*keySet
	sum   digest // of the document
	fresh time.Time
}

func newSource(id sourceID) (*source, error) {
	client, err := newClient(id.ca)
	if err != nil {
		return nil, err
	}
	s := &source{id: id, client: client, timeout: fetchTimeout, again: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// start begins to fetch, if that has not begun.
func (s *source) start() { s.begin.Do(func() { go s.run() }) }

// Destruct implements caddy.Destructor.
func (s *source) Destruct() error {
	s.cancel()
	return nil
}

// keys returns the key set, unless there is none yet or it is too old. It never waits.
func (s *source) keys(now time.Time, maxStale time.Duration) (*keySet, error) {
	s.start()
	current := s.current.Load()
	switch {
	case current == nil:
		return nil, errKeysAwaited
	case now.After(current.fresh.Add(maxStale)):
		return nil, errKeysStale
	}
	return current.keySet, nil
}

// refetch asks for another fetch because a key is unknown, unless the latest is recent.
func (s *source) refetch(now time.Time) {
	if now.UnixNano()-s.fetched.Load() < int64(refetchAfter) {
		return
	}
	select {
	case s.again <- struct{}{}:
	default: // asked for already
	}
}

// run keeps the key set fresh until nobody needs it any more.
func (s *source) run() {
	retry := firstRetry
	for {
		s.fetched.Store(time.Now().UnixNano())
		wait, err := s.renew()
		if s.ctx.Err() != nil {
			return
		}
		s.report(err)
		if err == nil {
			retry = firstRetry
		} else {
			wait = retry - rand.N(retry/4) //nolint:gosec // spreads load, and decides nothing
			retry = min(2*retry, lastRetry)
		}
		select { // what was asked for meanwhile is done
		case <-s.again:
		default:
		}
		if !s.rest(wait) {
			return
		}
	}
}

// rest waits for the time to pass, or for somebody to ask for a fetch.
func (s *source) rest(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.again:
	case <-s.ctx.Done():
		return false
	}
	return true
}

// renew fetches the key set once, and says when that is to be done again.
func (s *source) renew() (wait time.Duration, err error) {
	body, wait, err := s.fetch(s.ctx)
	if err != nil {
		return 0, err
	}
	next := &fetchedSet{sum: sha256.Sum256(body), fresh: time.Now().Add(wait)}
	if current := s.current.Load(); current != nil && current.sum == next.sum {
		next.keySet = current.keySet // so that what was verified with it need not be again
	} else {
		set, leftOut, err := parseJWKS(body)
		if err != nil {
			return 0, err
		}
		next.keySet = set
		s.tell(set, leftOut)
	}
	s.current.Store(next)
	return wait, nil
}

// log is Caddy's of the moment: the source outlives configurations and their logs.
func (s *source) log() *zap.Logger {
	return caddy.Log().Named("message_api.plans.jwt").With(zap.String("url", s.id.url))
}

func (s *source) tell(set *keySet, leftOut []error) {
	if len(leftOut) > 0 {
		s.log().Warn("the issuer has keys that are left out", zap.Errors("reasons", leftOut), zap.Int("keys", len(set.keys)))
		return
	}
	s.log().Info("the issuer has new keys", zap.Int("keys", len(set.keys)))
}

// report notes how a fetch went, and logs what is news.
func (s *source) report(err error) {
	if err == nil {
		if s.failure.Swap(nil) != nil {
			s.log().Info("the issuer's keys can be fetched again")
		}
		return
	}
	before := s.failure.Swap(&err)
	if before == nil || (*before).Error() != err.Error() {
		s.log().Warn("the issuer's keys can't be fetched; those that are there are used as long as max_stale allows", zap.Error(err))
	}
}
