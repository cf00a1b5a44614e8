package lifecycle

import (
	"encoding/json"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Merge is for store.ImportWith: it decides what becomes of an imported record of an API
// when there is one already. What is for ever stays: a deprecated API stays deprecated, a
// plan does not go back to an earlier stage, and an import takes no definition away.
// Records of other kinds are returned as they are.
func Merge(old *store.Record, in store.Record) (store.Record, error) {
	if in.Kind != recordKind || in.Deleted {
		return in, nil
	}
	next, err := decodeRecord(in)
	if err != nil {
		return store.Record{}, err
	}
	if old == nil || old.Deleted {
		return in, nil
	}
	have, err := decodeRecord(*old)
	if err != nil {
		// What can't be read is repaired by the import.
		return in, nil
	}
	if err := next.follow(have); err != nil {
		return store.Record{}, fmt.Errorf("API %s: %w", in.ID, err)
	}
	if in.Data, err = json.Marshal(next); err != nil {
		return store.Record{}, fmt.Errorf("writing the record of API %s: %w", in.ID, err)
	}
	return in, nil
}

// follow keeps in rec what no import undoes.
func (rec *record) follow(have *record) error {
	rec.Deprecated = rec.Deprecated || have.Deprecated
	for plan, kind := range have.Kinds {
		at := have.stage(plan)
		if as := rec.Kinds[plan]; as != "" && as != kind {
			if at == Closed || at == Deprecated {
				return fmt.Errorf("its plan %s is of kind %s, but one of kind %s was %s here: give it another name", plan, as, kind, at)
			}
			continue
		}
		if rec.Kinds[plan] == "" {
			rec.remember([]Plan{{Name: plan, Kind: kind}})
			rec.setStage(plan, at)
			continue
		}
		if at.rank() > rec.stage(plan).rank() {
			rec.setStage(plan, at)
		}
	}
	if have.Managed && !rec.Managed {
		rec.Managed, rec.Saved, rec.Deployed = true, have.Saved, have.Deployed
	}
	if have.Saved != nil && rec.Saved != have.Saved && rec.Saved.Number <= have.Saved.Number && !sameJSON(rec.Saved.Definition, have.Saved.Definition) {
		rec.Saved.Number = have.Saved.Number + 1
	}
	return nil
}
