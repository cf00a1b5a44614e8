package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// conflictTries is how often a change is computed anew because another was faster.
const conflictTries = 4

// Update changes records, all of them or none. It takes the storage's locks for refs, takes
// in what the other nodes have written, and runs f, which reads and writes by the Tx. It
// returns once the changes are stored and every watcher has been told.
//
// An error of f comes back as it is, and nothing is stored. f may be run more than once.
// Update takes at most Options.WriteTimeout, and for ErrUncertain it is open whether the
// change is stored. Each ref costs a lock: keep it to some hundred, and the data of one
// Update to some hundred kilobytes.
func (s *Store) Update(ctx context.Context, refs []Ref, f func(*Tx) error) error {
	if s.closing.Load() {
		return ErrClosed
	}
	for _, ref := range refs {
		if err := ref.validate(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.opt.WriteTimeout, errSilent)
	defer cancel()
	unlock, err := s.lockRefs(ctx, refs)
	if err != nil {
		return fail(ErrUnavailable, err)
	}
	for range conflictTries {
		settled := make(chan struct{})
		err = s.attempt(ctx, refs, f, func() { close(settled) })
		select {
		case <-settled:
		default: // it is still being written, and the locks are held until that is over
			go func() { <-settled; unlock() }()
			return err
		}
		if !errors.Is(err, ErrConflict) {
			break
		}
	}
	unlock()
	return err
}

// attempt runs f once, and stores what it wrote.
func (s *Store) attempt(ctx context.Context, refs []Ref, f func(*Tx) error, settled func()) error {
	if err := s.Sync(ctx); err != nil {
		settled()
		return fail(ErrUnavailable, err)
	}
	tx := &Tx{s: s, refs: refs}
	err := f(tx)
	if err == nil {
		err = tx.err
	}
	if err != nil || len(tx.writes) == 0 {
		settled()
		return err
	}
	return s.appender.submit(ctx, &request{records: tx.records()}, settled)
}

// Tx is a change in the making. It is only good inside the function given to Update.
type Tx struct {
	s      *Store
	refs   []Ref
	writes map[Ref]*Record
	order  []Ref
	err    error
}

// Get returns a record as it is, with what this Tx has written. Only the records that Update
// was given can't change meanwhile.
func (tx *Tx) Get(ref Ref) (Record, bool) {
	if r := tx.writes[ref]; r != nil {
		return *r, !r.Deleted
	}
	return tx.s.Get(ref)
}

// Put writes a record: v is marshalled as JSON. The record must be one of those that Update
// was given, or a new one: an id that nobody else can have thought of needs no lock.
func (tx *Tx) Put(ref Ref, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store: %s: %w", ref, err)
	}
	if len(data) > maxRecord {
		return fmt.Errorf("store: %s: %w: %d bytes are more than the %d that are allowed", ref, ErrInvalid, len(data), maxRecord)
	}
	return tx.write(ref, data, false)
}

// Delete removes a record. It is no error if there is none.
func (tx *Tx) Delete(ref Ref) {
	if _, ok := tx.Get(ref); !ok {
		return
	}
	if err := tx.write(ref, nil, true); err != nil && tx.err == nil {
		tx.err = err
	}
}

func (tx *Tx) write(ref Ref, data json.RawMessage, deleted bool) error {
	if err := ref.validate(); err != nil {
		return err
	}
	if ref.Kind == counterKind {
		return fmt.Errorf("store: %w: the kind %q is the store's own", ErrInvalid, counterKind)
	}
	old := tx.s.mem.get(ref)
	if old != nil && !slices.Contains(tx.refs, ref) {
		return fmt.Errorf("store: %w: %s exists, and Update was not asked to lock it", ErrInvalid, ref)
	}
	version := uint64(1)
	if old != nil {
		version = old.Version + 1
	}
	if tx.writes == nil {
		tx.writes = make(map[Ref]*Record)
	}
	if tx.writes[ref] == nil {
		tx.order = append(tx.order, ref)
	} else {
		version = tx.writes[ref].Version
	}
	tx.writes[ref] = &Record{
		Ref: ref, Version: version, Node: tx.s.Node(), Time: tx.s.opt.Now().UTC().Round(0), Deleted: deleted, Data: data,
	}
	return nil
}

// records are what was written, in the order of the first writes. A record that was made and
// removed at once was never there.
func (tx *Tx) records() []*Record {
	out := make([]*Record, 0, len(tx.order))
	for _, ref := range tx.order {
		r := tx.writes[ref]
		if r.Deleted && tx.s.mem.get(ref) == nil {
			continue
		}
		out = append(out, r)
	}
	return out
}
