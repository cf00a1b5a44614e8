package subscriptions

import (
	"fmt"
	"strings"
)

// Kind sorts errors by what the caller can do about them.
type Kind uint8

// The kinds of errors.
const (
	NotFound     Kind = iota + 1 // there is no such thing
	Conflict                     // not as things stand
	Invalid                      // the request itself is wrong
	Precondition                 // it has changed since the caller read it
)

var kinds = [...]string{"error", "not found", "conflict", "invalid", "precondition failed"}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return kinds[0]
}

// Problem is one thing that is wrong with a request or a record.
type Problem struct {
	// Path is where: the name of the member, or of the record.
	Path   string `json:"path"`
	Detail string `json:"detail"`
}

// Error is an answer to somebody who asked for something that cannot be. It contains no
// secret. Errors of other types are the store's.
type Error struct {
	Kind   Kind
	Detail string
	// Problems are all that is wrong with an invalid request.
	Problems []Problem
}

// Error implements error.
func (e *Error) Error() string {
	if len(e.Problems) == 0 {
		return e.Detail
	}
	var text strings.Builder
	text.WriteString(e.Detail)
	for i, p := range e.Problems {
		text.WriteString([]string{": ", "; "}[min(i, 1)])
		text.WriteString(p.Path + ": " + p.Detail)
	}
	return text.String()
}

func notFound(kind, id string) *Error {
	return &Error{Kind: NotFound, Detail: fmt.Sprintf("there is no %s %q", kind, clip(id))}
}

func conflict(format string, args ...any) *Error {
	return &Error{Kind: Conflict, Detail: fmt.Sprintf(format, args...)}
}

// stale compares the version that the caller read with the one that is there.
func stale(kind string, want, have uint64) error {
	if want == 0 || want == have {
		return nil
	}
	return &Error{Kind: Precondition, Detail: fmt.Sprintf("the %s has changed: it has version %d, not %d; read it again", kind, have, want)}
}

// clip bounds what is quoted from a request.
func clip(text string) string {
	if len(text) <= 64 {
		return text
	}
	return strings.ToValidUTF8(text[:64], "") + "…"
}

func version(when []IfVersion) uint64 {
	for _, v := range when {
		if v != 0 {
			return uint64(v)
		}
	}
	return 0
}
