package subscriptions

// action is what somebody does to a subscription.
type action struct {
	// done is the action as in "cannot be done".
	done string
	from []Status
	to   Status
}

var (
	accept  = action{"accepted", []Status{Pending}, Accepted}
	reject  = action{"rejected", []Status{Pending}, Rejected}
	pause   = action{"paused", []Status{Accepted}, Paused}
	resume  = action{"resumed", []Status{Paused}, Accepted}
	closing = action{"closed", []Status{Accepted, Paused}, Closed}
)

// hints say what to do about a subscription of a status that an action is not for.
var hints = map[Status]string{
	Pending:  "it waits for being accepted or rejected",
	Accepted: "it can be paused or closed",
	Paused:   "it can be resumed or closed",
	Closed:   "that is final; subscribe again",
	Rejected: "that is final; subscribe again",
}

// on checks that the action is for a subscription of this status.
func (a action) on(s Status) error {
	for _, from := range a.from {
		if s == from {
			return nil
		}
	}
	return conflict("a subscription that is %s cannot be %s: %s", s, a.done, hints[s])
}
