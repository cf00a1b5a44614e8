package module

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/message"
	"github.com/caddy-message-api/caddy-message-api/module/feed"
)

// The bounds of receipts: each keeps a subscription at the broker.
const (
	maxReceipts          = 1000
	maxReceiptsPerClient = 16
)

// receiptPrefix tells a receipt from a cursor, which has no dots.
const receiptPrefix = "r."

// receipts are what clients were given in responses and have not confirmed yet, on
// endpoints that only lend. A receipt is good on the node that gave it, for ack_wait:
// presented in time it settles what it stands for, and otherwise that comes again.
type receipts struct {
	log *zap.Logger

	mu     sync.Mutex
	kept   map[string]*receipt
	counts map[holder]int // receipts given and about to be given
	total  int
	closed bool
	ends   sync.WaitGroup // of receipts whose time is over
}

// holder is who a receipt is for: nobody else can present it.
type holder struct {
	key    principalKey
	client string
}

// receipt is a feed that is kept after its response, with what that response held.
type receipt struct {
	id     string
	holder holder
	feed   feed.Lender
	upTo   uint64 // the sequence number of its last message
	// ready is closed when the response is out and its session is over. A client can be
	// faster with its next request.
	ready chan struct{}
	timer *time.Timer // nil before that
}

func newReceipts(log *zap.Logger) *receipts {
	return &receipts{log: log, kept: make(map[string]*receipt), counts: make(map[holder]int)}
}

// reserve makes room for one more, or says that there is none.
func (rs *receipts) reserve(h holder, wait time.Duration) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var bound string
	switch {
	case rs.counts[h] >= maxReceiptsPerClient:
		bound = fmt.Sprintf("%d responses to this client", maxReceiptsPerClient)
	case rs.total >= maxReceipts:
		bound = fmt.Sprintf("%d responses of this API", maxReceipts)
	default:
		rs.counts[h]++
		rs.total++
		return nil
	}
	err := message.Errorf(message.Busy,
		"%s are not confirmed yet: present each one's nextCursor as cursor of the next request, or wait until they are given back", bound)
	err.RetryAfter = wait
	return err
}

func (rs *receipts) unreserve(h holder) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.total--
	if rs.counts[h]--; rs.counts[h] == 0 {
		delete(rs.counts, h)
	}
}

// add makes a receipt known before its response is written.
func (rs *receipts) add(r *receipt) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.kept[r.id] = r
}

// forget gives back what nobody was given.
func (rs *receipts) forget(ctx context.Context, r *receipt) error {
	rs.mu.Lock()
	delete(rs.kept, r.id)
	rs.mu.Unlock()
	close(r.ready)
	return rs.drop(ctx, r)
}

// keep keeps r for as long as its client may take.
func (rs *receipts) keep(ctx context.Context, r *receipt, wait time.Duration) error {
	if err := r.feed.Hold(ctx); err != nil {
		rs.log.Debug("a subscription goes on while its receipt is waited for", zap.Error(err))
	}
	rs.mu.Lock()
	if rs.closed {
		rs.mu.Unlock()
		return rs.forget(ctx, r)
	}
	defer rs.mu.Unlock()
	r.timer = time.AfterFunc(wait, func() { rs.expire(r.id) })
	close(r.ready)
	return nil
}

// take removes a receipt that is ready; ok is false when somebody else was faster.
func (rs *receipts) take(id string) (r *receipt, ok bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, ok = rs.kept[id]
	if !ok || r.timer == nil {
		return nil, false
	}
	delete(rs.kept, id)
	r.timer.Stop()
	rs.ends.Add(1) // close waits for it
	return r, true
}

// await returns when the receipt, if it is known and the holder's, is ready to be taken.
func (rs *receipts) await(ctx context.Context, id string, h holder) bool {
	rs.mu.Lock()
	r, ok := rs.kept[id]
	rs.mu.Unlock()
	if !ok || r.holder != h {
		return false
	}
	select {
	case <-r.ready:
		return true
	case <-ctx.Done():
		return false
	}
}

// redeem settles what the receipt stands for. One that is not known (any more, or here)
// settles nothing: its messages come again.
func (rs *receipts) redeem(ctx context.Context, id string, h holder) {
	if !rs.await(ctx, id, h) {
		return
	}
	r, ok := rs.take(id)
	if !ok {
		return
	}
	defer rs.ends.Done()
	ctx = context.WithoutCancel(ctx) // a client that leaves now has confirmed nevertheless
	seqs := make([]uint64, r.upTo)
	for i := range seqs {
		seqs[i] = uint64(i) + 1
	}
	err := r.feed.Settle(ctx, message.Ack, seqs...)
	if err = errors.Join(err, rs.drop(ctx, r)); err != nil {
		rs.log.Warn("messages that a client has confirmed come again", zap.Uint64("messages", r.upTo), zap.Error(err))
	}
}

// expire gives back what nobody has confirmed in time.
func (rs *receipts) expire(id string) {
	r, ok := rs.take(id)
	if !ok {
		return
	}
	defer rs.ends.Done()
	rs.log.Debug("a response was not confirmed in time", zap.String("client", r.holder.client), zap.Uint64("messages", r.upTo))
	if err := rs.drop(context.Background(), r); err != nil {
		rs.log.Warn("giving unconfirmed messages back", zap.Error(err))
	}
}

// drop ends the feed, which gives back what is not settled.
func (rs *receipts) drop(ctx context.Context, r *receipt) error {
	defer rs.unreserve(r.holder)
	return r.feed.Close(ctx)
}

// close gives everything back, and returns when that is done.
func (rs *receipts) close() {
	rs.mu.Lock()
	rs.closed = true
	ids := slices.Collect(maps.Keys(rs.kept)) // those that are not ready yet find it closed
	rs.mu.Unlock()
	var all sync.WaitGroup
	for _, id := range ids {
		all.Go(func() { rs.expire(id) })
	}
	all.Wait()
	rs.ends.Wait()
}

// revoke gives back what is lent to those that a selector means. One credential of several
// says nothing about the subscription that the messages are lent to.
func (rs *receipts) revoke(sel *Selector) {
	if sel.Credential != "" || sel.unit != nil || sel.h3 {
		return
	}
	rs.mu.Lock()
	var ids []string
	for id, r := range rs.kept {
		k := &r.holder.key
		if (sel.API == "" || sel.API == k.api) && (sel.Plan == "" || sel.Plan == k.plan) &&
			(sel.Subscription == "" || sel.Subscription == k.who) {
			ids = append(ids, id)
		}
	}
	rs.mu.Unlock()
	for _, id := range ids {
		go rs.expire(id)
	}
}

// isReceipt tells a receipt from everything else that a client may present.
func isReceipt(cursor string) bool { return strings.HasPrefix(cursor, receiptPrefix) }

func newReceiptID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // it never fails
	return receiptPrefix + base64.RawURLEncoding.EncodeToString(random[:])
}

// lending is the feed of a response for which a receipt is given.
type lending struct {
	feed.Lender
	kept    *receipts
	r       *receipt
	wait    time.Duration
	written bool
}

// lend wraps a feed, for which room was reserved.
func (rs *receipts) lend(f feed.Lender, h holder, wait time.Duration) entrypoints.Feed {
	r := &receipt{id: newReceiptID(), holder: h, feed: f, ready: make(chan struct{})}
	rs.add(r)
	return &lending{Lender: f, kept: rs, r: r, wait: wait}
}

// Poll implements entrypoints.Feed.
func (l *lending) Poll(limit int) (entrypoints.Burst, error) {
	burst, err := l.Lender.Poll(limit)
	l.r.upTo += uint64(burst.Messages)
	return burst, err
}

// Cursor implements entrypoints.Feed: it is the receipt, if there is anything to confirm.
func (l *lending) Cursor(dst []byte) []byte {
	if l.r.upTo == 0 {
		return dst
	}
	return append(dst, l.r.id...)
}

// Written implements entrypoints.Feed.
func (l *lending) Written(context.Context) error {
	l.written = true
	return nil
}

// Close implements entrypoints.Feed. What the client was given stays lent to it for a while.
func (l *lending) Close(ctx context.Context) error {
	if l.written && l.r.upTo > 0 {
		return l.kept.keep(ctx, l.r, l.wait)
	}
	return l.kept.forget(ctx, l.r)
}
