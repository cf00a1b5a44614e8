// Package store keeps what changes while the gateway runs: small records, each under a kind
// and an id, on the storage that Caddy has anyway (certmagic.Storage). Several nodes that
// share a storage share the records.
//
// Memory is the index: reading never touches the storage. Such a storage can neither compare
// and swap nor tell of changes, so no two nodes ever write the same file. Each node appends
// its changes, batch by batch, to a log of its own and then says in its head how far that log
// goes; the others read the heads, and what is new. Now and then the logs are folded into a
// snapshot. Below the prefix:
//
//	nodes/<node>/head          how far the node's log goes, and when it was last alive
//	nodes/<node>/log/<number>  a batch: a header line with checksum, then a record a line
//	snapshot/current           which shards make up the snapshot, and how much of each log is in it
//	snapshot/<gen>/<shard>     records; a shard stays in the generation that wrote it last
//	snapshot/<gen>/manifest    what snapshot/current said then, for the case that it is damaged
//	damaged/<name>             copies of files that could not be read
//
// Every record has a version. Who changes one holds the storage's lock for it and has seen
// all heads before, so versions follow each other. Should a lock fail and two nodes write the
// same version, the same one wins everywhere (the later, then the higher node), and the
// overlap is reported. Snapshots need their lock only so as not to be made twice: without it,
// and with clocks that differ, nothing that was acknowledged is removed before a newer
// snapshot holds it (see newer). That takes a storage which shows, in what it lists and reads,
// everything that it has acknowledged, and clocks less than half an hour apart, by which
// what unfinished snapshots have left is told from those in the making.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// The defaults of Options.
const (
	DefaultPrefix       = "message_api/v1"
	DefaultInterval     = 5 * time.Second
	DefaultWriteTimeout = 10 * time.Second
)

// Ref names a record. Kind and ID are any UTF-8 text of 1 to 512 bytes.
type Ref struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
}

// String returns kind/id.
func (r Ref) String() string { return r.Kind + "/" + r.ID }

// Record is a record as it was written. Data is shared: it must not be changed.
type Record struct {
	Ref
	// Version is 1 for a new record and grows by one with each change, also when it is
	// deleted and made again.
	Version uint64
	// Node is who wrote it, and Time when, by that node's clock.
	Node string
	Time time.Time
	// Deleted: the record is gone. Data is empty.
	Deleted bool
	Data    json.RawMessage
}

// Change is what happened to a record. Old is nil if there was none, and New.Deleted is set
// if there is none any more.
type Change struct{ Old, New *Record }

// Options are for Open.
type Options struct {
	// Storage is where the records are kept. Required.
	Storage certmagic.Storage
	// Prefix is put before every key. Default: message_api/v1.
	Prefix string
	// Interval is within which time the changes of other nodes are seen. Default: 5s.
	Interval time.Duration
	// WriteTimeout is after which time a change that the storage has not taken fails.
	// Default: 10s.
	WriteTimeout time.Duration
	// Logger may be nil.
	Logger *zap.Logger
	// Now is the clock for the times in records and for the ends of counters. Default:
	// time.Now.
	Now func() time.Time

	tune tuning
}

// tuning are times and sizes that only tests change.
type tuning struct {
	heartbeat    time.Duration // how often a head is written when nothing else is
	deadAfter    time.Duration // a node whose head is older has ended
	observe      time.Duration // … if its head has also not changed for so long under our eyes
	compactEvery time.Duration // at most
	compactLog   int           // batches that are too many
	shardBytes   int           // of records in a shard, about
	litter       time.Duration // age of unfinished snapshots to be swept up
	tombstones   time.Duration // how long a deletion is remembered
	retries      int           // how often an unreadable file is tried again
}

var defaultTuning = tuning{
	// A head tells that its node lives. It is not rewritten at every interval, because a
	// gateway at rest should leave a flash disk at rest.
	heartbeat: time.Minute, deadAfter: 10 * time.Minute, observe: 150 * time.Second,
	compactEvery: 30 * time.Second, compactLog: 512, shardBytes: 128 << 10,
	litter: time.Hour, tombstones: 30 * 24 * time.Hour, retries: 12,
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	opt      Options
	tune     tuning
	log      *zap.Logger
	disk     *disk
	mem      *index
	counters *Counters
	watchers watchers
	problems problems
	refs     keyedLocks
	debts    unlockDebts
	sync     rounds
	interval atomic.Int64
	// The intervals have changed.
	retuneRead, retuneWrite chan struct{}
	appender                *appender
	view                    view
	compaction              compaction
	leases                  leases

	//nolint:containedctx // the life of the store, which no single call owns
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
	closing atomic.Bool
	// applying is held while changes are put into memory and told to the watchers, so that
	// they learn of them one at a time and in order.
	applying sync.Mutex
}

// Open reads the store, and begins to follow the other nodes. Damaged and foreign files are
// skipped and reported by Problems; it fails if the storage can't be read at all. Nothing is
// written until there is something to write, or the store has been open for a while.
func Open(ctx context.Context, opt Options) (*Store, error) {
	if opt.Storage == nil {
		return nil, errors.New("store: no storage")
	}
	opt.setDefaults()
	s := &Store{
		opt: opt, tune: opt.tune, log: opt.Logger, mem: newIndex(),
		retuneRead: make(chan struct{}, 1), retuneWrite: make(chan struct{}, 1),
		disk: newDisk(opt.Storage, opt.Prefix, opt.WriteTimeout),
	}
	s.interval.Store(int64(opt.Interval))
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.problems.log, s.problems.now = opt.Logger, opt.Now
	s.refs.init()
	s.view.init()
	s.leases.init()
	s.appender = newAppender(s)
	s.counters = newCounters(s)
	if err := s.load(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("store: %w", err)
	}
	s.wg.Go(s.appender.run)
	s.wg.Go(s.read)
	s.wg.Go(s.write)
	return s, nil
}

func (o *Options) setDefaults() {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	o.Prefix = strings.Trim(o.Prefix, "/")
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = DefaultWriteTimeout
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.tune == (tuning{}) {
		o.tune = defaultTuning
	}
}

// Close waits for the changes on their way, writes the counters, tells the other nodes that
// this one has ended, and ends. Updates that begin afterwards fail with ErrClosed; reading
// goes on from memory.
func (s *Store) Close(ctx context.Context) error {
	if s.closing.Swap(true) {
		return nil
	}
	err := s.counters.flush(ctx)
	err = errors.Join(err, s.appender.end(ctx))
	s.sync.mu.Lock() // whoever begins a round has seen whether it may
	s.stop()
	s.sync.mu.Unlock()
	s.debts.pay(ctx, s)
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("store: the storage still hangs: %w", context.Cause(ctx)))
	}
	return err
}

// Use goes on with another handle on the same storage, as after a reload of the configuration.
func (s *Store) Use(storage certmagic.Storage) { s.disk.use(storage) }

// SetInterval changes Options.Interval.
func (s *Store) SetInterval(d time.Duration) {
	if d <= 0 {
		d = DefaultInterval
	}
	if s.interval.Swap(int64(d)) == int64(d) {
		return
	}
	for _, retune := range []chan struct{}{s.retuneRead, s.retuneWrite} {
		select {
		case retune <- struct{}{}:
		default:
		}
	}
}

// Interval is Options.Interval, as it is now.
func (s *Store) Interval() time.Duration { return time.Duration(s.interval.Load()) }

// Get returns a record that is not deleted.
func (s *Store) Get(ref Ref) (Record, bool) {
	if r := s.mem.get(ref); r != nil && !r.Deleted {
		return *r, true
	}
	return Record{}, false
}

// Range goes over the records of a kind that are not deleted, in no order. Records that
// change meanwhile are seen as they were or as they are.
func (s *Store) Range(kind string) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for r := range s.mem.kind(kind) {
			if !r.Deleted && !yield(*r) {
				return
			}
		}
	}
}

// Len is how many records of a kind there are.
func (s *Store) Len(kind string) int { return s.mem.live(kind) }

// Watch has f called with the changes of this node (before Update returns) and of others
// alike, in order, and one call at a time. f reads what it wants, but must not wait for an
// Update, Sync or Import. A change that happens while Watch is called is told.
func (s *Store) Watch(f func([]Change)) (stop func()) {
	s.applying.Lock()
	defer s.applying.Unlock()
	return s.watchers.add(f)
}

// Node is the id of this node: random, another one for each start. It changes when the node
// was held up so long that the others may have taken it for dead.
func (s *Store) Node() string { return s.appender.node() }

// Problems are what was found damaged, foreign or overlapping, and what is wrong with the
// storage now; the newest last.
func (s *Store) Problems() []Problem { return s.problems.list() }

// Counters are numbers that all nodes add to.
func (s *Store) Counters() *Counters { return s.counters }
