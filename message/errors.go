package message

import (
	"errors"
	"fmt"
	"time"
)

// ErrStale is what Settle returns for deliveries of an earlier epoch: the broker has
// given, or will give, them to somebody again.
var ErrStale = errors.New("delivery belongs to an earlier connection and can no longer be settled")

// Kind classifies errors by what a client can do about them. Each has one HTTP status
// and one problem type.
type Kind uint8

// The kinds of error.
const (
	Internal         Kind = iota // our fault
	BadInput                     // the request can't be understood
	IdentityRequired             // the level of guarantee needs to know who is asking
	Denied                       // the broker does not let the gateway do this
	NotFound                     // the channel does not exist at the broker
	TooLarge                     // over a bound of the gateway or the broker
	Busy                         // over a limit; later is better
	Unavailable                  // the broker can't be reached
	OutcomeUnknown               // cut after the write, before the answer
	Mismatch                     // the broker is not what the configuration says it is
)

var kindNames = [...]string{
	"internal", "bad-input", "identity-required", "broker-denied", "channel-not-found", "too-large",
	"busy", "broker-unavailable", "outcome-unknown", "capability-mismatch",
}

func (k Kind) String() string { return kindNames[k] }

// Error is an error whose consequence for the client is known. Detail is for people,
// names addresses and causes, and never holds a secret.
type Error struct {
	Kind   Kind
	Detail string
	// RetryAfter is when trying again may help; 0 says nothing.
	RetryAfter time.Duration
	Err        error
}

// Errorf makes an Error; each %w in the format is kept for errors.Is and errors.As.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	cause := errors.Unwrap(err)
	if _, several := err.(interface{ Unwrap() []error }); several {
		cause = err
	}
	return &Error{Kind: kind, Detail: err.Error(), Err: cause}
}

func (e *Error) Error() string { return e.Detail }

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first Error in err's chain, or Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
