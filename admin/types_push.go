package admin

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/caddy-message-api/caddy-message-api/plans"
)

// Duration is a time span, written like 1.5s.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(parsed)
	return nil
}

// Proposed is a consumer configuration that waits until somebody accepts or rejects it; the
// one of the subscription stays in force so long.
type Proposed struct {
	Consumer json.RawMessage `json:"consumer"`
	At       time.Time       `json:"at,omitzero"`
	By       string          `json:"by,omitempty"`
}

// The states of deliveries.
const (
	DeliveryWaiting = "waiting" // no node works on it yet
	DeliveryRunning = "running"
	DeliveryTrouble = "trouble" // a node works on it, and nothing is delivered at the moment
	DeliveryFailed  = "failed"  // it waits for a retry, or for another configuration
	DeliveryStopped = "stopped" // the subscription or the API is not live
)

// deliveryStates are all of them.
var deliveryStates = []string{DeliveryWaiting, DeliveryRunning, DeliveryTrouble, DeliveryFailed, DeliveryStopped}

// Delivery is how it stands with the messages of a subscription whose consumer is called.
type Delivery struct {
	// Subscription is its id. Of one that is written in the Caddyfile (Static) that is
	// "<api>.<name>", and it has no Application.
	Subscription string `json:"subscription"`
	API          string `json:"api"`
	Plan         string `json:"plan,omitempty"`
	Application  string `json:"application,omitempty"`
	Static       bool   `json:"static"`
	// State is waiting, running, trouble, failed or stopped; Cause is why, Since is from when
	// on.
	State string    `json:"state"`
	Cause string    `json:"cause,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Owner is the node that works on it; Here says that it is the one that answers.
	Owner string `json:"owner,omitempty"`
	Here  bool   `json:"here"`
	// Callback is where the messages go, without its query.
	Callback string `json:"callback,omitempty"`
	// Backlog is how many messages wait at the broker; absent where that is not known, and
	// in lists.
	Backlog *int64 `json:"backlog,omitempty"`
	// Counts since the subscription began. Delivered, Dead and Skipped are messages, Failed
	// are attempts.
	Delivered int64 `json:"delivered"`
	Failed    int64 `json:"failed"`
	Dead      int64 `json:"dead"`
	Skipped   int64 `json:"skipped"`
	// ParkedMessages is how many wait for their next attempt. The server counts them.
	ParkedMessages int `json:"parked_messages"`
	// Parked are those, and Recent the last attempts, the newest last. Lists leave both out.
	Parked []Parked  `json:"parked,omitempty"`
	Recent []Attempt `json:"recent,omitempty"`
}

// Parked is a message that failed and waits for its next attempt.
type Parked struct {
	// ID is its webhook-id.
	ID       string `json:"id"`
	Lane     string `json:"lane,omitempty"`
	Attempts int    `json:"attempts"`
	// Status is the HTTP status of the last one, absent if there was none.
	Status int       `json:"status,omitempty"`
	Error  string    `json:"error,omitempty"`
	First  time.Time `json:"first,omitzero"`
	Next   time.Time `json:"next,omitzero"`
}

// Attempt is one call of a consumer.
type Attempt struct {
	// ID is the webhook-id of the message.
	ID string    `json:"id"`
	At time.Time `json:"at,omitzero"`
	// Number counts the attempts for the message, from 1.
	Number int `json:"number,omitempty"`
	// Outcome is delivered, gone, throttled, client_error, server_error, timeout,
	// unreachable, blocked, auth_failed or unsendable.
	Outcome string `json:"outcome"`
	// Status is the HTTP status, absent if there was none.
	Status   int      `json:"status,omitempty"`
	Error    string   `json:"error,omitempty"`
	Duration Duration `json:"duration"`
}

// OutcomeDelivered is the outcome of an attempt that succeeded.
const OutcomeDelivered = "delivered"

// TestRequest is the body of test. All of it is optional.
type TestRequest struct {
	// Payload is what is sent: a text as it is, anything else as JSON.
	Payload json.RawMessage `json:"payload,omitempty"`
	// ContentType says what the payload is. Default: text/plain; charset=utf-8 for a text,
	// else application/json.
	ContentType string `json:"content_type,omitempty"`
}

// TestMessage is a message that is to be sent at once.
type TestMessage struct {
	Payload     []byte
	ContentType string
}

// DeadLetter is a message that could not be delivered, without its payload.
type DeadLetter struct {
	// ID is its webhook-id.
	ID string `json:"id"`
	// Reason is the outcome of the last attempt, or exhausted:<outcome>, or
	// held_too_long:<outcome>.
	Reason   string `json:"reason,omitempty"`
	Attempts int    `json:"attempts"`
	// Status is the last HTTP status, absent if there was none; Error the last error.
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
	// Position is where it stood at the broker, Time when it died.
	Position string    `json:"position,omitempty"`
	Time     time.Time `json:"time,omitzero"`
	// Key, ContentType and Size (in bytes) are those of the message.
	Key         string `json:"key,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	Size        int    `json:"size"`
}

// RedeliverRequest is the body of dead_letters/redeliver: IDs, or Since and Until (either may
// be left out), or All.
type RedeliverRequest struct {
	// IDs are webhook-ids, at most 1000.
	IDs []string `json:"ids,omitempty"`
	// Since and Until choose by the time of death: from Since on, and before Until.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	All   bool      `json:"all,omitempty"`
	// Rate is how fast they are sent, at most 10000 in a second. Default: 10/1s.
	Rate string `json:"rate,omitempty"`
	// Keep leaves those that were delivered where they are. Otherwise they are taken away,
	// where reading can do that.
	Keep bool `json:"keep,omitempty"`
}

// Redelivery is a RedeliverRequest that was checked.
type Redelivery struct {
	// IDs are in order, without repetitions.
	IDs          []string
	Since, Until time.Time
	All          bool
	Rate         plans.Rate
	Keep         bool
}

// Selects says whether the letter with this webhook-id, which died then, is to be sent.
func (q *Redelivery) Selects(id string, died time.Time) bool {
	switch {
	case q.All:
		return true
	case len(q.IDs) > 0:
		_, found := slices.BinarySearch(q.IDs, id)
		return found
	}
	return !died.IsZero() && !died.Before(q.Since) && (q.Until.IsZero() || died.Before(q.Until))
}

// Redelivered is a line of the answer to redeliver: what came of one letter.
type Redelivered struct {
	Attempt
	// Removed: it is no dead letter any more.
	Removed bool `json:"removed"`
}

// RedeliveryReport is the last line of the answer to redeliver.
type RedeliveryReport struct {
	// Read is how many letters of the subscription were looked at.
	Read int `json:"read"`
	// Delivered and Failed are what came of those that were sent, Removed how many are no
	// dead letters any more. The server counts them.
	Delivered int `json:"delivered"`
	Failed    int `json:"failed"`
	Removed   int `json:"removed"`
	// Missing are the ids of which there was no letter. The server finds them.
	Missing []string `json:"missing,omitempty"`
}
