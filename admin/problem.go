package admin

import (
	"fmt"
	"strings"
)

// ProblemPrefix stands before every problem type.
const ProblemPrefix = "urn:message-api:problem:"

// ProblemDetails is every error of the admin API (RFC 9457). The client returns it as its
// error.
type ProblemDetails struct {
	// Type is stable and for programs: ProblemPrefix and a slug.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what is wrong and what to do, for people. It never holds a secret.
	Detail string `json:"detail,omitempty"`
	// Problems are all that is wrong with a body, each with its place in it.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is one thing that is wrong with a body.
type Problem struct {
	// Path is where, e.g. plans[0].rate_limit; empty is the body itself.
	Path   string `json:"path"`
	Detail string `json:"detail"`
}

// The slugs of the types of problems.
const (
	BadRequest       = "bad-request"         // 400: the request can't be understood
	InvalidBody      = "invalid-body"        // 400: the body is not what it must be
	InvalidValue     = "invalid"             // 400: what was sent breaks a rule
	NotFound         = "not-found"           // 404
	MethodNotAllowed = "method-not-allowed"  // 405
	Conflict         = "conflict"            // 409: the state does not allow it
	Precondition     = "precondition-failed" // 412: somebody else was faster
	TooLarge         = "too-large"           // 413
	MediaType        = "media-type"          // 415
	Internal         = "internal"            // 500: the log says why
	Unavailable      = "store-unavailable"   // 503: nothing was changed
	Unknown          = "outcome-unknown"     // 504: it may have been changed
	NoWebhooks       = "no-webhooks"         // 503: nobody here delivers to consumers
)

// Slug is the type without its prefix; empty for types that are not the admin API's.
func (p *ProblemDetails) Slug() string {
	slug, ok := strings.CutPrefix(p.Type, ProblemPrefix)
	if !ok {
		return ""
	}
	return slug
}

// Error has it all on one line.
func (p *ProblemDetails) Error() string {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	for i, problem := range p.Problems {
		separator := "; "
		if i == 0 {
			separator = ": "
		}
		if problem.Path == "" {
			fmt.Fprintf(&b, "%s%s", separator, problem.Detail)
			continue
		}
		fmt.Fprintf(&b, "%s%s: %s", separator, problem.Path, problem.Detail)
	}
	return b.String()
}

// Interface guard.
var _ error = (*ProblemDetails)(nil)
