package module

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/entrypoints"
	"github.com/caddy-message-api/caddy-message-api/plans"
	"github.com/caddy-message-api/caddy-message-api/plans/limits"
)

// grant is what identity and plans have made of a request.
type grant struct {
	identity  entrypoints.Identity
	principal plans.Principal
	plan      *plan
	inferred  string
	// account keeps to the limits of the principal; nil if there are none.
	account     *limits.Account
	paced       bool
	maxSessions int
}

// authorize finds the plan that lets the request in. The order is that of the unit's plans;
// the first that grants wins. Once a credential was presented, plans of no credential are out
// of the question; once one was refused, only plans of the same kind are still asked, because
// the same kind of credential may be another plan's.
func (h *Handler) authorize(r *http.Request, u *unit, g *grant) error {
	provided, err := h.names.provided(r.Header)
	if err != nil {
		return err
	}
	p, v := u.admit(r)
	if p == nil || !v.Granted {
		h.logRefusal(r, u, p, &v)
		return u.refusal(p, &v)
	}
	g.plan, g.principal = p, v.Principal
	g.principal.API, g.principal.Plan = u.def.ID, p.name
	g.inferred = g.principal.Subscription
	if g.inferred == "" {
		g.inferred = clientIDs.of(clientIP(r))
	}
	g.identity.Client = g.inferred
	if provided != "" {
		g.identity.Client += "-" + provided
	}
	g.identity.Anonymous = p.anonymous && provided == ""
	return nil
}

// admit asks the plans. The plan is nil when nothing was presented that any knows, and
// otherwise the one whose verdict it is.
func (u *unit) admit(r *http.Request) (*plan, plans.Verdict) {
	var (
		presented bool
		refused   *plan
		why       plans.Verdict
	)
	for _, p := range u.plans {
		if p.anonymous {
			if presented || p.directory.closed() || !p.applies(r) {
				continue
			}
			return p, p.guest.Check(r)
		}
		if !p.guest.Presents(r) {
			continue
		}
		presented = true
		if refused != nil && refused.kind != p.kind {
			break
		}
		if !p.applies(r) {
			continue
		}
		v := p.guest.Check(r)
		if v.Granted {
			return p, v
		}
		// That a subscription must wait says more than that another plan does not know it.
		if refused == nil || why.Status == http.StatusUnauthorized && v.Status != http.StatusUnauthorized {
			refused, why = p, v
		}
	}
	if refused == nil && presented {
		return nil, plans.Verdict{Detail: "no plan of this API takes this credential for this request", Cause: "no selection rule holds"}
	}
	return refused, why
}

// applies says whether the plan's selection rule holds. One that fails does not.
func (p *plan) applies(r *http.Request) bool {
	if p.rule == nil {
		return true
	}
	ok, err := p.rule.MatchWithError(r)
	return ok && err == nil
}

// refusal is what the client is told.
func (u *unit) refusal(p *plan, v *plans.Verdict) error {
	prob := &entrypoints.Problem{Status: v.Status, Slug: "unauthorized", Detail: v.Detail}
	switch {
	case v.Status == http.StatusForbidden:
		prob.Slug = "forbidden"
	case v.Status == http.StatusServiceUnavailable:
		return notReady(v.Detail)
	case p == nil || v.Challenge == "":
		prob.Status, prob.Challenge = http.StatusUnauthorized, u.challenges()
		if prob.Detail == "" {
			prob.Detail = "this API needs a credential"
		}
	default:
		prob.Challenge = []string{v.Challenge}
	}
	return prob
}

// challenges are those of all plans.
func (u *unit) challenges() []string {
	var list []string
	for _, p := range u.plans {
		if p.challenge != "" && !slices.Contains(list, p.challenge) {
			list = append(list, p.challenge)
		}
	}
	return list
}

// logRefusal tells the access log, and at debug level the gateway's own, why a request was
// refused; at any other level an attacker could fill the disk.
func (h *Handler) logRefusal(r *http.Request, u *unit, p *plan, v *plans.Verdict) {
	name, cause := "", v.Cause
	if p != nil {
		name = p.name
	}
	if cause == "" {
		cause = "no credential"
	}
	h.app.metrics.refused.WithLabelValues(u.def.ID, name, strconv.Itoa(max(v.Status, http.StatusUnauthorized))).Inc()
	if fields := accessFields(r); fields != nil {
		fields.Add(zap.String("message_api_plan", name))
		fields.Add(zap.String("message_api_refused", cause))
	}
	if c := u.log.Check(zap.DebugLevel, "request refused"); c != nil {
		c.Write(zap.String("plan", name), zap.String("cause", cause), zap.String("remote", clientIP(r)))
	}
}

// withhold takes credentials out of the URL's query, so that no entrypoint, endpoint or
// placeholder sees them.
func (u *unit) withhold(r *http.Request) {
	if r.URL.RawQuery == "" {
		return
	}
	for _, p := range u.plans {
		if p.carrier == nil {
			continue
		}
		for _, name := range p.carrier.QueryParameters() {
			r.URL.RawQuery = without(r.URL.RawQuery, name)
		}
	}
}

// without is the query without a parameter, and otherwise as it is.
func without(query, name string) string {
	kept := make([]string, 0, 4)
	for pair := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(key); err == nil && plain == name {
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}

// charge holds the principal to the request limits of its plan and subscription, and tells
// in the response's headers how much is left.
func (h *Handler) charge(w http.ResponseWriter, r *http.Request, u *unit, g *grant) error {
	own := g.plan.config.Limits.Over(g.principal.Limits)
	g.maxSessions, g.paced = own.MaxSessions, own.ReceiveRate != nil
	if own == (plans.Limits{MaxSessions: own.MaxSessions}) {
		return nil
	}
	g.account = accounts.Account(limits.Key{API: u.def.ID, Plan: g.plan.name, Who: g.limited(r)}, own, g.principal.Since, counters())
	if g.account == nil {
		return nil
	}
	d := g.account.Request()
	d.SetHeaders(w.Header())
	if d.Allowed {
		return nil
	}
	h.app.metrics.limited.WithLabelValues(u.def.ID, g.plan.name, d.By).Inc()
	return &entrypoints.Problem{Status: http.StatusTooManyRequests, Slug: "limit-exceeded", RetryAfter: d.RetryAfter, Detail: limitDetail(&d)}
}

// limited is who a limit counts for: the subscription, or the network address. Whoever has
// one IPv6 address has the 2^64 of its network, so that this is counted.
func (g *grant) limited(r *http.Request) string {
	if g.principal.Subscription != "" {
		return g.principal.Subscription
	}
	ip, err := netip.ParseAddr(clientIP(r))
	if err != nil || !ip.Is6() || ip.Is4In6() {
		return g.inferred
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return g.inferred
	}
	return network.String()
}

func limitDetail(d *limits.Decision) string {
	if d.By == "quota" {
		return "the quota of this plan is used up: Retry-After says when the next one begins"
	}
	return "more requests than this plan allows: Retry-After says when there is room again"
}

// accounts keep to the limits of all principals. They are the process's, so that no reload
// gives anybody a fresh start.
var accounts = limits.NewTable(limits.Options{})
