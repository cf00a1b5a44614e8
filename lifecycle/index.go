package lifecycle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// stored is a record as it was read, or why it could not be.
type stored struct {
	rec     *record
	version uint64
	err     error
}

func read(r store.Record) stored {
	rec, err := decodeRecord(r)
	return stored{rec: rec, version: r.Version, err: err}
}

// index is everything that is known at one moment. It is never changed.
type index struct {
	stored   map[string]stored
	entries  map[string]*entry
	ids      []string // of the entries, sorted
	problems []Problem
}

// entry is an API ready to be looked up.
type entry struct {
	api    *API
	plans  []PlanInfo
	stages map[string]Stage
	// ousted: another managed API has its path, and is served.
	ousted bool
}

func newIndex(records map[string]stored, declared map[string][]Plan) *index {
	x := &index{stored: records, entries: make(map[string]*entry, len(records)+len(declared))}
	if x.stored == nil {
		x.stored = map[string]stored{}
	}
	for id, s := range x.stored {
		plans, isDeclared := declared[id]
		x.add(id, s, plans, isDeclared)
	}
	for id, plans := range declared {
		if _, ok := x.stored[id]; !ok {
			x.entries[id] = newEntry(new(record), id, 0, plans, true)
		}
	}
	x.ids = slices.Sorted(maps.Keys(x.entries))
	x.oust()
	slices.SortFunc(x.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Detail, b.Detail))
	})
	return x
}

func (x *index) complain(id, format string, args ...any) {
	x.problems = append(x.problems, Problem{Path: "apis/" + id, Detail: fmt.Sprintf(format, args...)})
}

// add takes in what is stored about an API. The flags of a declared API that is not in the
// configuration (any more, or of this node) are kept and not shown.
func (x *index) add(id string, s stored, plans []Plan, declared bool) {
	rec := s.rec
	if s.err != nil {
		x.complain(id, "%v; the API is ignored: import it again, or delete it", s.err)
		rec = new(record)
		if !declared {
			return
		}
	}
	if !declared && !rec.Managed {
		return
	}
	if declared && rec.Managed {
		x.complain(id, "it is in the configuration, and there is a managed API of the same id, which is not served: "+
			"give the one in the configuration another id, or remove it there and then delete the managed one")
	}
	x.entries[id] = newEntry(rec, id, s.version, plans, declared)
	for _, p := range plans {
		if st, kind := rec.stage(p.Name), rec.Kinds[p.Name]; kind != "" && kind != p.Kind && !st.served() {
			x.complain(id, "its plan %s of kind %s is %s, because it was when it was of kind %s: give it another name", p.Name, p.Kind, st, kind)
		}
	}
}

func newEntry(rec *record, id string, version uint64, declared []Plan, isDeclared bool) *entry {
	e := &entry{
		api: rec.api(id, version, isDeclared), plans: rec.plans(declared, isDeclared),
		stages: maps.Clone(rec.Stages),
	}
	if e.stages == nil {
		e.stages = map[string]Stage{}
	}
	for _, p := range e.plans {
		e.stages[p.Name] = p.Stage
	}
	return e
}

// oust finds managed APIs that would be served on the same path, which two nodes that could
// not see each other, or an import, can bring about. The one that was deployed first stays.
func (x *index) oust() {
	var serving []*entry
	for _, id := range x.ids {
		if e := x.entries[id]; e.api.Managed && e.api.Started {
			serving = append(serving, e)
		}
	}
	slices.SortStableFunc(serving, func(a, b *entry) int { return a.api.Deployed.At.Compare(b.api.Deployed.At) })
	owners := map[string]string{}
	for _, e := range serving {
		for _, path := range e.api.Deployed.Paths {
			if owner, taken := owners[path]; taken {
				e.ousted = true
				x.complain(e.api.ID, "it is not served, because API %s has its path %s: stop or delete one, or deploy it with another path", owner, shown(path))
				break
			}
		}
		if !e.ousted {
			for _, path := range e.api.Deployed.Paths {
				owners[path] = e.api.ID
			}
		}
	}
}

func (x *index) api(id string) *API {
	if e := x.entries[id]; e != nil {
		return e.api
	}
	return nil
}

// shown is a path as people write it.
func shown(path string) string { return cmp.Or(path, "/") }
