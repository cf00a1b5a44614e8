package workers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// The bounds of what a record holds beside what is kept.
const (
	maxCause    = 2048
	maxVersions = 8
)

// record is what the store knows of a work.
type record struct {
	// Owner is the node that does the work. From is the one that has released it, and does
	// not want it now.
	Owner string `json:"owner,omitempty"`
	From  string `json:"from,omitempty"`
	// Failed: nobody does it, because of Cause.
	Failed bool      `json:"failed,omitempty"`
	Cause  string    `json:"cause,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// Version is that of the last owner. Versions are those that have failed since the last
	// Retry: nodes with different configurations don't wake up each other's failures.
	Version  string   `json:"version,omitempty"`
	Versions []string `json:"versions,omitempty"`
	// By is who had it retried last.
	By   string          `json:"by,omitempty"`
	Kept json.RawMessage `json:"kept,omitempty"`
}

func refOf(id string) store.Ref { return store.Ref{Kind: Kind, ID: id} }

func decode(r store.Record) (record, error) {
	var rec record
	if err := json.Unmarshal(r.Data, &rec); err != nil {
		return record{}, fmt.Errorf("the record %s can't be read, and is written anew: %w", r.Ref, err)
	}
	return rec, nil
}

// fail makes it the record of a failed work.
func (r *record) fail(cause, version string, at time.Time) {
	r.Owner, r.From, r.Failed, r.Cause, r.Since, r.Version = "", "", true, cut(cause), at, version
	if !slices.Contains(r.Versions, version) {
		r.Versions = append(r.Versions, version)
		r.Versions = r.Versions[max(0, len(r.Versions)-maxVersions):]
	}
}

// retry makes it that of a work which anybody may take.
func (r *record) retry(by string, at time.Time) {
	r.Failed, r.Cause, r.Since, r.Versions, r.By = false, "", at, nil, by
}

// refuses says whether the work has failed in such a way that version would fail too.
func (r *record) refuses(version string) bool {
	return r.Failed && slices.Contains(r.Versions, version)
}

func cut(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) > maxCause {
		s = strings.ToValidUTF8(s[:maxCause], "") + "…"
	}
	return s
}
