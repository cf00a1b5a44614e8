// Package servicebustest is an AMQP 1.0 peer that behaves as an Azure Service Bus namespace, for tests.
//
// It speaks to the official client libraries over real sockets: connection strings with UseDevelopmentEmulator=true
// over plain TCP, TLS with a certificate of the test's own, and AMQP over WebSocket. Entities live in memory.
package servicebustest

import (
	"crypto/tls"
	"time"
)

// Options say how a namespace is reached and whom it lets in.
type Options struct {
	// TLS serves TLS with this configuration; nil is plain TCP.
	TLS *tls.Config
	// Deny decides on a put-token: the audience and the token as sent. Nil accepts everybody.
	Deny func(audience, token string) bool
	// IdleTimeout is announced in open, and a client that is silent for longer is cut. 0: none.
	IdleTimeout time.Duration
}

// Entity is the configuration of a queue or subscription. Zero values are the defaults of Service Bus.
type Entity struct {
	// LockDuration is how long a message, or a session, is locked. 0: 30s.
	LockDuration time.Duration
	// MaxDeliveryCount is how often a message is delivered before it is dead-lettered. 0: 10.
	MaxDeliveryCount int
	// Sessions makes the entity require sessions.
	Sessions bool
	// MaxMessageBytes is announced as the link's max-message-size. 0: 256 KiB, as in the standard tier.
	MaxMessageBytes int
	// MaxMessages is how many messages the entity holds before it is full. 0: no bound.
	MaxMessages int
	// DeadLetterExpired moves messages whose time to live is over to the dead letters; otherwise they vanish.
	DeadLetterExpired bool
}

// Counts is what an entity holds now, what went through it, and who reads it.
type Counts struct {
	// Active includes the locked messages.
	Active, Locked, Scheduled, Deferred, DeadLetter int
	// Expired counts the locks that ran out, Lapsed the messages whose time to live was over.
	Stored, Delivered, Completed, Abandoned, Expired, Renewed, Lapsed int64
	// Receivers is the links by which clients receive, Credit what they may still be sent.
	Receivers, Credit int
}

// Op names an operation that a fault can befall.
type Op string

// The operations that OnFault's function is asked about. The entity is "" for OpOpen, and the audience's path in lower case
// for OpToken.
const (
	OpOpen           Op = "open"
	OpToken          Op = "token"
	OpAttachSender   Op = "attach-sender"
	OpAttachReceiver Op = "attach-receiver"
	OpSend           Op = "send"
	OpDeliver        Op = "deliver"
	OpSettle         Op = "settle"
	OpRenew          Op = "renew"
	OpSession        Op = "session" // a session of an entity is asked for
	OpManage         Op = "manage"  // any other operation on $management: peek, schedule, cancel, receive deferred, …
)

// Fault says what goes wrong. Delay can be combined with any of the others, or stand alone.
type Fault struct {
	// Condition and Description refuse with this AMQP error: a transfer is rejected, a link detached, a connection closed,
	// a request answered with a status that the client maps to the condition.
	Condition, Description string
	// Delay comes first. Other links do not wait.
	Delay time.Duration
	// Drop cuts the connection instead of answering; a send is stored, and a settlement done, before that.
	Drop bool
	// Silent never answers; a send is not stored.
	Silent bool
	// Detach closes the link with the condition instead of rejecting the transfer (send), or before delivering (deliver).
	Detach bool
}
