package workers

import (
	"encoding/json"
	"fmt"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// Merge says what the record of a backup makes of the one that is there: nothing, because a
// backup knows less of how far a work has come. One that is not there any more, or yet, is
// nobody's. Records of other kinds are in as they are.
func Merge(old *store.Record, in store.Record) (store.Record, error) {
	if in.Kind != Kind || in.Deleted {
		return in, nil
	}
	if old != nil && !old.Deleted {
		in.Data, in.Deleted = old.Data, false
		return in, nil
	}
	rec, err := decode(in)
	if err != nil {
		return in, err
	}
	rec.Owner, rec.From = "", ""
	if in.Data, err = json.Marshal(rec); err != nil {
		return in, fmt.Errorf("writing the record %s: %w", in.Ref, err)
	}
	return in, nil
}
