package admin

import (
	"encoding"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// showLimits writes limits as the configuration does.
func showLimits(l *plans.Limits) *Limits {
	if l == nil {
		return nil
	}
	out := &Limits{MaxSessions: l.MaxSessions}
	for _, rate := range []struct {
		from *plans.Rate
		to   *string
	}{{l.RateLimit, &out.RateLimit}, {l.PublishRate, &out.PublishRate}, {l.ReceiveRate, &out.ReceiveRate}} {
		if rate.from != nil {
			*rate.to = rate.from.String()
		}
	}
	if l.Quota != nil {
		out.Quota = l.Quota.String()
	}
	return out
}

// parse reads limits, with all that is wrong with them. nil are none.
func (l *Limits) parse() (*plans.Limits, error) {
	if l == nil {
		return nil, nil
	}
	out := &plans.Limits{MaxSessions: l.MaxSessions}
	var problems []Problem
	read := func(name, text string, into encoding.TextUnmarshaler) bool {
		if text == "" {
			return false
		}
		if err := into.UnmarshalText([]byte(text)); err != nil {
			problems = append(problems, Problem{Path: "limits." + name, Detail: err.Error()})
			return false
		}
		return true
	}
	rate := func(name, text string) *plans.Rate {
		r := new(plans.Rate)
		if !read(name, text, r) {
			return nil
		}
		return r
	}
	out.RateLimit = rate("rate_limit", l.RateLimit)
	out.PublishRate = rate("publish_rate", l.PublishRate)
	out.ReceiveRate = rate("receive_rate", l.ReceiveRate)
	if quota := new(plans.Quota); read("quota", l.Quota, quota) {
		out.Quota = quota
	}
	if err := out.Validate(); err != nil {
		problems = append(problems, Problem{Path: "limits.max_sessions", Detail: err.Error()})
	}
	if len(problems) > 0 {
		problem := invalidBody("the limits are not valid")
		problem.Problems = problems
		return nil, problem
	}
	return out, nil
}
