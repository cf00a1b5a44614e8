package entrypoints

import (
	"errors"
	"time"
)

// End says why the gateway ends a session. The reasons are a table, so that clients can
// tell from the close code or the goaway event whether it makes sense to come back.
type End struct {
	Reason EndReason
	// Detail is for people.
	Detail string
	// Retry is how long the client should wait before it comes back; the gateway has
	// spread it at random. 0 leaves it to the client.
	Retry time.Duration
}

// EndReason is why a session ends.
type EndReason string

// The reasons. docs/sessions.md shows them with close codes.
const (
	EndShutdown EndReason = "shutdown"     // the process goes away
	EndChanged  EndReason = "api_changed"  // the API was redeployed with another definition
	EndStopped  EndReason = "api_stopped"  // the API was stopped or deleted
	EndRotate   EndReason = "rotate"       // the configured lifetime is over
	EndExpired  EndReason = "expired"      // the credential or subscription expired
	EndRevoked  EndReason = "revoked"      // the credential, plan or subscription was withdrawn
	EndSlow     EndReason = "slow_client"  // the client read too slowly
	EndBroker   EndReason = "broker_error" // the broker ended the subscription for good
	EndOperator EndReason = "operator"     // somebody ended it through the admin API
	EndClient   EndReason = "client"       // the client said goodbye or vanished
	EndProtocol EndReason = "protocol"     // the client broke the protocol
	EndTooLarge EndReason = "too_large"    // the client sent more than allowed
	EndDone     EndReason = "done"         // there is nothing more to send
	EndFailed   EndReason = "failed"       // a worker can't deliver, and waits for somebody
)

// endRow is what a client sees of a reason.
type endRow struct {
	code      int
	reconnect bool
}

var endTable = map[EndReason]endRow{
	EndShutdown: {1001, true},
	EndChanged:  {1012, true},
	EndStopped:  {1008, false},
	EndRotate:   {1012, true},
	EndExpired:  {1008, false},
	EndRevoked:  {1008, false},
	EndSlow:     {1013, true},
	EndBroker:   {1011, true},
	EndOperator: {1008, false},
	EndClient:   {1000, false},
	EndProtocol: {1002, false},
	EndTooLarge: {1009, false},
	EndDone:     {1000, false},
	EndFailed:   {1011, false},
}

// CloseCode is the WebSocket close code for the reason (RFC 6455 §7.4).
func (r EndReason) CloseCode() int {
	if row, ok := endTable[r]; ok {
		return row.code
	}
	return 1011
}

// Reconnect says whether it makes sense for the client to come back.
func (r EndReason) Reconnect() bool { return endTable[r].reconnect }

// EndReasons are all reasons, for documentation and tests.
func EndReasons() []EndReason {
	return []EndReason{
		EndShutdown, EndChanged, EndStopped, EndRotate, EndExpired, EndRevoked, EndSlow,
		EndBroker, EndOperator, EndClient, EndProtocol, EndTooLarge, EndDone, EndFailed,
	}
}

// Ended is what Serve returns for an exchange that had begun and did not simply come to its
// end. The client has been told what it could be told; this is for the log.
type Ended struct {
	End
	Err error
}

func (e *Ended) Error() string {
	if e.Err == nil {
		return string(e.Reason) + ": " + e.Detail
	}
	return string(e.Reason) + ": " + e.Err.Error()
}

// Unwrap returns the cause, if there is one.
func (e *Ended) Unwrap() error { return e.Err }

// EndOf says why an exchange ended whose Serve returned err, if err is about an exchange
// that had begun.
func EndOf(err error) (End, bool) {
	if e, ok := errors.AsType[*Ended](err); ok {
		return e.End, true
	}
	switch {
	case errors.Is(err, ErrSlowClient):
		return End{Reason: EndSlow, Detail: err.Error()}, true
	case errors.Is(err, ErrClientGone):
		return End{Reason: EndClient, Detail: err.Error()}, true
	}
	return End{}, false
}
