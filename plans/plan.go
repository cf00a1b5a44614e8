// Package plans is the contract between the gateway and the plans that decide who may use
// an API. A guest lives in a folder of its own and is a Caddy module in the namespace
// message_api.plans.
package plans

import (
	"net/http"
	"time"
)

// Namespace is where plan modules are registered.
const Namespace = "message_api.plans"

// Plan decides about one request. Whether a request presents a credential and whether that
// credential is good are two questions: once any plan of an API has said that one is
// presented, no anonymous plan is asked, so that a wrong key never opens the door that no
// key would open.
type Plan interface {
	// Kind is the plan's type, e.g. "keyless".
	Kind() string
	// Anonymous says that clients come in without anything that tells who they are.
	Anonymous() bool
	// Presents says that the request carries a credential of this kind, good or bad. It
	// is asked of every request, also where the plan's selection rule does not hold.
	Presents(r *http.Request) bool
	// Check says whether the client may come in. It is asked only of requests that
	// present a credential, or of anonymous plans if nothing is presented. It must not
	// wait for the network or a disk.
	Check(r *http.Request) Verdict
}

// Challenger is a Plan with a challenge of its own for requests that present nothing.
type Challenger interface {
	// Challenge is a value for WWW-Authenticate (RFC 9110 §11.6.1).
	Challenge() string
}

// Subscribed is a Plan that lets in only whom a subscription allows.
type Subscribed interface {
	// SetDirectory gives the plan the subscriptions of its API and plan, before the first
	// request.
	SetDirectory(d Directory)
}

// Starter is a Plan that has something to do before the first request, like fetching keys.
type Starter interface {
	// Start is called when the plan goes live, and never for a configuration that is only
	// checked. It may be called again, and must not wait for the network.
	Start()
}

// Carrier is a Plan whose credential comes in a header or in the URL's query. The gateway
// keeps both out of messages, and takes the parameters out of the request before anything
// else sees them.
type Carrier interface {
	// CredentialHeaders are the names of the headers that can carry the credential.
	CredentialHeaders() []string
	// QueryParameters are the names of the query's parameters that can carry it.
	QueryParameters() []string
}

// Verdict is a plan's answer. The zero value refuses.
type Verdict struct {
	Granted bool
	// Principal is who the session acts for, when granted.
	Principal Principal
	// Status (401, 403, or 503 if it can't be told yet), Detail and Challenge
	// (WWW-Authenticate) say why not, when refused. Detail says nothing that the client does
	// not know.
	Status    int
	Detail    string
	Challenge string
	// Cause is for the log: why really. It contains no secret.
	Cause string
}

// Principal is who a session acts for. Every session carries one, and it is how a running
// session is found when a plan, subscription or credential is withdrawn.
type Principal struct {
	API          string `json:"api"`
	Plan         string `json:"plan"`
	Application  string `json:"application,omitempty"`
	Subscription string `json:"subscription,omitempty"`
	// Credential is an id of the credential, never the credential.
	Credential string `json:"credential,omitempty"`
	// Expires is when the session ends at the latest; zero means never.
	Expires time.Time `json:"expires,omitzero"`
	// Since is when the subscription began, from which its quota is counted.
	Since time.Time `json:"-"`
	// Limits are the subscription's own, which stand in the place of its plan's.
	Limits *Limits `json:"-"`
}
