package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"
)

// encode writes the file of a batch.
func (a *appender) encode(b *batch) error {
	var body bytes.Buffer
	for _, r := range b.requests {
		for _, one := range r.records {
			if err := appendLine(&body, one); err != nil {
				return err
			}
		}
		b.records = append(b.records, r.records...)
	}
	var err error
	h := fileHeader{Node: a.node(), Seq: b.seq, Time: a.s.opt.Now().UTC()}
	b.data, err = encodeFile(h, len(b.records), body.Bytes())
	return err
}

// publish stores the head, which makes everything up to seq count.
func (a *appender) publish(seq uint64, closed bool) error {
	now := a.s.opt.Now().UTC()
	h := head{Format: formatVersion, Seq: seq, Void: a.voids, Time: now, Closed: closed, Host: hostname()}
	ttl, spell := a.s.leases.promise()
	if ttl > 0 && !closed {
		h.Lease, h.Beat = milliseconds(ttl), a.stored+1
	}
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := a.write(a.s.disk.key("nodes", a.node(), "head"), data); err != nil {
		return err
	}
	a.wrote = now.Round(0)
	if closed {
		a.s.leases.lost()
	} else {
		a.s.leases.renewed(a.node(), a.writing, ttl, spell)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.head, a.stored, a.stale, a.started = h, a.stored+1, false, a.writing
	return nil
}

// beatNow stores the head again if it is due, or if it is the last one. The first is due half
// an interval after the start: a process that ends before, and has changed nothing, leaves
// nothing behind.
func (a *appender) beatNow(closed bool) error {
	a.mu.Lock()
	stale, h, stored, started := a.stale, a.head, a.stored, a.started
	a.mu.Unlock()
	switch due := a.s.opt.Now().Round(0).Sub(a.wrote) >= a.s.tune.heartbeat; {
	case closed && stored == 0:
		return nil // nobody knows of this node
	case !closed && !stale && !due && !a.s.leaseDue(h, stored, started):
		return nil
	}
	a.trimVoids()
	return a.publish(h.Seq, closed)
}

// trimVoids forgets numbers that are in the snapshot: nobody reads the log from there.
func (a *appender) trimVoids() {
	a.s.view.mu.Lock()
	defer a.s.view.mu.Unlock()
	if a.s.view.manifest == nil {
		return
	}
	for len(a.voids) > 0 && a.voids[0][1] <= a.s.view.manifest.Vector[a.node()] {
		a.voids = a.voids[1:]
	}
}

// begun is when the writing of the last head that is stored began.
func (a *appender) begun() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.started
}

// beat sees to a fresh head, and to what is pending.
func (a *appender) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.s.opt.WriteTimeout, errSilent)
	defer cancel()
	return a.submit(ctx, &request{}, func() {})
}

// end stores the last head.
func (a *appender) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*a.s.opt.WriteTimeout, errSilent)
	defer cancel()
	err := a.submit(ctx, &request{closed: true}, func() {})
	close(a.stop)
	return err
}

// written tells the id, and how often its head was stored.
func (a *appender) written() (node string, heads uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node(), a.stored
}

// missing notes that the files of this node are gone.
func (a *appender) missing(node string) {
	a.mu.Lock()
	a.lost = node
	a.mu.Unlock()
}

// checkHead looks whether this node's head is what it stored last. A write that came late
// from a storage that hung, or a backup put back, may have replaced it.
func (a *appender) checkHead(ctx context.Context) error {
	a.mu.Lock()
	node, stored, seq := a.node(), a.stored, a.head.Seq
	a.mu.Unlock()
	if stored == 0 {
		return nil
	}
	data, err := a.s.disk.load(ctx, a.s.disk.key("nodes", node, "head"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.missing(node)
		return nil
	case err != nil:
		return err
	}
	h, err := decodeHead(data)
	if err != nil || h.Seq < seq || h.Closed {
		a.mu.Lock()
		a.stale = true
		a.mu.Unlock()
	}
	return nil
}
