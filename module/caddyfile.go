package module

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-message-api/caddy-message-api/caddyfile/parse"
	"github.com/caddy-message-api/caddy-message-api/endpoints"
	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/plans"
)

// UnmarshalCaddyfile reads the block of a message API. The paths are the directive's
// arguments, and have been read.
//
//	message_api [@matcher] <path> [<path>...] {
//		id                 <id>
//		name               <text>
//		version            <text>
//		description        <text>
//		labels             <label>...
//		origins            <origin>...
//		errors             caddy
//		slow_client        gap|close
//		log_size           <size>
//		propagate_identity [on|off]
//		entrypoint <type> { ... }
//		endpoint   <type> [<name>] { ... }
//		endpoint   use <name>
//		plan       <type> [<name>] { ... }
//		subscription <name> { ... }
//	}
func (def *Definition) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return parse.Block(d, "message_api",
		parse.String("id", &def.ID),
		parse.String("name", &def.Name),
		parse.String("version", &def.Version),
		parse.String("description", &def.Description),
		parse.Strings("labels", &def.Labels),
		parse.Strings("origins", &def.Origins),
		parse.OneOf("errors", &def.Errors, "caddy"),
		parse.OneOf("slow_client", &def.SlowClient, "gap", "close"),
		parse.Size("log_size", &def.LogSize),
		parse.Flag("propagate_identity", &def.PropagateIdentity),
		parse.Option{Name: "entrypoint", Repeat: true, Set: def.readEntrypoint},
		parse.Option{Name: "endpoint", Repeat: true, Set: func(d *caddyfile.Dispenser) error {
			cfg, err := readEndpoint(d, true)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(def.Endpoints, func(e *EndpointConfig) bool { return e.Name == cfg.Name }) {
				return d.Errf("endpoint %q is defined twice: give one of them another name, like `endpoint <type> <name>`", cfg.Name)
			}
			def.Endpoints = append(def.Endpoints, cfg)
			return nil
		}},
		parse.Option{Name: "plan", Repeat: true, Set: def.readPlan},
		parse.Option{Name: "subscription", Repeat: true, Set: def.readSubscription},
	)
}

func (def *Definition) readEntrypoint(d *caddyfile.Dispenser) error {
	kind, name, seg, err := guest(d, "entrypoint", entrypoints.Namespace)
	if err != nil {
		return err
	}
	if name != "" {
		return d.Errf("entrypoint %s takes no name: %q is one too many", kind, name)
	}
	if slices.ContainsFunc(def.EntrypointsRaw, func(raw json.RawMessage) bool { return typeOf(raw) == kind }) {
		return d.Errf("entrypoint %s stands twice", kind)
	}
	raw, err := guestJSON(seg, entrypoints.Namespace, kind)
	if err != nil {
		return err
	}
	def.EntrypointsRaw = append(def.EntrypointsRaw, raw)
	return nil
}

func readEndpoint(d *caddyfile.Dispenser, mayUse bool) (*EndpointConfig, error) {
	args := d.CountRemainingArgs()
	if d.NextArg() && d.Val() == "use" && mayUse {
		if args != 2 {
			return nil, d.Errf("endpoint use takes the name of a shared endpoint, and nothing else")
		}
		d.NextArg()
		return &EndpointConfig{Name: d.Val(), Use: d.Val()}, nil
	}
	d.Prev()
	kind, name, seg, err := guest(d, "endpoint", endpoints.Namespace)
	if err != nil {
		return nil, err
	}
	raw, err := guestJSON(seg, endpoints.Namespace, kind)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = kind
	}
	return &EndpointConfig{Name: name, EndpointRaw: raw}, nil
}

// guest reads `<what> <type> [<name>] { ... }`, and returns the tokens for the guest, which
// sees only its type and its block.
func guest(d *caddyfile.Dispenser, what, namespace string) (kind, name string, seg caddyfile.Segment, err error) {
	if !d.NextArg() {
		return "", "", nil, d.Errf("%s needs a type: use %s", what, known(namespace))
	}
	kind = d.Val()
	if _, err := caddy.GetModule(namespace + "." + kind); err != nil {
		if how, ok := elsewhere[namespace+"."+kind]; ok {
			return "", "", nil, d.Errf("%s %q: %s", what, kind, how)
		}
		return "", "", nil, d.Errf("unknown %s %q: use %s", what, kind, known(namespace))
	}
	seg = d.NextSegment()
	if len(seg) > 1 && seg[1].Line == seg[0].Line && seg[1].Text != "{" {
		name = seg[1].Text
		seg = slices.Delete(seg, 1, 2)
	}
	return kind, name, seg, nil
}

// known lists the guests of a namespace that are in this build.
func known(namespace string) string {
	var names []string
	for _, m := range caddy.GetModules(namespace) {
		names = append(names, m.ID.Name())
	}
	return strings.Join(names, ", ")
}

func guestJSON(seg caddyfile.Segment, namespace, kind string) (json.RawMessage, error) {
	d := caddyfile.NewDispenser(seg)
	val, err := caddyfile.UnmarshalModule(restart(d), namespace+"."+kind)
	if err != nil {
		return nil, err
	}
	var warnings []caddyconfig.Warning
	raw := caddyconfig.JSONModuleObject(val, "type", kind, &warnings)
	if len(warnings) > 0 {
		return nil, d.Errf("%s: %s", kind, warnings[0].Message)
	}
	return raw, nil
}

// restart stands the dispenser on its first token, from which a segment is taken.
func restart(d *caddyfile.Dispenser) *caddyfile.Dispenser {
	d.Next()
	return d
}

// UnmarshalCaddyfile reads the global option.
//
//	message_api {
//		endpoint        <type> [<name>] { ... }
//		plans_forbidden <type>...
//		headers_prefix  <prefix>
//		sync_interval   <duration>
//		key_secret      <secret>
//		key_overlap     <duration>
//		custom_keys     [on|off]
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if err := parse.NoArgs(d); err != nil {
		return err
	}
	return parse.Block(d, "the global option message_api",
		parse.Option{Name: "endpoint", Repeat: true, Set: func(d *caddyfile.Dispenser) error {
			cfg, err := readEndpoint(d, false)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(a.Endpoints, func(e *EndpointConfig) bool { return e.Name == cfg.Name }) {
				return d.Errf("endpoint %q is defined twice: give one of them another name, like `endpoint <type> <name>`", cfg.Name)
			}
			a.Endpoints = append(a.Endpoints, cfg)
			return nil
		}},
		parse.Option{Name: "plans_forbidden", Repeat: true, Set: func(d *caddyfile.Dispenser) error {
			kinds := d.RemainingArgs()
			for _, kind := range kinds {
				if _, err := caddy.GetModule(plans.Namespace + "." + kind); err != nil {
					return d.Errf("unknown plan %q: use %s", kind, known(plans.Namespace))
				}
			}
			if len(kinds) == 0 {
				return d.Errf("plans_forbidden needs at least one type of plan: use %s", known(plans.Namespace))
			}
			a.PlansForbidden = append(a.PlansForbidden, kinds...)
			return nil
		}},
		parse.String("headers_prefix", &a.HeadersPrefix),
		parse.Duration("sync_interval", &a.SyncInterval),
		parse.String("key_secret", &a.KeySecret),
		parse.Duration("key_overlap", &a.KeyOverlap),
		parse.Flag("custom_keys", &a.CustomKeys),
	)
}

// ContextPath brings a context path into the form in which requests are compared with it.
func ContextPath(path string) (string, error) { return contextPath(path) }

// Interface guards.
var (
	_ caddyfile.Unmarshaler = (*Definition)(nil)
	_ caddyfile.Unmarshaler = (*App)(nil)
)
