package module

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-message-api/caddy-message-api/lifecycle"
)

// validation finds all that is wrong with the definition of a managed API, as loading a
// configuration would, but without an end at the first flaw.
type validation struct {
	app   *App
	ctx   caddy.Context
	def   *Definition
	flaws []flaw
}

// validateManaged checks a definition for the lifecycle: one to be deployed must be complete.
func validateManaged(_ context.Context, id string, raw json.RawMessage, deploy bool) (json.RawMessage, []lifecycle.Plan, []string, error) {
	app := currentApp()
	if app == nil {
		return nil, nil, nil, errors.New("no configuration is running that could serve the API")
	}
	ctx, cancel := detach(app.ctx)
	defer cancel()
	v := &validation{app: app, ctx: ctx, def: new(Definition)}
	written, paths := v.run(id, raw, deploy)
	if len(v.flaws) > 0 {
		e := &lifecycle.Error{Kind: lifecycle.Invalid, Detail: "the definition is not valid"}
		for _, f := range v.flaws {
			e.Problems = append(e.Problems, lifecycle.Problem{Path: f.path, Detail: f.detail})
		}
		return nil, nil, nil, e
	}
	list := make([]lifecycle.Plan, len(v.def.Plans))
	for i, p := range v.def.Plans {
		list[i] = lifecycle.Plan{Name: p.Name, Kind: typeOf(p.PlanRaw)}
	}
	return written, list, paths, nil
}

func (v *validation) wrong(path string, err error) {
	v.flaws = append(v.flaws, flaw{path: path, detail: err.Error()})
}

// run returns the definition as it is to be kept: as it was written, with its id.
func (v *validation) run(id string, raw json.RawMessage, deploy bool) (written json.RawMessage, paths []string) {
	v.decode(raw)
	if v.def.ID != "" && v.def.ID != id {
		v.wrong("id", fmt.Errorf("the id is %q here and %q in the address: leave it out here", v.def.ID, id))
	}
	v.def.ID = id
	written, err := json.Marshal(v.def)
	if err != nil {
		v.wrong("", err)
		return nil, nil
	}
	v.flaws = append(v.flaws, v.def.check()...)
	if deploy || len(v.def.Paths) == 0 {
		v.flaws = append(v.flaws, v.def.missing()...)
	}
	loaded, err := v.def.clone() // loading empties the raw fields
	if err != nil {
		v.wrong("", err)
		return nil, nil
	}
	v.load(loaded)
	return written, v.def.Paths
}

// decode reads the members one by one, so that each can be wrong by itself.
func (v *validation) decode(raw json.RawMessage) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		v.wrong("", errors.New("the definition is not a JSON object"))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch name {
		case "plans":
			v.def.Plans = decodeEach[PlanConfig](v, name, members[name])
		case "endpoints":
			v.def.Endpoints = decodeEach[EndpointConfig](v, name, members[name])
		default:
			decodeInto(v, name, map[string]json.RawMessage{name: members[name]}, v.def)
		}
	}
}

// decodeEach reads the elements of an array one by one.
func decodeEach[T any](v *validation, name string, raw json.RawMessage) []*T {
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		v.wrong(name, errors.New("this is not an array"))
		return nil
	}
	list := make([]*T, len(elements))
	for i, element := range elements {
		list[i] = new(T)
		path := fmt.Sprintf("%s[%d]", name, i)
		var members map[string]json.RawMessage
		if err := json.Unmarshal(element, &members); err != nil || members == nil {
			v.wrong(path, errors.New("this is not an object"))
			continue
		}
		for _, member := range slices.Sorted(maps.Keys(members)) {
			decodeInto(v, path+"."+member, map[string]json.RawMessage{member: members[member]}, list[i])
		}
	}
	return list
}

// decodeInto reads an object of one member, which path names. What can't be read leaves
// nothing behind.
func decodeInto[T any](v *validation, path string, object map[string]json.RawMessage, into *T) {
	one, err := json.Marshal(object)
	if err != nil {
		v.wrong(path, err)
		return
	}
	for _, into := range []*T{new(T), into} {
		dec := json.NewDecoder(bytes.NewReader(one))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			v.wrong(path, errors.New(strings.TrimPrefix(err.Error(), "json: ")))
			return
		}
	}
}

// flawed says whether something about the path was wrong already, so that what follows from
// it need not be told.
func (v *validation) flawed(path string) bool {
	return slices.ContainsFunc(v.flaws, func(f flaw) bool { return f.path == path || strings.HasPrefix(f.path, path+".") })
}

// load loads every guest, as the unit would, and lets go of it again.
func (v *validation) load(def *Definition) {
	u := &unit{def: def}
	v.loadEndpoints(u)
	v.loadPlans(u)
	for i, raw := range def.EntrypointsRaw {
		one := &unit{def: &Definition{ID: def.ID, EntrypointsRaw: []json.RawMessage{raw}}, eps: u.eps, plans: u.plans, log: v.app.log}
		if err := one.loadEntrypoints(v.ctx, len(u.eps) == len(def.Endpoints) && len(u.eps) > 0); err != nil {
			v.wrong(fmt.Sprintf("entrypoints[%d]", i), err)
		}
		if slices.ContainsFunc(v.def.EntrypointsRaw[:i], func(r json.RawMessage) bool { return typeOf(r) == typeOf(v.def.EntrypointsRaw[i]) }) {
			v.wrong(fmt.Sprintf("entrypoints[%d]", i), fmt.Errorf("entrypoint %s stands twice", typeOf(v.def.EntrypointsRaw[i])))
		}
		u.ways = append(u.ways, one.ways...)
	}
	if len(u.ways) < len(def.EntrypointsRaw) {
		return // what the subscriptions lack would only follow from that
	}
	if err := u.loadStatic(); err != nil {
		v.wrong("subscriptions", err)
	}
}

func (v *validation) loadEndpoints(u *unit) {
	for i, cfg := range u.def.Endpoints {
		path := fmt.Sprintf("endpoints[%d]", i)
		if v.flawed(path) {
			continue
		}
		cfg.normalize()
		if slices.ContainsFunc(u.def.Endpoints[:i], func(e *EndpointConfig) bool { return e.Name == cfg.Name }) {
			v.wrong(path, fmt.Errorf("endpoint %q is defined twice: give one of them another name", cfg.Name))
		}
		if cfg.Use != "" {
			shared, err := v.app.sharedEndpoint(cfg.Use)
			if err != nil {
				v.wrong(path, err)
				continue
			}
			cfg.EndpointRaw = slices.Clone(shared.EndpointRaw)
		}
		e, err := readyEndpoint(v.ctx, cfg)
		if err != nil {
			v.wrong(path, err)
			continue
		}
		u.eps = append(u.eps, e)
	}
}

func (v *validation) loadPlans(u *unit) {
	for i, cfg := range u.def.Plans {
		path := fmt.Sprintf("plans[%d]", i)
		if v.flawed(path) {
			continue
		}
		if err := cfg.normalize(); err != nil {
			v.wrong(path, err)
			continue
		}
		v.def.Plans[i].Name = cfg.Name
		if kind := typeOf(cfg.PlanRaw); v.app.forbids(kind) {
			v.wrong(path, fmt.Errorf("plans_forbidden refuses plans of the type %s here", kind))
			continue
		}
		if slices.ContainsFunc(u.plans, func(p *plan) bool { return p.name == cfg.Name }) {
			v.wrong(path, fmt.Errorf("plan %q is defined twice: give one of them another name", cfg.Name))
			continue
		}
		p, err := loadPlan(v.ctx, u.def.ID, cfg)
		if err != nil {
			v.wrong(path, err)
			continue
		}
		u.plans = append(u.plans, p)
	}
}
