package module

import (
	"cmp"
	"maps"
	"slices"
	"sync"
)

// runtime is what there is once per process, whatever the configuration: the units that
// are being served. Admin API and health look here, because Caddy gives them no
// configuration of their own.
var runtime = &units{byID: make(map[string][]*unit)}

type units struct {
	mu   sync.Mutex
	byID map[string][]*unit // the newest last; two while a reload goes on
}

func (r *units) add(u *unit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[u.def.ID] = append(r.byID[u.def.ID], u)
}

func (r *units) remove(u *unit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rest := slices.DeleteFunc(r.byID[u.def.ID], func(x *unit) bool { return x == u })
	if len(rest) == 0 {
		delete(r.byID, u.def.ID)
		return
	}
	r.byID[u.def.ID] = rest
}

// current returns the newest unit of an API, or nil.
func (r *units) current(id string) *unit {
	r.mu.Lock()
	defer r.mu.Unlock()
	if us := r.byID[id]; len(us) > 0 {
		return us[len(us)-1]
	}
	return nil
}

// find returns the unit of an API with this hash, or nil.
func (r *units) find(id, hash string) *unit {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.byID[id] {
		if u.hash == hash {
			return u
		}
	}
	return nil
}

// all returns the newest unit of every API, by id.
func (r *units) all() []*unit {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*unit, 0, len(r.byID))
	for us := range maps.Values(r.byID) {
		list = append(list, us[len(us)-1])
	}
	slices.SortFunc(list, func(a, b *unit) int { return cmp.Compare(a.def.ID, b.def.ID) })
	return list
}
