// Package subscriptions is who may use what: applications, their subscriptions to plans, and
// the API keys of those. It keeps them in the store, where every node finds them, and an index
// of them in memory, from which plans ask who a credential belongs to.
package subscriptions

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// The kinds of records in the store. The record of a kind has the JSON of the type.
const (
	KindApplication  = "application"
	KindSubscription = "subscription"
	KindKey          = "key"
	// KindSecret is what keys are hashed with, unless it is configured.
	KindSecret = "secret"
)

// Application is a consumer.
type Application struct {
	// ID is made when it is left out. One's own: 1-64 of a-z, 0-9, '.', '_' and '-'.
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// ClientID is what tokens call the application. No two applications have the same one,
	// archived ones aside.
	ClientID string `json:"client_id,omitempty"`
	Owner    string `json:"owner,omitempty"`
	// Archived applications have no live subscription, and get none.
	Archived  bool      `json:"archived,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	UpdatedBy string    `json:"updated_by,omitempty"`
	// Version is the store's. It grows with every change.
	Version uint64 `json:"-"`
}

// ApplicationPatch is what to change of an application; nil leaves as it is.
type ApplicationPatch struct {
	Name        *string
	Description *string
	// ClientID may be taken away ("") while no plan needs it.
	ClientID *string
	Owner    *string
}

// Status is where a subscription is in its life.
type Status string

// The statuses of a subscription. Closed and rejected are final.
const (
	Pending  Status = "pending"  // somebody has to accept it
	Accepted Status = "accepted" // it lets in, within its dates
	Paused   Status = "paused"   // it does not let in until it is resumed
	Closed   Status = "closed"
	Rejected Status = "rejected"
)

// Live says that the subscription can still come to let somebody in.
func (s Status) Live() bool { return s == Pending || s == Accepted || s == Paused }

// Subscription is the right of an application to use one plan of one API.
type Subscription struct {
	ID          string `json:"id"`
	API         string `json:"api"`
	Plan        string `json:"plan"`
	Application string `json:"application"`
	Status      Status `json:"status"`
	// Reason is why it has its status: what was said when it was last changed.
	Reason string `json:"reason,omitempty"`
	// Starts and Ends are when it lets in: from Starts on, and before Ends. Zero is no bound.
	Starts time.Time `json:"starts,omitzero"`
	Ends   time.Time `json:"ends,omitzero"`
	// ProcessedAt and ProcessedBy are when it was accepted or rejected, and by whom: "auto"
	// is the plan's own validation.
	CreatedAt   time.Time `json:"created_at,omitzero"`
	ProcessedAt time.Time `json:"processed_at,omitzero"`
	ProcessedBy string    `json:"processed_by,omitempty"`
	PausedAt    time.Time `json:"paused_at,omitzero"`
	ClosedAt    time.Time `json:"closed_at,omitzero"`
	UpdatedAt   time.Time `json:"updated_at,omitzero"`
	UpdatedBy   string    `json:"updated_by,omitempty"`
	// Limits stand, each by itself, in the place of the plan's.
	Limits   *plans.Limits     `json:"limits,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// Message is what the consumer said when it asked.
	Message string `json:"message,omitempty"`
	// ConditionsAccepted is the revision of the general conditions that the consumer agreed
	// to.
	ConditionsAccepted string `json:"conditions_accepted,omitempty"`
	// Consumer is what may be seen of the consumer configuration in force, of a push
	// subscription. It has no secret in it. One that is pending has what was asked for, and
	// one that is over what it had last.
	Consumer json.RawMessage `json:"consumer,omitempty"`
	// Sealed is the whole of that configuration. One that is over has none.
	Sealed *Sealed `json:"sealed,omitempty"`
	// Proposed is a configuration that waits for somebody to accept it. Consumer is in force
	// until then.
	Proposed *Proposal `json:"proposed,omitempty"`
	// NewConsumer is the whole configuration as it was just made, secrets and all, where none
	// was there before from which it took them. It is shown this once: it is in what the
	// change returns, and in no other Subscription.
	NewConsumer json.RawMessage `json:"-"`
	// Version is the store's. It grows with every change.
	Version uint64 `json:"-"`
}

// Proposal is a consumer configuration that was asked for in the place of the one in force.
type Proposal struct {
	// Consumer is what may be seen of it. It has no secret in it.
	Consumer json.RawMessage `json:"consumer"`
	Sealed   *Sealed         `json:"sealed"`
	At       time.Time       `json:"at"`
	By       string          `json:"by"`
}

// Format keeps NewConsumer out of logs and errors.
func (s Subscription) Format(f fmt.State, verb rune) {
	type plain Subscription
	s.NewConsumer = nil
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), plain(s))
}

// Since is when the subscription began, or will begin: when it starts, or was accepted.
func (s *Subscription) Since() time.Time {
	if !s.Starts.IsZero() {
		return s.Starts
	}
	return s.ProcessedAt
}

// Cursor is the place of the subscription in the order of subscriptions, for Filter.After.
func (s *Subscription) Cursor() string {
	return strconv.FormatInt(s.CreatedAt.UnixMilli(), 36) + "." + s.ID
}

// Key is an API key: everything but the key.
type Key struct {
	// ID is made from the hash, so that the same key is never there twice.
	ID           string `json:"id"`
	Subscription string `json:"subscription"`
	// Hash is the HMAC-SHA256 of the key under the registry's secret, in base64.
	Hash string `json:"hash"`
	// HashedWith tells which secret that was, and nothing about it.
	HashedWith string `json:"hashed_with"`
	// Hint is the last four characters of the key, for people to know it again by.
	Hint      string    `json:"hint"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	CreatedBy string    `json:"created_by,omitempty"`
	// Expires is when the key ends, if not its subscription ends before; zero is never.
	Expires   time.Time `json:"expires,omitzero"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	// Custom keys were thought out by somebody.
	Custom bool `json:"custom,omitempty"`
	// Version is the store's. It grows with every change.
	Version uint64 `json:"-"`
}

// live says that the key lets in as far as it is up to the key.
func (k *Key) live(now time.Time) bool {
	return k.RevokedAt.IsZero() && (k.Expires.IsZero() || now.Before(k.Expires))
}

// NewKey is a key that was just made.
type NewKey struct {
	Key
	// Secret is the key itself. It is shown this once and kept nowhere.
	Secret string `json:"secret"`
}

// String keeps the secret out of logs and errors.
func (k NewKey) String() string { return fmt.Sprintf("key %s (…%s)", k.ID, k.Hint) }

// GoString keeps the secret out of logs and errors.
func (k NewKey) GoString() string { return k.String() }

// SubscribeRequest asks for a subscription.
type SubscribeRequest struct {
	API         string
	Plan        string
	Application string
	Message     string
	Metadata    map[string]string
	// ConditionsAccepted is the revision of the plan's general conditions that the consumer
	// agrees to.
	ConditionsAccepted string
	Starts, Ends       time.Time
	Limits             *plans.Limits
	// Key is a custom key, for a plan that accepts by itself. Otherwise it is given to
	// Accept.
	Key string
	// Consumer is the consumer configuration, a JSON object of at most 16 KiB. A plan that
	// pushes wants one, and no other plan takes one.
	Consumer json.RawMessage
}

// AcceptRequest accepts a subscription, or the configuration that was proposed for one. In
// that case there is nothing to say but the reason.
type AcceptRequest struct {
	// Starts and Ends stand in the place of what was asked for, unless they are zero.
	Starts, Ends time.Time
	Reason       string
	// Key is a custom key; a good one is made if it is left out.
	Key string
}

// SubscriptionPatch is what to change of a subscription; nil leaves as it is.
type SubscriptionPatch struct {
	// Starts and Ends: zero takes the bound away.
	Starts, Ends *time.Time
	// Limits with nothing in them give the plan's limits back.
	Limits *plans.Limits
	// Metadata is replaced as a whole; an empty one removes all.
	Metadata map[string]string
	// Consumer asks for another consumer configuration; the plan decides what of the old one
	// stays where nothing is said of it. It is in force at once where the subscription is
	// pending or the plan validates by itself; otherwise it is proposed, in the place of what
	// was proposed before.
	Consumer json.RawMessage
}

// KeyRequest asks for a further key.
type KeyRequest struct {
	// Key is a custom key; a good one is made if it is left out.
	Key string
	// Expires is when it ends; zero is with its subscription.
	Expires time.Time
}

// Filter chooses subscriptions. What is left empty does not matter.
type Filter struct {
	API         string
	Plan        string
	Application string
	Status      Status
	// After is the Cursor of the last subscription that was already seen.
	After string
}

// IfVersion lets a change happen only while what it changes has this version; 0 is any.
type IfVersion uint64
