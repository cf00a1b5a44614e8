package lifecycle

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// planEntry is one object of a definition's plans array.
type planEntry struct {
	name, kind string
	raw        json.RawMessage
}

func named(name string) func(planEntry) bool {
	return func(p planEntry) bool { return p.name == name }
}

// readPlan reads a plan's name, which defaults to its type, and its type.
func readPlan(raw json.RawMessage) (planEntry, error) {
	var head struct {
		Name string `json:"name"`
		Plan struct {
			Type string `json:"type"`
		} `json:"plan"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return planEntry{}, fmt.Errorf("reading a plan: %w", err)
	}
	if head.Name == "" {
		head.Name = head.Plan.Type
	}
	return planEntry{name: head.Name, kind: head.Plan.Type, raw: raw}, nil
}

// plansOf reads the plans array of a definition.
func plansOf(definition json.RawMessage) ([]planEntry, error) {
	var d struct {
		Plans []json.RawMessage `json:"plans"`
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		return nil, fmt.Errorf("reading the plans of a definition: %w", err)
	}
	entries := make([]planEntry, len(d.Plans))
	for i, raw := range d.Plans {
		var err error
		if entries[i], err = readPlan(raw); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// withPlans is the definition with other plans.
func withPlans(definition json.RawMessage, entries []planEntry) (json.RawMessage, error) {
	d := map[string]json.RawMessage{}
	if err := json.Unmarshal(definition, &d); err != nil {
		return nil, fmt.Errorf("reading a definition: %w", err)
	}
	delete(d, "plans")
	if len(entries) > 0 {
		raws := make([]json.RawMessage, len(entries))
		for i, p := range entries {
			raws[i] = p.raw
		}
		plans, err := json.Marshal(raws)
		if err != nil {
			return nil, fmt.Errorf("writing plans: %w", err)
		}
		d["plans"] = plans
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("writing a definition: %w", err)
	}
	return raw, nil
}

// withName writes its name into a plan, which may have had it from its type.
func withName(raw json.RawMessage, name string) (json.RawMessage, error) {
	p := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("reading a plan: %w", err)
	}
	if p == nil {
		return nil, fmt.Errorf("a plan is a JSON object")
	}
	quoted, err := json.Marshal(name)
	if err != nil {
		return nil, fmt.Errorf("writing a plan's name: %w", err)
	}
	p["name"] = quoted
	return json.Marshal(p)
}

// served is the part of a revision that a deploy serves: without staging and closed plans.
func served(r *Revision, stages map[string]Stage) (json.RawMessage, []Plan, error) {
	var plans []Plan
	for _, p := range r.Plans {
		if stageOf(stages, p.Name).served() {
			plans = append(plans, p)
		}
	}
	if len(plans) == len(r.Plans) {
		return r.Definition, r.Plans, nil
	}
	entries, err := plansOf(r.Definition)
	if err != nil {
		return nil, nil, err
	}
	kept := entries[:0]
	for _, p := range entries {
		if stageOf(stages, p.name).served() {
			kept = append(kept, p)
		}
	}
	definition, err := withPlans(r.Definition, kept)
	return definition, plans, err
}

// lacks names what a definition must have to be served, other than plans.
func lacks(definition json.RawMessage) (string, error) {
	var d struct {
		Entrypoints []json.RawMessage `json:"entrypoints"`
		Endpoints   []json.RawMessage `json:"endpoints"`
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		return "", fmt.Errorf("reading a definition: %w", err)
	}
	switch {
	case len(d.Entrypoints) == 0:
		return "entrypoint", nil
	case len(d.Endpoints) == 0:
		return "endpoint", nil
	}
	return "", nil
}

// sameJSON compares two JSON texts by what they say: the order of an object's members and
// white space do not matter.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	left, errLeft := sorted(a)
	right, errRight := sorted(b)
	return errLeft == nil && errRight == nil && bytes.Equal(left, right)
}

func sorted(raw json.RawMessage) ([]byte, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}
