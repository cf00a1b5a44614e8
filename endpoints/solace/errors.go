//go:build cgo && (linux || darwin)

package solace

import (
	"context"
	"errors"

	api "solace.dev/go/messaging/pkg/solace"
	"solace.dev/go/messaging/pkg/solace/subcode"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// codeOf is the library's code of an error, or 0.
func codeOf(err error) subcode.Code {
	if e, ok := errors.AsType[*api.NativeError](err); ok {
		return e.SubCode()
	}
	return 0
}

// refusals are what the broker, or the library before it, refuses a message, a queue or a
// subscription with, and what that means to clients. What is not here says nothing about
// what became of a message.
var refusals = map[subcode.Code]message.Kind{
	subcode.UserDataTooLarge:          message.TooLarge,
	subcode.MessageTooLarge:           message.TooLarge,
	subcode.TopicTooLarge:             message.BadInput,
	subcode.QueuenameTooLarge:         message.BadInput,
	subcode.InvalidTopicSyntax:        message.BadInput,
	subcode.UnknownQueueName:          message.NotFound,
	subcode.NoSubscriptionMatch:       message.NotFound,
	subcode.ClientAclDenied:           message.Denied,
	subcode.SubscriptionAclDenied:     message.Denied,
	subcode.PublishAclDenied:          message.Denied,
	subcode.PermissionNotAllowed:      message.Denied,
	subcode.SpoolOverQuota:            message.Busy,
	subcode.LowPriorityMsgCongestion:  message.Busy,
	subcode.MaxClientsForQueue:        message.Busy,
	subcode.SubscriptionTooMany:       message.Busy,
	subcode.QueueShutdown:             message.Unavailable,
	subcode.EndpointShutdown:          message.Unavailable,
	subcode.SyncReplicationIneligible: message.Unavailable,
	subcode.ReplicationIsStandby:      message.Unavailable,
	subcode.DataOther:                 message.Unavailable,
}

// kindOf classifies what the library says of a queue or a subscription.
func kindOf(err error) message.Kind {
	if kind, ok := refusals[codeOf(err)]; ok {
		return kind
	}
	return message.Unavailable
}

// isBroken reports whether an error says that the connection is of no use, whatever it was
// that was asked for.
func isBroken(err error) bool {
	switch codeOf(err) {
	case subcode.SessionNotEstablished, subcode.CommunicationError, subcode.KeepAliveFailure, subcode.InvalidSessionOperation:
		return true
	}
	var illegal *api.IllegalStateError
	var unreachable *api.ServiceUnreachableError
	return errors.As(err, &illegal) || errors.As(err, &unreachable)
}

// fault says what a failed exchange with the broker means to clients.
func fault(what string, err error) *message.Error {
	if e, ok := errors.AsType[*message.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || codeOf(err) == subcode.Timeout {
		e := message.Errorf(message.Unavailable, "%s: Solace did not answer in time: %w", what, err)
		e.RetryAfter = retryAfter
		return e
	}
	kind := kindOf(err)
	e := message.Errorf(kind, "%s: %w", what, err)
	if kind == message.Unavailable || kind == message.Busy {
		e.RetryAfter = retryAfter
	}
	return e
}
