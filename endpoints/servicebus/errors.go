package servicebus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Conditions of the service, and of AMQP, that mean something to us.
const (
	condBusy         = "com.microsoft:server-busy"
	condTimeout      = "com.microsoft:timeout"
	condDisabled     = "com.microsoft:entity-disabled"
	condLockLost     = "com.microsoft:message-lock-lost"
	condSessionLost  = "com.microsoft:session-lock-lost"
	condSessionTaken = "com.microsoft:session-cannot-be-locked"
	condArgument     = "com.microsoft:argument-error"
	condNotFound     = string(amqp.ErrCondNotFound)
	condDeleted      = string(amqp.ErrCondResourceDeleted)
	condDenied       = string(amqp.ErrCondUnauthorizedAccess)
	condNotAllowed   = string(amqp.ErrCondNotAllowed)
	condTooLarge     = string(amqp.ErrCondMessageSizeExceeded)
	condFull         = string(amqp.ErrCondResourceLimitExceeded)
	condNoCredit     = string(amqp.ErrCondTransferLimitExceeded)
	condInternal     = string(amqp.ErrCondInternalError)
)

const (
	// busyAfter is what Microsoft asks clients to wait when the service is busy.
	busyAfter = 10 * time.Second
	// fullAfter is when a full queue may have been emptied somewhat.
	fullAfter = 30 * time.Second
)

// reply is an error of the service in its own words.
type reply struct {
	condition, text string
	cause           error
}

func (e *reply) Error() string {
	switch {
	case e.text == "":
		return e.condition
	case e.condition == "":
		return e.text
	}
	return fmt.Sprintf("%s (%s)", e.text, e.condition)
}

func (e *reply) Unwrap() error { return e.cause }

// reason makes the library's errors legible. The library hides what it wraps, so that some
// conditions can only be read from the text.
func reason(err error) *reply {
	if e, ok := errors.AsType[*reply](err); ok {
		return e
	}
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return &reply{condition: string(e.Condition), text: oneLine(e.Description), cause: err}
	}
	text := err.Error()
	if _, rest, ok := strings.Cut(text, "*Error{Condition: "); ok {
		condition, rest, _ := strings.Cut(rest, ", Description: ")
		description, _, _ := strings.Cut(rest, ", Info: map[")
		return &reply{condition: condition, text: oneLine(description), cause: err}
	}
	r := &reply{text: oneLine(text), cause: err}
	if e, ok := errors.AsType[*azservicebus.Error](err); ok {
		r.text = strings.TrimPrefix(r.text, fmt.Sprintf("(%s): ", e.Code))
		switch e.Code {
		case azservicebus.CodeUnauthorizedAccess:
			r.condition = condDenied
		case azservicebus.CodeNotFound:
			r.condition = condNotFound
		case azservicebus.CodeLockLost:
			r.condition = condLockLost
		case azservicebus.CodeTimeout:
			r.condition = condTimeout
		}
	}
	return r
}

// oneLine keeps what the service says to a length that fits into an answer.
func oneLine(text string) string {
	const most = 500
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// kindOf is what a condition means to clients.
func kindOf(condition string) message.Kind {
	switch condition {
	case condNotFound, condDeleted:
		return message.NotFound
	case condDenied:
		return message.Denied
	case condTooLarge:
		return message.TooLarge
	case condBusy, condFull, condNoCredit:
		return message.Busy
	case condNotAllowed:
		return message.Mismatch
	case condArgument, string(amqp.ErrCondInvalidField), string(amqp.ErrCondDecodeError), string(amqp.ErrCondPreconditionFailed):
		return message.BadInput
	}
	return message.Unavailable
}

// fault says what a failed exchange with the service means to clients.
func fault(what string, err error) *message.Error {
	if e, ok := errors.AsType[*message.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		e := message.Errorf(message.Unavailable, "%s: Azure Service Bus did not answer in time: %w", what, err)
		e.RetryAfter = retryAfter
		return e
	}
	if errors.Is(err, azservicebus.ErrMessageTooLarge) {
		return message.Errorf(message.TooLarge, "%s: the message is larger than Azure Service Bus takes there", what)
	}
	r := reason(err)
	kind := kindOf(r.condition)
	if needsSessions(r) {
		kind = message.Mismatch
	}
	e := message.Errorf(kind, "%s: %w", what, r)
	switch kind {
	case message.Busy:
		e.RetryAfter = busyAfter
		if r.condition == condFull {
			e.RetryAfter = fullAfter
		}
	case message.Unavailable:
		e.RetryAfter = retryAfter
	case message.Mismatch:
		e.Detail += advice(r)
	}
	return e
}

// needsSessions recognises what the service says to receivers of the wrong kind.
func needsSessions(r *reply) bool {
	text := strings.ToLower(r.text)
	return strings.Contains(text, "session") && (strings.Contains(text, "receiver") || strings.Contains(text, "sessionid"))
}

// advice says what to do about a queue or subscription that is not what the configuration
// says.
func advice(r *reply) string {
	text := strings.ToLower(r.text)
	switch {
	case strings.Contains(text, "sessionid was not set"):
		return ": write session_id into the endpoint's producer"
	case strings.Contains(text, "does not require session") || strings.Contains(text, "not session"):
		return ": leave out `sessions` in the endpoint's consumer"
	case strings.Contains(text, "requires session") || strings.Contains(text, "sessionless") || strings.Contains(text, "non-sessionful"):
		return ": write `sessions on` into the endpoint's consumer"
	}
	return ""
}
