// Package admin is the admin API of the gateway: what goes over the wire, the client that
// the command line uses, and the server that is mounted on Caddy's admin endpoint. It knows
// no Caddy. docs/admin-api.md describes it for its users.
package admin

import (
	"encoding/json"
	"time"
)

// Prefix is what every path of the admin API begins with.
const Prefix = "/message_api/"

// Page is one page of a list. Lists are in a stable order, so that reading page after page
// yields nothing twice, and everything that was there when the reading began.
type Page[T any] struct {
	Items []T `json:"items"`
	// Next is what ?after= asks for the next page with; empty on the last one. It is opaque.
	Next string `json:"next,omitempty"`
}

// API is a message API: one of the Caddyfile, or a managed one that was saved through the
// admin API.
type API struct {
	ID string `json:"id"`
	// Name, Version, Description, Labels and Paths are those of the definition that is
	// served here, else of the one that is deployed, else of the one that is saved.
	Name        string   `json:"name,omitempty"`
	Version     string   `json:"version,omitempty"`
	Description string   `json:"description,omitempty"`
	Labels      []string `json:"labels,omitempty"`
	Paths       []string `json:"paths,omitempty"`
	// Managed APIs are kept in the store; the others are written in the configuration.
	Managed bool `json:"managed"`
	// State is saved (never deployed), stopped or started.
	State string `json:"state"`
	// OutOfSync says that what is saved is not what is deployed.
	OutOfSync bool `json:"out_of_sync"`
	// Published APIs are in the catalogue: for everybody if they are public, else for
	// their members.
	Published bool `json:"published"`
	Public    bool `json:"public"`
	// Deprecated APIs take no new subscriptions, ever.
	Deprecated bool `json:"deprecated"`
	// Members are "user" or "group:name".
	Members []string `json:"members,omitempty"`
	Plans   []Plan   `json:"plans"`
	// Saved and Deployed are the revisions of a managed API.
	Saved    *Revision `json:"saved,omitempty"`
	Deployed *Revision `json:"deployed,omitempty"`
	// Running is what is served on the node that answers; nil if it serves nothing.
	Running *Running `json:"running,omitempty"`

	CreatedAt time.Time `json:"created_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	UpdatedBy string    `json:"updated_by,omitempty"`
	ETag      string    `json:"etag"`
}

// Revision is a definition with a number. Definition is left out of lists.
type Revision struct {
	Number     int             `json:"number"`
	At         time.Time       `json:"at,omitzero"`
	By         string          `json:"by,omitempty"`
	Definition json.RawMessage `json:"definition,omitempty"`
}

// Plan is a plan of an API. It has no version of its own: its ETag is the API's.
type Plan struct {
	API  string `json:"api"`
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Stage is staging, published, deprecated or closed.
	Stage string `json:"stage"`
	// Saved and Deployed say in which of the definitions it stands.
	Saved    bool `json:"saved"`
	Deployed bool `json:"deployed"`
	// Definition is the saved one of a managed API. It is left out of lists.
	Definition json.RawMessage `json:"definition,omitempty"`
	ETag       string          `json:"etag"`
}

// Members is the body of PUT …/members: who sees the API in the catalogue while it is
// private.
type Members struct {
	Members []string `json:"members"`
}

// Application is a consumer.
type Application struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// ClientID is what tokens name it by; one live application has it at a time.
	ClientID string `json:"client_id,omitempty"`
	Owner    string `json:"owner,omitempty"`
	// Archived applications have no live subscriptions and get none.
	Archived  bool      `json:"archived"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	UpdatedBy string    `json:"updated_by,omitempty"`
	ETag      string    `json:"etag"`
}

// NewApplication is the body that makes an application. Without an ID it gets a random one.
type NewApplication struct {
	ID          string `json:"id,omitempty"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	ClientID    string `json:"client_id,omitempty"`
	Owner       string `json:"owner,omitempty"`
}

// ApplicationPatch changes what it names and nothing else; null takes a value away.
type ApplicationPatch struct {
	Name        Optional[string] `json:"name,omitzero"`
	Description Optional[string] `json:"description,omitzero"`
	ClientID    Optional[string] `json:"client_id,omitzero"`
	Owner       Optional[string] `json:"owner,omitzero"`
}

// Limits are how much may be used, as the configuration writes it: "10/1s", "1000/1d
// calendar". What is left out is the plan's.
type Limits struct {
	RateLimit   string `json:"rate_limit,omitempty"`
	Quota       string `json:"quota,omitempty"`
	MaxSessions int    `json:"max_sessions,omitempty"`
	PublishRate string `json:"publish_rate,omitempty"`
	ReceiveRate string `json:"receive_rate,omitempty"`
}

// Subscription is the right of an application to use one plan of one API.
type Subscription struct {
	ID          string `json:"id"`
	API         string `json:"api"`
	Plan        string `json:"plan"`
	Application string `json:"application"`
	// Status is pending, accepted, paused, closed or rejected.
	Status string `json:"status"`
	// Reason is what was given with the last action.
	Reason string `json:"reason,omitempty"`
	// Message is what the consumer asked with.
	Message string `json:"message,omitempty"`
	// Starts and Ends bound its life; absent is unbounded.
	Starts      time.Time         `json:"starts,omitzero"`
	Ends        time.Time         `json:"ends,omitzero"`
	CreatedAt   time.Time         `json:"created_at,omitzero"`
	ProcessedAt time.Time         `json:"processed_at,omitzero"`
	ProcessedBy string            `json:"processed_by,omitempty"`
	PausedAt    time.Time         `json:"paused_at,omitzero"`
	ClosedAt    time.Time         `json:"closed_at,omitzero"`
	UpdatedAt   time.Time         `json:"updated_at,omitzero"`
	UpdatedBy   string            `json:"updated_by,omitempty"`
	Limits      *Limits           `json:"limits,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	// ConditionsAccepted is the revision of the general conditions.
	ConditionsAccepted string `json:"conditions_accepted,omitempty"`
	// Consumer is where and how its messages are delivered, if the plan pushes: with hints in
	// the place of secrets. In the answer that makes the subscription, and in no other, it is
	// all there.
	Consumer json.RawMessage `json:"consumer,omitempty"`
	// Proposed is what is to stand in the place of Consumer, once somebody accepts it.
	Proposed *Proposed `json:"proposed,omitempty"`
	// NewKey is the key that was made with the subscription, in the answer that makes it
	// and in no other.
	NewKey *NewKey `json:"new_key,omitempty"`
	ETag   string  `json:"etag"`
}

// SubscribeRequest is the body that makes a subscription.
type SubscribeRequest struct {
	API                string            `json:"api"`
	Plan               string            `json:"plan"`
	Application        string            `json:"application"`
	Message            string            `json:"message,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	ConditionsAccepted string            `json:"conditions_accepted,omitempty"`
	Starts             time.Time         `json:"starts,omitzero"`
	Ends               time.Time         `json:"ends,omitzero"`
	Limits             *Limits           `json:"limits,omitempty"`
	// Key is a key of one's own, where custom keys are allowed.
	Key string `json:"key,omitempty"`
	// Consumer is a JSON object that says where and how to deliver. A plan that pushes wants
	// one, and no other takes one.
	Consumer json.RawMessage `json:"consumer,omitempty"`
}

// AcceptRequest is the body of accept. All of it is optional; with a configuration that was
// proposed, there is nothing to say but the reason.
type AcceptRequest struct {
	Starts time.Time `json:"starts,omitzero"`
	Ends   time.Time `json:"ends,omitzero"`
	Reason string    `json:"reason,omitempty"`
	// Key is a key of one's own, where custom keys are allowed.
	Key string `json:"key,omitempty"`
}

// SubscriptionPatch changes what it names and nothing else; null takes a value away.
type SubscriptionPatch struct {
	Starts   Optional[time.Time]         `json:"starts,omitzero"`
	Ends     Optional[time.Time]         `json:"ends,omitzero"`
	Limits   Optional[*Limits]           `json:"limits,omitzero"`
	Metadata Optional[map[string]string] `json:"metadata,omitzero"`
	// Consumer is a patch of its own: what it does not name stays, null takes a member away.
	// The hint of a secret, as it is shown, stands for that secret.
	Consumer Optional[json.RawMessage] `json:"consumer,omitzero"`
}

// Key is an API key, without the key.
type Key struct {
	ID           string `json:"id"`
	Subscription string `json:"subscription"`
	// Hint is the end of the key, to recognise it by.
	Hint string `json:"hint,omitempty"`
	// Custom keys were thought out by somebody.
	Custom    bool      `json:"custom"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	CreatedBy string    `json:"created_by,omitempty"`
	// Expires is when it ends, if its subscription does not end before; absent is with its
	// subscription.
	Expires   time.Time `json:"expires,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	ETag      string    `json:"etag"`
}

// NewKey is a key that was just made. Nobody will ever be shown Secret again.
type NewKey struct {
	Key
	Secret string `json:"secret"`
}

// KeyRequest is the body that makes a key. All of it is optional.
type KeyRequest struct {
	// Key is a key of one's own, where custom keys are allowed.
	Key     string    `json:"key,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// ExpireRequest is the body of expire.
type ExpireRequest struct {
	// At is when the key ends: at the latest when its subscription does, which is also what
	// null means.
	At Optional[time.Time] `json:"at"`
}

// Reason is the body of every other action, and optional.
type Reason struct {
	Reason string `json:"reason,omitempty"`
}

// Dry is the answer to ?dry_run=true: what would have been saved.
type Dry struct {
	Valid      bool            `json:"valid"`
	Definition json.RawMessage `json:"definition"`
	Plans      []Plan          `json:"plans"`
	Paths      []string        `json:"paths"`
}
