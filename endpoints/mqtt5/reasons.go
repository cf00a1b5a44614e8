package mqtt5

import (
	"fmt"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// The reason codes that mean something to us (MQTT 5, 2.4).
const (
	reasonNoSubscribers     = 0x10
	reasonUnspecified       = 0x80
	reasonImplementation    = 0x83
	reasonVersion           = 0x84
	reasonClientID          = 0x85
	reasonLogin             = 0x86
	reasonNotAuthorized     = 0x87
	reasonTakenOver         = 0x8E
	reasonFilter            = 0x8F
	reasonTopic             = 0x90
	reasonPacketTooLarge    = 0x95
	reasonQuota             = 0x97
	reasonPayloadFormat     = 0x99
	reasonRetain            = 0x9A
	reasonQoS               = 0x9B
	reasonNoShared          = 0x9E
	reasonNoIdentifiers     = 0xA1
	reasonNoWildcards       = 0xA2
	retryAfter              = time.Second
	quotaRetryAfter         = 5 * time.Second
	unknownPacketIdentifier = 0x92
)

var reasonTexts = map[byte]string{
	reasonUnspecified: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error",
	reasonImplementation: "implementation specific error", reasonVersion: "unsupported protocol version",
	reasonClientID: "client identifier not valid", reasonLogin: "bad user name or password",
	reasonNotAuthorized: "not authorized", 0x88: "server unavailable", 0x89: "server busy", 0x8A: "banned",
	0x8B: "server shutting down", 0x8C: "bad authentication method", 0x8D: "keep alive timeout",
	reasonTakenOver: "session taken over", reasonFilter: "topic filter invalid", reasonTopic: "topic name invalid",
	0x91: "packet identifier in use", unknownPacketIdentifier: "packet identifier not found",
	0x93: "receive maximum exceeded", 0x94: "topic alias invalid", reasonPacketTooLarge: "packet too large",
	0x96: "message rate too high", reasonQuota: "quota exceeded", 0x98: "administrative action",
	reasonPayloadFormat: "payload format invalid", reasonRetain: "retain not supported",
	reasonQoS: "QoS not supported", 0x9C: "use another server", 0x9D: "server moved",
	reasonNoShared: "shared subscriptions not supported", 0x9F: "connection rate exceeded",
	0xA0: "maximum connect time", reasonNoIdentifiers: "subscription identifiers not supported",
	reasonNoWildcards: "wildcard subscriptions not supported",
}

// reasonError is a reason code by which a server said no, with its own words if it has any.
type reasonError struct {
	code byte
	text string
}

func (e *reasonError) Error() string {
	name := reasonTexts[e.code]
	if name == "" {
		name = "unknown reason"
	}
	if e.text != "" {
		return fmt.Sprintf("%s (0x%02X): %s", name, e.code, e.text)
	}
	return fmt.Sprintf("%s (0x%02X)", name, e.code)
}

// refused is the outcome of a publish that the server did not take.
func refused(topic string, reason *reasonError) *message.Error {
	kind, after := message.Unavailable, retryAfter
	switch reason.code {
	case reasonNotAuthorized:
		kind, after = message.Denied, 0
	case reasonQuota:
		kind, after = message.Busy, quotaRetryAfter
	case reasonTopic, reasonPayloadFormat:
		kind, after = message.BadInput, 0
	case reasonPacketTooLarge:
		kind, after = message.TooLarge, 0
	case reasonQoS, reasonRetain:
		kind, after = message.Mismatch, 0
	}
	e := message.Errorf(kind, "the MQTT server refused the message for topic %s: %w", topic, reason)
	e.RetryAfter = after
	return e
}

// notSubscribed is the error of a subscription that the server did not grant, or nil.
func notSubscribed(filter string, reason *reasonError) error {
	kind := message.Unavailable
	switch reason.code {
	case reasonNotAuthorized:
		kind = message.Denied
	case reasonFilter:
		kind = message.BadInput
	case reasonNoShared, reasonNoWildcards, reasonNoIdentifiers:
		kind = message.Mismatch
	}
	e := message.Errorf(kind, "the MQTT server refused the subscription to %s: %w", filter, reason)
	if kind == message.Unavailable {
		e.RetryAfter = retryAfter
	}
	return e
}

// refusedConnection is the error of a CONNACK that lets nobody in.
func refusedConnection(code byte, properties *packets.Properties) error {
	reason := &reasonError{code: code}
	if properties != nil {
		reason.text = properties.ReasonString
	}
	if code == reasonVersion || code < 0x80 { // the codes of MQTT 3 are small
		return message.Errorf(message.Mismatch, "the server does not speak MQTT 5: %w", reason)
	}
	return fmt.Errorf("the server lets nobody in: %w", reason)
}
