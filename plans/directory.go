package plans

import (
	"net/http"
	"time"
)

// Directory tells whom the subscriptions of one plan of one API let in. It answers from
// memory.
type Directory interface {
	// Key finds the holder of an API key. The secret is hashed and goes nowhere else.
	Key(secret string) (Holder, Standing)
	// Client finds the subscription of the application that has the client id.
	Client(id string) (Holder, Standing)
}

// Holder is who a credential belongs to. Unless the standing is Good it says as much as is
// known, for the log.
type Holder struct {
	Application  string
	Subscription string
	// Credential is the id of the key, or the client id.
	Credential string
	// Since is when the subscription began.
	Since time.Time
	// Expires is when the key or the subscription ends, whichever is first; zero is never.
	Expires time.Time
	// Limits are the subscription's own, or nil.
	Limits *Limits
}

// Standing says how a credential stands with a plan.
type Standing uint8

// The standings. Only Good lets in.
const (
	Unknown   Standing = iota // no such credential
	Good                      // it lets in
	Elsewhere                 // it belongs to another plan or API
	Expired                   // its time is over
	Revoked                   // it was taken back
	NotYet                    // its time has not begun
	Pending                   // its subscription is not accepted yet
	Paused                    // its subscription is paused
	Closed                    // its subscription, application or plan is closed
)

var standings = [...]string{"unknown", "good", "elsewhere", "expired", "revoked", "not yet valid", "pending", "paused", "closed"}

// String returns the standing in words.
func (s Standing) String() string {
	if int(s) < len(standings) {
		return standings[s]
	}
	return "unknown"
}

// Admit turns what a directory says into a verdict. A credential that is good but whose
// subscription must wait is told so with 403; everything else is the same 401, so that
// nobody learns by trying which credentials exist elsewhere. challenge is for 401.
func Admit(h Holder, s Standing, challenge string) Verdict {
	switch s {
	case Good:
		return Verdict{Granted: true, Principal: Principal{
			Application: h.Application, Subscription: h.Subscription, Credential: h.Credential,
			Expires: h.Expires, Since: h.Since, Limits: h.Limits,
		}}
	case Pending:
		return forbid(s, "the subscription has not been accepted yet")
	case Paused:
		return forbid(s, "the subscription is paused")
	case NotYet:
		return forbid(s, "the subscription has not begun yet")
	}
	return Refuse(challenge, "the credential is unknown, has expired or was revoked", s.String())
}

func forbid(s Standing, detail string) Verdict {
	return Verdict{Status: http.StatusForbidden, Detail: detail, Cause: s.String()}
}

// Refuse is the verdict for a credential that is no good: 401.
func Refuse(challenge, detail, cause string) Verdict {
	return Verdict{Status: http.StatusUnauthorized, Detail: detail, Challenge: challenge, Cause: cause}
}
