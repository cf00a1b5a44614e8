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

// Plan decides about one request. The plans of an API are asked in a documented order,
// and the first whose verdict is not NotMine decides.
type Plan interface {
	// Check looks at the request and says whether it is this plan's, and if so whether
	// the client may come in.
	Check(r *http.Request) Verdict
	// Kind is the plan's type, e.g. "keyless".
	Kind() string
	// Anonymous says that clients come in without anything that tells who they are.
	Anonymous() bool
}

// Verdict is a plan's answer. The zero value is NotMine.
type Verdict struct {
	Answer Answer
	// Principal is who the session acts for, when granted.
	Principal Principal
	// Status (401 or 403), Detail and Challenge (WWW-Authenticate) say why not, when refused.
	Status    int
	Detail    string
	Challenge string
}

// Answer is one of three.
type Answer uint8

// The three answers.
const (
	// NotMine: the request carries nothing that this plan knows.
	NotMine Answer = iota
	// Refused: it carries this plan's credential, and that is not good.
	Refused
	// Granted: the client may come in as Principal.
	Granted
)

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
	// MaxSessions is how many sessions this principal may have at a time; 0 is the
	// gateway's default.
	MaxSessions int `json:"max_sessions,omitempty"`
}
