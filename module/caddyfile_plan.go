package module

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// readPlan reads `plan <type> [<name>] { ... }`. The block mixes what every plan has with
// what this type has.
//
//	plan <type> [<name>] {
//		description        <text>
//		labels             <label>...
//		selection_rule     <CEL expression>
//		validation         auto|manual
//		general_conditions <revision>
//		rate_limit         <n>/<time>
//		quota              <n>/<time> [strict|calendar]
//		max_sessions       <n>
//		publish_rate       <n>/<time>
//		receive_rate       <n>/<time>
//		<options of the type>
//	}
func (def *Definition) readPlan(d *caddyfile.Dispenser) error {
	kind, name, seg, err := guest(d, "plan", plans.Namespace)
	if err != nil {
		return err
	}
	cfg := &PlanConfig{Name: name}
	if name == "" {
		cfg.Name = kind
	}
	if slices.ContainsFunc(def.Plans, func(p *PlanConfig) bool { return p.Name == cfg.Name }) {
		return d.Errf("plan %q is defined twice: give one of them another name, like `plan <type> <name>`", cfg.Name)
	}
	options := cfg.options()
	own, common := split(seg, options)
	if err := parse.Block(restart(caddyfile.NewDispenser(common)), "plan "+kind, options...); err != nil {
		return err
	}
	if cfg.PlanRaw, err = guestJSON(own, plans.Namespace, kind); err != nil {
		if strings.Contains(err.Error(), "unknown option") {
			return fmt.Errorf("%w; every plan has %s", err, names(options))
		}
		return err
	}
	def.Plans = append(def.Plans, cfg)
	return nil
}

// options are the words that every plan has.
func (p *PlanConfig) options() []parse.Option {
	return []parse.Option{
		parse.String("description", &p.Description),
		parse.Strings("labels", &p.Labels),
		parse.String("selection_rule", &p.SelectionRule),
		parse.OneOf("validation", &p.Validation, "auto", "manual"),
		parse.String("general_conditions", &p.GeneralConditions),
		text("rate_limit", &p.RateLimit),
		text("quota", &p.Quota),
		parse.Int("max_sessions", &p.MaxSessions, 1),
		text("publish_rate", &p.PublishRate),
		text("receive_rate", &p.ReceiveRate),
	}
}

// unmarshaler is a pointer to T that reads itself from text.
type unmarshaler[T any] interface {
	*T
	UnmarshalText(text []byte) error
}

// text reads the rest of the line as one value.
func text[T any, P unmarshaler[T]](name string, into **T) parse.Option {
	return parse.Option{Name: name, Set: func(d *caddyfile.Dispenser) error {
		value := new(T)
		if err := P(value).UnmarshalText([]byte(strings.Join(d.RemainingArgs(), " "))); err != nil {
			return d.Errf("%s: %v", name, err)
		}
		*into = value
		return nil
	}}
}

func names(options []parse.Option) string {
	list := make([]string, len(options))
	for i, o := range options {
		list[i] = o.Name
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// split takes the lines of a guest's block that begin with one of the options out of it, into
// a block of their own.
func split(seg caddyfile.Segment, options []parse.Option) (own, common caddyfile.Segment) {
	if len(seg) < 2 {
		return seg, seg
	}
	own, common = append(own, seg[:2]...), append(common, seg[:2]...)
	into := &own
	depth := 1
	for i := 2; i < len(seg); i++ {
		tok := seg[i]
		if tok.Text == "}" {
			depth--
		}
		begins := depth == 1 && (tok.Line != seg[i-1].Line || tok.File != seg[i-1].File)
		switch {
		case depth == 0:
			return append(own, tok), append(common, tok)
		case begins && slices.ContainsFunc(options, func(o parse.Option) bool { return o.Name == tok.Text }):
			into = &common
		case begins && tok.Text != "}":
			into = &own
		}
		if tok.Text == "{" {
			depth++
		}
		*into = append(*into, tok)
	}
	return own, common
}
