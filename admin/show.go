package admin

import (
	"encoding/json"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
	"github.com/caddy-message-api/caddy-message-api/subscriptions"
)

// show makes what goes over the wire of an API.
func (s *Server) show(a lifecycle.API, definitions bool) API {
	out := API{
		ID: a.ID, Managed: a.Managed, State: a.State(), OutOfSync: a.OutOfSync(),
		Published: a.Published, Public: a.Public, Deprecated: a.Deprecated,
		Members: a.Members, Plans: s.plansOf(a),
		Saved: showRevision(a.Saved, definitions), Deployed: showRevision(a.Deployed, definitions),
		CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, UpdatedBy: a.UpdatedBy, ETag: etagOf(a.Version),
	}
	if running, ok := s.Hooks.Running(a.ID); ok {
		out.Running = &running
		out.Name, out.Version, out.Description = running.Name, running.Version, running.Description
		out.Labels, out.Paths = running.Labels, running.Paths
		return out
	}
	revision := a.Deployed
	if revision == nil {
		revision = a.Saved
	}
	if revision != nil {
		out.describe(revision)
	}
	return out
}

// describe takes over what a definition says for people.
func (a *API) describe(r *lifecycle.Revision) {
	var about struct {
		Name        string   `json:"name"`
		Version     string   `json:"version"`
		Description string   `json:"description"`
		Labels      []string `json:"labels"`
	}
	if json.Unmarshal(r.Definition, &about) != nil {
		return // it was checked when it was saved: by an older version, which knew these otherwise
	}
	a.Name, a.Version, a.Description, a.Labels, a.Paths = about.Name, about.Version, about.Description, about.Labels, r.Paths
}

func showRevision(r *lifecycle.Revision, definition bool) *Revision {
	if r == nil {
		return nil
	}
	out := &Revision{Number: r.Number, At: r.At, By: r.By}
	if definition {
		out.Definition = r.Definition
	}
	return out
}

func (s *Server) plansOf(a lifecycle.API) []Plan {
	infos, err := s.Lifecycle.Plans(a.ID)
	if err != nil { // it has been deleted meanwhile
		return []Plan{}
	}
	return convertEach(infos, func(p lifecycle.PlanInfo) Plan {
		return Plan{
			API: a.ID, Name: p.Name, Kind: p.Kind, Stage: string(p.Stage), Saved: p.Saved, Deployed: p.Deployed, ETag: etagOf(a.Version),
		}
	})
}

func showApplication(a subscriptions.Application) Application {
	return Application{
		ID: a.ID, Name: a.Name, Description: a.Description, ClientID: a.ClientID, Owner: a.Owner, Archived: a.Archived,
		CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, UpdatedBy: a.UpdatedBy, ETag: etagOf(a.Version),
	}
}

func showSubscription(s subscriptions.Subscription) Subscription {
	out := Subscription{
		ID: s.ID, API: s.API, Plan: s.Plan, Application: s.Application, Status: string(s.Status), Reason: s.Reason, Message: s.Message,
		Starts: s.Starts, Ends: s.Ends, CreatedAt: s.CreatedAt, ProcessedAt: s.ProcessedAt, ProcessedBy: s.ProcessedBy,
		PausedAt: s.PausedAt, ClosedAt: s.ClosedAt, UpdatedAt: s.UpdatedAt, UpdatedBy: s.UpdatedBy,
		Limits: showLimits(s.Limits), Metadata: s.Metadata, ConditionsAccepted: s.ConditionsAccepted,
		Consumer: s.Consumer, ETag: etagOf(s.Version),
	}
	if p := s.Proposed; p != nil {
		out.Proposed = &Proposed{Consumer: p.Consumer, At: p.At, By: p.By}
	}
	return out
}

// showKey leaves out the hash: it is of no use to anybody but the registry.
func showKey(k subscriptions.Key) Key {
	return Key{
		ID: k.ID, Subscription: k.Subscription, Hint: k.Hint, Custom: k.Custom, CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy,
		Expires: k.Expires, RevokedAt: k.RevokedAt, RevokedBy: k.RevokedBy, Reason: k.Reason, ETag: etagOf(k.Version),
	}
}

func showNewKey(k subscriptions.NewKey) *NewKey {
	return &NewKey{Key: showKey(k.Key), Secret: k.Secret}
}
