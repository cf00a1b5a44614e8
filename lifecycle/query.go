package lifecycle

import (
	"slices"
	"strings"
)

// Get returns an API.
func (r *Registry) Get(id string) (API, bool) {
	if a := r.current.Load().api(id); a != nil {
		return *a, true
	}
	return API{}, false
}

// List returns all APIs, sorted by id. A declared API about which nothing is stored is
// started, not published and private.
func (r *Registry) List() []API {
	x := r.current.Load()
	apis := make([]API, len(x.ids))
	for i, id := range x.ids {
		apis[i] = *x.entries[id].api
	}
	return apis
}

// groupPrefix tells a group from a user among an API's members.
const groupPrefix = "group:"

// Catalogue returns the APIs that a user may see, sorted by id: those that are published,
// and public or have the user, or one of the user's groups, among their members. An empty
// user is nobody in particular.
func (r *Registry) Catalogue(user string, groups []string) []API {
	var apis []API
	for _, a := range r.List() {
		if a.Published && (a.Public || member(a.Members, user, groups)) {
			apis = append(apis, a)
		}
	}
	return apis
}

func member(members []string, user string, groups []string) bool {
	if user != "" && !strings.HasPrefix(user, groupPrefix) && slices.Contains(members, user) {
		return true
	}
	return slices.ContainsFunc(groups, func(g string) bool { return g != "" && slices.Contains(members, groupPrefix+g) })
}

// Plans returns the plans of an API with how far they have come: the saved ones in their
// order, then those that only the deployed definition still has.
func (r *Registry) Plans(id string) ([]PlanInfo, error) {
	e := r.current.Load().entries[id]
	if e == nil {
		return nil, noAPI(id)
	}
	return slices.Clone(e.plans), nil
}

// Serving returns the managed APIs that are to be served: deployed, started, with no
// declared API of the same id. Their Deployed.Definition is what to load. Sorted by id.
func (r *Registry) Serving() []API {
	x := r.current.Load()
	var apis []API
	for _, id := range x.ids {
		if e := x.entries[id]; e.api.Managed && e.api.Started && !e.ousted {
			apis = append(apis, *e.api)
		}
	}
	return apis
}

// Stage returns the stage of a plan. It says false if there is no such API or plan, and
// also tells the stage of plans that were closed and deleted. It is quick.
func (r *Registry) Stage(api, plan string) (Stage, bool) {
	e := r.current.Load().entries[api]
	if e == nil {
		return "", false
	}
	s, ok := e.stages[plan]
	return s, ok
}

// IsStarted says whether clients may use an API: a declared one that is not stopped, or a
// managed one that is in Serving. It is quick.
func (r *Registry) IsStarted(id string) bool {
	e := r.current.Load().entries[id]
	return e != nil && e.api.Started && !e.ousted
}

// Problems are what somebody should look at: managed APIs that are not served because the
// configuration or another managed API stands in their way, and records that can't be read.
func (r *Registry) Problems() []Problem { return slices.Clone(r.current.Load().problems) }
