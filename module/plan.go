package module

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// PlanConfig is a plan: who may use the API, and how much. What stands beside the plan
// module is the same for every type of plan.
type PlanConfig struct {
	// Name tells plans of one type apart. Subscriptions refer to it. Default: the type.
	Name string `json:"name,omitempty"`
	// Description and Labels are for people.
	Description string   `json:"description,omitempty"`
	Labels      []string `json:"labels,omitempty"`
	// SelectionRule is a CEL expression over the request, as in Caddy's matcher
	// `expression`; the plan lets in only requests for which it is true. A request that
	// presents this plan's kind of credential is never let in as anonymous, whatever the
	// rule says. Default: every request.
	SelectionRule string `json:"selection_rule,omitempty"`
	// Validation says whether new subscriptions are accepted by somebody ("manual") or at
	// once ("auto"). Default: manual.
	Validation string `json:"validation,omitempty"`
	// GeneralConditions is the revision of the conditions that a subscriber must have
	// accepted, for example a date or a URL with a version. Default: none.
	GeneralConditions string `json:"general_conditions,omitempty"`
	plans.Limits
	// PlanRaw is the plan module.
	PlanRaw json.RawMessage `json:"plan,omitempty" caddy:"namespace=message_api.plans inline_key=type"`
}

// normalize fills in the name and says what is wrong.
func (p *PlanConfig) normalize() error {
	if p.Name == "" {
		p.Name = typeOf(p.PlanRaw)
	}
	if !idPattern.MatchString(p.Name) {
		return fmt.Errorf("plan name %q: use 1 to 64 of A-Z a-z 0-9 _ -", p.Name)
	}
	if p.Validation != "" && p.Validation != "auto" && p.Validation != "manual" {
		return fmt.Errorf("plan %s: validation %q: use auto or manual", p.Name, p.Validation)
	}
	if err := p.Limits.Validate(); err != nil {
		return fmt.Errorf("plan %s: %w", p.Name, err)
	}
	return nil
}

// plan is a loaded plan.
type plan struct {
	name      string
	kind      string
	anonymous bool
	challenge string
	config    PlanConfig // without the module
	rule      *caddyhttp.MatchExpression
	guest     plans.Plan
	carrier   plans.Carrier // nil: its credential is neither in a header nor in the query
	directory *directory
}

// kindPush is the type of the plans to whose subscriptions the gateway delivers.
const kindPush = "push"

// planOrder is the order in which kinds of plans are asked: the strongest proof first. Others
// come before the last, which is keyless.
var planOrder = []string{"mtls", "jwt", "oauth2", "api_key"}

func (p *plan) rank() int {
	if p.anonymous {
		return len(planOrder) + 1
	}
	if i := slices.Index(planOrder, p.kind); i >= 0 {
		return i
	}
	return len(planOrder)
}

func (u *unit) loadPlans(ctx caddy.Context) error {
	for _, cfg := range u.def.Plans {
		if err := cfg.normalize(); err != nil {
			return err
		}
		if slices.ContainsFunc(u.plans, func(p *plan) bool { return p.name == cfg.Name }) {
			return fmt.Errorf("plan %q is defined twice: give one of them another name", cfg.Name)
		}
		p, err := loadPlan(ctx, u.def.ID, cfg)
		if err != nil {
			return fmt.Errorf("plan %s: %w", cfg.Name, err)
		}
		u.plans = append(u.plans, p)
		if p.carrier != nil {
			for _, name := range p.carrier.CredentialHeaders() {
				u.withheld = append(u.withheld, http.CanonicalHeaderKey(name))
			}
		}
	}
	slices.SortStableFunc(u.plans, func(a, b *plan) int { return a.rank() - b.rank() })
	return nil
}

func loadPlan(ctx caddy.Context, api string, cfg *PlanConfig) (*plan, error) {
	p := &plan{name: cfg.Name, config: *cfg, directory: newDirectory(api, cfg.Name)}
	p.config.PlanRaw = nil
	kind := typeOf(cfg.PlanRaw)
	val, err := ctx.LoadModule(cfg, "PlanRaw")
	if err != nil {
		return nil, unknownGuest(err, plans.Namespace, kind)
	}
	guest, ok := val.(plans.Plan)
	if !ok {
		return nil, fmt.Errorf("module %T is no plans.Plan", val)
	}
	p.guest, p.kind, p.anonymous = guest, guest.Kind(), guest.Anonymous()
	if p.kind == kindPush {
		if own := (plans.Limits{ReceiveRate: cfg.ReceiveRate}); cfg.Limits != own || cfg.SelectionRule != "" {
			return nil, errors.New("nobody calls a plan push, so that of all limits it knows receive_rate alone, and no selection_rule")
		}
	}
	if c, ok := guest.(plans.Challenger); ok {
		p.challenge = c.Challenge()
	}
	p.carrier, _ = guest.(plans.Carrier)
	if s, ok := guest.(plans.Subscribed); ok {
		s.SetDirectory(p.directory)
	}
	if cfg.SelectionRule == "" {
		return p, nil
	}
	p.rule = &caddyhttp.MatchExpression{Expr: cfg.SelectionRule}
	if err := p.rule.Provision(ctx); err != nil {
		return nil, fmt.Errorf("selection_rule: %w", err)
	}
	return p, nil
}

// startPlans lets the plans begin with what they do in the background.
func (u *unit) startPlans() {
	for _, p := range u.plans {
		if s, ok := p.guest.(plans.Starter); ok {
			s.Start()
		}
	}
}

// forbidden says which of the definition's plans this gateway refuses.
func forbidden(app *App, def *Definition) error {
	for _, p := range def.Plans {
		if kind := typeOf(p.PlanRaw); app.forbids(kind) {
			return fmt.Errorf("message API %s has a plan %s, which plans_forbidden refuses here", def.ID, kind)
		}
	}
	return nil
}
