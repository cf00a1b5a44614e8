// Package lifecycle keeps what may change about a message API while the gateway runs: what
// of it is saved, what is deployed, whether it is started, who sees it, and which of its
// plans can still be subscribed to. An API is either declared, so written in the
// configuration, or managed, so written here; of a declared one only the flags live here.
//
// Everything is kept in the store, and so survives a restart and holds on every node.
package lifecycle

import (
	"encoding/json"
	"slices"
	"time"
)

// API is a message API as it stands. It is a snapshot: what it points to must not be
// changed.
type API struct {
	ID string `json:"id"`
	// Managed: the definition lives in the store. Otherwise it is in the configuration.
	Managed bool `json:"managed"`
	// Saved is the definition that was written last; nil for a declared API.
	Saved *Revision `json:"saved,omitempty"`
	// Deployed is what is served while the API is started. Nil for a declared API, and
	// before the first deploy.
	Deployed *Revision `json:"deployed,omitempty"`
	// Started: clients may use it. A stopped API answers 404.
	Started bool `json:"started"`
	// Published: its members see it; everybody, if it is Public too.
	Published bool `json:"published"`
	Public    bool `json:"public"`
	// Deprecated APIs take no new subscription, for ever.
	Deprecated bool `json:"deprecated"`
	// Stages are the stages of its plans, by name. A plan that is not in it is published.
	Stages map[string]Stage `json:"stages,omitempty"`
	// Members see the API while it is published: "<user>" or "group:<name>", sorted.
	Members   []string  `json:"members,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	UpdatedBy string    `json:"updated_by,omitempty"`
	// Version is the store's; 0 if nothing is stored about the API.
	Version uint64 `json:"-"`
}

// Revision is one state of a managed API's definition.
type Revision struct {
	// Number counts the definitions that were saved, from 1.
	Number int `json:"number"`
	// Definition is the API as it would stand in the configuration, as JSON.
	Definition json.RawMessage `json:"definition"`
	// Plans and Paths are what the definition says of them.
	Plans []Plan    `json:"plans,omitempty"`
	Paths []string  `json:"paths,omitempty"`
	At    time.Time `json:"at"`
	By    string    `json:"by,omitempty"`
}

// Plan is a plan's name and kind, like gold and api_key.
type Plan struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

// PlanInfo is a plan with how far it has come.
type PlanInfo struct {
	Name  string
	Kind  string
	Stage Stage
	// Saved: it is in the saved definition. Deployed: it is in the deployed one. Plans of
	// a declared API are both.
	Saved, Deployed bool
}

// Stage is how far a plan has come. It never goes back.
type Stage string

// The stages, in their order.
const (
	Staging    Stage = "staging"    // written, but neither served nor offered
	Published  Stage = "published"  // offered for subscription
	Deprecated Stage = "deprecated" // lets in whom it has, takes nobody new
	Closed     Stage = "closed"     // lets nobody in
)

var order = []Stage{Staging, Published, Deprecated, Closed}

func (s Stage) rank() int { return slices.Index(order, s) }

// served says whether a plan of this stage is part of what is deployed.
func (s Stage) served() bool { return s == Published || s == Deprecated }

// The words for an API's state.
const (
	StateSaved   = "saved"
	StateStarted = "started"
	StateStopped = "stopped"
)

// State is "started", "stopped", or "saved" for an API that was never deployed.
func (a *API) State() string {
	switch {
	case a.Managed && a.Deployed == nil:
		return StateSaved
	case a.Started:
		return StateStarted
	}
	return StateStopped
}

// OutOfSync says that a deploy would change what is served: that what is saved, without
// its staging and closed plans, is not what is deployed. Closing a plan by itself does not,
// because it takes effect at once.
func (a *API) OutOfSync() bool {
	if !a.Managed || a.Saved == nil {
		return false
	}
	if a.Deployed == nil {
		return true
	}
	saved, _, savedErr := served(a.Saved, a.Stages)
	deployed, _, deployedErr := served(a.Deployed, a.Stages)
	return savedErr != nil || deployedErr != nil || !sameJSON(saved, deployed)
}

// Plan returns a plan's part of the saved definition.
func (a *API) Plan(name string) (json.RawMessage, bool) {
	if a.Saved == nil {
		return nil, false
	}
	entries, err := plansOf(a.Saved.Definition)
	if err != nil {
		return nil, false
	}
	i := slices.IndexFunc(entries, named(name))
	if i < 0 {
		return nil, false
	}
	return entries[i].raw, true
}

// stageOf is a plan's stage by the flags; it does not ask whether there is such a plan.
func stageOf(stages map[string]Stage, plan string) Stage {
	if s, ok := stages[plan]; ok {
		return s
	}
	return Published
}
