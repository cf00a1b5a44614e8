package smftest

import (
	"crypto/tls"
	"time"
)

// Options say how the broker is; the zero value is a broker that allows everything.
type Options struct {
	// TLS makes it a tcps:// broker. Client certificates are asked for by ClientAuth.
	TLS *tls.Config
	// VPN is the only message VPN there is. Default: "default".
	VPN string
	// Users are passwords by name. Who logs in by client certificate needs its common
	// name here, with any password. Nil: anybody may log in.
	Users map[string]string
	// AckEvery: publishes are acknowledged in groups of so many, and after a few
	// milliseconds. Default: 1.
	AckEvery int
	// RenumberAfterRebind: what was unacknowledged when a connection broke comes again
	// with a new id, so that the client library takes it for new, and drops what it is told
	// of the old one. By default it comes with the id that it had: what the client has in
	// hand it takes once, and what it has acknowledged it acknowledges again.
	RenumberAfterRebind bool
	// NoProvisioning: clients can't make or delete queues.
	NoProvisioning bool
	// RejectNoMatch: a persistent publish that nobody is subscribed to is refused instead
	// of acknowledged and thrown away.
	RejectNoMatch bool

	// old: speak the second version of the control messages only.
	old bool
}

// Queue is how a queue is made.
type Queue struct {
	// NonExclusive: all flows get messages in turn, not only the first.
	NonExclusive bool
	// MaxUnacked bounds what one flow holds unacknowledged. Default: 10,000.
	MaxUnacked int
	// MaxRedeliveries is how often a message comes again before the queue gives it up.
	// Default: no bound.
	MaxRedeliveries int
	// MaxMessages: publishes to a queue that holds so many are refused. Default: no bound.
	MaxMessages int
	// RespectTTL: messages older than their TTL are given up.
	RespectTTL bool
	// DeadMessageQueue gets what the queue gives up and is DMQEligible, if a queue of that
	// name exists. Default: "#DEAD_MSG_QUEUE".
	DeadMessageQueue string
	// Topics are what the queue is subscribed to, besides what it is already.
	// #P2P/QUE/<name> always leads to it.
	Topics []string
}

// Counts is what happened in a queue.
type Counts struct {
	// Ready and Unacked are in the queue now.
	Ready, Unacked int
	// Delivered counts every delivery, Redelivered those that were not the first.
	Delivered, Redelivered int
	// Acked, Failed and Rejected count the outcomes that clients told.
	Acked, Failed, Rejected int
	// GivenUp counts what was rejected, expired, or came again too often.
	GivenUp int
	// Flows are bound now.
	Flows int
}

// Op is what a client asks for, or (OpDeliver) what is done for it.
type Op int

// The names with which OnFault is called: the user, the topic, the queue, the queue, the
// topic, the queue, the queue or (direct) the topic.
const (
	OpLogin Op = iota
	OpSubscribe
	OpBind
	OpCreate
	OpPublish
	OpAck
	OpDeliver
)

// Fault is what goes wrong with one operation.
type Fault struct {
	// Code and Text refuse it: {503, "Spool Over Quota"}. OpAck and OpDeliver know no
	// refusal, and nobody hears of that of a direct publish.
	Code int
	Text string
	// Delay postpones it, with everything after it on the connection. OpDeliver: it
	// postpones what comes after it on the flow; a direct message knows no delay.
	Delay time.Duration
	// Drop cuts the connection after it is done and before it is answered. A delivery is
	// written first.
	Drop bool
	// Silent: it is not done and not answered; the client of a direct message is told with
	// the next one that some were thrown away. With Drop, the connection is cut instead.
	Silent bool
}
