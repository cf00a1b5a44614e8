package entrypoints

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// ProblemPrefix stands before every problem type.
const ProblemPrefix = "urn:message-api:problem:"

// Problem is an error answer before the first byte, as RFC 9457 has it. Slug is stable
// and meant for programs; Detail is meant for people and never holds a secret.
type Problem struct {
	Status int
	Slug   string
	Detail string
	// RetryAfter, Allow and Challenge become the headers of those names when set.
	RetryAfter time.Duration
	Allow      []string
	Challenge  []string
	Err        error
}

func (p *Problem) Error() string { return p.Slug + ": " + p.Detail }

// Unwrap returns the cause, if there is one.
func (p *Problem) Unwrap() error { return p.Err }

var kindStatus = map[message.Kind]int{
	message.Internal:         http.StatusInternalServerError,
	message.BadInput:         http.StatusBadRequest,
	message.IdentityRequired: http.StatusBadRequest,
	message.Denied:           http.StatusBadGateway,
	message.NotFound:         http.StatusNotFound,
	message.TooLarge:         http.StatusRequestEntityTooLarge,
	message.Busy:             http.StatusTooManyRequests,
	message.Unavailable:      http.StatusServiceUnavailable,
	message.OutcomeUnknown:   http.StatusGatewayTimeout,
	message.Mismatch:         http.StatusServiceUnavailable,
}

// StatusOf is the HTTP status that stands for a kind of error.
func StatusOf(kind message.Kind) int { return kindStatus[kind] }

// AsProblem turns any error into a problem. Errors that nobody classified become a 500
// whose cause goes to the log and not to the client.
func AsProblem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*message.Error](err); ok {
		return &Problem{
			Status: StatusOf(e.Kind), Slug: e.Kind.String(), Detail: e.Detail, RetryAfter: e.RetryAfter, Err: err,
		}
	}
	return &Problem{
		Status: http.StatusInternalServerError, Slug: message.Internal.String(),
		Detail: "the gateway failed; its log says why", Err: err,
	}
}

// Write writes the problem as the whole response. instance is the request id.
func (p *Problem) Write(w http.ResponseWriter, instance string) {
	body, err := json.Marshal(struct {
		Type     string `json:"type"`
		Title    string `json:"title"`
		Status   int    `json:"status"`
		Detail   string `json:"detail,omitempty"`
		Instance string `json:"instance,omitempty"`
	}{ProblemPrefix + p.Slug, http.StatusText(p.Status), p.Status, p.Detail, instance})
	if err != nil { // strings and an int always marshal
		body = []byte(`{}`)
	}
	p.WriteHeaders(w.Header())
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client is told what can be told; a vanished one is no news
}

// WriteHeaders sets the headers that belong to the problem, without a body.
func (p *Problem) WriteHeaders(h http.Header) {
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	if len(p.Allow) > 0 {
		h.Set("Allow", strings.Join(p.Allow, ", "))
	}
	for _, c := range p.Challenge {
		h.Add("WWW-Authenticate", c)
	}
}
