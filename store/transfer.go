package store

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// exportFormat names what Export writes, and exportVersion its version.
const (
	exportFormat  = "message_api/export"
	exportVersion = 1
	// importChunk is how many records are stored at a time, and importBytes of which size.
	importChunk = 500
	importBytes = batchBytes / 2
	maxSkipped  = 1000
)

// exported is a record in an export.
type exported struct {
	Ref
	Version uint64          `json:"version"`
	Node    string          `json:"node,omitempty"`
	Time    time.Time       `json:"time"`
	Data    json.RawMessage `json:"data"`
}

// Export writes all records as one JSON document, sorted by kind and id, a record a line.
// Counters and what was deleted are not in it. It holds every secret that the records hold.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	var records []*Record
	for r := range s.mem.all() {
		if !r.Deleted {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b *Record) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	out := bufio.NewWriter(w)
	now, err := json.Marshal(s.opt.Now().UTC())
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	fmt.Fprintf(out, "{\"format\":%q,\"version\":%d,\"time\":%s,\"count\":%d,\"records\":[", exportFormat, exportVersion, now, len(records))
	separator := "\n"
	for _, r := range records {
		if ctx.Err() != nil {
			return fmt.Errorf("store: exporting: %w", context.Cause(ctx))
		}
		one, err := json.Marshal(exported{r.Ref, r.Version, r.Node, r.Time, r.Data})
		if err != nil {
			return fmt.Errorf("store: exporting %s: %w", r.Ref, err)
		}
		if _, err := fmt.Fprintf(out, "%s%s", separator, one); err != nil {
			return fmt.Errorf("store: exporting: %w", err)
		}
		separator = ",\n"
	}
	fmt.Fprint(out, "\n]}\n")
	if err := out.Flush(); err != nil { // also if one of the writes before has failed
		return fmt.Errorf("store: exporting: %w", err)
	}
	return nil
}

// ImportReport says what an import did. After an error it says what was done until then:
// importing again does the rest.
type ImportReport struct {
	Added     int `json:"added"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	// Skipped are the first thousand records that were not taken, and NotTaken counts all.
	Skipped  []Skipped `json:"skipped,omitempty"`
	NotTaken int       `json:"not_taken"`
}

// Skipped is a record that was not taken in, and why.
type Skipped struct {
	Ref
	Reason string `json:"reason"`
}

func (r *ImportReport) skip(ref Ref, why error) {
	r.NotTaken++
	if len(r.Skipped) < maxSkipped {
		r.Skipped = append(r.Skipped, Skipped{ref, why.Error()})
	}
}

// Import takes in what Export wrote: what is there already is replaced, and records that the
// export does not know stay.
func (s *Store) Import(ctx context.Context, r io.Reader) (ImportReport, error) {
	return s.ImportWith(ctx, r, func(_ *Record, in Record) (Record, error) { return in, nil })
}

// ImportWith is Import with a rule of the caller's. merge gets what is there, or nil, and what
// is in the export, and returns what is to be there, of which Data and Deleted count; or an
// error, which becomes the reason why the record is skipped. It may be called more than once
// for a record.
func (s *Store) ImportWith(ctx context.Context, r io.Reader, merge func(old *Record, in Record) (Record, error)) (ImportReport, error) {
	im := &importer{s: s, merge: merge}
	err := im.run(ctx, r)
	if err != nil {
		err = fmt.Errorf("store: importing: %w", err)
	}
	return im.report, err
}

type importer struct {
	s      *Store
	merge  func(*Record, Record) (Record, error)
	report ImportReport
	chunk  []Record
	bytes  int
}

func (im *importer) run(ctx context.Context, r io.Reader) error {
	dec := json.NewDecoder(r)
	if err := expect(dec, json.Delim('{')); err != nil {
		return err
	}
	known := false // that it is an export
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		switch name {
		case "format":
			err = field(dec, exportFormat)
			known = err == nil
		case "version":
			err = field(dec, exportVersion)
		case "records":
			if !known {
				return errors.New("this is not an export: \"format\":\"" + exportFormat + "\" must come before the records")
			}
			err = im.records(ctx, dec)
		default:
			err = dec.Decode(new(json.RawMessage))
		}
		if err != nil {
			return err
		}
	}
	if err := expect(dec, json.Delim('}')); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the end of the document")
	}
	if !known {
		return errors.New("this is not an export: it has no \"format\"")
	}
	return nil
}

// field reads a value that must be the one that is wanted.
func field[T comparable](dec *json.Decoder, want T) error {
	var got T
	if err := dec.Decode(&got); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("it says %v where %v is understood; was it written by another version?", got, want)
	}
	return nil
}

func expect(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if got != want {
		return fmt.Errorf("%v where %v should be, at byte %d", got, want, dec.InputOffset())
	}
	return nil
}

func (im *importer) records(ctx context.Context, dec *json.Decoder) error {
	if err := expect(dec, json.Delim('[')); err != nil {
		return err
	}
	for dec.More() {
		var one exported
		if err := dec.Decode(&one); err != nil {
			return errors.Join(err, im.flush(ctx))
		}
		im.chunk = append(im.chunk, Record{Ref: one.Ref, Version: one.Version, Node: one.Node, Time: one.Time, Data: one.Data})
		im.bytes += len(one.Data)
		if len(im.chunk) >= importChunk || im.bytes >= importBytes {
			if err := im.flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := im.flush(ctx); err != nil {
		return err
	}
	return expect(dec, json.Delim(']'))
}

// flush stores a chunk. Only records that are there and will change need a lock.
func (im *importer) flush(ctx context.Context) error {
	chunk := im.chunk
	im.chunk, im.bytes = nil, 0
	if len(chunk) == 0 {
		return nil
	}
	var refs []Ref
	for _, in := range chunk {
		if im.s.mem.get(in.Ref) == nil {
			continue
		}
		if changed, _, err := im.decide(im.s.Get, in); err == nil && changed {
			refs = append(refs, in.Ref)
		}
	}
	var report ImportReport
	err := im.s.Update(ctx, refs, func(tx *Tx) error {
		report = im.report // f may be run again
		report.Skipped = slices.Clip(report.Skipped)
		for _, in := range chunk {
			if err := im.one(tx, in, &report); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		im.report = report
	}
	return err
}

func (im *importer) one(tx *Tx, in Record, report *ImportReport) error {
	_, existed := tx.Get(in.Ref)
	changed, out, err := im.decide(tx.Get, in)
	switch {
	case err != nil:
		report.skip(in.Ref, err)
		return nil
	case !changed:
		report.Unchanged++
		return nil
	case out.Deleted:
		tx.Delete(in.Ref)
		err = tx.err
	default:
		err = tx.Put(in.Ref, out.Data)
	}
	switch {
	case errors.Is(err, ErrInvalid):
		tx.err = nil
		report.skip(in.Ref, err)
		return nil
	case err != nil:
		return err
	case existed:
		report.Updated++
	default:
		report.Added++
	}
	return nil
}

// decide asks the rule what is to be there.
func (im *importer) decide(get func(Ref) (Record, bool), in Record) (changed bool, out Record, err error) {
	if in.Kind == counterKind {
		return false, in, errors.New("counters are not imported")
	}
	if err := in.validate(); err != nil {
		return false, in, err
	}
	if len(in.Data) == 0 {
		return false, in, errors.New("it has no data")
	}
	old, exists := get(in.Ref)
	var before *Record
	if exists {
		before = &old
	}
	if out, err = im.merge(before, in); err != nil {
		return false, in, err
	}
	if !exists {
		return !out.Deleted, out, nil
	}
	return out.Deleted || !sameJSON(old.Data, out.Data), out, nil
}

// sameJSON compares without regard to blanks.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
