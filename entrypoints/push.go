package entrypoints

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-message-api/caddy-message-api/message"
)

// Pushing is an entrypoint that goes to its clients instead of being called by them. For each
// subscription one node of the gateway runs a worker.
type Pushing interface {
	Entrypoint
	// Consumer checks what a subscriber asks for: a JSON object, as in the admin API. old is
	// what is in force, or nil; secrets that asked does not mention are kept from it. whole is
	// what is to be kept, secrets and all, and shown is what may be seen of it. An error is
	// Flaws where it is about asked.
	Consumer(old, asked json.RawMessage) (whole, shown json.RawMessage, err error)
	// Deliver works for one subscription until ctx is done, and then ends what it has begun,
	// settles it and gives the rest back. It returns nil then, or a *Failure when it can't go
	// on. If the cause of ctx is ErrFenced it lets go at once.
	Deliver(ctx context.Context, p Push) error
	// Try sends one message at once, beside all others, and tells what came of it. An error
	// means that nothing was sent.
	Try(ctx context.Context, p Push, l Letter) (Attempt, error)
	// Letters reads the dead letters of the subscription, from the first, until there are no
	// more, f returns an error, or ctx is done. f says what becomes of each.
	Letters(ctx context.Context, p Push, f func(Letter) (LetterFate, error)) error
}

// Push is one subscription, as a pushing entrypoint sees it.
type Push interface {
	// API and Subscription are ids.
	API() string
	Subscription() string
	// Consumer is the whole of what Pushing.Consumer made.
	Consumer() json.RawMessage
	// Capabilities are those of the endpoint that is read from.
	Capabilities() message.Capabilities
	// Subscribe begins to read. settles says whether its deliveries are to be settled.
	Subscribe(ctx context.Context, window message.Window) (stream message.Stream, settles bool, err error)
	// DeadLetters is where what can't be delivered goes, or nil.
	DeadLetters() DeadLetters
	// Progress is what was kept last, also by another node. Keep keeps the newest: it returns
	// at once, and what is kept is on storage about a second later. The gateway does not
	// change what it is given, nor may the worker afterwards.
	Progress() *Progress
	Keep(p *Progress)
	// Pace waits until a message may go out, where the plan or the subscription has a
	// receive_rate. Paced says whether it has.
	Pace(ctx context.Context) error
	Paced() bool
	// Sent counts what was delivered.
	Sent(messages, bytes int)
	Logger() *zap.Logger
}

// DeadLetters is an endpoint that takes messages which can't be delivered.
type DeadLetters interface {
	// Name is the endpoint's.
	Name() string
	// Put returns once the broker has confirmed all the messages, or an error.
	Put(ctx context.Context, messages ...*message.Message) error
	// Read begins to read what is there. settles tells whether reading takes messages away,
	// once they are acknowledged; otherwise they stay for as long as the broker keeps them.
	// It fails where the endpoint has no consumer.
	Read(ctx context.Context, window message.Window) (stream message.Stream, settles bool, err error)
}

// Letter is a message to be sent outside of the order of its subscription.
type Letter struct {
	// ID is the webhook-id. Attempts is how often it was tried before.
	ID       string `json:"id"`
	Attempts int    `json:"attempts"`
	// Subscription is whose it is, Reason why it is dead, Status the last HTTP status (0 is
	// none), Error the last error, Position where it stood at the broker, Time when it died.
	Subscription string           `json:"subscription,omitempty"`
	Reason       string           `json:"reason,omitempty"`
	Status       int              `json:"status,omitempty"`
	Error        string           `json:"error,omitempty"`
	Position     string           `json:"position,omitempty"`
	Time         time.Time        `json:"time,omitzero"`
	Message      *message.Message `json:"-"`
}

// LetterFate is what becomes of a dead letter that was read.
type LetterFate uint8

// The fates of dead letters.
const (
	LetterStays   LetterFate = iota // it is left where it is
	LetterRemoved                   // it is taken away, where reading can do that
)

// Progress is what is kept of a worker over restarts and changes of its owner.
type Progress struct {
	// Parked are messages that failed and will be tried again, at most MaxParked.
	Parked []Parked `json:"parked,omitempty"`
	// Recent are the last attempts that failed, and of those that did not the newest; the
	// newest last, at most MaxRecent.
	Recent []Attempt `json:"recent,omitempty"`
	// Counts since the subscription began. Delivered, Dead and Skipped are messages, Failed
	// are attempts.
	Delivered int64 `json:"delivered"`
	Failed    int64 `json:"failed"`
	Dead      int64 `json:"dead"`
	Skipped   int64 `json:"skipped"`
	// Dropped are messages that at_most_once lost, because they could not be settled before
	// they were sent, or put aside afterwards. Gaps is how often the broker could not prove
	// that nothing was missed.
	Dropped int64 `json:"dropped,omitempty"`
	Gaps    int64 `json:"gaps,omitempty"`
	// Trouble is why nothing is being delivered at the moment, although the worker goes on;
	// Since is from when on.
	Trouble string    `json:"trouble,omitempty"`
	Since   time.Time `json:"since,omitzero"`
}

// Bounds of a Progress.
const (
	MaxParked = 1024
	MaxRecent = 25
)

// Parked is a message that failed and will be tried again. Fingerprint is how it is known
// again when it comes again.
type Parked struct {
	Fingerprint string `json:"fingerprint"`
	ID          string `json:"id"`
	Lane        string `json:"lane,omitempty"`
	Attempts    int    `json:"attempts"`
	// Round is how many of the attempts count: a worker that stopped with a Failure begins
	// to count from 0 when it has the message again. Outcome is that of the last attempt.
	Round   int       `json:"round,omitempty"`
	Outcome Outcome   `json:"outcome,omitempty"`
	Status  int       `json:"status,omitempty"`
	Error   string    `json:"error,omitempty"`
	First   time.Time `json:"first"`
	// Next is when it is tried again; zero is as soon as it is there.
	Next time.Time `json:"next,omitzero"`
}

// Attempt is one call of a client.
type Attempt struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
	// Number counts the attempts for the message, from 1.
	Number int `json:"number"`
	// Outcome is one of the words below.
	Outcome Outcome `json:"outcome"`
	// Status is the HTTP status, or 0.
	Status   int           `json:"status,omitempty"`
	Error    string        `json:"error,omitempty"`
	Duration time.Duration `json:"duration"`
}

// Outcome is what came of an attempt.
type Outcome string

// The outcomes of an attempt.
const (
	Delivered   Outcome = "delivered"    // 2xx
	Gone        Outcome = "gone"         // 410
	Throttled   Outcome = "throttled"    // 429, and 503 with Retry-After
	ClientError Outcome = "client_error" // other 4xx, and 3xx, which is not followed
	ServerError Outcome = "server_error" // 5xx, and what is no status of HTTP
	TimedOut    Outcome = "timeout"
	Unreachable Outcome = "unreachable" // no connection, no TLS, cut before the status
	Blocked     Outcome = "blocked"     // the gateway must not call that address
	AuthFailed  Outcome = "auth_failed" // no token was to be had, or 401 in spite of credentials
	Unsendable  Outcome = "unsendable"  // no request can be made of the message
	Unsettled   Outcome = "unsettled"   // at_most_once: it could not be settled first, and was not sent
)

// Failure is why a worker can't go on. It stays stopped until somebody has it retried, or
// changes its configuration.
type Failure struct {
	// Cause is for people.
	Cause string
	// Gone: the client has said that it wants no more, so that the subscription ends.
	Gone bool
	Err  error
}

func (f *Failure) Error() string { return f.Cause }

// Unwrap returns the cause, if there is one.
func (f *Failure) Unwrap() error { return f.Err }

// Flaw is one thing that is wrong with what a subscriber asks for.
type Flaw struct {
	// Path is the member, like "retry.attempts".
	Path   string
	Detail string
}

// Flaws are all that is wrong.
type Flaws []Flaw

func (f Flaws) Error() string {
	texts := make([]string, len(f))
	for i, flaw := range f {
		texts[i] = flaw.Detail
		if flaw.Path != "" {
			texts[i] = flaw.Path + ": " + flaw.Detail
		}
	}
	return strings.Join(texts, "; ")
}

// ErrFenced is the cause of a worker's context when another node may be working already.
var ErrFenced = errors.New("another node may have taken over this work")
