package module

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// consumersNamespace is where the entrypoints that push register how a consumer is written in
// a Caddyfile.
const consumersNamespace = "message_api.consumers"

// SubscriptionConfig is a subscription that is part of an API's definition: the gateway
// delivers to it without anybody having asked for it at run time.
type SubscriptionConfig struct {
	// Name tells it apart within the API: 1 to 64 of A-Z a-z 0-9 _ -. Its id in the admin API
	// is <api>.<name>, which is also what its queue or group is called at the broker.
	Name string `json:"name,omitempty"`
	// Consumer is where to deliver, and how: the object that the admin API takes.
	Consumer json.RawMessage `json:"consumer,omitempty"`
}

// static is a SubscriptionConfig that was checked.
type static struct {
	name         string
	whole, shown json.RawMessage
}

// id is what a static subscription is called in the admin API. No subscription of the store
// has such an id.
func (u *unit) staticID(name string) string { return u.def.ID + "." + name }

// checkStatic checks names, before any guest is loaded.
func (d *Definition) checkStatic(wrong func(path, format string, args ...any)) {
	for i, s := range d.Subscriptions {
		path := fmt.Sprintf("subscriptions[%d]", i)
		if !idPattern.MatchString(s.Name) {
			wrong(path+".name", "message API %s: subscription name %q: use 1 to 64 of A-Z a-z 0-9 _ -", d.ID, s.Name)
		}
		if slices.ContainsFunc(d.Subscriptions[:i], func(o *SubscriptionConfig) bool { return o.Name == s.Name }) {
			wrong(path+".name", "message API %s: subscription %s stands twice", d.ID, s.Name)
		}
		if len(s.Consumer) == 0 {
			wrong(path+".consumer", "message API %s: subscription %s says nothing of where to deliver", d.ID, s.Name)
		}
	}
}

// loadStatic has the entrypoint that pushes check the subscriptions of the definition.
func (u *unit) loadStatic() error {
	w := u.pushing()
	pushes := slices.ContainsFunc(u.plans, func(p *plan) bool { return p.kind == kindPush })
	if w == nil {
		if pushes || len(u.def.Subscriptions) > 0 {
			return errors.New("plan push and subscriptions need an entrypoint that goes to its clients: add `entrypoint webhook`")
		}
		return nil
	}
	for _, cfg := range u.def.Subscriptions {
		asked, err := expand(cfg.Consumer)
		if err != nil {
			return fmt.Errorf("subscription %s: %w", cfg.Name, err)
		}
		s := static{name: cfg.Name}
		if s.whole, s.shown, err = w.push.Consumer(nil, asked); err != nil {
			return fmt.Errorf("subscription %s: %w", cfg.Name, err)
		}
		u.statics = append(u.statics, s)
	}
	return nil
}

// pushing is the way of the entrypoint that pushes, or nil.
func (u *unit) pushing() *way {
	for _, w := range u.ways {
		if w.push != nil {
			return w
		}
	}
	return nil
}

// expand replaces {env.*} and {file.*} in a consumer. One that is silent about secrets has
// none: nobody would be told which were made.
func expand(raw json.RawMessage) (json.RawMessage, error) {
	var consumer map[string]any
	if err := json.Unmarshal(raw, &consumer); err != nil || consumer == nil {
		return nil, errors.New("consumer is not a JSON object")
	}
	if _, ok := consumer["secrets"]; !ok {
		consumer["secrets"] = []any{}
	}
	var errs []error
	expanded := expandAll(consumer, caddy.NewReplacer(), &errs)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return json.Marshal(expanded)
}

// expandAll replaces the placeholders of the environment and of files, and leaves all other
// braces alone. One that stands for nothing is an error: an empty secret would sign nothing.
func expandAll(v any, repl *caddy.Replacer, errs *[]error) any {
	switch v := v.(type) {
	case string:
		if !strings.Contains(v, "{") {
			return v
		}
		text, err := repl.ReplaceFunc(v, func(variable string, val any) (any, error) {
			switch text := strings.TrimRight(caddy.ToString(val), "\r\n"); {
			case !global(variable):
				return "{" + variable + "}", nil
			case text == "":
				return "", fmt.Errorf("{%s} stands for nothing", variable)
			default:
				return text, nil
			}
		})
		if err != nil {
			*errs = append(*errs, err)
		}
		return text
	case []any:
		for i := range v {
			v[i] = expandAll(v[i], repl, errs)
		}
	case map[string]any:
		for k := range v {
			v[k] = expandAll(v[k], repl, errs)
		}
	}
	return v
}

// readSubscription reads `subscription <name> { ... }`, whose block is that of the entrypoint
// that pushes.
func (d *Definition) readSubscription(disp *caddyfile.Dispenser) error {
	if !disp.NextArg() {
		return disp.Errf("subscription needs a name: `subscription <name> { … }`")
	}
	cfg := &SubscriptionConfig{Name: disp.Val()}
	if slices.ContainsFunc(d.Subscriptions, func(o *SubscriptionConfig) bool { return o.Name == cfg.Name }) {
		return disp.Errf("subscription %q stands twice", cfg.Name)
	}
	kinds := caddy.GetModules(consumersNamespace)
	if len(kinds) == 0 {
		return disp.Errf("this build has no entrypoint that goes to its clients")
	}
	seg := disp.NextSegment()
	val, err := caddyfile.UnmarshalModule(restart(caddyfile.NewDispenser(seg)), string(kinds[0].ID))
	if err != nil {
		return err
	}
	if cfg.Consumer, err = json.Marshal(val); err != nil {
		return disp.Errf("subscription %s: %v", cfg.Name, err)
	}
	d.Subscriptions = append(d.Subscriptions, cfg)
	return nil
}
