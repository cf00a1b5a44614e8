package rabbitmq

import (
	"errors"
	"regexp"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// fate is what became of a message that was under way when its channel ended.
type fate struct {
	status message.Status
	err    error
}

var errChannelLost = errors.New("the channel was closed")

// judge decides about all messages that were under way when the channel ended.
func (p *pipe) judge() {
	e := <-p.closes // the channel has ended, so this is there or closed
	p.mu.Lock()
	defer p.mu.Unlock()
	var open []*publication
	for _, u := range p.under {
		if !u.confirm.Acked() {
			open = append(open, u)
		}
	}
	cause := error(errChannelLost)
	if e != nil {
		cause = p.conn.cause(e)
	}
	if e == nil || !e.Server || endsConnection(e.Code) {
		for _, u := range open {
			u.fate = p.cut(u, cause)
		}
		return
	}
	if e.Code == amqp.NotFound {
		p.conn.exchanges.forget()
	}
	blame(e, open, p.confirmed, p.unknown)
}

// cut is the fate of a message whose connection broke.
func (p *pipe) cut(u *publication, cause error) *fate {
	if p.conn.wire.passed(u.mark) {
		return &fate{message.Unknown, p.unknown(cause)}
	}
	err := message.Errorf(message.Unavailable, "not sent: the connection to RabbitMQ was lost: %w", cause)
	err.RetryAfter = time.Second
	return &fate{message.Refused, err}
}

func (p *pipe) unknown(cause error) error {
	return message.Errorf(message.OutcomeUnknown, "RabbitMQ did not confirm the message before the connection was lost, and may have it: %w", cause)
}

// blame finds out which message the broker closed the channel for. It handles messages
// one after the other, and none after that one: so it is refused, what came after it is
// not stored either, and what came before it may be.
func blame(e *amqp.Error, open []*publication, confirmed map[string]bool, unknown func(error) error) {
	culprit := findCulprit(e, open, confirmed)
	for i, u := range open {
		switch {
		case culprit < 0 || i < culprit:
			u.fate = &fate{message.Unknown, unknown(reason(e))}
		case i == culprit || sameOffence(e, open[culprit], u):
			u.fate = &fate{message.Refused, refusal(e, u)}
		default:
			err := message.Errorf(message.Unavailable, "not stored, because of another message for which RabbitMQ closed the channel: %w", reason(e))
			err.RetryAfter = time.Second
			u.fate = &fate{message.Refused, err}
		}
	}
}

// RabbitMQ says what it minds in words only.
var (
	namedExchange = regexp.MustCompile(`exchange '((?:[^']|'[^ ])*)'`)
	namedTopic    = regexp.MustCompile(`topic '((?:[^']|'[^ ])*)' in exchange`)
	namedMaximum  = regexp.MustCompile(`larger than (?:configured )?max(?:imum)?(?: message)? size:? (\d+)`)
)

// findCulprit returns the index of the message that is surely to blame, or -1.
func findCulprit(e *amqp.Error, open []*publication, confirmed map[string]bool) int {
	if len(open) == 1 {
		return 0
	}
	for i, u := range open {
		if !offends(e, u) {
			continue
		}
		// An exchange that took something before has changed since; the first of these
		// messages may have come before the change.
		if e.Code != amqp.PreconditionFailed && confirmed[u.exchange] && !namedTopic.MatchString(e.Reason) {
			return -1
		}
		return i
	}
	return -1
}

// offends reports whether a message is what the broker complains of.
func offends(e *amqp.Error, u *publication) bool {
	if m := namedMaximum.FindStringSubmatch(e.Reason); e.Code == amqp.PreconditionFailed && m != nil {
		limit, err := strconv.Atoi(m[1])
		return err == nil && u.size > limit
	}
	if e.Code != amqp.AccessRefused && e.Code != amqp.NotFound {
		return false
	}
	if m := namedTopic.FindStringSubmatch(e.Reason); m != nil && m[1] != u.key {
		return false
	}
	m := namedExchange.FindStringSubmatch(e.Reason)
	return m != nil && (m[1] == u.exchange || m[1] == "amq.default" && u.exchange == "")
}

// sameOffence: what comes after the culprit and is just like it would be refused as well.
func sameOffence(e *amqp.Error, culprit, u *publication) bool {
	return offends(e, u) && u.exchange == culprit.exchange
}

func refusal(e *amqp.Error, u *publication) error {
	kind := kindOf(e.Code)
	if e.Code == amqp.PreconditionFailed && namedMaximum.MatchString(e.Reason) {
		kind = message.TooLarge
	}
	return message.Errorf(kind, "RabbitMQ refused the message for exchange %q with routing key %q: %w", u.exchange, u.key, reason(e))
}
