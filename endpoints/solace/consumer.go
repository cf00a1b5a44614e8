//go:build cgo && (linux || darwin)

package solace

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/endpoints/link"
)

// streamsPerLink is how many queues are read over one connection: each connection has one
// thread that reads from the network.
const streamsPerLink = 100

// consumer reads from the broker, over as many connections as its streams need.
type consumer struct {
	cfg             *connConfig
	provision       bool
	raw             bool // payloads
	quotaMB         uint
	maxRedeliveries int
	epochs          atomic.Uint64
	// endurance is how long a stream that lost its queue tries what the broker refuses,
	// before it ends.
	endurance time.Duration

	mu sync.Mutex
	// queues are shared by many streams. copies have one at a time: a broker that drops
	// direct messages for a client says so once for all of that client's subscriptions.
	queues, copies []*shareLink
	ended          bool
}

// shareLink is a connection and how many streams use it.
type shareLink struct {
	*link.Link[*service]
	streams int
}

func newConsumer(cfg *connConfig, c *Consumer) *consumer {
	out := &consumer{
		cfg: cfg, provision: c.Queue == "" && on(c.Provision), raw: c.Payload == raw, endurance: endurance,
		quotaMB: uint((c.Quota + 1<<20 - 1) >> 20), maxRedeliveries: c.MaxRedeliveries, //nolint:gosec // checked
	}
	out.queues = []*shareLink{{Link: cfg.link("consume")}}
	return out
}

// spec is what one channel of the gateway reads: the names, with all placeholders
// replaced.
type spec struct {
	topics []string
	queue  string // the configured one
	key    string // tells channels apart
	hash   uint32 // of the topics, in whatever order
}

func newSpec(topics []string, queue string) *spec {
	s := &spec{topics: slices.Clone(topics), queue: queue}
	slices.Sort(s.topics)
	s.topics = slices.Compact(s.topics)
	s.key = fmt.Sprintf("%d:%s", len(queue), queue)
	for _, t := range s.topics {
		s.key += fmt.Sprintf(",%d:%s", len(t), t)
	}
	h := fnv.New64a()
	h.Write([]byte(s.key))
	s.hash = fold(h.Sum64())
	return s
}

func fold(h uint64) uint32 { return uint32(h ^ h>>32) } //nolint:gosec // the bits are mixed

// identityQueue is the name of an identity's queue. It ends in a hash of the topics: an
// identity that reads others has another queue.
func identityQueue(name string, s *spec) string {
	suffix := fmt.Sprintf(".%08x", s.hash)
	clean := printable(name)
	if clean != name || len(name)+len(suffix) > maxQueue {
		h := fnv.New64a()
		h.Write([]byte(name))
		suffix = fmt.Sprintf("-%016x", h.Sum64()) + suffix
		clean = clean[:min(len(clean), maxQueue-len(suffix))]
	}
	return clean + suffix
}

// printable replaces what names at the broker can't hold.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune("'<>*?&;#", r) {
			return '_'
		}
		return r
	}, name)
}

// lease takes a place on one of the connections.
func (c *consumer) lease(alone bool) (_ *link.Link[*service], release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pool, most, use := &c.queues, streamsPerLink, "consume"
	if alone {
		pool, most, use = &c.copies, 1, "copy"
	}
	i := slices.IndexFunc(*pool, func(l *shareLink) bool { return l.streams < most })
	if i < 0 {
		i = len(*pool)
		*pool = append(*pool, &shareLink{Link: c.cfg.link(use)})
	}
	l := (*pool)[i]
	if c.ended {
		l.Close() // and nobody will get anything from it
	}
	l.streams++
	let := l.Hold()
	return l.Link, sync.OnceFunc(func() {
		let()
		c.mu.Lock()
		defer c.mu.Unlock()
		l.streams--
	})
}

// first is the connection that is used first for queues.
func (c *consumer) first() *link.Link[*service] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queues[0].Link
}

func (c *consumer) all() []*shareLink {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(slices.Clone(c.queues), c.copies...)
}

func (c *consumer) status() []endpoints.Status {
	var all []endpoints.Status
	for _, l := range c.all() {
		all = append(all, l.Status())
	}
	return all
}

func (c *consumer) close() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	var ending sync.WaitGroup
	for _, l := range c.all() {
		ending.Go(l.Close)
	}
	ending.Wait()
}
