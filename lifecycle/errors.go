package lifecycle

import (
	"fmt"
	"strings"
)

// Error is a request that was refused, in words for whoever made it.
type Error struct {
	Kind   Kind
	Detail string
	// Problems are what is wrong with a definition, all at once.
	Problems []Problem
}

// Problem is one thing that is wrong, and where.
type Problem struct {
	// Path is a place in the definition, like plans[0].plan.header, or for Registry.Problems
	// an API, like apis/orders.
	Path   string `json:"path"`
	Detail string `json:"detail"`
}

// Kind says what sort of refusal an Error is.
type Kind uint8

// The kinds of refusal.
const (
	NotFound     Kind = iota + 1 // there is no such API or plan
	Conflict                     // its state does not allow it; Detail says what to do first
	Invalid                      // the request itself is wrong
	Precondition                 // it is not in the version that was asked for
)

var kinds = [...]string{"", "not found", "conflict", "invalid", "precondition failed"}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return ""
}

// Error implements error.
func (e *Error) Error() string {
	if len(e.Problems) == 0 {
		return e.Detail
	}
	var text strings.Builder
	text.WriteString(e.Detail)
	for i, p := range e.Problems {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		text.WriteString(sep)
		if p.Path != "" {
			text.WriteString(p.Path + ": ")
		}
		text.WriteString(p.Detail)
	}
	return text.String()
}

func conflict(format string, args ...any) error {
	return &Error{Kind: Conflict, Detail: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &Error{Kind: NotFound, Detail: fmt.Sprintf(format, args...)}
}

func invalid(path, format string, args ...any) error {
	p := Problem{Path: path, Detail: fmt.Sprintf(format, args...)}
	return &Error{Kind: Invalid, Detail: "the request is not valid", Problems: []Problem{p}}
}

func noAPI(id string) error { return notFound("there is no message API %q", id) }

func noPlan(id, plan string) error { return notFound("API %s has no plan %q", id, plan) }

func closeError(id, plan string, err error) error {
	return fmt.Errorf("plan %s of API %s is closed and lets nobody in, but closing its subscriptions failed; do it again: %w", plan, id, err)
}
