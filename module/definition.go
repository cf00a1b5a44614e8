package module

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Definition is a message API: context paths, the ways in, the brokers behind, and the
// plans that say who may use it.
type Definition struct {
	// ID names the API in logs, metrics, the admin API and at brokers. 1 to 64 of
	// A-Z a-z 0-9 _ -. Default: the first path in kebab case; "/" becomes "root".
	ID string `json:"id,omitempty"`
	// Name, Version, Description and Labels are for people.
	Name        string   `json:"name,omitempty"`
	Version     string   `json:"version,omitempty"`
	Description string   `json:"description,omitempty"`
	Labels      []string `json:"labels,omitempty"`
	// Paths are the context paths. Each matches itself and everything below it, by whole
	// segments and without regard to case. At least one.
	Paths []string `json:"paths,omitempty"`
	// Origins are the web origins whose pages may use the API, like
	// https://app.example.com, or *. Pages of the API's own origin always may. A page of
	// any other origin can't read responses, and can neither publish nor open a
	// WebSocket. Default: none.
	Origins []string `json:"origins,omitempty"`
	// Errors says who writes error responses: the gateway, as application/problem+json
	// (""), or Caddy's handle_errors ("caddy").
	Errors string `json:"errors,omitempty"`
	// SlowClient says what happens to a client that falls out of the shared log because
	// it reads too slowly: it is told of a gap and goes on ("gap"), or its session ends
	// ("close"). At at_least_once with positions neither happens: it reads on by itself.
	// Default: gap.
	SlowClient string `json:"slow_client,omitempty"`
	// LogSize bounds the shared log of each channel, in bytes of memory. Default: 16 MiB.
	LogSize int64 `json:"log_size,omitempty"`
	// PropagateIdentity adds the request id, the transaction id and the client
	// identifier as headers to every message that is published. Default: false.
	PropagateIdentity bool `json:"propagate_identity,omitempty"`
	// EntrypointsRaw are the ways in. At least one.
	EntrypointsRaw []json.RawMessage `json:"entrypoints,omitempty" caddy:"namespace=message_api.entrypoints inline_key=type"`
	// Endpoints are the brokers behind. At least one. Where an entrypoint names none, the
	// first that can do what it needs is taken.
	Endpoints []*EndpointConfig `json:"endpoints,omitempty"`
	// Plans say who may use the API. At least one. The kinds are asked in the order mtls,
	// jwt, oauth2, api_key, others, and keyless last; plans of one kind in this order.
	Plans []*PlanConfig `json:"plans,omitempty"`
	// Subscriptions are those that the definition brings along, for an entrypoint that pushes.
	// An API that has some needs no plan. Default: none.
	Subscriptions []*SubscriptionConfig `json:"subscriptions,omitempty"`
}

// EndpointConfig is an endpoint with its name.
type EndpointConfig struct {
	// Name is how entrypoints refer to it. Default: the type.
	Name string `json:"name,omitempty"`
	// Use is the name of a shared endpoint, defined in the app's endpoints; it then
	// stands in the place of Endpoint.
	Use string `json:"use,omitempty"`
	// EndpointRaw is the endpoint module.
	EndpointRaw json.RawMessage `json:"endpoint,omitempty" caddy:"namespace=message_api.endpoints inline_key=type"`
}

const (
	defaultLogSize = 16 << 20
	minLogSize     = 64 << 10
)

var (
	idPattern     = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	notKebab      = regexp.MustCompile(`[^a-z0-9]+`)
	originPattern = regexp.MustCompile(`^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$`)
)

// flaw is one thing that is wrong with a definition, and where.
type flaw struct {
	path   string
	detail string
}

// normalize fills in defaults and says what is wrong, as far as it can be told without
// loading a guest.
func (d *Definition) normalize() error {
	flaws := append(d.check(), d.missing()...)
	if len(flaws) == 0 {
		return nil
	}
	texts := make([]string, len(flaws))
	for i, f := range flaws {
		texts[i] = f.detail
	}
	return errors.New(strings.Join(texts, "; "))
}

// check fills in defaults and says all that is wrong with what is there.
func (d *Definition) check() (flaws []flaw) {
	wrong := func(path, format string, args ...any) {
		flaws = append(flaws, flaw{path: path, detail: fmt.Sprintf(format, args...)})
	}
	for i, p := range d.Paths {
		clean, err := contextPath(p)
		if err != nil {
			wrong(fmt.Sprintf("paths[%d]", i), "%v", err)
			continue
		}
		d.Paths[i] = clean
	}
	if d.ID == "" && len(d.Paths) > 0 {
		d.ID = kebab(d.Paths[0])
	}
	if d.ID != "" && !idPattern.MatchString(d.ID) {
		wrong("id", "message API id %q: use 1 to 64 of A-Z a-z 0-9 _ -", d.ID)
	}
	for i, o := range d.Origins {
		d.Origins[i] = strings.ToLower(strings.TrimSuffix(o, "/"))
		if !originPattern.MatchString(d.Origins[i]) {
			wrong(fmt.Sprintf("origins[%d]", i), "message API %s: origin %q: use scheme://host[:port], or *", d.ID, o)
		}
	}
	d.checkStatic(wrong)
	if d.SlowClient == "" {
		d.SlowClient = "gap"
	}
	if d.SlowClient != "gap" && d.SlowClient != "close" {
		wrong("slow_client", "message API %s: slow_client %q: use gap or close", d.ID, d.SlowClient)
	}
	if d.Errors != "" && d.Errors != "caddy" {
		wrong("errors", "message API %s: errors %q: use caddy, or leave it out", d.ID, d.Errors)
	}
	if d.LogSize == 0 {
		d.LogSize = defaultLogSize
	}
	if d.LogSize < minLogSize {
		wrong("log_size", "message API %s: log_size %d is less than %d bytes", d.ID, d.LogSize, minLogSize)
	}
	return flaws
}

// missing says what a definition lacks to be served.
func (d *Definition) missing() (flaws []flaw) {
	if len(d.Paths) == 0 {
		return []flaw{{"paths", "a message API needs at least one context path"}}
	}
	for _, part := range []struct {
		what string
		n    int
	}{{"entrypoint", len(d.EntrypointsRaw)}, {"endpoint", len(d.Endpoints)}, {"plan", len(d.Plans)}} {
		if part.n == 0 && (part.what != "plan" || len(d.Subscriptions) == 0) {
			flaws = append(flaws, flaw{part.what + "s",
				fmt.Sprintf("message API %s needs at least one %s to be served%s", d.ID, part.what, hint[part.what])})
		}
	}
	return flaws
}

var hint = map[string]string{
	"entrypoint": ": add `entrypoint http_get`, for example",
	"endpoint":   ": add `endpoint mock`, for example",
	"plan":       ": without one nobody may use it; `plan keyless` lets everybody in",
}

// contextPath brings a context path into the form that requests are compared with.
func contextPath(p string) (string, error) {
	if !strings.HasPrefix(p, "/") {
		return "", fmt.Errorf("context path %q must begin with /", p)
	}
	if strings.ContainsAny(p, "*?#{} \t%") {
		return "", fmt.Errorf("context path %q must be a plain path, without wildcard, placeholder, escape or query", p)
	}
	return strings.ToLower(strings.TrimSuffix(caddyhttp.CleanPath(p, true), "/")), nil
}

// kebab makes an id of a context path.
func kebab(path string) string {
	id := strings.Trim(notKebab.ReplaceAllString(strings.ToLower(path), "-"), "-")
	if id == "" {
		return "root"
	}
	return id
}

// covers says whether a request path is the context path or below it.
func covers(context, requestPath string) bool {
	return len(requestPath) >= len(context) && requestPath[:len(context)] == context &&
		(len(requestPath) == len(context) || requestPath[len(context)] == '/')
}

// canonical is the definition as JSON whose keys are sorted, with what its global
// placeholders ({env.*}, {file.*}) stand for, so that equal bytes mean an unchanged API. It
// is hashed, and never kept, logged or shown.
func canonical(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	return json.Marshal(resolve(tree, caddy.NewReplacer()))
}

func resolve(v any, repl *caddy.Replacer) any {
	switch v := v.(type) {
	case string:
		if strings.Contains(v, "{") {
			return v + "\x00" + secretsOf(v, repl)
		}
	case []any:
		for i := range v {
			v[i] = resolve(v[i], repl)
		}
	case map[string]any:
		for k := range v {
			v[k] = resolve(v[k], repl)
		}
	}
	return v
}

// secretsOf are the values of the global placeholders in s. All others, {time.now} among
// them, get their values per request.
func secretsOf(s string, repl *caddy.Replacer) string {
	var values strings.Builder
	// The error is about hundreds of open braces: such a text has no placeholders.
	_, _ = repl.ReplaceFunc(s, func(variable string, val any) (any, error) {
		if global(variable) {
			values.WriteString(caddy.ToString(val))
			values.WriteByte(0)
		}
		return "", nil
	})
	return values.String()
}

func hashOf(v any) (string, error) {
	raw, err := canonical(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12]), nil
}

// clone makes an independent copy, because loading guests empties the raw fields.
func (d *Definition) clone() (*Definition, error) {
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	c := new(Definition)
	return c, json.Unmarshal(raw, c)
}

// typeOf reads the inline key of a guest.
func typeOf(raw json.RawMessage) string {
	var head struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(raw, &head) != nil {
		return ""
	}
	return head.Type
}
