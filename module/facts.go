package module

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/admin"
	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
	"github.com/caddy-message-api/caddy-message-api/store"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// facts are what changes at run time: subscriptions, managed APIs, flags, counters. They are
// the process's: a reload that does not change the storage changes nothing here.
type facts struct {
	store         *store.Store
	subscriptions *subscriptions.Registry
	lifecycle     *lifecycle.Registry
	admin         *admin.Server
	pushing       *pushing
}

// theFacts are those of the running configuration; nil before its store is open. Without
// them nobody is let in.
var theFacts atomic.Pointer[facts]

// counters add up quotas over the nodes.
func counters() limits.Counters {
	if f := theFacts.Load(); f != nil {
		return f.store.Counters()
	}
	return nil
}

// keeperPool keeps stores over reloads. The key is the storage's identity.
var keeperPool = caddy.NewUsagePool()

// keeper opens a store and keeps it. Storage can be away or slow, and Caddy waits for nobody
// to start: until the store is open every API answers 503 with the cause.
type keeper struct {
	key    string
	log    *zap.Logger
	cancel context.CancelFunc
	ready  chan struct{} // closed when facts is set
	done   chan struct{} // closed when the opening is over

	mu      sync.Mutex
	options keeperOptions
	facts   *facts
	cause   error
}

// keeperOptions are what a configuration says about the store.
type keeperOptions struct {
	storage    certmagic.Storage
	interval   time.Duration
	keySecret  []byte
	customKeys bool
	overlap    time.Duration
}

// theKeeper is that of the running configuration.
var theKeeper atomic.Pointer[keeper]

// openTimeout bounds one attempt to open the store.
const openTimeout = 2 * time.Minute

// acquireKeeper finds or makes the keeper for the app's storage.
func acquireKeeper(a *App) (*keeper, error) {
	opts := keeperOptions{
		storage: a.ctx.Storage(), interval: time.Duration(a.SyncInterval),
		customKeys: a.CustomKeys, overlap: time.Duration(a.KeyOverlap),
		keySecret: a.keySecret,
	}
	key, err := opts.identity()
	if err != nil {
		return nil, fmt.Errorf("telling the storage from others: %w", err)
	}
	val, loaded, err := keeperPool.LoadOrNew(key, func() (caddy.Destructor, error) {
		ctx, cancel := context.WithCancel(context.Background())
		k := &keeper{key: key, log: a.log, cancel: cancel, options: opts, ready: make(chan struct{}), done: make(chan struct{})}
		go k.open(ctx)
		return k, nil
	})
	if err != nil {
		return nil, err
	}
	k := val.(*keeper)
	if loaded {
		k.use(opts)
	}
	return k, nil
}

// identity tells one store from another. Storage modules are values of their configuration.
func (o *keeperOptions) identity() (string, error) {
	where := ""
	if s, ok := o.storage.(fmt.Stringer); ok {
		where = s.String()
	} else if raw, err := json.Marshal(o.storage); err == nil {
		where = string(raw)
	} else { // a new store after each reload works too
		where = fmt.Sprintf("%p", o.storage)
	}
	return hashOf([]any{fmt.Sprintf("%T", o.storage), where, string(o.keySecret), o.customKeys, o.overlap})
}

// use takes over what a reload brings: another handle on the same storage, whose predecessor
// Caddy is about to clean up.
func (k *keeper) use(opts keeperOptions) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.options = opts
	if k.facts != nil {
		k.facts.store.Use(opts.storage)
		k.facts.store.SetInterval(opts.interval)
	}
}

// open tries until it succeeds or is cancelled.
func (k *keeper) open(ctx context.Context) {
	defer close(k.done)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := k.tryOpen(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		k.mu.Lock()
		k.cause = err
		k.mu.Unlock()
		k.log.Error("the store can't be opened: no message API is served until it can", zap.Error(err), zap.Duration("next_try_in", wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (k *keeper) tryOpen(ctx context.Context) error {
	k.mu.Lock()
	opts := k.options
	k.mu.Unlock()
	timed, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	f, err := openFacts(timed, opts, k.log)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.facts, k.cause = f, nil
	if k.options.storage != opts.storage { // a reload came meanwhile
		f.store.Use(k.options.storage)
		f.store.SetInterval(k.options.interval)
	}
	k.mu.Unlock()
	close(k.ready)
	k.tell()
	return nil
}

// tell has the running configuration adopt what was opened, if it is open and its own.
func (k *keeper) tell() {
	select {
	case <-k.ready:
	default:
		return
	}
	if app := currentApp(); app != nil && app.keeper == k {
		app.adopt(k.facts)
	}
}

// openFacts opens the store and what stands on it.
func openFacts(ctx context.Context, opts keeperOptions, log *zap.Logger) (*facts, error) {
	s, err := store.Open(ctx, store.Options{
		Storage: opts.storage, Prefix: storePrefix, Interval: opts.interval, Logger: log.Named("store"),
	})
	if err != nil {
		return nil, err
	}
	f := &facts{store: s}
	if err := f.build(opts, log); err != nil {
		return nil, errors.Join(err, f.close(ctx))
	}
	return f, nil
}

func (f *facts) build(opts keeperOptions, log *zap.Logger) (err error) {
	f.pushing = newPushing(f, log)
	f.subscriptions, err = subscriptions.New(f.store, subscriptions.Options{
		KeySecret: opts.keySecret, CustomKeys: opts.customKeys, Overlap: opts.overlap,
		Plan: f.planInfo, OnEnd: f.subscriptionEnded, OnPush: f.pushing.changed,
	})
	if err != nil {
		return err
	}
	f.lifecycle, err = lifecycle.New(f.store, lifecycle.Options{
		Validate: validateManaged, LiveSubscriptions: f.subscriptions.LiveSubscriptions, ClosePlan: f.closePlan, OnChange: f.apiChanged,
	})
	if err != nil {
		return err
	}
	f.admin = f.adminServer(log)
	return nil
}

// close ends the store, after what stands on it.
func (f *facts) close(ctx context.Context) error {
	err := f.pushing.close(ctx)
	if f.lifecycle != nil {
		f.lifecycle.Close()
	}
	if f.subscriptions != nil {
		f.subscriptions.Close()
	}
	return errors.Join(err, f.store.Close(ctx))
}

// why says why there are no facts yet.
func (k *keeper) why() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cause
}

// release gives the lease back.
func (k *keeper) release() error {
	_, err := keeperPool.Delete(k.key)
	return err
}

// Destruct implements caddy.Destructor. What the node has counted is written before it goes.
func (k *keeper) Destruct() error {
	k.cancel()
	<-k.done
	theKeeper.CompareAndSwap(k, nil)
	if k.facts == nil {
		return nil
	}
	theFacts.CompareAndSwap(k.facts, nil)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return k.facts.close(ctx)
}

// storePrefix is where the store lives in Caddy's storage.
const storePrefix = "message_api/v1"
