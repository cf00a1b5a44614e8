package lifecycle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/store"
)

// recordKind is the kind of the store's records that are kept here, one for each API.
const recordKind = "api"

func refOf(id string) store.Ref { return store.Ref{Kind: recordKind, ID: id} }

// record is what is stored about an API. The flags belong to the id: they hold for a
// declared API, and for a managed one of the same id that is moved into the configuration
// or out of it.
type record struct {
	// Managed: Saved is the API's definition. A record without it holds the flags of a
	// declared API.
	Managed  bool      `json:"managed,omitempty"`
	Saved    *Revision `json:"saved,omitempty"`
	Deployed *Revision `json:"deployed,omitempty"`
	// Stopped, and not started, is stored, because a declared API about which nothing is
	// known is started.
	Stopped    bool             `json:"stopped,omitempty"`
	Published  bool             `json:"published,omitempty"`
	Public     bool             `json:"public,omitempty"`
	Deprecated bool             `json:"deprecated,omitempty"`
	Stages     map[string]Stage `json:"stages,omitempty"`
	// Kinds are the kinds of all plans that the API ever had, by name, so that a plan that
	// was closed can't come back as another.
	Kinds     map[string]string `json:"kinds,omitempty"`
	Members   []string          `json:"members,omitempty"`
	CreatedAt time.Time         `json:"created_at,omitzero"`
	UpdatedAt time.Time         `json:"updated_at,omitzero"`
	UpdatedBy string            `json:"updated_by,omitempty"`
}

func decodeRecord(r store.Record) (*record, error) {
	rec := new(record)
	if err := json.Unmarshal(r.Data, rec); err != nil {
		return nil, fmt.Errorf("the record of API %s can't be read: %w", r.ID, err)
	}
	if rec.Managed && rec.Saved == nil {
		return nil, fmt.Errorf("the record of API %s can't be read: its definition is missing", r.ID)
	}
	for plan, s := range rec.Stages {
		if s.rank() < 0 {
			return nil, fmt.Errorf("the record of API %s can't be read: plan %s has the unknown stage %q", r.ID, plan, s)
		}
	}
	return rec, nil
}

// encode is the record as it is compared, to find out whether anything was changed.
func (rec *record) encode() ([]byte, error) {
	raw, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("writing the record of an API: %w", err)
	}
	return raw, nil
}

// same says that both say the same.
func (rec *record) same(encoded []byte) (bool, error) {
	raw, err := rec.encode()
	return bytes.Equal(raw, encoded), err
}

func (rec *record) stage(plan string) Stage { return stageOf(rec.Stages, plan) }

// setStage stores a stage; published is the one that is not written down.
func (rec *record) setStage(plan string, s Stage) {
	if s == Published {
		delete(rec.Stages, plan)
		return
	}
	if rec.Stages == nil {
		rec.Stages = map[string]Stage{}
	}
	rec.Stages[plan] = s
}

// remember notes the kinds of plans.
func (rec *record) remember(plans []Plan) {
	if len(plans) > 0 && rec.Kinds == nil {
		rec.Kinds = map[string]string{}
	}
	for _, p := range plans {
		rec.Kinds[p.Name] = p.Kind
	}
}

// started says whether the API is, as a managed or as a declared one.
func (rec *record) started(declared bool) bool {
	return !rec.Stopped && (declared || rec.Deployed != nil)
}

// api is the record as it is shown.
func (rec *record) api(id string, version uint64, declared bool) *API {
	a := &API{
		ID: id, Started: rec.started(declared), Published: rec.Published, Public: rec.Public, Deprecated: rec.Deprecated,
		Stages: maps.Clone(rec.Stages), Members: slices.Clone(rec.Members),
		CreatedAt: rec.CreatedAt, UpdatedAt: rec.UpdatedAt, UpdatedBy: rec.UpdatedBy, Version: version,
	}
	if !declared {
		a.Managed, a.Saved, a.Deployed = true, rec.Saved, rec.Deployed
	}
	return a
}

// plans are the plans of a managed or a declared API with how far they have come: the saved
// ones in their order, then those that only the deployed definition still has.
func (rec *record) plans(declared []Plan, isDeclared bool) []PlanInfo {
	var infos []PlanInfo
	if isDeclared {
		for _, p := range declared {
			infos = append(infos, PlanInfo{Name: p.Name, Kind: p.Kind, Stage: rec.stage(p.Name), Saved: true, Deployed: true})
		}
		return infos
	}
	if rec.Saved != nil {
		for _, p := range rec.Saved.Plans {
			infos = append(infos, PlanInfo{Name: p.Name, Kind: p.Kind, Stage: rec.stage(p.Name), Saved: true})
		}
	}
	if rec.Deployed == nil {
		return infos
	}
	for _, p := range rec.Deployed.Plans {
		if i := slices.IndexFunc(infos, func(have PlanInfo) bool { return have.Name == p.Name }); i >= 0 {
			infos[i].Deployed = true
			continue
		}
		infos = append(infos, PlanInfo{Name: p.Name, Kind: p.Kind, Stage: rec.stage(p.Name), Deployed: true})
	}
	return infos
}
